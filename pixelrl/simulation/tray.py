"""Pick and place in a tray: a robosuite task that is cheap to simulate and cheap to draw."""

import xml.etree.ElementTree as ET
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from robosuite.environments.manipulation.manipulation_env import ManipulationEnv
from robosuite.models.arenas import TableArena
from robosuite.models.objects import BoxObject
from robosuite.models.tasks import ManipulationTask
from robosuite.utils.mjcf_utils import array_to_string, new_body, new_geom
from robosuite.utils.observables import Observable, sensor

Vector = NDArray[np.float64]

TABLE_TOP = 0.8
CUBE_HALF = 0.02
TRAY_CENTRE = np.array([0.0, 0.15, TABLE_TOP])
TRAY_HALF = 0.065
TRAY_FLOOR = 0.006
TRAY_WALL = 0.05
"""A wall overtops a cube by a centimetre, so that pushing a cube along the table never brings it in. [m]"""

CUBE_AREA = np.array([[-0.06, -0.14], [0.06, -0.02]])
CUBE_GAP = 0.085
"""Between the centres of two cubes: room for an open finger. [m]"""

NEUTRAL = np.array([-0.08, 0.02, 0.97])
"""Where the fingertips are when an episode begins, and where a pick ends: there the two data sets join. [m]"""

NEUTRAL_JOINTS = np.array([0.0416, 0.3671, 0.0, -2.4459, 0.0, 2.813, 0.8275])
WORKSPACE = np.array([[-0.13, -0.22, TABLE_TOP + 0.015], [0.13, 0.22, TABLE_TOP + 0.25]])
"""The lowest and highest targets of the fingertips, world frame: they reach a cube, and stop short of the table. [m]"""

MOVE = 0.05
"""What 1 in an action's first three numbers means. [m]"""

DOWNWARD = np.array([1.0, 1.0, 0.0]) * np.pi / np.sqrt(2)
"""The orientation that the gripper keeps, as a rotation vector: fingers down, opening along y. [rad]"""

TIMESTEP = 0.004
CONTROL_EVERY = 2
"""Substeps between two runs of the controller: half the cost, and no difference that a 5 Hz policy could see."""

COLOURS = {
    "table": (0.78, 0.74, 0.68),
    "tray_floor": (0.95, 0.93, 0.85),
    "tray": (0.10, 0.42, 0.32),
    "cube": (0.85, 0.08, 0.08),
    "distractor": (0.10, 0.25, 0.85),
    "robot": (0.90, 0.90, 0.92),
    "gripper0_right_hand": (0.90, 0.90, 0.92),
    "gripper": (0.15, 0.15, 0.17),
    "fixed_mount": (0.30, 0.30, 0.30),
}
"""Beginning of a geom's name -> its colour; the first that fits."""


