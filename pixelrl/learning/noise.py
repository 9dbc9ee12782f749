"""Noise for the rows of a batch: whoever has a share of the rows draws for all of them, and keeps its own.

So the numbers that a row meets, and the generator's state after a step, do not depend on the number of ranks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pixelrl.runtime.distributed import ALONE, Ranks


class SharedGenerator(torch.Generator):
    """A generator that knows whose rows are ours.

    Attributes:
        ranks: our place among those that share a batch.
    """

    ranks: Ranks = ALONE


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
    ranks = generator.ranks if isinstance(generator, SharedGenerator) else ALONE
    whole = [size * ranks.count if dim == rows else size for dim, size in enumerate(shape)]
    noise = kind(size=whole, generator=generator, device=generator.device, **options)
    return noise[(slice(None),) * rows + (slice(ranks.rank, None, ranks.count),)]
