"""A compiled scene that is changed for an episode and put back: cameras, lights, colours, and things only drawn."""

from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

FIELDS = ("cam_pos", "cam_quat", "light_dir", "light_diffuse", "light_ambient", "light_specular", "geom_rgba")
HEADLIGHT = ("diffuse", "ambient", "specular")
"""What may be changed. None of it touches physics."""

ROBOT = ("robot", "gripper", "fixed_mount", "left_eef", "right_eef")
"""Beginnings of the names of a robot's bodies, and of markers that robosuite hides."""


class Shape(NamedTuple):
    """A thing that is drawn and does not exist: nothing touches it.

    Attributes:
        kind: of MuJoCo's primitive shapes.
        size: half its extents, as of a geom, `[3]`. [m]
        pos: its centre in the world, `[3]`. [m]
        rgba: its colour, 0 to 1, `[4]`.
    """

    kind: mujoco.mjtGeom
    size: Vector
    pos: Vector
    rgba: Vector


class SceneEdits:
    """The scene of one episode. Call `undo` before the next reset, which may bring another model.

    Attributes:
        model, data: MuJoCo's own.
        cameras: indices of the cameras that a policy looks through.
        shapes: what is drawn in addition.
    """

    def __init__(self, sim: Any, cameras: tuple[str, ...]) -> None:
        self.model, self.data = sim.model._model, sim.data._data
        self.cameras = [int(sim.model.camera_name2id(name)) for name in cameras]
        self.shapes: list[Shape] = []
        self._context = sim._render_context_offscreen
        self._fields = {name: np.copy(getattr(self.model, name)) for name in FIELDS}
        self._headlight = {name: np.copy(getattr(self.model.vis.headlight, name)) for name in HEADLIGHT}

    def undo(self) -> None:
        """Put everything back as it was."""
        for name, value in self._fields.items():
            getattr(self.model, name)[:] = value
        for name, value in self._headlight.items():
            getattr(self.model.vis.headlight, name)[:] = value
        vars(self._context).pop("render", None)

    def refresh(self) -> None:
        """Have cameras and lights stand where they were put, and shapes drawn."""
        mujoco.mj_camlight(self.model, self.data)
        if self.shapes:
            self._context.render = self._render

    def lights(self) -> list[Vector]:
        """Return all colours of all lights, the headlight's among them, as views."""
        model, headlight = self.model, self.model.vis.headlight
        own = [model.light_diffuse, model.light_ambient, model.light_specular]
        return [*own, *(getattr(headlight, name) for name in HEADLIGHT)]

    def colour(self, geom: int) -> Vector:
        """Return the colour that a geom is drawn in, `[4]`: its own, or its material's."""
        own, material = self.model.geom_rgba[geom], self.model.geom_matid[geom]
        default = bool((own == np.array([0.5, 0.5, 0.5, 1.0], own.dtype)).all())
        return np.array(self.model.mat_rgba[material] if default and material >= 0 else own, np.float64)

    def geoms(self, *, movable: bool) -> list[int]:
        """Return the geoms of things: those that move, or those that are fixed to the world; none of a robot."""
        model = self.model
        found = []
        for geom in range(model.ngeom):
            body = model.geom_bodyid[geom]
            name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, body) or ""
            if not name.startswith(ROBOT) and bool(model.body_weldid[body]) == movable:
                found.append(geom)
        return found

    def table(self) -> int | None:
        """Return the geom that is the table, if the scene has one of robosuite's."""
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_GEOM, "table_collision")
        return int(index) if index >= 0 else None

    def table_colour(self) -> Vector:
        """Return the colour in which the table is drawn, `[4]`: that of its visual shape, where those are drawn."""
        visual = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_GEOM, "table_visual")
        if visual >= 0 and self._context.vopt.geomgroup[self.model.geom_group[visual]]:
            colour = self.colour(visual)
            if colour[3] > 0:
                return colour
        table = self.table()
        assert table is not None, "a table was looked for before"
        return self.colour(table)

    def in_view(self, random: np.random.Generator) -> Vector | None:
        """Return a random spot of the table that the first camera sees, `[3]`, or None if something else is there."""
        camera, table = self.cameras[0], self.table()
        slope = np.tan(np.radians(self.model.cam_fovy[camera]) / 2)
        right, up = random.uniform(-slope, slope, 2)
        eye = np.array(self.data.cam_xpos[camera])
        ray = self.data.cam_xmat[camera].reshape(3, 3) @ np.array([right, up, -1.0])
        hit = np.array([-1], np.int32)
        groups = np.array([1, 0, 0, 0, 0, 0], np.uint8)  # shapes that collide: the same, whatever is drawn
        distance = mujoco.mj_ray(self.model, self.data, eye, ray, groups, 1, -1, hit)
        return eye + distance * ray if hit[0] == table else None

    def _render(self, width: int, height: int, camera_id: int | None = None, segmentation: bool = False) -> None:
        """Draw as robosuite does, then once more with the shapes."""
        context = self._context
        type(context).render(context, width, height, camera_id, segmentation)
        scene, upright = context.scn, np.eye(3).ravel()
        for shape in self.shapes:
            geom = scene.geoms[scene.ngeom]
            mujoco.mjv_initGeom(geom, shape.kind, shape.size, shape.pos, upright, shape.rgba.astype(np.float32))
            scene.ngeom += 1
        mujoco.mjr_render(mujoco.MjrRect(0, 0, width, height), scene, context.con)
