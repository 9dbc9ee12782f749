"""What is changed on the way from one format to another, the same for all: names, rewards, ends, the last step.

A reader yields an episode as it was recorded. Where no frame was recorded after the last action, sensors have N rows of
N steps; here they get N + 1: the last step is kept with its own frame repeated where it ends in the goal, or goes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions, leaving_out
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.keys import rename_keys
from pixelrl.datasets.rewards import is_success, reaches_goal, reward_episodes
from pixelrl.runtime.errors import DataError, PixelrlError

REPEATED = "the picture after the last step: it was not recorded, and the last one is repeated"


@dataclass
class RewardSums:
    """The sums of all rewards: `recorded` by the source, `ruled` after the rules, `dropped` with last steps."""

    recorded: float = 0.0
    ruled: float = 0.0
    dropped: float = 0.0


def apply_rules(
    stream: DatasetStream, options: FormatOptions, source: Path, dropped: DroppedFields, sums: RewardSums
) -> DatasetStream:
    """Return a stream of episodes with N + 1 frames of N steps; `dropped` and `sums` fill as they are read.

    Raises:
        PixelrlError: a shift that is no number, or names or a rate that cannot be.
        DataError: an episode that is none, when it is read.
    """
    shift = np.float32(options.reward_shift)
    if not np.isfinite(shift):
        raise PixelrlError(f"--reward-shift: {options.reward_shift}; expected a finite number")

    def episodes() -> Iterator[Episode]:
        sums.recorded = sums.ruled = sums.dropped = 0.0
        firsts: dict[str, str] = {}
        for index, recorded in enumerate(stream.episodes()):
            name = stream.name(index)
            with leaving_out(stream.names, name):
                place, demo = f"{source}: {name}", name if stream.names else f"demo_{index}"
                episode = _checked(recorded, place)
                sums.recorded += total(episode)
                episode = _rewarded(_chosen(episode, options, place), options, place, demo, source)
                in_the_goal = bool(episode.dones[-1] or reaches_goal(episode.rewards, free=0)[-1])
                if shift:
                    episode = replace(episode, rewards=(episode.rewards + shift).astype(np.float32))
                sums.ruled += total(episode)
                whole = completed(episode, options.last_step, in_the_goal, place, dropped)
            sums.dropped += total(episode) - total(whole)
            for key, values in {"actions": whole.actions, **whole.sensors}.items():
                if values.ndim == 2 and not np.isfinite(values).all():
                    what = "NaN or infinities, which came along, and which training refuses"
                    dropped[f"{key}: {what} (first in {firsts.setdefault(key, name)})"] += 1
            yield whole

    return _described(replace(stream, episodes=episodes), options)


def _described(stream: DatasetStream, options: FormatOptions) -> DatasetStream:
    """Return a stream with the control rate and the names of the action's dimensions that are told."""
    dims, names, fps = stream.action_dims, options.action_names, options.fps
    if names and (len(names) != len(dims) or len({*names}) < len(names)):
        raise PixelrlError(f"--action-names: {' '.join(names)}; expected {len(dims)} names, each another")
    if names:
        dims = tuple(replace(dim, name=name) for dim, name in zip(dims, names, strict=True))
    if fps is not None and not 0 < fps < math.inf:
        raise PixelrlError(f"--fps: {fps}; expected a number of actions a second, above 0")
    rate = {} if fps is None else {"control_freq": fps}
    return replace(stream, action_dims=dims, env_args={**stream.env_args, **rate})


def _checked(episode: Episode, place: str) -> Episode:
    """Return an episode of a reader, if it is one: float actions `[N, A]`, numbers as rewards `[N]`, pictures."""
    actions, rewards, steps = episode.actions, episode.rewards, len(episode)
    if actions.ndim != 2 or actions.dtype.kind not in "fiu" or not actions.size:
        raise DataError(f"{place}: actions are {actions.dtype} {actions.shape}; expected floats (N, A)")
    for name, values in (("rewards", rewards), ("dones", episode.dones)):
        if values.shape not in ((steps,), (steps, 1)):
            raise DataError(f"{place}: {name} have shape {values.shape}; expected {(steps,)}")
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(rewards.astype(np.float32))  # as they are learned from
    if bad.any():
        raise DataError(f"{place}: rewards hold {rewards[bad][0]}; expected finite numbers")
    if not any(values.ndim == 4 and values.dtype == np.uint8 for values in episode.sensors.values()):
        held = ", ".join(episode.sensors) or "nothing"
        hint = "`pixelrl render` draws those of robosuite's files"
        raise DataError(f"{place}: no pictures, it holds {held} only; expected uint8 (N, H, W, C) ({hint})")
    floats = actions if actions.dtype.kind == "f" else actions.astype(np.float32)
    return replace(episode, actions=floats, rewards=rewards.reshape(steps), dones=episode.dones.reshape(steps))


def _chosen(episode: Episode, options: FormatOptions, place: str) -> Episode:
    """Return an episode with the sensors that are wanted, under the names that are wanted."""
    for key in options.keys:
        if key not in episode.sensors:
            raise DataError(f"{place}: no {key!r} among {', '.join(episode.sensors)}")
    stored = rename_keys(options.keys or episode.sensors, options.rename, place)
    sensors = {key: episode.sensors[old] for key, old in stored.items()}
    if options.bgr:
        orders = {3: [2, 1, 0], 4: [2, 1, 0, 3]}  # the fourth is alpha
        cameras = {key: v for key, v in sensors.items() if v.ndim == 4 and v.shape[3] in orders}
        sensors |= {key: v[..., orders[v.shape[3]]] for key, v in cameras.items()}
    return replace(episode, sensors=sensors)


def _rewarded(episode: Episode, options: FormatOptions, place: str, demo: str, source: Path) -> Episode:
    """Return an episode with the rewards, not yet shifted, and the ends that are wanted; see `datasets.rewards`."""
    steps, rewards = len(episode), episode.rewards
    last = np.arange(steps) == steps - 1
    kind, _, what = options.reward.partition(":")
    if kind == "success" and options.reward_key is None:
        what = what or "success"  # a reader has noted it, whatever the source's format
        rewards = (last & is_success(episode.notes.get(what), place, what)).astype(np.float32)
    elif kind != "recorded" and options.reward_key is None:
        rewards = reward_episodes(options.reward, source, {demo: steps}, rewards, last)
    return replace(episode, rewards=rewards, dones=last if options.dones == "last" else episode.dones)


def total(episode: Episode) -> float:
    """Return the sum of an episode's rewards."""
    return float(episode.rewards.sum(dtype=np.float64))


def completed(episode: Episode, rule: str, in_the_goal: bool, place: str, dropped: DroppedFields) -> Episode:
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
    if rule == "repeat" or (rule == "keep" and in_the_goal):
        dropped[REPEATED] += 1
        held = {key: np.concatenate([values, values[-1:]])[: steps + 1] for key, values in episode.sensors.items()}
        return replace(episode, sensors=held)
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
