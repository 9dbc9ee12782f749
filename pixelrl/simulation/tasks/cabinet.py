"""A cabinet with two sliding drawers, one above the other, as a robosuite object."""

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
from numpy.typing import NDArray
from robosuite.models.objects import MujocoObject
from robosuite.utils.mjcf_utils import new_body, new_geom, new_joint, new_site

from pixelrl.simulation.tasks.tabletop import HARD, STIFF

Box = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Lowest and highest corner, in metres."""

TRAVEL = 0.14
"""How far a drawer slides. [m]"""

INNER_X, INNER_Y = 0.17, 0.13
"""Width and length of a drawer's inside: an open Panda gripper finds room in it, fingers apart along x. [m]"""

WALL, FLOOR, RIM = 0.012, 0.007, 0.042
"""Thickness of a drawer's walls and of its floor, and the height of its rim above its underside. [m]"""

SHELL = 0.01
OUTER_X = INNER_X / 2 + WALL + 0.001
"""Half the width of the space for the drawers. [m]"""

BACK = -(2 * WALL + INNER_Y + SHELL + 0.002)
"""Where the cabinet's back is, seen from its front. [m]"""

LOWER, UPPER = 0.003, 0.067
"""Height of the drawers' undersides above the table. [m]"""

TOP = 0.12
"""Height of the cabinet. [m]"""

GRIP_X, GRIP_Y, BAR, BAR_TOP = 0.11, 0.075, 0.01, 0.032
"""Width and depth of the opening in the handle, thickness of its bars, their height above the underside. [m]"""

MIDDLE_Y = -WALL - INNER_Y / 2
"""The middle of a closed drawer's inside, seen from the cabinet's front. [m]"""

RAIL = {
    "damping": 8,
    "frictionloss": 2,
    "solreffriction": HARD["solref"],
    "solimpfriction": (0.99, 0.999, 0.001),
    "solreflimit": HARD["solref"],
}
"""Of a drawer's joint, in N s/m and N. MuJoCo's usual dry friction creeps by millimetres a second."""

FREE = {"conaffinity": 0}
"""Cabinet and drawers touch everything but each other: a drawer hangs on its rail, and the rail is its joint."""


class Cabinet(MujocoObject):  # type: ignore[misc]  # robosuite has no types
    """A cabinet that is fixed to the world; its origin is the middle of its front's lower edge.

    Two drawers slide out along +y: `upper`, whose front is smooth, and `lower`, which has a handle: a frame of bars
    about a hole, into which closed fingers reach from above and pull. The joints `<name>_upper` and `<name>_lower`
    are 0 when closed and `TRAVEL` when open [m]. Dry friction (2 N) holds a drawer where it is left, and damping
    (8 N s/m; a drawer has some 0.6 kg) stops it within a tenth of a second when nobody pushes.
    """

    def __init__(self, name: str, position: NDArray[np.float64]) -> None:
        """Build it; `name` is the prefix of all its parts, and its origin is at `position`, `[3]` [m]."""
        super().__init__(duplicate_collision_geoms=False)
        self._name = name
        self._obj = new_body(name="cabinet", pos=position)
        for part, box in _shell().items():
            self._obj.append(_geom(part, box))
        for drawer, height in (("lower", LOWER), ("upper", UPPER)):
            self._obj.append(_drawer(drawer, height, with_handle=drawer == "lower"))
        self._obj.append(new_site(name="default_site", pos=(0, 0, 0), size=(0.002,), rgba=(0, 0, 0, 0)))
        self._get_object_properties()

    def exclude_from_prefixing(self, inp: Any) -> bool:
        """Return False: every name bears the cabinet's prefix."""
        return False

    @property
    def bottom_offset(self) -> NDArray[np.float64]:
        """Return where its underside is, seen from its origin, `[3]`, in metres."""
        return np.zeros(3)

    @property
    def top_offset(self) -> NDArray[np.float64]:
        """Return where its top is, seen from its origin, `[3]`, in metres."""
        return np.array([0.0, 0.0, TOP])

    @property
    def horizontal_radius(self) -> float:
        """Return how far it reaches from its origin with its drawers closed, in metres."""
        return float(np.hypot(OUTER_X + SHELL, -BACK))

    def get_bounding_box_half_size(self) -> NDArray[np.float64]:
        """Return half its extent with its drawers closed, `[3]`, in metres."""
        return np.array([OUTER_X + SHELL, -BACK / 2, TOP / 2])


def _shell() -> dict[str, Box]:
    """Return the fixed walls: two sides, a back, a shelf between the drawers, and a top."""
    x, shelf = OUTER_X, UPPER - 0.003
    return {
        "left": ((x, BACK, 0), (x + SHELL, 0, TOP)),
        "right": ((-x - SHELL, BACK, 0), (-x, 0, TOP)),
        "back": ((-x, BACK, 0), (x, BACK + SHELL, TOP)),
        "shelf": ((-x, BACK + SHELL, shelf - 0.006), (x, 0, shelf)),
        "top": ((-x, BACK + SHELL, TOP - 0.006), (x, 0, TOP)),
    }


def _drawer(name: str, height: float, *, with_handle: bool) -> ET.Element:
    """Return a drawer on its rail; its origin is the middle of its front's lower edge."""
    x, rear = INNER_X / 2, -WALL - INNER_Y
    boxes: dict[str, Box] = {
        "floor": ((-x, rear, 0), (x, -WALL, FLOOR)),
        "front": ((-x - WALL, -WALL, 0), (x + WALL, 0, RIM)),
        "rear": ((-x - WALL, rear - WALL, 0), (x + WALL, rear, RIM)),
        "left": ((x, rear, 0), (x + WALL, -WALL, RIM)),
        "right": ((-x - WALL, rear, 0), (-x, -WALL, RIM)),
    }
    if with_handle:
        grip, low = GRIP_X / 2, 0.007
        boxes |= {
            "handle_bar": ((-grip - BAR, GRIP_Y, low), (grip + BAR, GRIP_Y + BAR, BAR_TOP)),
            "handle_left": ((grip, 0, low), (grip + BAR, GRIP_Y, BAR_TOP)),
            "handle_right": ((-grip - BAR, 0, low), (-grip, GRIP_Y, BAR_TOP)),
        }
    body: ET.Element = new_body(name=name, pos=(0, 0, height))
    body.append(new_joint(name=name, type="slide", axis=(0, 1, 0), range=(0, TRAVEL), limited=True, **RAIL))
    for part, box in boxes.items():
        body.append(_geom(f"{name}_{part}", box))
    return body


def _geom(name: str, box: Box) -> ET.Element:
    low, high = np.array(box)
    geom: ET.Element = new_geom(
        name=name, type="box", pos=(low + high) / 2, size=(high - low) / 2, group=0, density=1200, **FREE, **STIFF
    )
    return geom
