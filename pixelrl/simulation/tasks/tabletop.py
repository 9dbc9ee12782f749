"""What our tasks share: a Panda at a table, cheap to simulate and to draw, moved in space by 5 Hz actions."""

import xml.etree.ElementTree as ET
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from robosuite.environments.base import REGISTERED_ENVS
from robosuite.environments.manipulation.manipulation_env import ManipulationEnv
from robosuite.models.arenas import TableArena
from robosuite.models.tasks import ManipulationTask
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error
from robosuite.utils.mjcf_utils import array_to_string, new_body, new_geom
from robosuite.utils.observables import Observable, sensor

Vector = NDArray[np.float64]

Colour = tuple[float, float, float]
"""Red, green and blue, 0 to 1."""

TABLE_TOP = 0.8
CUBE_HALF = 0.02
MOVE = 0.05
"""What 1 in an action's first three numbers means. [m]"""

TIMESTEP = 0.004
CONTROL_EVERY = 2
"""Substeps between two runs of the controller: half the cost, and no difference that a 5 Hz policy could see."""

HARD = {"solref": [2 * TIMESTEP, 1.0], "solimp": [0.95, 0.99, 0.001]}
"""Of contacts that hardly give: stiff, and as stiff as the time step can bear."""

STIFF = {"priority": 1, **HARD}
"""Of furniture: contacts in MuJoCo are soft, and through the usual walls of 8 mm the arm can squeeze a cube."""

COLOURS: dict[str, Colour] = {
    "tray_floor": (0.95, 0.93, 0.85),
    "tray": (0.10, 0.42, 0.32),
    "cube": (0.85, 0.08, 0.08),
    "distractor": (0.10, 0.25, 0.85),
    "blocker": (0.10, 0.25, 0.85),
    "cabinet_lower_floor": (0.95, 0.93, 0.85),
    "cabinet_lower_handle": (0.95, 0.75, 0.10),
    "cabinet_lower": (0.75, 0.50, 0.25),
    "cabinet_upper_floor": (0.80, 0.84, 0.82),
    "cabinet_upper": (0.50, 0.68, 0.70),
    "cabinet": (0.35, 0.20, 0.12),
}
"""Beginning of the name of one of our geoms -> its colour; the first that fits."""

ROBOSUITES: dict[str, Colour] = {
    "table": (0.78, 0.74, 0.68),
    "robot": (0.90, 0.90, 0.92),
    "gripper0_right_hand": (0.90, 0.90, 0.92),
    "gripper": (0.15, 0.15, 0.17),
    "fixed_mount": (0.30, 0.30, 0.30),
}
"""The same for what robosuite brings, where its own materials are not drawn."""


