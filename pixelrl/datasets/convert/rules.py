"""What is changed on the way from one format to another, the same for all: keys, rewards, ends, the last step.

A reader yields an episode as it was recorded. Where no frame was recorded after the last action, sensors have N rows of
N steps; here they get N + 1: the last step is kept with its own frame repeated where it ends in the goal, or goes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError, PixelrlError

REPEATED = "the picture after the last step: it was not recorded, and the last one is repeated"


@dataclass
class RewardSums:
    """The sums of all rewards: `recorded` by the source, `ruled` after the rules, `dropped` with last steps."""

    recorded: float = 0.0
    ruled: float = 0.0
    dropped: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What `FormatOptions` asks for, ready to be applied."""

    options: FormatOptions
    labels: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: FormatOptions) -> "Rules":
        """Read the file of labels, if one is named.

        Raises:
            PixelrlError: a shift that is no number.
            DataError: no JSON object of a number, or a list of numbers, for each demo.
        """
        if not np.isfinite(options.reward_shift):
            raise PixelrlError(f"--reward-shift: {options.reward_shift}; expected a finite number")
        if not options.reward.startswith("labels:"):
            return cls(options=options)
        path = Path(options.reward.removeprefix("labels:"))
        try:
            labels = json.loads(path.read_text(encoding="utf-8"))
            whole = isinstance(labels, dict) and all(np.array(v, np.float32).ndim < 2 for v in labels.values())
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as labels ({str(error)[:80]})") from error
        if not whole:
            raise DataError(f'{path}: expected {{"demo_0": 1, "demo_1": [0, 0, 1], ...}}')
        return cls(options=options, labels=labels)

    def apply(self, stream: DatasetStream, source: Path, dropped: DroppedFields, sums: RewardSums) -> DatasetStream:
        """Return a stream of episodes with N + 1 frames of N steps; `dropped` and `sums` fill as they are read."""

        def episodes() -> Iterator[Episode]:
            sums.recorded = sums.ruled = sums.dropped = 0.0
            for index, episode in enumerate(stream.episodes()):
                place = f"{source}: episode {index}"
                _check_finite(episode.rewards, place)
                sums.recorded += total(episode)
                ruled = self._rewarded(self._chosen(episode, place), index, place)
                sums.ruled += total(ruled)
                whole = completed(ruled, self.options.last_step, place, dropped)
                sums.dropped += total(ruled) - total(whole)
                yield whole

        return replace(stream, episodes=episodes)

    def _chosen(self, episode: Episode, place: str) -> Episode:
        """Return an episode with the sensors that are wanted, under the names that are wanted."""
        keys, names = self.options.keys or tuple(episode.sensors), self.options.rename
        for key in (*keys, *names):
            if key not in episode.sensors:
                raise DataError(f"{place}: no {key!r} among {', '.join(episode.sensors)}")
        sensors = {names.get(key, key): episode.sensors[key] for key in keys}
        if len(sensors) < len(keys) or any(not name or "/" in name for name in sensors):
            raise DataError(f"{place}: --rename gives {', '.join(names.values())}; expected new names without '/'")
        if self.options.bgr:
            sensors = {key: v[..., ::-1] if v.ndim == 4 and v.shape[3] == 3 else v for key, v in sensors.items()}
        return replace(episode, sensors=sensors)

    def _rewarded(self, episode: Episode, index: int, place: str) -> Episode:
        """Return an episode with the rewards and the ends that are wanted."""
        rule, rewards, dones = self.options.reward, episode.rewards, episode.dones
        if rule != "recorded" and self.options.reward_key is None:
            rewards = np.zeros(len(episode), np.float32)
            _pay(rewards, self._payment(rule, episode, index, place), place)
        if self.options.dones == "last":
            dones = np.arange(len(episode)) == len(episode) - 1
        if self.options.reward_shift:
            rewards = (rewards + np.float32(self.options.reward_shift)).astype(np.float32)
        return replace(episode, rewards=rewards, dones=dones)

    def _payment(self, rule: str, episode: Episode, index: int, place: str) -> Any:
        """Return what a rule pays: a number for the last step, or a list of one for each of the last steps."""
        name, _, what = rule.partition(":")
        if name == "last":
            return [1] * min(int(what), len(episode))
        if name == "success":
            if not isinstance(said := episode.notes.get(what or "success"), bool | int | float):
                raise DataError(f"{place}: says {str(said)[:40]!r} of {what or 'success'}; expected true or false")
            return float(bool(said))
        for demo in (f"demo_{index}", str(index)):
            if demo in self.labels:
                held = self.labels[demo]
                if isinstance(held, list) and len(held) != len(episode):
                    raise DataError(f"{place}: {len(held)} labels beside {len(episode)} steps")
                return held
        raise DataError(f"{place}: {rule.removeprefix('labels:')} says nothing of demo_{index}")


