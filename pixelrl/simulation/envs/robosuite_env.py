"""Every robosuite task: gymnasium's interface, robomimic's observation keys, exact seeds."""

from collections.abc import Collection, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.env_args import TASK_NAMES, drawing_of
from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.simulation.envs.controllers import action_ranges, takes_units, translated
from pixelrl.simulation.envs.gymnasium_env import space_of
from pixelrl.simulation.envs.imports import robosuite, task_class
from pixelrl.simulation.envs.opengl import check_drawing
from pixelrl.simulation.envs.rendering import DRAWINGS, build
from pixelrl.simulation.envs.state import Arrays, State, alter, options_of, put, take


class RobosuiteEnv(gymnasium.Env[Sensors, NDArray[Any]]):
    """A robosuite task behind gymnasium's interface.

    Observations have robomimic's keys: pictures uint8 `[H, W, 3]`, upright, as `<camera>_image`; vectors float32
    `[D]`, as `robot0_eef_pos` and, where the task reveals its objects, `object`. All are taken from the very state
    that the step ended in. The same seed gives the same start, states and pixels, bit for bit, in any process and
    after any history. Stepping on after success is allowed: a goal state is worth seeing too.

    Attributes:
        robosuite: robosuite's own environment, for code that may know more than a policy does.
        control_freq: actions a second. [Hz]
        horizon: steps after which an episode is truncated.
        cameras: name -> (height, width) of the pictures in an observation. [pixel]
    """

    def __init__(self, robosuite_env: Any, cameras: Mapping[str, tuple[int, int]], horizon: int) -> None:
        """Wrap an environment that draws nothing itself; `make_robosuite_env` builds one."""
        self.robosuite, self._name = robosuite_env, type(robosuite_env).__name__
        self.cameras = dict(cameras)
        self.control_freq = float(robosuite_env.control_freq)
        self.horizon = horizon
        bound = np.where(takes_units(robosuite_env), np.inf, 1.0).astype(np.float32)
        self.action_space = Box(-bound, bound)
        self._altered: Arrays = {}
        _finish_last_substep(robosuite_env)
        # robosuite polls its observables at every substep, and one substep early; here they are read when they are due.
        robosuite_env._update_observables = lambda force=False: None
        for observable in robosuite_env._observables.values():
            observable.set_enabled(False)
        observation, _ = self.reset(seed=0)
        self.observation_space: Any = space_of(observation)

    @property
    def action_dims(self) -> tuple[ActionDim, ...]:
        """Return what [-1, 1] means for each dimension of the action, in the robot's units."""
        return tuple(ActionDim(name=n, low=lo, high=hi, unit=unit) for n, lo, hi, unit in action_ranges(self.robosuite))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Sensors, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: decides everything that is random; without one, the last seed's stream goes on.
            options: `start`, for the tasks that have several, say `"held"`; by default the whole task.
                Or `state`, as `snapshot` gave it: then the episode goes on from there, whatever the seed.

        Raises:
            SimulationError: if the task does not know the start, or the state is not one of this task.
        """
        options = options or {}
        state: State | None = options.get("state")
        if state is not None:
            seed, options = state.seed, {"start": state.start}
        super().reset(seed=seed)
        self._seed = seed if seed is not None else int(self.np_random.integers(2**32))
        # In place: placement samplers hold on to this generator.
        self.robosuite.rng.bit_generator.state = np.random.PCG64(self._seed).state
        self._choose_start(options.get("start"))
        self._use_own_context()
        alter(self.robosuite, self._altered)  # as it was before another state
        self._altered = {}
        self.robosuite.reset()
        self._steps = 0
        if state is not None:
            self._altered = put(self.robosuite, state)
            self._steps = state.steps
        return self.observe(), {"success": self._succeeded()}

    def snapshot(self) -> State:
        """Return all that the rest of the episode depends on; `reset(options={"state": ...})` goes on from there."""
        start = getattr(self.robosuite, "start", None)
        return take(self.robosuite, seed=self._seed, start=start, steps=self._steps)

    def step(self, action: NDArray[Any]) -> tuple[Sensors, float, bool, bool, dict[str, Any]]:
        """Act for one control step.

        Args:
            action: float `[A]` in [-1, 1]; in metres and radians where a controller takes absolute poses.

        Returns:
            The observation, robosuite's reward, whether the state is in the goal, whether the horizon is reached,
            and `{"success": bool}`.

        Raises:
            SimulationError: if the action has another size.
        """
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape:
            raise SimulationError(f"{self._name}: the action has shape {action.shape}, not {self.action_space.shape}")
        _, reward, _, _ = self.robosuite.step(action)
        self._steps += 1
        success = self._succeeded()
        return self.observe(), float(reward), success, self._steps >= self.horizon, {"success": success}

    def restore(self, state: NDArray[np.float64]) -> Sensors:
        """Put the simulator into a recorded state, and return what is sensed there: a function of state and model.

        Args:
            state: float64 `[D]`, as `state()` gives it. What moves by itself, say the controllers' goals, starts anew.

        Raises:
            SimulationError: if the state has another size than the model's.
        """
        sim = self.robosuite.sim
        size = 1 + sim.model.nq + sim.model.nv
        if state.shape != (size,):
            raise SimulationError(f"a state of {state.size} numbers; the model has {size}: time, qpos, qvel")
        sim.reset()
        sim.set_state_from_flattened(state)
        sim.forward()
        return self.observe()

    def state(self) -> NDArray[np.float64]:
        """Return MuJoCo's time, qpos and qvel, float64 `[D]`."""
        flat: NDArray[np.float64] = self.robosuite.sim.get_state().flatten()
        return flat

    def picture(self, size: int) -> NDArray[np.uint8]:
        """Draw the first camera's view, uint8 `[size, size, 3]`, for people to look at."""
        return self._draw(next(iter(self.cameras), "agentview"), size, size)

    def close(self) -> None:
        """Free the renderer, which must not outlive the interpreter; calling it twice does no harm."""
        if self.robosuite.sim is not None:
            self._use_own_context()
            self.robosuite.close()

    def _choose_start(self, start: str | None) -> None:
        known = getattr(self.robosuite, "starts", ())
        if start is not None and start not in known:
            raise SimulationError(f"{self._name} has no start {start!r}; it has: {', '.join(known) or 'only its own'}")
        if known:
            self.robosuite.start = start or known[0]

    def _succeeded(self) -> bool:
        return bool(self.robosuite._check_success())

    def observe(self) -> dict[str, NDArray[Any]]:
        """Return what is sensed in the present state; nothing that comes later depends on how often one looks."""
        cache: dict[str, Any] = {}
        objects = []
        for name, observable in self.robosuite._observables.items():  # in this order: later ones build on earlier ones
            cache[name] = np.atleast_1d(np.asarray(observable._sensor(cache), np.float32))
            if observable.modality == "object":
                objects.append(cache[name].ravel())
        prefixes = tuple(robot.robot_model.naming_prefix for robot in self.robosuite.robots)
        observation = {name: value for name, value in cache.items() if name.startswith(prefixes)}
        if objects:
            observation["object"] = np.concatenate(objects)
        for camera, (height, width) in self.cameras.items():
            observation[f"{camera}_image"] = self._draw(camera, height, width)
        return observation

    def _use_own_context(self) -> None:
        """Have OpenGL draw, and free, what is ours: other environments of this process have contexts, too."""
        self.robosuite.sim._render_context_offscreen.gl_ctx.make_current()

    def _draw(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        self._use_own_context()
        # OpenGL's first row is the lowest.
        return np.ascontiguousarray(self.robosuite.sim.render(width=width, height=height, camera_name=camera)[::-1])


def _finish_last_substep(robosuite_env: Any) -> None:
    """Have positions, contacts and rewards after a step belong to the state that it ended in.

    MuJoCo's step ends with the new joint positions; all that follows from them is still that of a substep before. To
    compute it at the step's end changes nothing that comes later: the next step would begin with the same.
    """
    finish = robosuite_env._post_action

    def post_action(action: Any) -> Any:
        robosuite_env.sim.step1()
        return finish(action)

    robosuite_env._post_action = post_action


def make_robosuite_env(env_args: Mapping[str, Any], allow_import: Collection[str] = ()) -> RobosuiteEnv:
    """Build the environment that a data set was recorded in.

    Args:
        env_args: as in robomimic's HDF5: `env_name`, `type` (1, robosuite), `env_version`, `env_kwargs`; beside them
            `drawing`, see `drawing_of`. Controller configurations of robosuite 1.4 are understood. What concerns the
            recording machine (viewer, GPU) is not taken over.
        allow_import: modules that may be imported, to register a task that is not robosuite's.

    Raises:
        SimulationError: if the task, an option or a camera does not exist, or nothing can be drawn here.
    """
    name = str(env_args["env_name"])
    if env_args.get("type", 1) != 1:
        raise SimulationError(f"{name}: env_args has type {env_args['type']}, but only 1 (robosuite) can be simulated")
    task = task_class(name, allow_import)
    drawing = drawing_of(env_args)
    if drawing not in DRAWINGS:
        raise SimulationError(f"{name}: env_args name the drawing {drawing!r}; there are: {', '.join(DRAWINGS)}")
    options = dict(translated(env_args)["env_kwargs"])
    cameras = _cameras(options)
    for key in ("render_gpu_device_id", "camera_depths", "camera_segmentations", "has_renderer"):
        options.pop(key, None)
    options.update(use_camera_obs=False, has_offscreen_renderer=True, renderer="mujoco", ignore_done=True, seed=0)
    known = options_of(task)
    if unknown := sorted(set(options) - known):
        raise SimulationError(f"{name} has no option {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    check_drawing()
    try:
        robosuite_env = build(task, options, drawing)
    except Exception as error:  # robosuite checks little: AssertionError, AttributeError, KeyError, ValueError, ...
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise SimulationError(f"{name}: robosuite cannot build it with these options ({reason})") from error
    views = [camera for camera in robosuite_env.sim.model.camera_names if camera]
    if missing := [camera for camera in cameras if camera not in views]:
        robosuite_env.close()
        raise SimulationError(f"{name} has no camera {missing[0]!r}; it has: {', '.join(views)}")
    return RobosuiteEnv(robosuite_env, cameras, int(robosuite_env.horizon))


def default_env_args(
    task: str, *, size: int | None = None, drawing: str | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Return the `env_args` of a task by name.

    Args:
        task: one of `TASK_NAMES` (5 Hz, one camera) or a robosuite name such as `Lift` (20 Hz, two cameras).
        size: height and width of the pictures; by default 48 for our tasks and 84 for robosuite's. [pixel]
        drawing: `stock` or `fast`; by default `fast` for our tasks and `stock` for robosuite's.
        kwargs: further options of the task, say `distractor=True`.

    Raises:
        SimulationError: if there is no such task.
    """
    name = TASK_NAMES.get(task, task)
    found = task_class(name)
    if task in TASK_NAMES:
        size = size or 48
        options: dict[str, Any] = {"robots": ["Panda"], "camera_names": ["agentview"], "control_freq": 5}
        options["horizon"] = found.horizon
    else:
        size = size or 84
        robots = ["Panda", "Panda"] if name.startswith("TwoArm") else ["Panda"]
        cameras = ["agentview", "robot0_eye_in_hand"]
        options = {"robots": robots, "camera_names": cameras, "control_freq": 20, "horizon": 400}
    options |= {"camera_heights": size, "camera_widths": size, "use_camera_obs": True} | kwargs
    result = {"env_name": name, "type": 1, "env_version": robosuite().__version__, "env_kwargs": options}
    return result | {"drawing": drawing or drawing_of(result)}


def _cameras(options: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Take the cameras out of a task's options: name -> (height, width)."""
    names = _listed(options.pop("camera_names", "agentview"))
    heights, widths = (_listed(options.pop(f"camera_{side}", 84), len(names)) for side in ("heights", "widths"))
    if not options.pop("use_camera_obs", True):
        return {}
    return {name: (int(h), int(w)) for name, h, w in zip(names, heights, widths, strict=True)}


def _listed(value: Any, length: int = 1) -> list[Any]:
    """Return a list; a single value, as robosuite allows, stands for as many as are needed."""
    return list(value) if isinstance(value, list | tuple) else [value] * length
