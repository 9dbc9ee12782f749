"""Sources of data: which files, which of their demos, how they are rewarded, what ends their episodes."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pixelrl.datasets.corruption import RULE as CORRUPTIONS
from pixelrl.datasets.corruption import parse_corruptions
from pixelrl.datasets.hdf5.reader import Selection
from pixelrl.datasets.rewards import RULE, check_rule, found_anywhere
from pixelrl.runtime.errors import DataError

Ends = Literal["never", "goal", "dones", "masks"]
"""Which steps truly end an episode, so that nothing is bootstrapped beyond them.

- never: none, as in COG, whose rewards are paid at every step in the goal: values reach 1 / (1 - gamma).
- goal: those with `done` set and a reward above 0 (of costs, the highest), after the sign of their scale, in sources
  whose rewards count: robomimic may also set `done` at the last step of every demo, and a source whose rewards are
  scaled by 0 has no goal.
- dones: those with `done` set.
- masks: the same, but the recording goes on, as OGBench's does.

What was recorded after the first such step of an episode is not sampled, but for masks.
"""

Dones = Literal["recorded", "last"]
"""Which steps have `done` set: as the file has it, or the last one of each episode."""

Pick = Literal["first", "random"]
"""Which demos a fraction of them is: the first ones, or some drawn by the seed."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files that are sampled and rewarded alike.

    Attributes:
        name: say "prior" or "task".
        files: robomimic HDF5 files, or globs of them (`**` reaches into folders).
        share: its part of every batch, relative to the other sources' shares; None in all sources: uniform over
            all transitions.
        mask: a filter of the files, the subset of their demos to use.
        fraction: the part of those demos to use, at least one; with the same seed a smaller part of the same files
            lies within a larger one.
        pick: which ones.
        reward: where its rewards come from; see `rewards.RULE`.
        reward_scale: the reward is `reward_scale * reward + reward_shift`; 0 for prior data.
        reward_shift: see `reward_scale`; say 1 for costs, so that a step costs nothing and the goal pays 1.
        dones: which steps have `done` set.
        ends: what ends its episodes; None: as the mixture says.
        held_out: the part of its episodes that is never sampled, drawn by the seed, so that it can be measured on.
        corrupt: what is corrupted on purpose, drawn by the seed; see `corruption.RULE`.
        rename: old -> new, other names for observation keys, by which all else calls them; every file has the old ones.
    """

    name: str
    files: tuple[Path | str, ...]
    share: float | None = None
    mask: str | None = None
    fraction: float = 1.0
    pick: Pick = "random"
    reward: str = "recorded"
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    dones: Dones = "recorded"
    ends: Ends | None = None
    held_out: float = 0.0
    corrupt: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise a `DataError` that names the source, the option, what came, and what would be right."""
        for key, allowed, rule in (
            ("name", bool(self.name), "a word"),
            ("files", bool(self.files), "one or more"),
            ("share", self.share is None or 0.001 <= self.share < np.inf, "at least 0.001"),
            ("fraction", 0 < self.fraction <= 1, "above 0 and at most 1"),
            ("pick", self.pick in get_args(Pick), " or ".join(get_args(Pick))),
            ("reward", check_rule(self.reward), RULE),
            ("reward_scale", np.isfinite(self.reward_scale), "a number"),
            ("reward_shift", np.isfinite(self.reward_shift), "a number"),
            ("dones", self.dones in get_args(Dones), ", ".join(get_args(Dones))),
            ("corrupt", parse_corruptions(self.corrupt) is not None, CORRUPTIONS),
            ("held_out", 0 <= self.held_out < 1, "at least 0 and below 1"),
            ("ends", self.ends is None or self.ends in get_args(Ends), ", ".join(get_args(Ends))),
        ):
            if not allowed:
                raise DataError(f"source {self.name!r}: {key} is {getattr(self, key)!r}; expected {rule}")

    def paths(self) -> tuple[Path, ...]:
        """Return its files: globs are expanded in the order of their names, and each file comes once.

        Raises:
            DataError: a glob that matches nothing.
        """
        found: dict[Path, Path] = {}
        for pattern in map(Path, self.files):
            matches = [pattern]
            if glob.has_magic(str(pattern)) and not pattern.exists():
                matches = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 (`**`)
            if not matches:
                raise DataError(f"source {self.name!r}: no file matches {pattern} in {Path.cwd()}")
            for path in matches:
                found.setdefault(path.resolve(), path)
        return tuple(found.values())

    def selection(self, ends: Ends, images: Sequence[str] | None, proprio: Sequence[str] | None) -> Selection:
        """Return what of its files is read, of these observation keys; `ends` holds where it does not say it."""
        counts = self.reward_scale != 0
        wanted = {
            "rewards": counts and self.reward == "recorded",
            "dones": self.dones == "recorded" and (counts or (self.ends or ends) in ("dones", "masks")),
        }
        required = tuple(name for name, is_wanted in wanted.items() if is_wanted)
        return Selection(mask=self.mask, images=images, proprio=proprio, required=required, rename=dict(self.rename))

    def rule(self) -> dict[str, Any]:
        """Return everything but the name and the files, as JSON values; three rules only where they say something.

        A file of labels is named from the root on, as a run names its data.
        """
        left = {"name", "files", *(rule for rule in ("held_out", "corrupt", "rename") if not getattr(self, rule))}
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left}
        return found | {"reward": found_anywhere(self.reward)}


def check_together(sources: Sequence[Source]) -> None:
    """Raise a `DataError` unless the sources have different names, and either all a share or none."""
    names, shares = [source.name for source in sources], [source.share for source in sources]
    if not sources or len(set(names)) < len(names):
        raise DataError(f"the sources are named {names}; expected one or more, with different names")
    if None in shares and set(shares) != {None}:
        said = ", ".join(f"{name}: {share}" for name, share in zip(names, shares, strict=True))
        raise DataError(f"the shares are {said}; expected a share in all sources, or in none")
