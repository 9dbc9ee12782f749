"""Recorded simulator states become episodes with pictures, and the recorded actions are tried again.

Two things are done with each recording:

- **Restoring.** Each recorded state is put into the recorded scene, and all sensors are read there: pictures, poses,
  reward and success are functions of the state alone. What is not (`..._joint_acc` depends on forces) is left out.
- **Replaying.** From the first state on, the recorded actions are played. How far that strays from the recorded states
  tells whether the environment here still is the one of the recording.

robomimic and robosuite record N states for N actions, each before its action. The state after the last action is the
one that the replay reaches from the last recorded state: exactly the true one if the replay met all recorded states;
else off by what one step strays.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.controllers import reorder
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv
from pixelrl.simulation.playback.recorded_scene import localise
from pixelrl.simulation.workers.pool import Heartbeat

FORCES = "_joint_acc"
"""The end of the names of sensors that do not depend on the state alone."""


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """What a file without pictures knows of an episode.

    Attributes:
        states: float64 `[N, D]` before each action, or `[N + 1, D]`: MuJoCo's time, qpos and qvel.
        actions: float64 `[N, A]`.
        rewards: float32 `[N]` if they were recorded.
        scene: the MJCF of the episode; None where the task has only one.
        meta: robosuite's `ep_meta`.
        old: whether it was recorded before robosuite 1.5.
        notes: whatever is to be kept with the episode, as JSON values.
    """

    states: NDArray[np.float64]
    actions: NDArray[np.float64]
    rewards: NDArray[np.float32] | None = None
    scene: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    old: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return a hash of all of it."""
        text = json.dumps([self.scene, self.meta, self.notes, self.old], sort_keys=True, default=dict)
        result = hashlib.sha256(text.encode())
        for values in (self.states, self.actions, self.rewards):
            result.update(b"none" if values is None else repr(values.shape).encode() + values.tobytes())
        return result.hexdigest()[:16]


def render_raw_episode(
    env: RobosuiteEnv, recording: RawEpisode, *, replay: bool = True, heartbeat: Heartbeat = lambda: None
) -> Episode:
    """Return the episode of a recording as the environment's cameras see it.

    Rewards are the recorded ones; where there are none, those that the environment pays for the state after each
    action. `dones` are true where it calls that state a success, whatever was recorded. An old recording's scene and
    actions come out as robosuite 1.5 has them. `notes["render"]` tells how far the replay strays, see `straying`.

    Args:
        env: of the task of the recording; it keeps the recording's scene.
        recording: what was recorded.
        replay: play the actions too. Without, the last action is dropped if nobody recorded the state after it.
        heartbeat: called at each step.

    Raises:
        SimulationError: the recording does not fit the environment.
    """
    scene = _load(env, recording)
    states, actions, paths = recording.states, recording.actions, None
    facts: dict[str, Any] = {}
    if replay and actions.shape[1] != (size := env.robosuite.action_dim):
        raise SimulationError(f"actions of {actions.shape[1]} numbers; the task takes {size}")
    if recording.old:
        actions = reorder(actions, env.robosuite)
    if replay:
        paths = _replay(env, states, actions, heartbeat)
        if len(states) == len(actions):
            states = np.concatenate([states, paths[0][-1:]])
    steps = len(states) - 1
    if not steps:
        raise SimulationError("one state, and no replay: that is no transition")
    seen = []
    for state, action in zip(states, [None, *actions], strict=False):
        heartbeat()
        seen.append(_look(env, state, action))
    if paths is not None:
        known = len(recording.states)
        hands = np.stack([each.hands for each in seen])
        joints = slice(1, 1 + env.robosuite.sim.model.nq)
        facts |= straying(paths[0][:known], states[:known], paths[1][:known], hands[:known], joints)
    facts["rewards"] = "computed" if recording.rewards is None else "recorded"
    rewards = [each.reward for each in seen[1:]] if recording.rewards is None else recording.rewards[:steps]
    return Episode(
        sensors={key: np.stack([each.sensors[key] for each in seen]) for key in seen[0].sensors},
        actions=actions[:steps].astype(np.float32),
        rewards=np.array(rewards, np.float32),
        dones=np.array([each.success for each in seen[1:]], np.bool_),
        states=states,
        attributes=({} if scene is None else {"model_file": scene})
        | ({"ep_meta": json.dumps(recording.meta)} if recording.meta else {}),
        notes={**recording.notes, "render": facts},
    )


