"""A world that differs a little from the one that a policy knows: perturbations of a stated size, and how they combine.

Each is a frozen value with a `level` in physical units; at level 0 nothing changes, bit for bit. What is random about
one (the direction of a shift, the noise) is drawn anew for each episode from the episode's seed and the perturbation's
name, not from its level: the same episode goes the same way at all levels, and its start is the unperturbed one.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pixelrl.runtime.interfaces import Sensors
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.make import make_env
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv
from pixelrl.simulation.evaluation.scene_edits import SceneEdits

AnyEnv = gymnasium.Env[Any, Any]
Picture = NDArray[np.uint8]
Generator = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """One thing that differs. A kind overrides one of `options`, `edit` and `wrap`.

    Attributes:
        level: how much, in `unit`; 0: nothing.
        name: of the kind, as a user types it.
        unit: of the level.
        levels: worth trying, the mildest first.
    """

    level: float
    name: ClassVar[str]
    unit: ClassVar[str]
    levels: ClassVar[tuple[float, ...]]

    def lack(self, env: AnyEnv) -> str | None:
        """Return what an environment lacks for this, or None."""
        return None

    def options(self, env_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the description of the environment to build."""
        return env_args

    def edit(self, staging: SceneEdits, random: Generator) -> None:
        """Change the scene after a reset; `staging` undoes it before the next one."""

    def wrap(self, env: AnyEnv) -> AnyEnv:
        """Return the environment, with what is sensed or done changed."""
        return env


def make_perturbed(
    env_args: Mapping[str, Any], perturbations: Sequence[Perturbation], allow_import: Collection[str] = ()
) -> AnyEnv:
    """Build an environment under perturbations; it pickles, as `partial(make_perturbed, env_args, perturbations)`.

    Raises:
        SimulationError: as `make_env`.
    """
    for each in perturbations:
        env_args = each.options(env_args)
    return perturbed(make_env(env_args, allow_import), perturbations)


def perturbed(env: AnyEnv, perturbations: Sequence[Perturbation]) -> AnyEnv:
    """Return an environment whose scene, pictures and actions are perturbed."""
    if isinstance(env, RobosuiteEnv):
        env = EditedSceneEnv(env, perturbations)
    for each in perturbations:
        env = each.wrap(env)
    return env


def stream(seed: int | None, name: str) -> Generator:
    """Return the generator of a perturbation's randomness in the episode of this seed."""
    return np.random.default_rng(None if seed is None else derive(seed, "perturb", name))


class EditedSceneEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose scene is changed for the length of an episode."""

    env: RobosuiteEnv

    def __init__(self, env: RobosuiteEnv, perturbations: Sequence[Perturbation]) -> None:
        super().__init__(env)
        self._perturbations = perturbations
        self._staging: SceneEdits | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in the scene as it was built, then change it and look again."""
        self._undo()
        _, info = self.env.reset(seed=seed, options=options)
        self._staging = SceneEdits(self.env.robosuite.sim, tuple(self.env.cameras))
        for each in self._perturbations:
            each.edit(self._staging, stream(seed, each.name))
        self._staging.settle()
        return self.env.observe(), info

    def close(self) -> None:
        """Let go of the renderer and free it."""
        self._undo()
        super().close()

    def _undo(self) -> None:
        if self._staging is not None:
            self._staging.undo()
        self._staging = None  # a reset may bring another renderer, and must be able to free this one


