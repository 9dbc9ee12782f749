"""A ROS 2 node that drives an arm by a served policy, behind a guard, without any other framework.

    pip install ./client                     # beside ROS 2's own Python
    python3 examples/ros2_node.py --ros-args -p url:=ws://gpu-box:8000 -p token_file:=/home/robot/token \
        -p 'topics:=["agentview_image=/camera/image_raw", "robot0_eef_pos=/arm/position"]'

Pictures come as sensor_msgs/Image (rgb8 or bgr8, in the size that the policy takes), all else as
std_msgs/Float64MultiArray. The action leaves as a Float64MultiArray in the robot's units, at every tick: rest where the
policy fails. `~/reset` (std_srvs/Trigger) lets the arm move again after a stop. Tested with stand-ins for rclpy's
interfaces, never with ROS 2 itself or on a robot; the guard is no safety-rated function (docs/robot.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

try:
    from pixelrl_client import Guard, GuardError, Limits, RemotePolicy, read_token
except ImportError:  # in a checkout of pixelrl
    from pixelrl.serving.client import Guard, GuardError, Limits, RemotePolicy, read_token

PARAMETERS = {
    "url": "ws://127.0.0.1:8000",
    "token_file": "",
    "topics": [""],  # the policy's key = where it comes from
    "action_topic": "/policy/action",
    "measured_topic": "",  # says where the arm is in the action's units; needed where an action is a position
    "limits": "",  # JSON file with changes of the guard's limits
    "deadline": 0.0,  # of an action [s]; 0: what the limits say, by default one period
}


class PolicyNode:
    """Topics in, a guarded action out.

    Args:
        node: an rclpy node.
        types: `Image`, `Float64MultiArray` and `Trigger`, the classes of ROS 2's messages.
    """

    def __init__(self, node: Any, types: Any) -> None:
        values = {name: node.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
        token = read_token(Path(values["token_file"])) if values["token_file"] else None
        self.policy = RemotePolicy(values["url"], token=token)
        contract, path = self.policy.contract, values["limits"]
        try:
            limits = Limits.read(path, contract) if path else Limits.of_contract(contract)
        except GuardError as error:
            self.policy.close()
            raise SystemExit(f"limits: {error}") from None
        limits = replace(limits, deadline=values["deadline"] or limits.deadline)
        self.policy.deadline = limits.deadline
        self.node, self._message = node, types.Float64MultiArray
        self.guard = Guard(limits, clock=self._now)
        self.readings: dict[str, tuple[float, Any]] = {}
        self._said = ""
        topics = dict(pair.split("=", 1) for pair in values["topics"] if "=" in pair)
        for key, entry in contract["inputs"].items():
            if key not in topics:
                raise SystemExit(f"topics: the policy needs {key}; give {key}=/TOPIC")
            kind, read = (types.Image, picture) if entry["dtype"] == "uint8" else (types.Float64MultiArray, vector)
            node.create_subscription(kind, topics[key], self._keep(key, read), 1)
        self._needed = len(contract["inputs"])
        if values["measured_topic"]:
            self._needed += 1
            node.create_subscription(types.Float64MultiArray, values["measured_topic"], self._keep("", vector), 1)
        self._actions = node.create_publisher(types.Float64MultiArray, values["action_topic"], 1)
        node.create_service(types.Trigger, "~/reset", self._reset)
        self.policy.reset()
        node.create_timer(limits.period or 1.0 / (contract.get("control_freq") or 10.0), self.tick)

    def tick(self) -> None:
        """Publish what the arm may do now; nothing before every sensor has spoken once, and the guard can begin."""
        if len(self.readings) < self._needed:
            return
        sensors = {key: value for key, (_, value) in self.readings.items()}
        oldest = min(stamp for stamp, _ in self.readings.values())
        try:
            action, report = self.guard(self.policy, sensors, stamp=oldest, measured=sensors.pop("", None))
        except GuardError as error:
            said = f"does not begin: {error}"
        else:
            self._actions.publish(self._message(data=[float(each) for each in action]))
            said = f"{report.mode}: {report.reason}" if report.mode != "act" else ""
        if said != self._said:
            self._said = said
            self.node.get_logger().warning(said or "acts again")

    def _keep(self, key: str, read: Callable[[Any], Any]) -> Callable[[Any], None]:
        """Return what keeps the newest reading of a sensor; one that cannot be read is as if it had not come."""

        def keep(message: Any) -> None:
            try:
                value = read(message)
            except ValueError as error:
                self.node.get_logger().error(f"{key}: {error}")
                return
            header = getattr(message, "header", None)
            stamp = self._now() if header is None else header.stamp.sec + 1e-9 * header.stamp.nanosec
            self.readings[key] = (stamp, value)

        return keep

    def _reset(self, request: Any, response: Any) -> Any:
        """Let the arm move again: a person has seen that it may."""
        self.guard.reset()
        self.policy.reset()
        response.success, response.message = True, "the guard begins anew"
        return response

    def _now(self) -> float:
        """Return ROS's time [s], which stamps are in."""
        return float(self.node.get_clock().now().nanoseconds) * 1e-9


def picture(message: Any) -> Any:
    """Return a sensor_msgs/Image as RGB, uint8 `[H, W, 3]`.

    Raises:
        ValueError: another encoding, or fewer bytes than it says.
    """
    if message.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"encoding is {message.encoding}; expected rgb8 or bgr8")
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(bytes(message.data), np.uint8)
    if step < 3 * width or len(data) < height * step:
        raise ValueError(f"{len(data)} bytes, {step} a row, for {height} x {width} pixels")
    rows = data[: height * step].reshape(height, step)[:, : 3 * width].reshape(height, width, 3)
    return rows if message.encoding == "rgb8" else rows[..., ::-1]


def vector(message: Any) -> Any:
    """Return a std_msgs/Float64MultiArray, float32 `[D]`."""
    return np.asarray(message.data, np.float32)


def main() -> None:
    """Run the node until Ctrl-C."""
    import rclpy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64MultiArray
    from std_srvs.srv import Trigger

    types = SimpleNamespace(Image=Image, Float64MultiArray=Float64MultiArray, Trigger=Trigger)
    rclpy.init()
    node = rclpy.create_node("pixelrl_policy")
    driver = PolicyNode(node, types)
    try:
        rclpy.spin(node)
    finally:
        driver.policy.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
