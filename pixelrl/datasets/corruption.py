"""Corrupted data, to learn how much of it a method bears: a rule of a source, a function of the seed and the step.

`Source.corrupt` names what is corrupted and how often: `reward:0.3`, or several of them, `action:0.3+reward:0.3`.
The files, and what `s'` of other steps shares with a corrupted s, stay as they are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.runtime.seeding import derive

KINDS = ("observation", "action", "reward", "dynamics", "swap", "freeze", "occlude")
RULE = f"KIND:RATE, joined by +, with KIND one of {', '.join(KINDS)} and RATE between 0 and 1"
LAG = 5
"""A camera that freezes shows what it saw up to so many steps ago."""

LIMIT = 0.999
"""Corrupted actions stay within +-this, where the squashed Gaussian has a finite density."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """What is corrupted: as in RIQL (arXiv 2310.12955), random form, at range 1; or as cameras fail.

    - observation: s alone: readings move by U(-1, 1) of their deviation over the data; pictures are those of another
      frame of the source, drawn at random from episodes that are not held out (the paper has no pictures).
    - action: moves by U(-1, 1) of its deviation. Departure: cut to +-0.999.
    - reward: is U(-1, 1) times the source's largest. Departure: the paper's factor is 30, for sums in MuJoCo.
    - dynamics: s' alone, as `observation`.
    - swap: the pictures of s are those of another frame of the source, drawn as in `observation`.
    - freeze: the pictures of s are those of 1 to 5 steps before, or of the episode's first frame.
    - occlude: in each picture of s a rectangle of a quarter to a half of its height and width is black.

    Attributes:
        kind: see above.
        rate: the chance of each step, each on its own.
    """

    kind: str
    rate: float

    def chosen(self, seed: int, source: str, steps: int) -> tuple[Tensor, np.random.Generator]:
        """Return which of a source's steps are corrupted, bool `[T]`, and a generator of what becomes of them."""
        random = np.random.default_rng(derive(seed, "corrupt", source, self.kind))
        return torch.from_numpy(random.random(steps) < self.rate), random


def parse_corruptions(text: str) -> tuple[Corruption, ...] | None:
    """Return what a rule says, nothing for an empty one; None: it is no rule."""
    found = []
    for part in filter(None, text.split("+")):
        kind, _, rate = part.partition(":")
        try:
            found.append(Corruption(kind=kind, rate=float(rate)))
        except ValueError:
            return None
    kinds = [each.kind for each in found]
    right = set(kinds) <= set(KINDS) and len(set(kinds)) == len(kinds) and all(0 <= each.rate <= 1 for each in found)
    return tuple(found) if right and (found or not text) else None


def shake(deviation: Tensor, chosen: Tensor, random: np.random.Generator) -> Tensor:
    """Return U(-1, 1) of the deviation `[D]` for the rows that are chosen, and 0 for the others, `[T, D]`."""
    noise = torch.from_numpy(random.uniform(-1, 1, (len(chosen), len(deviation))).astype(np.float32))
    return noise * deviation * chosen.unsqueeze(1)


def others(values: Tensor, chosen: Tensor, usable: Tensor, random: np.random.Generator) -> Tensor:
    """Return values `[T]`, those that are chosen replaced by others of them that are usable, both bool `[T]`."""
    pool = values[usable]
    drawn: NDArray[np.int64] = random.integers(len(pool), size=len(values))
    return torch.where(chosen, pool[torch.from_numpy(drawn)], values)


def freeze(frame: Tensor, first: Tensor, chosen: Tensor, random: np.random.Generator) -> Tensor:
    """Return frames `[T]`, those that are chosen replaced by earlier ones, none of them before `first`, `[T]`."""
    lag = torch.from_numpy(random.integers(1, LAG + 1, size=len(frame)))
    return torch.where(chosen, torch.maximum(frame - lag, first), frame)


def rectangles(chosen: Tensor, random: np.random.Generator) -> Tensor:
    """Return top, left, bottom and right of rectangles, in shares of a picture, `[T, 4]`; empty if not chosen."""
    size = random.uniform(0.25, 0.5, (len(chosen), 2))
    corner = random.uniform(0, 1, (len(chosen), 2)) * (1 - size)
    return torch.from_numpy(np.concatenate([corner, corner + size], 1).astype(np.float32)) * chosen.unsqueeze(1)


def occlude(pictures: Tensor, rectangles: Tensor) -> Tensor:
    """Return pictures `[B, C, H, W]` with rectangles `[B, 4]` of them black."""
    (height, width), (top, left, bottom, right) = pictures.shape[-2:], rectangles.T[..., None]
    down = torch.arange(height, device=pictures.device) / height
    across = torch.arange(width, device=pictures.device) / width
    rows, columns = (top <= down) & (down < bottom), (left <= across) & (across < right)
    return pictures.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
