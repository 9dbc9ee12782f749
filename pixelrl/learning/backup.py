"""What Q(s, a) is fitted to: which action follows in s', and which of the critics' opinions of it counts."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pixelrl.runtime.errors import PixelrlError

Aggregate = Literal["min", "mean"]
"""What counts of E critics' values: the lowest (clipped double Q-learning) or their mean."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """The target of Q: r + discount Q'(s', a'), or what the recording paid."""

    action: Literal["policy", "recorded", "returns"] = "policy"
    """policy: a' is drawn from pi(s'). recorded: a' is what was done in s' (SARSA); steps after which nothing was done,
    short of a true end, are not sampled. returns: the target is the recorded return (Monte-Carlo), after a time-out a
    lower bound, and a' of DR3's pairs is what was done"""
    samples: int = 1
    """best of so many actions drawn from pi(s'), by Q'; for `policy`"""
    aggregate: Aggregate = "min"
    """of the E target critics' values: their minimum or their mean"""

    def __post_init__(self) -> None:
        """Check what the types cannot.

        Raises:
            PixelrlError: names the option, what came, and what would be right.
        """
        if self.samples < 1 or (self.samples > 1 and self.action != "policy"):
            rule = "at least 1, and 1 unless actions are drawn (action=policy)"
            raise PixelrlError(f"backup: samples is {self.samples}; it must be {rule}")


def aggregated(value: Tensor, how: Aggregate) -> Tensor:
    """Return what counts of values `[E, ...]`, `[...]`."""
    return value.amin(0) if how == "min" else value.mean(0)