@dataclass(frozen=True, kw_only=True)
class PictureNoise(Perturbation):
    """Gaussian noise on each number of each picture."""

    name, unit, levels = "noise", "grey levels of 255, std", (10.0, 20.0, 40.0, 80.0)

    def wrap(self, env: AnyEnv) -> AnyEnv:
        """Add it to what is sensed."""
        return _Pictures(env, self)

    def alter(self, picture: Picture, random: Generator) -> Picture:
        """Return a noisy picture."""
        noisy = picture + self.level * random.standard_normal(picture.shape)
        return np.clip(noisy.round(), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Blur(Perturbation):
    """A Gaussian blur of each picture: a lens out of focus."""

    name, unit, levels = "blur", "pixels of the policy's picture, std", (0.5, 1.0, 2.0, 4.0)

    def wrap(self, env: AnyEnv) -> AnyEnv:
        """Blur what is sensed."""
        return _Pictures(env, self)

    def alter(self, picture: Picture, random: Generator) -> Picture:
        """Return a blurred picture."""
        soft = gaussian_filter(picture.astype(np.float64), (self.level, self.level, 0))
        return np.asarray(soft.round(), np.uint8)


class _Pictures(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose pictures are altered one by one."""

    def __init__(self, env: AnyEnv, effect: PictureNoise | Blur) -> None:
        super().__init__(env)
        self._effect = effect

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._random = stream(seed, self._effect.name)
        sensors, info = self.env.reset(seed=seed, options=options)
        return self._altered(sensors), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        sensors, *rest = self.env.step(action)
        return self._altered(sensors), *rest  # type: ignore[return-value]

    def _altered(self, sensors: Sensors) -> Sensors:
        return {k: self._effect.alter(v, self._random) if _is_picture(v) else v for k, v in sensors.items()}


@dataclass(frozen=True, kw_only=True)
class DroppedFrames(Perturbation):
    """Pictures are lost on their way, those of all cameras at once, and the last ones stand; all else is fresh."""

    name, unit, levels = "dropped-frames", "probability", (0.1, 0.25, 0.5, 0.75)

    def wrap(self, env: AnyEnv) -> AnyEnv:
        """Drop what is sensed; the first pictures always arrive."""
        return _Dropping(env, self)


class _Dropping(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment some of whose pictures do not arrive."""

    def __init__(self, env: AnyEnv, loss: DroppedFrames) -> None:
        super().__init__(env)
        self._loss = loss

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._random = stream(seed, self._loss.name)
        sensors, info = self.env.reset(seed=seed, options=options)
        self._last = {key: value for key, value in sensors.items() if _is_picture(value)}
        return sensors, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        sensors, *rest = self.env.step(action)
        if self._random.random() >= self._loss.level:
            self._last = {key: value for key, value in sensors.items() if _is_picture(value)}
        return {**sensors, **self._last}, *rest  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class ActionDelay(Perturbation):
    """Each action is carried out so many steps late; until the first one arrives, it is zero."""

    name, unit, levels = "action-delay", "steps", (1.0, 2.0, 3.0)

    def wrap(self, env: AnyEnv) -> AnyEnv:
        """Delay what is done."""
        return _Delayed(env, round(self.level))


class _Delayed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that acts late."""

    def __init__(self, env: AnyEnv, steps: int) -> None:
        super().__init__(env)
        self._steps = steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        shape = self.env.action_space.shape or ()
        self._waiting = deque(np.zeros(shape, np.float32) for _ in range(self._steps))
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; the action's buffer is the caller's and will change."""
        self._waiting.append(np.array(action))
        return self.env.step(self._waiting.popleft())


@dataclass(frozen=True, kw_only=True)
class ControlNoise(Perturbation):
    """Gaussian noise on each number of each action, which stays in [-1, 1]; it may turn a gripper's sign."""

    name, unit, levels = "control-noise", "of the action's [-1, 1], std", (0.1, 0.2, 0.4, 0.8)

    def wrap(self, env: AnyEnv) -> AnyEnv:
        """Disturb what is done."""
        return _Shaken(env, self)


class _Shaken(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose actions are disturbed."""

    def __init__(self, env: AnyEnv, noise: ControlNoise) -> None:
        super().__init__(env)
        self._noise = noise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._random = stream(seed, self._noise.name)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        noise = self._noise.level * self._random.standard_normal(np.shape(action))
        return self.env.step(np.clip(action + noise, -1, 1).astype(np.float32))


def _is_picture(value: NDArray[Any]) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3
