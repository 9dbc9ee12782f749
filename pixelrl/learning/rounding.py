"""Weights of few values: learn at rounded weights what the weights themselves are moved by (arXiv 1802.05668)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BUCKET = 256
"""Successive numbers that are rounded between their own least and greatest one, as the authors' scripts do."""


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return a tensor whose every 256 numbers take one of 2^bits values, evenly spaced from the least to the greatest.

    The last numbers of a tensor are a bucket of their own.
    """
    flat, steps = weight.detach().flatten(), 2**bits - 1
    buckets = torch.cat([flat, flat[-1:].expand(-len(flat) % BUCKET)]).view(-1, BUCKET)
    low, high = buckets.amin(1, keepdim=True), buckets.amax(1, keepdim=True)
    step = torch.where(high > low, (high - low) / steps, 1.0)
    return (low + ((buckets - low) / step).round() * step).flatten()[: len(flat)].view_as(weight)


def round_weights(module: nn.Module, bits: int) -> None:
    """Round a module's matrices and filters in place, but for the first and the last; 0 bits: none.

    The authors' scripts leave the first and the last tensor of a network as they are, and round biases, too. Departure:
    biases and gains, which are few, stay.
    """
    with torch.no_grad():
        for weight in inner_weights(module) if bits else ():
            weight.copy_(rounded(weight, bits))


def inner_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return a module's matrices and filters, but for the first and the last."""
    return [parameter for parameter in module.parameters() if parameter.dim() > 1][1:-1]


@contextmanager
def rounding(module: nn.Module, bits: int) -> Iterator[None]:
    """Let a module compute with rounded weights; afterwards they are as they were, so gradients go straight through."""
    kept = [weight.detach().clone() for weight in inner_weights(module)] if bits else []
    round_weights(module, bits)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(inner_weights(module), kept, strict=False):
                weight.copy_(old)
