"""What Q(s, a) is fitted to: which action follows in s', and which of the critics' opinions of it counts.

`context.UpdateContext.td_target` makes the target of it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixelrl.learning.noise import Noise, draw
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class EnsembleRule:
    """What counts of E critics' values."""

    aggregate: Literal["min", "mean", "quantile", "subset"] = "min"
    """their minimum, their mean, their `quantile` (RIQL), or the minimum of a random `subset` of them (REDQ; drawn anew
    in every row, where the authors draw one a step)"""
    quantile: float = 0.25
    """which, interpolated linearly between critics"""
    subset: int = 2
    """how many"""

    def __post_init__(self) -> None:
        """Check what the types cannot.

        Raises:
            PixelrlError: names the option, what came, and what would be right.
        """
        if not 0 <= self.quantile <= 1:
            raise PixelrlError(f"quantile of the critics is {self.quantile}; it must be between 0 and 1")
        if self.subset < 1:
            raise PixelrlError(f"subset of the critics is {self.subset}; it must be at least 1")

    def of_critics(self, value: Tensor, noise: Noise) -> Tensor:
        """Return what counts of E critics' values `[E, ..., B]`, `[..., B]`."""
        if self.aggregate == "quantile":
            return value.quantile(self.quantile, dim=0)
        if self.aggregate == "subset":
            chance = draw(torch.rand, (len(value), value.shape[-1]), noise, rows=1)
            kept = chance.argsort(0).argsort(0) < self.subset
            spread = kept.view(len(value), *[1] * (value.dim() - 2), -1)
            return torch.where(spread, value, torch.inf).amin(0)
        return aggregated(value, self.aggregate)


def aggregated(value: Tensor, how: Literal["min", "mean"]) -> Tensor:
    """Return what counts of values `[E, ...]`, `[...]`: the lowest (clipped double Q-learning) or their mean."""
    return value.amin(0) if how == "min" else value.mean(0)


@dataclass(frozen=True, kw_only=True)
class Backup(EnsembleRule):
    """The target of Q: r + discount Q'(s', a'), or r + discount V(s'), or what the recording paid."""

    action: Literal["policy", "recorded", "value", "returns"] = "policy"
    """policy: a' is drawn from pi(s'). recorded: a' is what was done in s' (SARSA); steps after which nothing was done,
    short of a true end, are not sampled. value: V(s') stands for Q'(s', a') (IQL). returns: the target is the recorded
    return (Monte-Carlo), after a time-out a lower bound. In the last two, a' of DR3's pairs is what was done"""
    samples: int = 1
    """actions drawn from pi(s'); for `policy`"""
    of_samples: Literal["best", "mean"] = "best"
    """what counts of several: the best, by Q' (EMaQ), or the mean of their Q', the expectation over pi; a' of DR3's
    pairs is the best, or the first"""
    network: Literal["target", "online", "last_layer"] = "target"
    """whose Q'(s', a') it is: the slow copy's; the critics' own, held fixed, for `FunctionalRegularization`; or that of
    the critics' own trunk below the slow copy's last layer (arXiv 2506.04398, with one Bellman step at a time)"""
    penalty: float = 0.0
    """what |a' - recorded a'|^2 costs, subtracted from Q'(s', a') (ReBRAC, arXiv 2305.09836); for `policy`"""

    def __post_init__(self) -> None:
        """Check what the types cannot.

        Raises:
            PixelrlError: names the option, what came, and what would be right.
        """
        super().__post_init__()
        drawn = self.action == "policy"
        for name, allowed, rule in (
            (
                "samples",
                self.samples >= 1 and (self.samples == 1 or drawn),
                "at least 1, and 1 unless actions are drawn (action=policy)",
            ),
            ("penalty", self.penalty >= 0 and (drawn or not self.penalty), "at least 0, and 0 unless action=policy"),
        ):
            if not allowed:
                raise PixelrlError(f"backup: {name} is {getattr(self, name)}; it must be {rule}")

    @property
    def needs_next_action(self) -> bool:
        """Tell whether a step after which nothing was recorded cannot be learned from."""
        return self.action == "recorded" or self.penalty > 0