def total(episode: Episode) -> float:
    """Return the sum of an episode's rewards."""
    return float(episode.rewards.sum(dtype=np.float64))


def parse_renames(said: tuple[str, ...]) -> dict[str, str]:
    """Return old -> new of texts OLD=NEW.

    Raises:
        PixelrlError: a text that is none, or says twice what becomes of a key.
    """
    names = {}
    for text in said:
        if not (found := re.fullmatch(r"([^=]+)=([^=]+)", text)) or found[1] in names:
            raise PixelrlError(f"--rename {text}: expected OLD=NEW, once for a key")
        names[found[1]] = found[2]
    return names


def completed(episode: Episode, rule: str, place: str, dropped: DroppedFields) -> Episode:
    """Return an episode with N + 1 frames of N steps; what is missing is repeated, or the last step goes.

    Raises:
        DataError: sensors of another length, or nothing would be left.
    """
    steps = len(episode)
    for key, values in episode.sensors.items():
        if len(values) not in (steps, steps + 1) or not steps:
            raise DataError(f"{place}: {key} has {len(values)} frames beside {steps} steps; expected {steps + 1}")
    if all(len(values) == steps + 1 for values in episode.sensors.values()):
        return episode
    in_the_goal = bool(episode.rewards[-1] > 0 or episode.dones[-1])
    if rule == "repeat" or (rule == "keep" and in_the_goal):
        dropped[REPEATED] += 1
        return replace(episode, sensors={key: _up_to(values, steps + 1) for key, values in episode.sensors.items()})
    if steps < 2:
        raise DataError(f"{place}: one frame; expected two or more, or --last-step repeat")
    what = f"the last step{'' if in_the_goal else ', a time-out'}"
    paid = f" and its reward (--last-step {'keep' if in_the_goal else 'repeat'} keeps them)"
    dropped[f"{what}{paid if episode.rewards[-1] else ''}: the picture after it was not recorded"] += 1
    return replace(
        episode,
        sensors={key: values[:steps] for key, values in episode.sensors.items()},
        actions=episode.actions[:-1],
        rewards=episode.rewards[:-1],
        dones=episode.dones[:-1],
        states=None if episode.states is None else episode.states[:steps],
    )


def _up_to(values: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.concatenate([values, values[-1:]]) if len(values) < rows else values


def _pay(rewards: NDArray[np.float32], payment: Any, place: str) -> None:
    """Write a payment at the end of the rewards `[N]`."""
    values = np.atleast_1d(np.array(payment, np.float32))
    _check_finite(values, place)
    rewards[len(rewards) - len(values) :] = values


def _check_finite(rewards: NDArray[Any], place: str) -> None:
    """Raise at rewards that are no numbers in float32, as they are learned from."""
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(rewards.astype(np.float32))
    if bad.any():
        raise DataError(f"{place}: rewards hold {rewards[bad][0]}; expected finite numbers")
