"""Names for the parts of an update, which a profiler shows; they cost nothing when none is running."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import record_function

PREFIX = "pixelrl:"
"""Before every name, so that ours are told from torch's."""


def span(name: str) -> AbstractContextManager[object]:
    """Return a context whose time a running profiler reports under this name."""
    running = torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    return record_function(PREFIX + name) if running else nullcontext()
