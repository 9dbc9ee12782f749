"""Noise for the rows of a batch: whoever has a share of the rows draws for all of them, and keeps its own.

So the numbers that a row meets, and the generator's state after a step, do not depend on the number of ranks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed


class SharedGenerator(torch.Generator):
    """A generator that knows whose rows are ours.

    Attributes:
        distributed: our place among those that share a batch.
    """

    distributed: Distributed = SINGLE_PROCESS


def draw(
    kind: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator, *, rows: int, **options: object
) -> Tensor:
    """Draw a tensor on the generator's device.

    Args:
        kind: say `torch.randn`.
        shape: of the result.
        generator: of any kind; all rows are ours unless it knows better.
        rows: the dimension that counts the rows of a batch.
        options: of `kind`.
    """
    distributed = generator.distributed if isinstance(generator, SharedGenerator) else SINGLE_PROCESS
    whole = [size * distributed.world_size if dim == rows else size for dim, size in enumerate(shape)]
    noise = kind(size=whole, generator=generator, device=generator.device, **options)
    return noise[(slice(None),) * rows + (slice(distributed.rank, None, distributed.world_size),)]
