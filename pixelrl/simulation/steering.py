"""The law of robosuite's pose controller, without the layers around it."""

from typing import Any

import mujoco
import numpy as np
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error


def steer(robot: Any) -> None:
    """Set the torques of a robot's right arm anew, between two actions.

    What `robot.control` does where the goal is an absolute pose in the world and stays as it is, for a robot whose base
    stands still: the same numbers, bit for bit, in half the time. The gripper keeps its command.

    Args:
        robot: with the controller OSC_POSE (Khatib, 1987), which robosuite's own call has given its goal.
    """
    controller, sim = robot.part_controllers["right"], robot.sim
    model, data, joints = sim.model._model, sim.data._data, controller.qvel_index
    site = robot.eef_site_id["right"]
    along, about = np.zeros((2, 3, model.nv))
    mujoco.mj_jacSite(model, data, along, about, site)
    mass = np.empty((model.nv, model.nv))
    mujoco.mj_fullM(model, mass, data.qM)
    mass = mass[joints, :][:, joints]
    controller.ref_pos[:], controller.ref_ori_mat.flat[:] = data.site_xpos[site], data.site_xmat[site]
    controller.J_pos[:], controller.J_ori[:] = along[:, joints], about[:, joints]
    controller.J_full[:3], controller.J_full[3:] = controller.J_pos, controller.J_ori
    force = (controller.goal_pos - controller.ref_pos) * controller.kp[:3] - np.dot(along, data.qvel) * controller.kd[
        :3
    ]
    turn = orientation_error(controller.goal_ori, controller.ref_ori_mat)
    torque = turn * controller.kp[3:6] - np.dot(about, data.qvel) * controller.kd[3:6]
    _, inertia, spin, null = opspace_matrices(mass, controller.J_full, controller.J_pos, controller.J_ori)
    wrench = np.concatenate([np.dot(inertia, force), np.dot(spin, torque)])
    torques = np.dot(controller.J_full.T, wrench) + data.qfrc_bias[joints]
    torques += nullspace_torques(
        mass, null, controller.initial_joint, data.qpos[controller.qpos_index], data.qvel[joints]
    )
    motors = robot._ref_actuators_indexes_dict["right"]
    low, high = model.actuator_ctrlrange[motors].T
    data.ctrl[motors] = np.clip(torques, low, high)
