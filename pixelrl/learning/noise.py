"""Noise for the rows of a batch: a rank that holds a share of the rows draws for all of them, and keeps its own.

So the numbers that a row meets, and the generator's state after a step, do not depend on the number of ranks.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed


class SharedGenerator(torch.Generator):
    """A generator that knows which rows are ours.

    Attributes:
        distributed: our place among the ranks that share a batch.
        drawn: where each draw is noted, as a function that draws anew; None: nowhere.
    """

    distributed: Distributed = SINGLE_PROCESS
    drawn: list[Callable[[], Tensor]] | None = None


class DrawnNoise:
    """Noise that was drawn already, in the order in which it will be asked for: compiled code cannot draw."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors, self._next = tensors, 0

    def take(self) -> Tensor:
        """Return the next tensor."""
        self._next += 1
        return self._tensors[self._next - 1]


Noise = torch.Generator | DrawnNoise
"""Where noise comes from."""


class EncoderNoise:
    """What one pass through encoders is given while networks learn, and what it leaves to be read.

    Attributes:
        source: of the noise that they learn with; None: they add none.
        information: what each bottleneck that was passed let through, in nats, `[B]`.
    """

    def __init__(self, source: Noise | None) -> None:
        self.source = source
        self.information: list[Tensor] = []


def draw(
    kind: Callable[..., Tensor], shape: Sequence[int], noise: Noise, *, rows: int | None, **options: object
) -> Tensor:
    """Draw a tensor on the generator's device.

    Args:
        kind: say `torch.randn`.
        shape: of the result.
        noise: its source; all rows are ours unless it is a `SharedGenerator` that knows better.
        rows: the dimension that counts the rows of a batch; None: all ranks draw the same.
        options: of `kind`.
    """
    if isinstance(noise, DrawnNoise):
        return noise.take()
    if isinstance(noise, SharedGenerator) and noise.drawn is not None:
        noise.drawn.append(partial(draw_rows, kind, tuple(shape), noise, rows=rows, **options))
    return draw_rows(kind, shape, noise, rows=rows, **options)


def draw_rows(
    kind: Callable[..., Tensor],
    shape: Sequence[int],
    generator: torch.Generator,
    *,
    rows: int | None,
    **options: object,
) -> Tensor:
    """Draw for all rows of a batch, and return ours; see `draw`."""
    if rows is None:
        return kind(size=tuple(shape), generator=generator, device=generator.device, **options)
    distributed = generator.distributed if isinstance(generator, SharedGenerator) else SINGLE_PROCESS
    rank, world_size = distributed.rank, distributed.world_size
    whole = [size * world_size if dim == rows else size for dim, size in enumerate(shape)]
    noise = kind(size=whole, generator=generator, device=generator.device, **options)
    return noise[(slice(None),) * rows + (slice(rank, None, world_size),)]
