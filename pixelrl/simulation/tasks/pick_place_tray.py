"""Pick and place in a tray: the first of COG's four tasks."""

import xml.etree.ElementTree as ET
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np
from robosuite.models.objects import BoxObject

from pixelrl.simulation.tasks.tabletop import CUBE_HALF, TABLE_TOP, Tabletop, Vector, tray

TRAY_CENTRE = np.array([0.0, 0.15, TABLE_TOP])
TRAY_HALF = 0.065
TRAY_FLOOR = 0.006
TRAY_WALL = 0.05
"""A wall overtops a cube by a centimetre, so that pushing a cube along the table never brings it in. [m]"""

CUBE_AREA = np.array([[-0.06, -0.14], [0.06, -0.02]])
CUBE_GAP = 0.085
"""Between the centres of two cubes: room for an open finger. [m]"""


class PickPlaceTray(Tabletop):
    """A Panda, a cube and a tray, with 40 steps to put the cube into the tray and let go of it.

    It starts `"table"` (the cube on the table, the gripper open near the neutral pose) or `"held"` (the cube in the
    closed gripper near the neutral pose). The fingers open along y.
    """

    starts = ("table", "held")
    horizon = 40
    neutral_pos = np.array([-0.08, 0.02, 0.97])
    neutral_joints = np.array([0.0416, 0.3671, 0.0, -2.4459, 0.0, 2.813, 0.8275])
    downward = np.array([1.0, 1.0, 0.0]) * np.pi / np.sqrt(2)
    workspace = np.array([[-0.13, -0.22, TABLE_TOP + 0.015], [0.13, 0.22, TABLE_TOP + 0.25]])
    camera: ClassVar[dict[str, str]] = {"pos": "0.42 0.035 1.42", "xyaxes": "0 1 0 -0.53 0 0.5", "fovy": "38"}
    drop_pos = TRAY_CENTRE + np.array([0.0, 0.0, TRAY_WALL + CUBE_HALF + 0.02])

    def __init__(self, robots: Any = "Panda", *, distractor: bool = False, **options: Any) -> None:
        """Build the scene; with a distractor, a second, blue cube lies on the table."""
        self.distractor = distractor
        super().__init__(robots, **options)

    @property
    def cube_positions(self) -> list[Vector]:
        """Return the centres of all cubes, the one that matters first, in metres."""
        return [self.position(cube) for cube in self.cubes]

    def holds_object(self) -> bool:
        """Return whether both fingers touch the cube and it is off the table."""
        return self._holds(self.cube)

    def holds_a_cube(self) -> bool:
        """Return the same of any cube, also the wrong one."""
        return any(self._holds(cube) for cube in self.cubes)

    def _holds(self, cube: BoxObject) -> bool:
        lifted = self.position(cube)[2] > TABLE_TOP + CUBE_HALF + 0.02
        return bool(lifted and self._check_grasp(self.robots[0].gripper["right"], cube))

    def _check_success(self) -> bool:
        """Return whether the cube lies in the tray, at rest, and the gripper has let go of it."""
        from_centre = np.abs(self.cube_pos - TRAY_CENTRE)
        inside = bool((from_centre[:2] < TRAY_HALF).all())
        lying = abs(from_centre[2] - TRAY_FLOOR - CUBE_HALF) < 0.01
        speed = np.linalg.norm(self.sim.data.get_body_xvelp(self.cube.root_body))
        if not (inside and lying and speed < 0.05):
            return False
        return not self.check_contact(self.robots[0].gripper["right"], self.cube)

    def reset(self) -> OrderedDict[str, Any]:
        """Begin an episode as `start` says, at random from `rng`."""
        observations: OrderedDict[str, Any] = super().reset()
        if self.start == "held":
            self._close_on_cube()
            observations = self._get_observations(force_update=True)
        return observations

    def _furnish(self, worldbody: ET.Element) -> list[Any]:
        worldbody.append(tray(TRAY_CENTRE, half=TRAY_HALF, wall=TRAY_WALL, floor=TRAY_FLOOR))
        names = ["cube", "distractor"] if self.distractor else ["cube"]
        self.cubes = [BoxObject(name=name, size=[CUBE_HALF] * 3) for name in names]
        self.cube = self.cubes[0]
        return self.cubes

    def _reset_internal(self) -> None:
        super()._reset_internal()
        low, high = CUBE_AREA
        centres: list[Vector] = []
        for cube in self.cubes:  # one by one: the first one begins alike, with a distractor and without
            centre = self.rng.uniform(low, high)
            while any(np.linalg.norm(centre - other) <= CUBE_GAP for other in centres):
                centre = self.rng.uniform(low, high)
            centres.append(centre)
            self._put(cube, (*centre, TABLE_TOP + CUBE_HALF), self.rng.uniform(-0.2, 0.2))

    def _close_on_cube(self) -> None:
        """Put the cube between the fingers, as carelessly as a noisy pick does, and let the grip settle."""
        along, height = self.rng.uniform([-0.01, -0.006], [0.01, 0.006])
        self._put(self.cube, self.eef_pos + np.array([along, 0, height]))
        self._set_fingers(CUBE_HALF + 0.0005)
        self.sim.forward()
        for _ in range(2):
            self.step(np.array([0.0, 0.0, 0.0, 1.0]))
        self.timestep = 0
        self.cur_time = 0.0
        self.sim.data.time = 0.0
