"""ROS 2 by way of rosetta: a policy runner that asks a served policy, behind a guard.

rosetta (github.com/iblnkn/rosetta) finds it by the entry point `rosetta.policy_runners: pixelrl`; it brings the topics,
the recorder and the node's life cycle. Its package is imported only where a run says how it ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from .address import RemoteError, read_token
from .guard import Guard
from .limits import Limits
from .remote import RemotePolicy

PARAMETERS: Mapping[str, Any] = {
    "url": "ws://127.0.0.1:8000",
    "token_file": "",
    "action_key": "action",
    "measured_key": "",
    "limits": "",
    "rename": [""],
}
"""ROS parameters and their defaults.

`action_key`: of the frame that is published. `measured_key`: of the frame's reading that says where the arm is in the
action's units, needed where an action is a position. `limits`: path of a JSON file for `Limits.read`. `rename`: the
policy's keys for the robot's, `observation.images.front=agentview_image`.
"""


class PolicyRunner:
    """Drive a robot until it is stopped; see `rosetta.policies.protocols.PolicyRunner`."""

    def __init__(self) -> None:
        self._options: dict[str, Any] = dict(PARAMETERS)
        self._policy: RemotePolicy | None = None
        self._inputs: Mapping[str, Any] = {}
        self._stopped = threading.Event()
        self._pictures: dict[str, tuple[Any, float]] = {}
        self._published, self._status = 0, "idle"

    def setup(self, node: Any, contract: Any) -> None:
        """Read the parameters, and connect to the server."""
        for name, default in PARAMETERS.items():
            if not node.has_parameter(name):
                node.declare_parameter(name, default)
            self._options[name] = node.get_parameter(name).value
        self.teardown()
        token = read_token(Path(self._options["token_file"])) if self._options["token_file"] else None
        self._policy = RemotePolicy(self._options["url"], token=token)
        self._inputs = self._policy.contract["inputs"]

    def run(self, frames: Any, *, task: str, stop_event: threading.Event) -> Any:
        """Act at the policy's rate until the host stops it or the guard does, and return how it ended.

        A frame does not tell how old it is: a picture counts from when it last changed.
        """
        from rosetta.policies.protocols import RunnerResult

        policy = self._policy
        if policy is None:
            return RunnerResult(success=False, message="setup comes before run")
        self._stopped.clear()
        self._published, self._status = 0, "executing"
        self._pictures = {}
        try:
            path = self._options["limits"]
            limits = Limits.read(path, policy.contract) if path else Limits.of_contract(policy.contract)
            guard, policy.deadline = Guard(limits), limits.deadline
            period = limits.period or 1.0 / (policy.contract.get("control_freq") or 10.0)
            policy.reset()
            while not (stop_event.is_set() or self._stopped.is_set()):
                begin = time.monotonic()
                if frames.warmed_up:
                    frame = frames.sample_frame()
                    sensors = self.sensors(frame)
                    action, report = guard(
                        self, sensors, stamp=self._taken(sensors, begin), measured=self.measured(frame)
                    )
                    frames.publish_frame({self._options["action_key"]: action})
                    self._published += 1
                    if report.mode == "stop":
                        return RunnerResult(success=False, message=report.reason)
                stop_event.wait(max(0.0, period - (time.monotonic() - begin)))
            return RunnerResult(success=True, message="Stopped")
        except Exception as error:
            with contextlib.suppress(Exception):
                frames.send_safety_action()
            return RunnerResult(success=False, message=f"{type(error).__name__}: {error}")
        finally:
            self._status = "idle"

    def act(self, sensors: Mapping[str, Any]) -> Any:
        """Ask the policy, float32 `[H, A]`.

        Raises:
            RemoteError: it gives no action; a reading is of another type; a picture holds nothing but zeros, which
                stand for a camera that is not there.
        """
        assert self._policy is not None
        for key, value in sensors.items():
            kind = self._inputs[key]["dtype"]
            if value.dtype != kind:
                raise RemoteError(f"{key} is {value.dtype}; the policy takes {kind}")
        for key in self._cameras(sensors):
            if not sensors[key].any():
                raise RemoteError(f"{key}: the picture is all zeros: the camera is missing")
        return self._policy.act(sensors)

    def sensors(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the policy takes of a frame, under its names, copied; what is missing stays so.

        float64, the type of ROS's vectors, becomes float32; `act` refuses other types than the policy's.
        """
        names = dict(pair.split("=", 1) for pair in self._options["rename"] if "=" in pair)
        found = {names.get(key, key): value for key, value in frame.items()}
        sensors = {}
        for key, each in self._inputs.items():
            if key in found:
                value = np.array(found[key], order="C")
                double = value.dtype == np.float64 and each["dtype"] == "float32"
                sensors[key] = value.astype(np.float32) if double else value
        return sensors

    def _cameras(self, sensors: Mapping[str, Any]) -> list[str]:
        return [key for key in sensors if self._inputs[key]["dtype"] == "uint8"]

    def _taken(self, sensors: Mapping[str, Any], now: float) -> float:
        """Return since when the oldest picture has been the same [s]."""
        cameras = self._cameras(sensors)
        for key in cameras:
            if key not in self._pictures or not np.array_equal(self._pictures[key][0], sensors[key]):
                self._pictures[key] = (sensors[key], now)
        return min([now, *(self._pictures[key][1] for key in cameras)])

    def measured(self, frame: Mapping[str, Any]) -> Any:
        """Return where the arm is, in the action's units; None where nobody says it."""
        key = self._options["measured_key"]
        return frame.get(key) if key else None

    def feedback(self) -> Any:
        """Return how many actions were published."""
        from rosetta.policies.protocols import RunnerFeedback

        return RunnerFeedback(queue_depth=0, published_actions=self._published, status=self._status)

    def request_stop(self) -> None:
        """End a run soon; one that waits for the server ends at its deadline."""
        self._stopped.set()

    def teardown(self) -> None:
        """Leave the server."""
        if self._policy is not None:
            self._policy.close()
            self._policy = None
