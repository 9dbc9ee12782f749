"""Perturbations of what a scene looks like: camera, light, colours, texture, and things that do not matter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mujoco
import numpy as np

from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv
from pixelrl.simulation.evaluation.perturbations import (
    ActionDelay,
    AnyEnv,
    Blur,
    ControlNoise,
    DroppedFrames,
    Generator,
    Perturbation,
    PictureNoise,
)
from pixelrl.simulation.evaluation.scene_edits import SceneEdits, Shape, Vector

TILE = 0.04
"""Side of a tile of the texture. [m]"""

CLEARANCE = 0.06
"""Between the middles of a drawn thing and of anything else on the table. [m]"""


@dataclass(frozen=True, kw_only=True)
class Scenic(Perturbation):
    """A perturbation that needs MuJoCo's scene."""

    def lack(self, env: AnyEnv) -> str | None:
        """Return what is lacking: a robosuite environment."""
        return None if isinstance(env.unwrapped, RobosuiteEnv) else "a scene of robosuite"


@dataclass(frozen=True, kw_only=True)
class CameraMoved(Scenic):
    """Each camera stands somewhere else, in a random direction."""

    name, unit, levels = "camera-moved", "m", (0.01, 0.02, 0.04, 0.08)

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Move the cameras."""
        for camera in scene.cameras:
            scene.model.cam_pos[camera] += self.level * _direction(random)


@dataclass(frozen=True, kw_only=True)
class CameraTurned(Scenic):
    """Each camera is turned about a random axis through itself."""

    name, unit, levels = "camera-turned", "degrees", (1.0, 2.0, 4.0, 8.0)

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Turn the cameras."""
        for camera in scene.cameras:
            turned, turn = np.zeros(4), _rotation(_direction(random), self.level)
            mujoco.mju_mulQuat(turned, scene.model.cam_quat[camera], turn)
            scene.model.cam_quat[camera] = turned


@dataclass(frozen=True, kw_only=True)
class Brightness(Scenic):
    """All lights are brighter or dimmer by this share: -0.5 halves them."""

    name, unit, levels = "light", "change of brightness, share", (-0.6, -0.3, 0.3, 0.6)
    lowest = -1.0

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Dim the lights."""
        for colour in scene.lights():
            colour *= 1 + self.level


@dataclass(frozen=True, kw_only=True)
class LightTurned(Scenic):
    """The light falls from elsewhere: its direction is turned about a random axis; the headlight stays."""

    name, unit, levels = "light-turned", "degrees", (20.0, 40.0, 60.0)

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Turn the lights."""
        for light in range(scene.model.nlight):
            before = np.array(scene.model.light_dir[light])
            axis, after = np.cross(before, _direction(random)), np.zeros(3)
            mujoco.mju_rotVecQuat(after, before, _rotation(axis / np.linalg.norm(axis), self.level))
            scene.model.light_dir[light] = after


