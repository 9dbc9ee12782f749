"""Every Gymnasium environment: pictures and vectors under robomimic's kind of keys, actions in [-1, 1]."""

from collections.abc import Collection, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray
from PIL import Image

from pixelrl.runtime.actions import ActionDim, to_units
from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.extras import missing_extra
from pixelrl.runtime.interfaces import Sensors
from pixelrl.simulation.envs.imports import import_allowed
from pixelrl.simulation.envs.opengl import before_drawing

RENDERED = "render"
"""The source of pictures that an environment draws but does not observe."""

SUFFIX = "_image"
SUCCESS = ("success", "is_success")
LONGEST = 1000
"""Steps after which an episode is truncated if the environment does not say when."""

SCREENLESS = ("display", "x11", "glfw", "video device", "opengl", "egl")
"""Words in the errors of environments that want a screen or cannot draw."""


class GymnasiumEnv(gymnasium.Env[Sensors, NDArray[Any]]):
    """A Gymnasium environment whose observations are pictures uint8 `[H, W, 3]` and vectors float32 `[D]`.

    - What it observes is flattened: `{"pixels": {"top": ...}}` is called `pixels_top`; an observation that is no
      dictionary is called `pixels` or `state`. A Box of uint8 with three axes, the first or last of them 3 long, is a
      picture, under `NAME_image`; numbers with at most one axis are a vector, under their name. The rest is left out.
    - If no picture is observed, the one that `render()` draws is: `render_image`.
    - The action's [-1, 1] is the range of the environment's Box; where that has no two bounds, it is taken as it is,
      cut at the one that there is.
    - What it observes is copied: it may use its buffers again.
    - Success is `info["success"]` or `info["is_success"]`; where there is neither, to be terminated with a positive
      reward. An episode ends with success, or when the environment ends or truncates it.

    Attributes:
        env_args: what makes it again, cameras and all, for a data set to say.
        control_freq: actions a second, `metadata["render_fps"]`; None if it does not say. [Hz]
    """

    def __init__(self, env: gymnasium.Env[Any, Any], env_args: Mapping[str, Any]) -> None:
        """Wrap an environment that was made; `make_gymnasium_env` makes one.

        Raises:
            SimulationError: its actions are no Box, or a camera is not there.
        """
        self._env, self._name = env, f"gym:{env_args['env_name']}"
        if not isinstance(env.action_space, Box):
            raise SimulationError(f"{self._name} takes actions of {env.action_space}; a policy gives those of a Box")
        self._bounds: Box = env.action_space
        bounded = np.isfinite(self._bounds.low) & np.isfinite(self._bounds.high)
        self._low = np.where(bounded, self._bounds.low, -1.0).ravel()
        self._high = np.where(bounded, self._bounds.high, 1.0).ravel()
        self.action_space = Box(-1.0, 1.0, self._low.shape, np.float32)
        rate = env.metadata.get("render_fps")
        self.control_freq = None if rate is None else float(rate)
        self._spaces = _flat(env.observation_space)
        self._cameras = self._choose_cameras(env_args.get("cameras"))
        observation, _ = self.reset(seed=0)
        for camera, about in self._cameras.items():
            about["height"], about["width"] = observation[camera + SUFFIX].shape[:2]
        self.env_args = {**env_args, "cameras": self._cameras, "control_freq": self.control_freq}
        self.observation_space: Any = space_of(observation)

    @property
    def action_dims(self) -> tuple[ActionDim, ...]:
        """Return what [-1, 1] means for each dimension of the action: the bounds of the environment's Box."""
        bounds = zip(self._low, self._high, strict=True)
        return tuple(ActionDim(name=f"action_{i}", low=float(lo), high=float(hi)) for i, (lo, hi) in enumerate(bounds))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Sensors, dict[str, Any]]:
        """Begin an episode; how far the seed decides it is up to the environment."""
        observation, info = self._env.reset(seed=seed, options=options)
        return self._see(observation), {"success": self._succeeded(info) or False}

    def step(self, action: NDArray[Any]) -> tuple[Sensors, float, bool, bool, dict[str, Any]]:
        """Act for one control step; the info is `{"success": bool}`.

        Raises:
            SimulationError: the action has another size, or the reward is no single number.
        """
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape:
            raise SimulationError(f"{self._name}: the action has shape {action.shape}, not {self.action_space.shape}")
        scaled = to_units(np.clip(action, -1, 1), self._low, self._high)
        shaped = scaled.reshape(self._bounds.shape).astype(self._bounds.dtype)
        inside = np.clip(shaped, self._bounds.low, self._bounds.high)
        observation, paid, terminated, truncated, info = self._env.step(inside)
        rewards: NDArray[Any] = np.asarray(paid)
        if rewards.size != 1:
            raise SimulationError(f"{self._name}: the reward has shape {rewards.shape}; expected one number")
        reward, success = float(rewards.item()), self._succeeded(info)
        if success is None:
            success = bool(terminated) and reward > 0
        return self._see(observation), reward, bool(terminated) or success, bool(truncated), {"success": success}

    def picture(self, size: int) -> NDArray[np.uint8]:
        """Draw what is to be seen, uint8 `[size, size, 3]`, for people to look at, with bars where it is no square."""
        frame = self._render() if self._env.render_mode == "rgb_array" else self._frame
        height, width = (round(side * size / max(frame.shape[:2])) for side in frame.shape[:2])
        square = np.zeros((size, size, 3), np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        square[top : top + height, left : left + width] = resized(frame, height, width)
        return square

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _choose_cameras(self, said: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
        """Return camera -> its source and size (none: as it comes); by default, all that there are."""
        observed = [name for name, space in self._spaces.items() if is_picture(space)]
        sources = [*observed, *([RENDERED] if self._env.render_mode == "rgb_array" else [])]
        if not sources:
            raise SimulationError(f"{self._name} shows no picture: it observes none, and has no render mode rgb_array")
        if said is None:
            return {name.removesuffix(SUFFIX): {"source": name} for name in observed or [RENDERED]}
        cameras = {camera: {"source": camera, **about} for camera, about in said.items()}
        for about in cameras.values():
            if about["source"] not in sources and about["source"] + SUFFIX in sources:
                about["source"] += SUFFIX
            if about["source"] not in sources:
                raise SimulationError(f"{self._name} has no camera {about['source']!r}; it has: {', '.join(sources)}")
        return cameras

    def _see(self, observation: Any) -> dict[str, NDArray[Any]]:
        """Return pictures and vectors under their keys."""
        parts = _flat(observation)
        vectors = [name for name, space in self._spaces.items() if is_vector(space)]
        seen: dict[str, NDArray[Any]] = {name: np.array(parts[name], np.float32, ndmin=1) for name in vectors}
        for camera, about in self._cameras.items():
            source = about["source"]
            frame = self._render() if source == RENDERED and source not in parts else parts[source]
            frame = frame if frame.shape[-1] == 3 else np.moveaxis(frame, 0, -1)
            self._frame = seen[camera + SUFFIX] = resized(frame, about.get("height"), about.get("width"))
        return seen

    def _render(self) -> NDArray[np.uint8]:
        frame = np.asarray(self._env.render())
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            shape = list(frame.shape)
            raise SimulationError(f"{self._name}: render() gives {frame.dtype} {shape}; expected uint8 [H, W, 3]")
        return frame

    def _succeeded(self, info: Mapping[str, Any]) -> bool | None:
        """Return what an info says of success; None if it says nothing."""
        return next((bool(np.all(info[key])) for key in SUCCESS if key in info), None)


def make_gymnasium_env(env_args: Mapping[str, Any], allow_import: Collection[str] = ()) -> GymnasiumEnv:
    """Make a Gymnasium environment.

    Args:
        env_args: `env_name`: an id, with a module before it that registers it, say `gym_pusht:gym_pusht/PushT-v0`;
            `env_kwargs`: for `gymnasium.make`; `cameras`, if not all are wanted as they come: camera -> its `source`
            (the name of an observation, or `render`), `height` and `width`.
        allow_import: modules that may be imported. `env_args` often come from a file, and must not run any code.

    Raises:
        SimulationError: it does not exist, cannot be made here, or shows no picture; or its module may not be imported.
    """
    name, options = str(env_args["env_name"]), dict(env_args.get("env_kwargs", {}))
    env: gymnasium.Env[Any, Any] | None = None
    try:
        spec = _spec_of(name, allow_import)
        creator: Any = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        if "rgb_array" in (getattr(creator, "metadata", None) or {}).get("render_modes", ()):
            options.setdefault("render_mode", "rgb_array")
        if spec.max_episode_steps is None:
            options.setdefault("max_episode_steps", LONGEST)
        before_drawing()
        env = gymnasium.make(spec.id, disable_env_checker=True, **options)
        return GymnasiumEnv(env, env_args)
    except Exception as error:  # whatever a stranger's package may raise
        if env is not None:
            env.close()
        if isinstance(error, SimulationError):
            raise
        raise SimulationError(f"gym:{name}: cannot be made: {_reason(error)}") from error


def check_registered(name: str, allow_import: Collection[str] = ()) -> None:
    """Raise a `SimulationError` unless Gymnasium knows an environment, which is not made."""
    try:
        _spec_of(name, allow_import)
    except gymnasium.error.Error as error:
        raise SimulationError(f"gym:{name}: cannot be made: {_reason(error)}") from error


def _spec_of(name: str, allow_import: Collection[str]) -> EnvSpec:
    """Return what Gymnasium knows of an environment, whose module is imported if it may be."""
    module, _, key = name.rpartition(":")
    if module:
        import_allowed(module, allow_import, f"gym:{name}")
    return gymnasium.spec(key)


def _reason(error: Exception) -> str:
    """Return one line on why an environment could not be made, and what would help."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error) or f"{text}; install the package that has it"
    if isinstance(error, gymnasium.error.UnregisteredEnv):
        return f"{text} Name the package that registers it: gym:PACKAGE:ID"
    if any(word in text.lower() for word in SCREENLESS):
        return f"it cannot draw here ({text}); set MUJOCO_GL=egl for MuJoCo, or SDL_VIDEODRIVER=dummy for pygame"
    return f"{type(error).__name__}: {text}"


def space_of(observation: Sensors) -> Dict:
    """Return the space of observations like this one: pictures, and vectors without bounds."""
    return Dict(
        {
            key: Box(0, 255, value.shape, np.uint8) if value.dtype == np.uint8 else Box(-np.inf, np.inf, value.shape)
            for key, value in observation.items()
        }
    )


def is_picture(space: Any) -> bool:
    """Tell whether a space is of uint8 pictures `[H, W, 3]` or `[3, H, W]`."""
    shape = space.shape
    return isinstance(space, Box) and space.dtype == np.uint8 and len(shape) == 3 and 3 in (shape[0], shape[-1])


def is_vector(space: Any) -> bool:
    """Tell whether a space is of numbers with at most one axis."""
    return space.shape is not None and len(space.shape) <= 1 and space.dtype is not None and space.dtype.kind in "fiub"


def resized(picture: NDArray[np.uint8], height: int | None, width: int | None) -> NDArray[np.uint8]:
    """Return a copy of a picture in another size (none: its own), each pixel the mean of those that it covers."""
    if (height or picture.shape[0], width or picture.shape[1]) == picture.shape[:2]:
        return np.array(picture, order="C")
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.array(image.resize((width or image.width, height or image.height), Image.Resampling.BOX))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of an observation, or of its space, by name."""
    if isinstance(value, Mapping):
        leaves: dict[str, Any] = {}
        for key, item in value.items():
            leaves |= _flat(item, f"{prefix}_{key}" if prefix else str(key))
        return leaves
    shape = getattr(value, "shape", ()) or ()
    return {prefix or ("pixels" if len(shape) == 3 else "state"): value}