class PickPlaceTray(ManipulationEnv):  # type: ignore[misc]  # robosuite has no types
    """A Panda, a cube and a tray; at 5 Hz, with 40 steps to put the cube into the tray and let go of it.

    The action is 4-d in [-1, 1]: where the gripper shall be, relative to where it is (x, y, z, 1 = `MOVE` metres,
    world frame), and the gripper (above 0 closes, else opens). The orientation is kept. There is no privileged
    information among the observables: they are the position of the gripper, its opening, and the cameras.

    Attributes:
        start: how the next `reset` begins: `"table"` (the cube on the table, the gripper open near the neutral
            pose) or `"held"` (the cube in the closed gripper near the neutral pose).
    """

    starts = ("table", "held")
    neutral_pos = NEUTRAL
    drop_pos = TRAY_CENTRE + np.array([0.0, 0.0, TRAY_WALL + CUBE_HALF + 0.02])
    move = MOVE
    action_ranges = (*((axis, -MOVE, MOVE, "m") for axis in ("dx", "dy", "dz")), ("gripper", -1.0, 1.0, "1"))

    def __init__(self, robots: Any = "Panda", *, distractor: bool = False, **options: Any) -> None:
        """Build the scene.

        Args:
            robots: only "Panda" fits.
            distractor: whether a second, blue cube lies on the table.
            options: of robosuite's `ManipulationEnv`; the camera `agentview` looks closely at cube, gripper and tray.
        """
        self.distractor = distractor
        self.start = self.starts[0]
        usual = {
            "control_freq": 5,
            "horizon": 40,
            "camera_heights": 48,
            "camera_widths": 48,
            "initialization_noise": "default",  # 0.02 rad on each joint
            "hard_reset": False,  # nothing random is compiled into the model
            "renderer": "mujoco",  # the default opens a viewer that leaks memory
        }
        drawn = {"render_collision_mesh": True, "render_visual_mesh": False}
        super().__init__(robots, controller_configs=_controller(), **(usual | options | drawn))

    @property
    def action_dim(self) -> int:
        """Return 4."""
        return 4

    @property
    def action_spec(self) -> tuple[Vector, Vector]:
        """Return the action's lowest and highest values."""
        return -np.ones(4), np.ones(4)

    @property
    def eef_pos(self) -> Vector:
        """Return where the gripper's fingertips are, `[3]`, in metres."""
        return np.array(self.sim.data.site_xpos[self.robots[0].eef_site_id["right"]])

    @property
    def gripper_opening(self) -> float:
        """Return the distance between the fingers, 0 to 0.08 metres."""
        left, right = self.sim.data.qpos[self.robots[0]._ref_gripper_joint_pos_indexes["right"]]
        return float(left - right)

    @property
    def cube_pos(self) -> Vector:
        """Return the centre of the cube, `[3]`, in metres."""
        return self.cube_positions[0]

    @property
    def cube_positions(self) -> list[Vector]:
        """Return the centres of all cubes, the one that matters first, in metres."""
        return [np.array(self.sim.data.get_body_xpos(cube.root_body)) for cube in self.cubes]

    def holds_cube(self) -> bool:
        """Return whether both fingers touch the cube and it is off the table."""
        lifted = self.cube_pos[2] > TABLE_TOP + CUBE_HALF + 0.02
        return bool(lifted and self._check_grasp(self.robots[0].gripper["right"], self.cube))

    def reward(self, action: Any = None) -> float:
        """Return 1 in the goal, else 0."""
        return float(self._check_success())

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

    def _check_robot_configuration(self, robots: Any) -> None:
        if robots not in ("Panda", ["Panda"], ("Panda",)):
            raise ValueError(f"PickPlaceTray is made for one Panda, not for {robots!r}")

    def _load_model(self) -> None:
        super()._load_model()
        robot = self.robots[0]
        robot.robot_model.set_base_xpos(robot.robot_model.base_xpos_offset["table"](0.8))
        robot.init_qpos = NEUTRAL_JOINTS
        arena = TableArena(table_offset=(0, 0, TABLE_TOP), has_legs=False)
        arena.worldbody.append(_tray())
        _aim(arena.worldbody.find("camera[@name='agentview']"))
        names = ["cube", "distractor"] if self.distractor else ["cube"]
        self.cubes = [BoxObject(name=name, size=[CUBE_HALF] * 3) for name in names]
        self.cube = self.cubes[0]
        self.model = ManipulationTask(arena, [robot.robot_model], self.cubes)

    def edit_model_xml(self, xml_str: str) -> str:
        """Make the model cheap: simple collision shapes are drawn, in clear colours; all other geometry goes.

        The robot's visual meshes have 168 000 faces; without them a picture costs a tenth, and starting a third.
        """
        root = ET.fromstring(super().edit_model_xml(xml_str))
        for geom in root.iter("geom"):
            name = geom.get("name", "")
            geom.attrib.pop("material", None)
            if geom.get("contype") == "0" and geom.get("group") == "1":
                # robosuite looks its visual geoms up by name, so they must stay: as dots that are never drawn.
                geom.attrib.pop("mesh", None)
                geom.attrib.update(type="sphere", size="0.001")
            colour = next((rgb for prefix, rgb in COLOURS.items() if name.startswith(prefix)), None)
            if colour is not None:
                geom.set("rgba", array_to_string([*colour, 1.0]))
        _drop_unused_assets(root)
        visual = _child(root, "visual")
        quality = visual.find("quality")  # a recorded scene has been here before
        quality = ET.SubElement(visual, "quality") if quality is None else quality
        quality.attrib.update(offsamples="0", shadowsize="0")
        _child(root, "option").set("timestep", str(TIMESTEP))
        return ET.tostring(root, encoding="unicode")

    def initialize_time(self, control_freq: float) -> None:
        """Take the time step from the model instead of robosuite's global one."""
        super().initialize_time(control_freq)
        self.model_timestep = self.sim.model.opt.timestep

    def _setup_observables(self) -> OrderedDict[str, Observable]:
        @sensor(modality="robot0_proprio")  # type: ignore[untyped-decorator]
        def robot0_gripper_opening(obs_cache: dict[str, Any]) -> Vector:
            return np.array([self.gripper_opening])

        observables = super()._setup_observables()
        opening = Observable("robot0_gripper_opening", robot0_gripper_opening, sampling_rate=self.control_freq)
        cameras = {name: value for name, value in observables.items() if value.modality == "image"}
        return OrderedDict(robot0_eef_pos=observables["robot0_eef_pos"], robot0_gripper_opening=opening, **cameras)

    def _reset_internal(self) -> None:
        super()._reset_internal()
        self._set_fingers(0.04)
        low, high = CUBE_AREA
        centres: list[Vector] = []
        while len(centres) < len(self.cubes):
            centre = self.rng.uniform(low, high)
            if all(np.linalg.norm(centre - other) > CUBE_GAP for other in centres):
                centres.append(centre)
        for cube, centre in zip(self.cubes, centres, strict=True):
            yaw = self.rng.uniform(-0.2, 0.2)
            pose = [*centre, TABLE_TOP + CUBE_HALF, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
            self.sim.data.set_joint_qpos(cube.joints[0], np.array(pose))

    def _set_fingers(self, opening: float) -> None:
        """Put each finger at a distance from the middle, in metres."""
        fingers = self.robots[0]._ref_gripper_joint_pos_indexes["right"]
        self.sim.data.qpos[fingers] = [opening, -opening]

    def _close_on_cube(self) -> None:
        """Put the cube between the fingers, as carelessly as a noisy pick does, and let the grip settle."""
        along, height = self.rng.uniform([-0.01, -0.006], [0.01, 0.006])
        pose = [*(self.eef_pos + np.array([along, 0, height])), 1, 0, 0, 0]
        self.sim.data.set_joint_qpos(self.cube.joints[0], np.array(pose))
        self._set_fingers(CUBE_HALF + 0.0005)
        self.sim.forward()
        for _ in range(2):
            self.step(np.array([0.0, 0.0, 0.0, 1.0]))
        self.timestep = 0
        self.cur_time = 0.0
        self.sim.data.time = 0.0

    def _pre_action(self, action: Vector, policy_step: bool = False) -> None:
        """Turn the action into a target in the workspace once, then run the controller every other substep."""
        if policy_step:
            self._substep = 0
            target = np.clip(self.eef_pos + MOVE * np.clip(action[:3], -1, 1), *WORKSPACE)
            closed = 1.0 if action[3] > 0 else -1.0
            # The Panda's gripper ramps over ten actions, which is two seconds here: start at the ramp's end.
            self.robots[0].gripper["right"].current_action = np.array([-closed, closed])
            self._command = np.array([*target, *DOWNWARD, closed])
        if self._substep % CONTROL_EVERY == 0:
            self.robots[0].control(self._command, policy_step=policy_step)
        self._substep += 1


def _controller() -> dict[str, Any]:
    """Return robosuite's configuration of a stiff pose controller with absolute targets in the world frame."""
    arm = {
        "type": "OSC_POSE",
        "input_type": "absolute",
        "input_ref_frame": "world",
        "kp": 400,
        "interpolation": None,
        "gripper": {"type": "GRIP"},
    }
    return {"type": "BASIC", "body_parts": {"right": arm}}


def _tray() -> ET.Element:
    """Return a tray that is fixed to the table: a floor, and four walls around it.

    The walls are thick and stiff: contacts in MuJoCo are soft, and through walls of 8 mm the arm can squeeze a cube.
    """
    thick = 0.008
    stiff = {"priority": 1, "solref": (2 * TIMESTEP, 1), "solimp": (0.95, 0.99, 0.001)}
    outer = TRAY_HALF + 2 * thick
    middle = TRAY_HALF + thick
    height = TRAY_WALL / 2
    boxes = {
        "tray_floor": ((0, 0, TRAY_FLOOR / 2), (TRAY_HALF, TRAY_HALF, TRAY_FLOOR / 2)),
        "tray_left": ((0, middle, height), (outer, thick, height)),
        "tray_right": ((0, -middle, height), (outer, thick, height)),
        "tray_front": ((middle, 0, height), (thick, TRAY_HALF, height)),
        "tray_back": ((-middle, 0, height), (thick, TRAY_HALF, height)),
    }
    body: ET.Element = new_body(name="tray", pos=TRAY_CENTRE)
    for name, (pos, size) in boxes.items():
        body.append(new_geom(name=name, type="box", pos=pos, size=size, group=0, **stiff))
    return body


def _aim(camera: ET.Element) -> None:
    """Put the camera before the table, looking back and down at the robot's workspace."""
    del camera.attrib["quat"]
    camera.attrib.update(pos="0.42 0.035 1.42", xyaxes="0 1 0 -0.53 0 0.5", fovy="38")


def _child(root: ET.Element, tag: str) -> ET.Element:
    """Return a child that exists."""
    child = root.find(tag)
    assert child is not None, f"robosuite's model has no <{tag}>"
    return child


def _drop_unused_assets(root: ET.Element) -> None:
    """Remove the meshes that no geom names, and all materials and textures but the sky."""
    used = {geom.get("mesh") for geom in root.iter("geom")}
    assets = _child(root, "asset")
    for asset in list(assets):
        sky = asset.get("type") == "skybox"
        if not (sky or (asset.tag == "mesh" and asset.get("name") in used)):
            assets.remove(asset)
