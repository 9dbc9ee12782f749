"""The cabinet in a world of its own: drawers that slide, stop and stay, and walls that hold."""

import xml.etree.ElementTree as ET
from typing import Any

import mujoco
import numpy as np
import pytest

from pixelrl.simulation.tasks.cabinet import FLOOR, INNER_X, INNER_Y, LOWER, MIDDLE_Y, RIM, TRAVEL, Cabinet
from pixelrl.simulation.tasks.tabletop import CUBE_HALF, TIMESTEP

DRAWERS = ("lower", "upper")


class World:
    """A floor, a cabinet, and a cube that lies in the lower drawer."""

    def __init__(self) -> None:
        root = ET.fromstring(
            f"""<mujoco><option timestep="{TIMESTEP}" impratio="20"/><worldbody><geom type="plane" size="1 1 .1"/>
            <body name="cube" pos="0 {MIDDLE_Y} {LOWER + FLOOR + CUBE_HALF}"><freejoint name="cube"/>
            <geom name="cube" type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" mass=".064"/></body>
            </worldbody></mujoco>"""
        )
        worldbody = root.find("worldbody")
        assert worldbody is not None
        worldbody.append(Cabinet("cabinet", np.zeros(3)).get_obj())
        self.model: Any = mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))
        self.data: Any = mujoco.MjData(self.model)
        self.deepest = 0.0
        mujoco.mj_forward(self.model, self.data)

    def put(self, drawer: str, slid: float) -> None:
        """Put a drawer, and the cube with the lower one."""
        self.data.joint(f"cabinet_{drawer}").qpos[0] = slid
        if drawer == "lower":
            self.data.joint("cube").qpos[1] += slid
        mujoco.mj_forward(self.model, self.data)

    def slid(self, drawer: str) -> float:
        return float(self.data.joint(f"cabinet_{drawer}").qpos[0])

    def speed(self, drawer: str) -> float:
        return float(self.data.joint(f"cabinet_{drawer}").qvel[0])

    def cube_in_drawer(self) -> Any:
        """Where the cube is, seen from the middle of the lower drawer's floor."""
        return self.data.body("cube").xpos - [0, self.slid("lower") + MIDDLE_Y, LOWER + FLOOR]

    def run(self, seconds: float, **forces: float) -> None:
        """Pull drawers outwards with so many newtons each."""
        for drawer in DRAWERS:
            self.data.joint(f"cabinet_{drawer}").qfrc_applied[0] = forces.get(drawer, 0.0)
        for _ in range(round(seconds / TIMESTEP)):
            mujoco.mj_step(self.model, self.data)
            self.deepest = max(self.deepest, *(-self.data.contact.dist), 0.0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("drawer", DRAWERS)
@pytest.mark.parametrize("slid", [0.0, 0.05, TRAVEL])
def test_drawer_stays_where_it_is_left(world: World, drawer: str, slid: float) -> None:
    world.put(drawer, slid)
    world.run(10)
    assert world.slid(drawer) == pytest.approx(slid, abs=1e-4)


@pytest.mark.parametrize("drawer", DRAWERS)
def test_drawer_needs_more_than_its_friction_and_stops_at_once(world: World, drawer: str) -> None:
    world.run(10, **{drawer: 1.5})
    assert world.slid(drawer) < 0.002, "less than the dry friction moved it"
    world.run(0.3, **{drawer: 5.0})
    assert world.slid(drawer) > 0.03, "it sticks"
    world.run(0.1)
    assert abs(world.speed(drawer)) < 1e-3
    left = world.slid(drawer)
    world.run(5)
    assert world.slid(drawer) == pytest.approx(left, abs=1e-4)
    other = DRAWERS[1 - DRAWERS.index(drawer)]
    assert world.slid(other) == pytest.approx(0, abs=1e-4), "one drawer drags the other along"


@pytest.mark.parametrize("drawer", DRAWERS)
def test_drawer_keeps_to_its_limits_under_the_robots_force(world: World, drawer: str) -> None:
    world.run(1, **{drawer: 60.0})
    assert world.slid(drawer) == pytest.approx(TRAVEL, abs=0.002)
    world.run(1, **{drawer: -60.0})
    assert world.slid(drawer) == pytest.approx(0, abs=0.002)


def test_cube_travels_with_its_drawer(world: World) -> None:
    for force in (4.0, -4.0, 4.0):  # the drawer moves at some 0.25 m/s, as the arm does
        before = world.cube_in_drawer()
        world.run(1.5, lower=force)
        assert world.slid("lower") == pytest.approx(TRAVEL if force > 0 else 0, abs=0.002)
        np.testing.assert_allclose(world.cube_in_drawer(), before, atol=0.02)
    assert world.cube_in_drawer()[2] == pytest.approx(CUBE_HALF, abs=0.001)
    assert world.deepest < 0.002


def test_cube_stays_in_a_drawer_that_is_slammed(world: World) -> None:
    for force in (15.0, -15.0) * 3:  # 1.6 m/s
        world.run(0.5, lower=force)
        x, y, z = world.cube_in_drawer()
        assert abs(x) < INNER_X / 2 and abs(y) < INNER_Y / 2 and 0 < z < RIM
    assert world.deepest < 0.005


@pytest.mark.parametrize("push", [(30, 0, 0), (0, 30, 0), (0, -30, 0), (0, 0, -30)])
def test_walls_hold_a_cube_that_is_pressed_against_them(world: World, push: tuple[float, float, float]) -> None:
    world.put("lower", TRAVEL)
    for share in (0.03, 1.0):  # first up to the wall, then against it; somebody holds the drawer
        world.data.body("cube").xfrc_applied[:3] = np.array(push) * share
        world.run(1, lower=-push[1] * share)
    x, y, z = np.abs(world.cube_in_drawer())
    assert x < INNER_X / 2 - CUBE_HALF + 0.002 and y < INNER_Y / 2 - CUBE_HALF + 0.002
    assert z > CUBE_HALF - 0.002


def test_cabinet_is_a_robosuite_object() -> None:
    cabinet = Cabinet("kitchen", np.array([0.1, 0.2, 0.3]))
    assert cabinet.joints == ["kitchen_lower", "kitchen_upper"]
    assert cabinet.root_body == "kitchen_cabinet"
    assert cabinet.get_obj().get("pos") == "0.1 0.2 0.3"
    assert "kitchen_lower_handle_bar" in cabinet.contact_geoms and not cabinet.visual_geoms
    np.testing.assert_allclose(cabinet.get_bounding_box_size()[2], cabinet.top_offset[2] - cabinet.bottom_offset[2])