class Tabletop(ManipulationEnv):  # type: ignore[misc]  # robosuite has no types
    """A Panda at a table, at 5 Hz; a task adds the furniture, the starts and the goal.

    The action is 4-d in [-1, 1]: where the gripper shall be, relative to where it is (x, y, z, 1 = `MOVE` metres,
    world frame), and the gripper (above 0 closes, else opens). The orientation is kept. There is no privileged
    information among the observables: they are the position of the gripper, its opening, and the cameras.

    Attributes:
        cube: the object that matters; the task makes it with its furniture.
        start: how the next `reset` begins: one of `starts`, of which the first is the whole task.
        horizon: steps of an episode.
        neutral_pos: where the fingertips are when an episode begins: there the two data sets join. [m]
        neutral_joints: the arm's joints in that pose. [rad]
        downward: the orientation that the gripper keeps, fingers down, as a rotation vector. [rad]
        workspace: the lowest and highest targets of the fingertips, world frame, `[2, 3]`. [m]
        camera: pose and field of view of the camera `agentview`, as MJCF attributes.
        colours: beginning of a geom's name -> its colour in the drawing `fast`; the first that fits.
    """

    cube: Any
    starts: tuple[str, ...]
    horizon: int
    neutral_pos: Vector
    neutral_joints: Vector
    downward: Vector
    workspace: Vector
    camera: ClassVar[dict[str, str]]
    colours: ClassVar[dict[str, Colour]] = COLOURS | ROBOSUITES
    move = MOVE
    action_ranges = (*((axis, -MOVE, MOVE, "m") for axis in ("dx", "dy", "dz")), ("gripper", -1.0, 1.0, "1"))

    def __init__(self, robots: Any = "Panda", **options: Any) -> None:
        """Build the scene, for one "Panda" only; the options are those of robosuite's `ManipulationEnv`."""
        self.start = self.starts[0]
        usual = {
            "control_freq": 5,
            "horizon": self.horizon,
            "camera_heights": 48,
            "camera_widths": 48,
            "initialization_noise": "default",  # 0.02 rad on each joint
            "hard_reset": False,  # nothing random is compiled into the model
            "renderer": "mujoco",  # the default opens a viewer that leaks memory
        }
        super().__init__(robots, controller_configs=_controller(), **(usual | options))

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
    def cube_pos(self) -> Vector:
        """Return the centre of the cube, `[3]`, in metres."""
        return self.position(self.cube)

    @property
    def gripper_opening(self) -> float:
        """Return the distance between the fingers, 0 to 0.08 metres."""
        left, right = self.sim.data.qpos[self.robots[0]._ref_gripper_joint_pos_indexes["right"]]
        return float(left - right)

    def holds_object(self) -> bool:
        """Return whether the object that matters is lifted, in the grip of both fingers."""
        raise NotImplementedError

    def reward(self, action: Any = None) -> float:
        """Return 1 in the goal, else 0."""
        return float(self._check_success())

    def position(self, thing: Any) -> Vector:
        """Return where an object's body is, `[3]`, in metres."""
        return np.array(self.sim.data.get_body_xpos(thing.root_body))

    def _furnish(self, worldbody: ET.Element) -> list[Any]:
        """Put fixed furniture into the world, and return the objects of the task."""
        raise NotImplementedError

    def _check_robot_configuration(self, robots: Any) -> None:
        if robots not in ("Panda", ["Panda"], ("Panda",)):
            raise ValueError(f"{type(self).__name__} is made for one Panda, not for {robots!r}")

    def _load_model(self) -> None:
        super()._load_model()
        robot = self.robots[0]
        robot.robot_model.set_base_xpos(robot.robot_model.base_xpos_offset["table"](0.8))
        robot.init_qpos = self.neutral_joints
        arena = TableArena(table_offset=(0, 0, TABLE_TOP), has_legs=False)
        objects = self._furnish(arena.worldbody)
        camera = arena.worldbody.find("camera[@name='agentview']")
        del camera.attrib["quat"]
        camera.attrib.update(self.camera)
        self.model = ManipulationTask(arena, [robot.robot_model], objects)

    def edit_model_xml(self, xml_str: str) -> str:
        """Set the time step, and give the task's things their colours; and twins to see, where solids are not drawn."""
        root = ET.fromstring(super().edit_model_xml(xml_str))
        next(root.iter("option")).set("timestep", str(TIMESTEP))
        for body in root.iter("body"):
            geoms = body.findall("geom")
            for geom in geoms:
                name = geom.get("name", "")
                colour = next((rgb for prefix, rgb in COLOURS.items() if name.startswith(prefix)), None)
                if colour is None:
                    continue
                geom.set("rgba", array_to_string([*colour, 1.0]))
                if not self.render_collision_mesh and all(each.get("group") == "0" for each in geoms):
                    twin = {"name": f"{name}_vis", "group": "1", "contype": "0", "conaffinity": "0"}
                    ET.SubElement(body, "geom", geom.attrib | twin)
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

    def _set_fingers(self, opening: float) -> None:
        """Put each finger at a distance from the middle, in metres."""
        fingers = self.robots[0]._ref_gripper_joint_pos_indexes["right"]
        self.sim.data.qpos[fingers] = [opening, -opening]

    def _put(self, thing: Any, position: Sequence[float], yaw: float = 0.0) -> None:
        """Place a free object, turned about the vertical by an angle in radians."""
        pose = [*position, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        self.sim.data.set_joint_qpos(thing.joints[0], np.array(pose))

    def _pre_action(self, action: Vector, policy_step: bool = False) -> None:
        """Turn the action into a target in the workspace once, then run the controller's law every other substep."""
        if policy_step:
            self._substep = 0
            target = np.clip(self.eef_pos + MOVE * np.clip(action[:3], -1, 1), *self.workspace)
            closed = 1.0 if action[3] > 0 else -1.0
            # The Panda's gripper ramps over ten actions, which is two seconds here: start at the ramp's end.
            self.robots[0].gripper["right"].current_action = np.array([-closed, closed])
            self.robots[0].control(np.array([*target, *self.downward, closed]), policy_step=True)
        elif self._substep % CONTROL_EVERY == 0:
            steer(self.robots[0])
        self._substep += 1


del REGISTERED_ENVS["Tabletop"]  # robosuite lists every subclass as a task, and this one is none


def steer(robot: Any) -> None:
    """Set the torques of a robot's right arm anew, between two actions.

    What `robot.control` does where the goal is an absolute pose in the world and stays as it is, for a robot whose base
    stands still: the same numbers, bit for bit, in two fifths of the time. The gripper keeps its command. The
    controller is OSC_POSE (Khatib, 1987), and robosuite's own call has given it its goal.
    """
    controller, model, data = robot.part_controllers["right"], robot.sim.model._model, robot.sim.data._data
    joints = slice(controller.qvel_index[0], controller.qvel_index[-1] + 1)
    site, kp, kd, qvel = robot.eef_site_id["right"], controller.kp, controller.kd, data.qvel
    along, about = np.empty((2, 3, model.nv))
    mujoco.mj_jacSite(model, data, along, about, site)
    mass = np.empty((model.nv, model.nv))
    mujoco.mj_fullM(model, mass, data.qM)
    mass = np.asfortranarray(mass[joints, joints])  # as robosuite's comes: another order could round otherwise
    turned, jacobian = data.site_xmat[site].reshape(3, 3), controller.J_full
    jacobian[:3], jacobian[3:] = along[:, joints], about[:, joints]
    force = (controller.goal_pos - data.site_xpos[site]) * kp[:3] - along.dot(qvel) * kd[:3]
    torque = orientation_error(controller.goal_ori, turned) * kp[3:] - about.dot(qvel) * kd[3:]
    _, inertia, spin, null = opspace_matrices(mass, jacobian, jacobian[:3], jacobian[3:])
    torques = jacobian.T.dot(np.concatenate([inertia.dot(force), spin.dot(torque)])) + data.qfrc_bias[joints]
    torques += nullspace_torques(mass, null, controller.initial_joint, data.qpos[controller.qpos_index], qvel[joints])
    motors = robot._ref_actuators_indexes_dict["right"]
    low, high = model.actuator_ctrlrange[motors].T
    data.ctrl[motors] = np.minimum(np.maximum(torques, low), high)


def tray(centre: Vector, *, half: float, wall: float, floor: float) -> ET.Element:
    """Return a tray that is fixed to the table: a floor, and four thick, stiff walls around it.

    Args:
        centre: of its underside, `[3]`. [m]
        half: half the length of its inner sides. [m]
        wall: height of the walls. [m]
        floor: thickness of the floor. [m]
    """
    thick = 0.008
    outer = half + 2 * thick
    middle = half + thick
    height = wall / 2
    boxes = {
        "tray_floor": ((0, 0, floor / 2), (half, half, floor / 2)),
        "tray_left": ((0, middle, height), (outer, thick, height)),
        "tray_right": ((0, -middle, height), (outer, thick, height)),
        "tray_front": ((middle, 0, height), (thick, half, height)),
        "tray_back": ((-middle, 0, height), (thick, half, height)),
    }
    body: ET.Element = new_body(name="tray", pos=centre)
    for name, (pos, size) in boxes.items():
        body.append(new_geom(name=name, type="box", pos=pos, size=size, group=0, **STIFF))
    return body


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
