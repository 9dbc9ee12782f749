"""Names for the parts of a step, which a profiler shows."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import record_function


def span(name: str) -> AbstractContextManager[object]:
    """Return a context that a profiler shows by this name.

    It is `record_function`, but only while a profiler looks: that takes 14 us a name, which is 2 % of a small step.
    """
    if torch.compiler.is_compiling() or not torch._C._autograd._profiler_enabled():
        return nullcontext()
    return record_function(name)
