"""The law of robosuite's pose controller, without the layers around it."""

from typing import Any

import mujoco
import numpy as np
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error


def steer(robot: Any) -> None:
    """Set the torques of a robot's right arm anew, between two actions.

    What `robot.control` does where the goal is an absolute pose in the world and stays as it is, for a robot whose base
    stands still: the same numbers, bit for bit, in two fifths of the time. The gripper keeps its command.

    Args:
        robot: with the controller OSC_POSE (Khatib, 1987), which robosuite's own call has given its goal.
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