def straying(
    reached: NDArray[np.float64],
    recorded: NDArray[np.float64],
    hands_reached: NDArray[np.float64],
    hands_recorded: NDArray[np.float64],
    joints: slice,
) -> dict[str, Any]:
    """Return how far a replay strays from a recording, over all instants after the first.

    Args:
        reached: `[T, D]`, the states of the replay.
        recorded: `[T, D]`, those of the recording.
        hands_reached: `[T, K, 3]`, where the replay's end effectors are. [m]
        hands_recorded: `[T, K, 3]`, where the recording's are. [m]
        joints: which part of a state is qpos.

    Returns:
        `instants`: how many; `exact`: whether they agree in every bit of qpos and qvel; `qpos_max` and `qpos_mean`:
        the Euclidean distance of qpos (radians and metres alike); `eef_max` and `eef_mean`: that of the end effector
        that is farther off. [m]
    """
    result: dict[str, Any] = {
        "instants": len(recorded) - 1,
        "exact": bool(np.array_equal(reached[:, 1:], recorded[:, 1:])),
    }
    distances = {
        "qpos": np.linalg.norm((reached - recorded)[1:, joints], axis=-1),
        "eef": np.linalg.norm(hands_reached - hands_recorded, axis=-1)[1:].max(axis=-1, initial=0.0),
    }
    for name, values in distances.items():
        result[f"{name}_max"] = float(values.max(initial=0.0))
        result[f"{name}_mean"] = float(values.mean()) if len(values) else 0.0
    return result


@dataclass(frozen=True)
class _Instant:
    """What one state shows: sensors, the end effectors `[K, 3]` [m], reward and success."""

    sensors: dict[str, NDArray[Any]]
    hands: NDArray[np.float64]
    reward: float
    success: bool


def _look(env: RobosuiteEnv, state: NDArray[np.float64], action: NDArray[np.float64] | None) -> _Instant:
    """Restore a state; `action` led to it, and is None for the first."""
    sensors = {key: value for key, value in env.restore(state).items() if not key.endswith(FORCES)}
    reward = 0.0 if action is None else float(env.robosuite.reward(action))
    return _Instant(sensors, _hands(env), reward, bool(env.robosuite._check_success()))


def _load(env: RobosuiteEnv, recording: RawEpisode) -> str | None:
    """Build the recorded scene, and return it as robosuite 1.5 can load it anywhere."""
    task, name = env.robosuite, type(env.robosuite).__name__
    if hasattr(task, "wiped_markers"):
        raise SimulationError(f"{name} keeps what is wiped outside of MuJoCo's state, so no state can be restored")
    task.set_ep_meta(dict(recording.meta))
    if recording.scene is None:
        if name not in TASK_NAMES.values():
            raise SimulationError(f"no model_file; {name} needs its MJCF, as every episode's scene differs")
        _begin(env, recording)
        return None
    if recording.meta:
        task.reset()  # tasks that know `ep_meta` build themselves by it
    pattern = task.model.get_xml() if recording.old else None
    scene = localise(recording.scene, pattern)
    try:
        task.reset_from_xml_string(scene)
    except Exception as error:  # MuJoCo and robosuite: ValueError, KeyError, AssertionError, ...
        reason = " ".join(str(error).split())[:200]
        raise SimulationError(f"its model_file does not make a scene of {name} ({reason})") from error
    known = [camera for camera in task.sim.model.camera_names if camera]
    for camera in env.cameras:
        if camera not in known:
            raise SimulationError(f"its scene has no camera {camera!r}; it has: {', '.join(known)}")
    return scene if recording.old else recording.scene


def _begin(env: RobosuiteEnv, recording: RawEpisode) -> None:
    """Begin an episode of one of our tasks, by the recorded seed if there is one.

    An episode that began here leaves traces outside of MuJoCo's state: the arm's controller prefers the joints that it
    was made with. So it begins as it did, where that is possible.
    """
    seed = recording.notes.get("seed", 0)
    for start in env.robosuite.starts:
        env.reset(seed=seed if isinstance(seed, int) and seed >= 0 else 0, options={"start": start})
        if np.array_equal(env.state(), recording.states[0]):
            return


def _replay(
    env: RobosuiteEnv, states: NDArray[np.float64], actions: NDArray[np.float64], heartbeat: Heartbeat
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Play the actions, and return the states `[N + 1, D]` and the end effectors `[N + 1, K, 3]` [m].

    The step whose outcome nobody recorded begins in the recorded state, with grippers and controllers as they are.
    """
    if not np.array_equal(env.state(), states[0]):
        env.restore(states[0])
    reached, hands = [env.state()], [_hands(env)]
    sim = env.robosuite.sim
    for index, action in enumerate(actions):
        heartbeat()
        if index == len(states) - 1 and not np.array_equal(reached[-1], states[index]):
            sim.set_state_from_flattened(states[index])
            sim.forward()
        env.robosuite.step(action)
        reached.append(env.state())
        hands.append(_hands(env))
    return np.stack(reached), np.stack(hands)


def _hands(env: RobosuiteEnv) -> NDArray[np.float64]:
    """Return where the end effectors are, `[K, 3]` in metres."""
    sites = [site for robot in env.robosuite.robots for site in robot.eef_site_id.values()]
    return np.array(env.robosuite.sim.data.site_xpos[sites])
