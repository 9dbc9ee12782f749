"""COG's three drawer tasks: one scene, and three things that stand between the gripper and a cube in a drawer.

Singh et al., 2020, arXiv 2010.14500; the scene is that of the authors' `Widow250DoubleDrawer*GraspNeutral-v0`: a
cabinet with two drawers that slide out sideways, an object in the lower one, a tray, an object that may be in the way,
and one fixed camera. Departures:

- The robot is a Panda under torque control in MuJoCo, not a WidowX in PyBullet; 5 control steps a second of 5 cm.
- The action has 4 numbers, not 8: the orientation is kept (the fingers open across the drawers' way), and there is no
  eighth number that puts the arm into the neutral pose by magic: a policy has to move there.
- The gripper follows the sign of its number at every step; COG's needs more than 0.5 to change, and keeps its state.
- The drawer is pulled with closed fingers in the handle's hole; COG's open gripper rests against its handle.
- The object is a 4 cm cube, not a ball; it lies up to 2 cm from the drawer's middle (COG: 1.5 cm, along one axis), and
  is turned by up to 0.2 rad. The object in the way is a block, not a bottle.
- The block stands in the handle's hole, so that no finger gets in before it is gone; COG's stands before the drawer.
- The arm begins within 0.02 rad of its neutral joints, not in them.
- Success needs both fingers at the cube and its underside 2 cm above the drawer's rim; COG's asks for a height and for
  less than 10 cm between object and gripper.
- The camera looks from the side to which the drawers open, not straight at the robot: so it sees between the fingers.
- Proprioception (position and opening of the gripper) is offered; COG feeds pictures only.

As in COG the cabinet stands still, all three tasks end alike (so their task data are alike), and the upper drawer has
no handle. An episode is truncated at COG's horizons, and the reward is 0 or 1 at each step.
"""

import xml.etree.ElementTree as ET
from typing import Any, ClassVar

import numpy as np
from robosuite.models.objects import BoxObject

from pixelrl.simulation.tasks.cabinet import BAR_TOP, FLOOR, GRIP_Y, LOWER, MIDDLE_Y, RIM, TRAVEL, UPPER, Cabinet
from pixelrl.simulation.tasks.tabletop import CUBE_HALF, HARD, TABLE_TOP, Tabletop, Vector, tray

FRONT = np.array([0.0, -0.09, TABLE_TOP])
"""The middle of the lower edge of the cabinet's front: its drawers slide out from here along +y. [m]"""

CUBE_SPREAD = np.array([0.02, 0.02])
"""How far from the drawer's middle the cube may begin, along x and y. [m]"""

BLOCK_HALF = np.array([0.025, 0.03, 0.035])
"""Of the block that may stand in the handle's hole: so wide that no finger finds room beside it. [m]"""

TRAY_CENTRE = np.array([0.0, 0.215, TABLE_TOP])
TRAY_HALF, TRAY_WALL, TRAY_FLOOR = 0.05, 0.03, 0.006

OPENED, CLOSED = 0.95 * TRAVEL, 0.05 * TRAVEL
"""From here on a drawer counts as open, and up to here as closed, as in COG. [m]"""

LIFTED = TABLE_TOP + LOWER + RIM + CUBE_HALF + 0.02
"""The height of a cube whose underside is 2 cm above the lower drawer's rim. [m]"""


