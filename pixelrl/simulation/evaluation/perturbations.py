"""A world that differs a little from the one that a policy knows: perturbations of a stated size, and how they combine.

Each is a frozen value with a `level` in physical units; at level 0 nothing changes, bit for bit. What is random about
one (the direction of a shift, the noise) is drawn anew for each episode from the episode's seed and the perturbation's
name, not from its level: the same episode goes the same way at all levels, and its start is the unperturbed one.
"""

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
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
Action = NDArray[np.float32]
Picture = NDArray[np.uint8]
Generator = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """One thing that differs. A kind overrides one of `options`, `edit`, `sensing` and `acting`.

    Attributes:
        level: how much, in `unit`; 0: nothing.
        name: of the kind, as a user types it.
        unit: of the level.
        levels: worth trying, the mildest first.
        lowest, highest: levels that can be.
        whole: whether only whole numbers can.
    """

    level: float
    name: ClassVar[str]
    unit: ClassVar[str]
    levels: ClassVar[tuple[float, ...]]
    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = math.inf
    whole: ClassVar[bool] = False

    def lack(self, env: AnyEnv) -> str | None:
        """Return what an environment lacks for this, or None."""
        return None

    def options(self, env_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the description of the environment to build."""
        return env_args

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Change the scene after a reset; `scene` undoes it before the next one."""

    def sensing(self, random: Generator) -> Callable[[Sensors], Sensors]:
        """Return what becomes of all that is sensed in an episode, reading by reading."""
        return lambda sensors: sensors

    def acting(self, random: Generator, space: gymnasium.spaces.Box) -> Callable[[Action], Action]:
        """Return what becomes of the actions of an episode; they may be a buffer that is used again."""
        return lambda action: action


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
        env = PerturbedSignalsEnv(env, each)
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
        self._scene: SceneEdits | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in the scene as it was built, then change it and look again."""
        self._undo()
        _, info = self.env.reset(seed=seed, options=options)
        self._scene = SceneEdits(self.env.robosuite.sim, tuple(self.env.cameras))
        for each in self._perturbations:
            each.edit(self._scene, stream(seed, each.name))
        self._scene.refresh()
        return self.env.observe(), info

    def close(self) -> None:
        """Let go of the renderer and free it."""
        self._undo()
        super().close()

    def _undo(self) -> None:
        if self._scene is not None:
            self._scene.undo()
        self._scene = None  # a reset may bring another renderer, and must be able to free this one


class PerturbedSignalsEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment in which what is sensed and done is changed, anew in each episode.

    Gymnasium's own `TransformObservation` and `TransformAction` know no episodes, so their functions cannot begin anew.
    """

    def __init__(self, env: AnyEnv, perturbation: Perturbation) -> None:
        super().__init__(env)
        self._perturbation = perturbation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        random, space = stream(seed, self._perturbation.name), self.env.action_space
        assert isinstance(space, gymnasium.spaces.Box), f"a policy acts in a Box, not in {space}"
        self._sensed = self._perturbation.sensing(random)
        self._done = self._perturbation.acting(random, space)
        sensors, info = self.env.reset(seed=seed, options=options)
        return self._sensed(sensors), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        sensors, reward, terminated, truncated, info = self.env.step(self._done(action))
        return self._sensed(sensors), reward, terminated, truncated, info


@dataclass(frozen=True, kw_only=True)
class PictureNoise(Perturbation):
    """Gaussian noise on each number of each picture."""

    name, unit, levels = "noise", "grey levels of 255, std", (10.0, 20.0, 40.0, 80.0)

    def sensing(self, random: Generator) -> Callable[[Sensors], Sensors]:
        """Add it to what is sensed."""
        return lambda sensors: _with_pictures(sensors, lambda picture: self.noisy(picture, random))

    def noisy(self, picture: Picture, random: Generator) -> Picture:
        """Return a noisy picture."""
        noisy = picture + self.level * random.standard_normal(picture.shape)
        return np.clip(noisy.round(), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Blur(Perturbation):
    """A Gaussian blur of each picture: a lens out of focus."""

    name, unit, levels = "blur", "pixels of the policy's picture, std", (0.5, 1.0, 2.0, 4.0)

    def sensing(self, random: Generator) -> Callable[[Sensors], Sensors]:
        """Blur what is sensed."""
        return lambda sensors: _with_pictures(sensors, self.blurred)

    def blurred(self, picture: Picture) -> Picture:
        """Return a blurred picture."""
        soft = gaussian_filter(picture.astype(np.float64), (self.level, self.level, 0))
        return np.asarray(soft.round(), np.uint8)


@dataclass(frozen=True, kw_only=True)
class DroppedFrames(Perturbation):
    """Pictures are lost on their way, those of all cameras at once, and the last ones stand; all else is fresh."""

    name, unit, levels = "dropped-frames", "probability", (0.1, 0.25, 0.5, 0.75)
    highest = 1.0

    def sensing(self, random: Generator) -> Callable[[Sensors], Sensors]:
        """Drop what is sensed; the first pictures always arrive."""
        last: dict[str, Picture] = {}

        def sensed(sensors: Sensors) -> Sensors:
            if not last or random.random() >= self.level:
                last.update({key: np.array(value) for key, value in sensors.items() if _is_picture(value)})
            return {**sensors, **last}

        return sensed


@dataclass(frozen=True, kw_only=True)
class ActionDelay(Perturbation):
    """Each action is carried out so many steps late; until the first one arrives, it is zero."""

    name, unit, levels = "action-delay", "steps", (1.0, 2.0, 3.0)
    whole = True

    def acting(self, random: Generator, space: gymnasium.spaces.Box) -> Callable[[Action], Action]:
        """Delay what is done."""
        waiting = deque(np.zeros(space.shape, np.float32) for _ in range(round(self.level)))

        def done(action: Action) -> Action:
            waiting.append(np.array(action))
            return waiting.popleft()

        return done


@dataclass(frozen=True, kw_only=True)
class ControlNoise(Perturbation):
    """Gaussian noise on each number of each action, which stays in its bounds; it may turn a gripper's sign."""

    name, unit, levels = "control-noise", "of the action's [-1, 1], std", (0.1, 0.2, 0.4, 0.8)

    def acting(self, random: Generator, space: gymnasium.spaces.Box) -> Callable[[Action], Action]:
        """Disturb what is done."""

        def done(action: Action) -> Action:
            noise = self.level * random.standard_normal(np.shape(action))
            return np.clip(action + noise, space.low, space.high).astype(np.float32)

        return done


def _with_pictures(sensors: Sensors, alter: Callable[[Picture], Picture]) -> Sensors:
    """Return what is sensed, with its pictures altered one by one."""
    return {key: alter(value) if _is_picture(value) else value for key, value in sensors.items()}


def _is_picture(value: NDArray[Any]) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3
