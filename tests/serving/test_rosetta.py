"""rosetta's policy runner, against a real server and stand-ins for rosetta and its robot."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pixelrl.serving.client.rosetta import PARAMETERS, PolicyRunner
from tests.serving.conftest import DIMS, Running, make_frames

Serve = Callable[..., AbstractContextManager[Running]]


@dataclass
class Node:
    """What rosetta lets a runner see of the node."""

    values: dict[str, Any]
    declared: list[str] = field(default_factory=list)

    def has_parameter(self, name: str) -> bool:
        return name == "url"  # the host may have declared some already

    def declare_parameter(self, name: str, value: Any) -> None:
        self.declared.append(name)

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=self.values.get(name, PARAMETERS[name]))


class Robot:
    """A robot as rosetta shows it; it asks the runner to stop after so many actions."""

    def __init__(self, stop: threading.Event, count: int, cameras: dict[str, str]) -> None:
        self.stop, self.count, self.cameras = stop, count, cameras
        self.published: list[dict[str, Any]] = []
        self.asked = self.safety = 0

    @property
    def warmed_up(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def sample_frame(self) -> dict[str, Any]:
        frame = make_frames(1)[0] | {"pose": np.zeros(len(DIMS), np.float32), "task": "lift"}
        return {self.cameras.get(key, key): value for key, value in frame.items()}

    def publish_frame(self, frame: dict[str, Any]) -> dict[str, Any]:
        self.published.append(frame)
        if len(self.published) == self.count:
            self.stop.set()
        return frame

    def send_safety_action(self) -> None:
        self.safety += 1


@pytest.fixture(autouse=True)
def rosetta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for rosetta, which no package registry has."""
    protocols = ModuleType("rosetta.policies.protocols")
    protocols.RunnerResult = lambda success, message: SimpleNamespace(success=success, message=message)  # type: ignore[attr-defined]
    protocols.RunnerFeedback = SimpleNamespace  # type: ignore[attr-defined]
    for name, module in {"rosetta": ModuleType("rosetta"), "rosetta.policies": ModuleType("p")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "rosetta.policies.protocols", protocols)


@pytest.fixture
def runner() -> Iterator[PolicyRunner]:
    """Return a runner that leaves its server in the end."""
    runner = PolicyRunner()
    yield runner
    runner.teardown()


def test_runner_publishes_guarded_actions_until_it_is_stopped(serve: Serve, runner: PolicyRunner) -> None:
    stop = threading.Event()
    robot = Robot(stop, 5, {"front_image": "observation.images.front"})
    with serve() as server:
        node = Node({"url": server.url, "measured_key": "pose", "rename": ["observation.images.front=front_image"]})
        runner.setup(node, None)
        assert "url" not in node.declared and "rename" in node.declared
        result = runner.run(robot, task="lift", stop_event=stop)
    assert (result.success, result.message) == (True, "Stopped")
    assert len(robot.published) == 5 and robot.safety == 0
    low, high = (np.array([getattr(dim, end) for dim in DIMS]) for end in ("low", "high"))
    for frame in robot.published:
        action = frame["action"]
        assert action.shape == (len(DIMS),) and (action >= low - 1e-6).all() and (action <= high + 1e-6).all()
    assert runner.feedback().published_actions == 5 and runner.feedback().status == "idle"


def test_runner_says_why_it_cannot_act(serve: Serve, runner: PolicyRunner) -> None:
    stop = threading.Event()
    assert runner.run(Robot(stop, 1, {}), task="", stop_event=stop).message == "setup comes before run"
    with serve() as server:
        runner.setup(Node({"url": server.url}), None)
        robot = Robot(stop, 99, {})
        result = runner.run(robot, task="", stop_event=stop)  # a gripper's action is a position, and nobody says where
    assert not result.success and "say where the arm is" in result.message and robot.safety == 1


def test_request_that_came_while_nothing_ran_does_not_end_the_next_run(serve: Serve, runner: PolicyRunner) -> None:
    stop = threading.Event()
    robot = Robot(stop, 2, {})
    with serve() as server:
        runner.setup(Node({"url": server.url, "measured_key": "pose"}), None)
        runner.request_stop()
        assert runner.run(robot, task="", stop_event=stop).success
    assert len(robot.published) == 2