class DrawerGrasp(Tabletop):
    """A closed drawer, a cube in it, and 50 steps to open the drawer and to lift the cube out of it.

    It starts `"closed"`, or `"open"`: where the first half is done, with the drawer open, nothing in the way, and the
    arm near the neutral pose. The fingers open along x.
    """

    starts: tuple[str, ...] = ("closed", "open")
    horizon = 50
    neutral_pos = np.array([-0.09, 0.03, 1.0])
    neutral_joints = np.array([0.0454, 0.2647, 0.0165, -2.4922, -0.0115, 2.757, -0.7131])
    downward = np.array([0.0, np.pi, 0.0])
    workspace = np.array([[-0.13, -0.20, TABLE_TOP + 0.015], [0.13, 0.25, TABLE_TOP + 0.27]])
    camera: ClassVar[dict[str, str]] = {"pos": "0.29 0.54 1.34", "xyaxes": "-0.87 0.5 0 -0.32 -0.56 0.77", "fovy": "37"}
    drop_pos = TRAY_CENTRE + np.array([0.0, 0.0, 0.085])

    @property
    def blocker_pos(self) -> Vector:
        """Return the centre of the block, `[3]`, in metres."""
        return self.position(self.blocker)

    def slid(self, drawer: str) -> float:
        """Return how far a drawer, `"lower"` or `"upper"`, is open, 0 to `TRAVEL` metres."""
        return float(self.sim.data.get_joint_qpos(f"cabinet_{drawer}"))

    @property
    def handle_pos(self) -> Vector:
        """Return the middle of the hole in the lower drawer's handle, at the bars' height, `[3]`, in metres."""
        return _from_front(self.slid("lower") + GRIP_Y / 2, LOWER + BAR_TOP)

    @property
    def upper_pos(self) -> Vector:
        """Return the middle of the upper drawer's front, `[3]`, in metres."""
        return _from_front(self.slid("upper"), UPPER + RIM / 2)

    @property
    def inside_pos(self) -> Vector:
        """Return where a cube lies in the middle of the lower drawer, `[3]`, in metres."""
        return _from_front(self.slid("lower") + MIDDLE_Y, LOWER + FLOOR + CUBE_HALF)

    def is_closed(self, drawer: str) -> bool:
        """Return whether a drawer is closed."""
        return self.slid(drawer) < CLOSED

    def is_open(self) -> bool:
        """Return whether the lower drawer is open."""
        return self.slid("lower") > OPENED

    def holds_object(self) -> bool:
        """Return whether both fingers touch the cube and it is well above the drawer's rim."""
        lifted = self.cube_pos[2] > LIFTED
        return bool(lifted and self._check_grasp(self.robots[0].gripper["right"], self.cube))

    def _check_success(self) -> bool:
        """Return whether the cube is lifted out of the drawer, in the grip of both fingers."""
        return self.holds_object()

    def _furnish(self, worldbody: ET.Element) -> list[Any]:
        worldbody.append(tray(TRAY_CENTRE, half=TRAY_HALF, wall=TRAY_WALL, floor=TRAY_FLOOR))
        self.cabinet = Cabinet("cabinet", FRONT)
        self.cube = BoxObject(name="cube", size=[CUBE_HALF] * 3, **HARD)
        self.blocker = BoxObject(name="blocker", size=BLOCK_HALF, density=600, **HARD)
        return [self.cabinet, self.cube, self.blocker]

    def _reset_internal(self) -> None:
        super()._reset_internal()
        begun = self.start == "open"
        slid = self.rng.uniform(OPENED, TRAVEL) if begun else 0.0
        self._slide("lower", slid)
        self._slide("upper", 0.0)
        offset = np.array([*self.rng.uniform(-CUBE_SPREAD, CUBE_SPREAD), 0.0])
        self._put(self.cube, self.inside_pos + offset, self.rng.uniform(-0.2, 0.2))
        in_tray = TRAY_CENTRE + np.array([*self.rng.uniform(-0.015, 0.015, 2), TRAY_FLOOR + BLOCK_HALF[2]])
        self._put(self.blocker, in_tray, self.rng.uniform(-0.1, 0.1))
        if not begun:
            self._obstruct()

    def _obstruct(self) -> None:
        """Put something in the way; nothing here."""

    def _slide(self, drawer: str, distance: float) -> None:
        """Put a drawer where it is open by a distance, in metres."""
        self.sim.data.set_joint_qpos(f"cabinet_{drawer}", distance)


class DrawerBlockedDrawer(DrawerGrasp):
    """The upper drawer stands open above the lower one's handle: close it, open the lower one, lift the cube out.

    It starts `"blocked"`, or `"open"` as `DrawerGrasp` does. 80 steps.
    """

    starts = ("blocked", "open")
    horizon = 80

    def _obstruct(self) -> None:
        """Open the upper drawer so far that the lower one's handle is under it."""
        self._slide("upper", self.rng.uniform(0.09, 0.11))


class DrawerBlockedObject(DrawerGrasp):
    """A block stands in the drawer's handle: take it away, open the drawer, lift the cube out.

    It starts `"blocked"`, or `"open"` as `DrawerGrasp` does. 80 steps.
    """

    starts = ("blocked", "open")
    horizon = 80

    def _obstruct(self) -> None:
        """Stand the block in the hole of the handle."""
        along, out = self.rng.uniform([-0.01, -0.004], [0.01, 0.004])
        spot = FRONT + np.array([along, GRIP_Y / 2 + out, BLOCK_HALF[2]])
        self._put(self.blocker, spot, self.rng.uniform(-0.1, 0.1))


def _from_front(out: float, up: float) -> Vector:
    """Return the point so far before and above the middle of the cabinet's front, `[3]`, in metres."""
    return np.array([FRONT[0], FRONT[1] + out, FRONT[2] + up])
