"""Parameters laid end to end in one tensor: one optimiser kernel, one copy to the target, one sum over ranks."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Each parameter starts at a multiple of so many numbers (64 bytes), as kernels like it."""


class Flat:
    """Move parameters into one tensor, of which they are views from then on; so are their gradients.

    The modules keep their parameters; whoever moves a module to another device or type breaks the bond.

    Attributes:
        parameters: the views.
        whole: the parameter `[N]` that an optimiser moves; if it wants a gradient, its `grad` stays at one place.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        ends = [0]
        for parameter in self.parameters:
            ends.append(ends[-1] + -(-parameter.numel() // ALIGNMENT) * ALIGNMENT)
        self._starts = ends[:-1]
        first = self.parameters[0]
        whole = torch.zeros(ends[-1], dtype=first.dtype, device=first.device)
        self.whole = nn.Parameter(whole, requires_grad=first.requires_grad)
        for parameter, place in zip(self.parameters, self.views(self.whole.data), strict=True):
            place.copy_(parameter.data)
            parameter.data = place
        self._slopes: list[Tensor] = []
        if first.requires_grad:
            self.whole.grad = torch.zeros_like(self.whole)
            self._slopes = self.views(self.whole.grad)
            for parameter, slope in zip(self.parameters, self._slopes, strict=True):
                parameter.grad = slope

    def views(self, whole: Tensor) -> list[Tensor]:
        """Return the part of each parameter in a tensor of the same layout, say in an optimiser's moments."""
        return [
            whole[start : start + parameter.numel()].view(parameter.shape)
            for start, parameter in zip(self._starts, self.parameters, strict=True)
        ]

    def gather(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy one gradient a parameter into `whole.grad`; None is zero."""
        pairs = list(zip(self._slopes, gradients, strict=True))
        torch._foreach_copy_(
            [place for place, found in pairs if found is not None], [found for _, found in pairs if found is not None]
        )
        for place, found in pairs:
            if found is None:
                place.zero_()