@dataclass(frozen=True, kw_only=True)
class Colour(Scenic):
    """Things that move, or all that stands still, take on this share of random colours; textures are tinted."""

    unit, levels = "share of a random colour", (0.1, 0.2, 0.4, 0.8)
    highest = 1.0
    movable: ClassVar[bool]

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Mix the colours; what is of one body and of one colour stays so."""
        drawn: dict[tuple[Any, ...], Vector] = {}
        for geom in scene.geoms(movable=self.movable):
            before = scene.colour(geom)
            key = (scene.model.geom_bodyid[geom], *before)
            if key not in drawn:
                drawn[key] = np.append(random.uniform(size=3), before[3])
            scene.model.geom_rgba[geom] = (1 - self.level) * before + self.level * drawn[key]


@dataclass(frozen=True, kw_only=True)
class ObjectColour(Colour):
    """The colours of what moves: objects, drawers."""

    name = "object-colour"
    movable = True


@dataclass(frozen=True, kw_only=True)
class SceneryColour(Colour):
    """The colours of what stands still: table, tray, walls."""

    name = "scenery-colour"
    movable = False


@dataclass(frozen=True, kw_only=True)
class OnTable(Scenic):
    """A perturbation that needs a table."""

    def lack(self, env: AnyEnv) -> str | None:
        """Return what is lacking: a robosuite environment, or its table."""
        if not isinstance(env.unwrapped, RobosuiteEnv):
            return super().lack(env)
        known = env.unwrapped.robosuite.sim.model.geom_names
        return None if "table_collision" in known else "a table of robosuite's"


@dataclass(frozen=True, kw_only=True)
class Texture(OnTable):
    """The table is tiled: each tile of 4 cm is brighter or darker than the table by up to this share."""

    name, unit, levels = "texture", "contrast of the table's tiles", (0.1, 0.2, 0.4, 0.8)

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Lay the tiles, a millimetre thick; they are only drawn."""
        table = scene.table()
        if self.level == 0 or table is None:
            return
        centre, half = scene.data.geom_xpos[table], scene.model.geom_size[table]
        colour = scene.table_colour()
        thin = np.array([TILE / 2, TILE / 2, 0.0005])
        across, along = (np.arange(-half[axis] + TILE / 2, half[axis], TILE) for axis in (0, 1))
        for x in across:
            for y in along:
                shade = 1 + self.level * random.uniform(-1, 1)
                rgba = np.append(np.clip(shade * colour[:3], 0, 1), 1.0)
                place = centre + np.array([x, y, half[2] + thin[2]])
                scene.shapes.append(Shape(mujoco.mjtGeom.mjGEOM_BOX, thin, place, rgba))


@dataclass(frozen=True, kw_only=True)
class Clutter(OnTable):
    """So many small things lie on the table where the first camera sees it; they are drawn, but touch nothing."""

    name, unit, levels = "clutter", "things on the table", (1.0, 3.0, 6.0, 12.0)
    whole = True
    kinds: ClassVar[tuple[mujoco.mjtGeom, ...]] = (
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
    )

    def edit(self, scene: SceneEdits, random: Generator) -> None:
        """Lay them out, away from everything else; where there is no room, fewer."""
        model, data = scene.model, scene.data
        taken = [np.array(data.xpos[model.geom_bodyid[geom]]) for geom in scene.geoms(movable=True)]
        left = round(self.level)
        for _ in range(40 * left):
            spot = scene.in_view(random)
            half = random.uniform(0.012, 0.02)
            kind, rgba = self.kinds[random.integers(len(self.kinds))], np.append(random.uniform(size=3), 1.0)
            if spot is None or any(np.linalg.norm(spot[:2] - other[:2]) < CLEARANCE for other in taken):
                continue
            taken.append(spot)
            scene.shapes.append(Shape(kind, np.full(3, half), spot + np.array([0, 0, half]), rgba))
            left -= 1
            if not left:
                return


@dataclass(frozen=True, kw_only=True)
class Distractor(Scenic):
    """The task's own distracting object lies on the table, real enough to be picked (level 1)."""

    name, unit, levels = "distractor", "objects", (1.0,)
    highest, whole = 1.0, True

    def lack(self, env: AnyEnv) -> str | None:
        """Return what is lacking: a task that knows a distractor and does without."""
        if not isinstance(env.unwrapped, RobosuiteEnv):
            return super().lack(env)
        off = getattr(env.unwrapped.robosuite, "distractor", None) is False
        return None if off else "a task with the option `distractor`, which is off"

    def options(self, env_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask for it."""
        if not self.level:
            return env_args
        return {**env_args, "env_kwargs": {**env_args["env_kwargs"], "distractor": True}}


KINDS: tuple[type[Perturbation], ...] = (
    CameraMoved,
    CameraTurned,
    Brightness,
    LightTurned,
    ObjectColour,
    SceneryColour,
    Texture,
    Clutter,
    Distractor,
    Blur,
    PictureNoise,
    DroppedFrames,
    ActionDelay,
    ControlNoise,
)
"""All kinds of perturbations, in the order in which a sweep tries them."""


def _direction(random: Generator) -> Vector:
    """Return a random unit vector, `[3]`."""
    vector = random.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector))


def _rotation(axis: Vector, degrees: float) -> Vector:
    """Return the quaternion of a turn, `[4]`."""
    quaternion = np.zeros(4)
    mujoco.mju_axisAngle2Quat(quaternion, axis, np.radians(degrees))
    return quaternion
