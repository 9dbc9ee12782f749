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

from .guard import Guard
from .limits import Limits
from .remote import RemotePolicy, read_token

PARAMETERS: Mapping[str, Any] = {
    "url": "ws://127.0.0.1:8000",
    "token_file": "",
    "action_key": "action",
    "measured_key": "",
    "rename": [""],
}
"""ROS parameters and their defaults.

`action_key`: of the frame that is published. `measured_key`: of the frame's reading that says where the arm is in the
action's units, needed where an action is a position. `rename`: the policy's keys for the robot's,
`observation.images.front=agentview_image`.
"""


class PolicyRunner:
    """Drive a robot until it is stopped; see `rosetta.policies.protocols.PolicyRunner`."""

    def __init__(self) -> None:
        self._options: dict[str, Any] = dict(PARAMETERS)
        self._policy: RemotePolicy | None = None
        self._stopped = threading.Event()
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

    def run(self, frames: Any, *, task: str, stop_event: threading.Event) -> Any:
        """Act at the policy's rate until the host stops it or the guard does, and return how it ended."""
        from rosetta.policies.protocols import RunnerResult

        policy = self._policy
        if policy is None:
            return RunnerResult(success=False, message="setup comes before run")
        self._stopped.clear()
        self._published, self._status = 0, "executing"
        guard, period = Guard(Limits.of_contract(policy.contract)), 1.0 / (policy.contract.get("control_freq") or 10.0)
        try:
            policy.reset()
            while not (stop_event.is_set() or self._stopped.is_set()):
                begin = time.monotonic()
                if frames.warmed_up:
                    frame = frames.sample_frame()
                    action, report = guard(policy, self.sensors(frame), stamp=begin, measured=self.measured(frame))
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

    def sensors(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the policy takes of a frame, under its names and in its types; what is missing stays so."""
        assert self._policy is not None
        names = dict(pair.split("=", 1) for pair in self._options["rename"] if "=" in pair)
        found = {names.get(key, key): value for key, value in frame.items()}
        inputs = self._policy.contract["inputs"]
        return {key: np.ascontiguousarray(found[key], each["dtype"]) for key, each in inputs.items() if key in found}

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
