"""rosetta's policy runner, against a real server and stand-ins for rosetta and its robot."""

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pixelrl.serving.client.rosetta import PARAMETERS, PolicyRunner
from tests.serving.conftest import DIMS, Serve, make_frames


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
    """A robot as rosetta shows it; it asks the runner to stop after so many actions.

    Attributes:
        seed: of what it shows for ever; None: something new every time.
        changes: what it shows otherwise.
    """

    def __init__(self, stop: threading.Event, count: int, cameras: dict[str, str]) -> None:
        self.stop, self.count, self.cameras = stop, count, cameras
        self.published: list[dict[str, Any]] = []
        self.asked = self.safety = 0
        self.seed: int | None = None
        self.changes: dict[str, Any] = {}

    @property
    def warmed_up(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def sample_frame(self) -> dict[str, Any]:
        seed = self.asked if self.seed is None else self.seed
        frame = make_frames(1, seed)[0] | {"pose": np.zeros(len(DIMS)), "task": "lift"} | self.changes
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
    assert not result.success and "nobody says where the arm is" in result.message and robot.safety == 1


def run(serve: Serve, runner: PolicyRunner, robot: Robot, **values: Any) -> Any:
    """Return how a run ended."""
    with serve() as server:
        runner.setup(Node({"url": server.url, "measured_key": "pose", **values}), None)
        return runner.run(robot, task="", stop_event=robot.stop)


def limits_file(tmp_path: Path, **content: Any) -> str:
    """Write limits for a busy machine, with others."""
    file = tmp_path / "limits.json"
    file.write_text(json.dumps({"deadline": 10.0, "max_age": 10.0, **content}))
    return str(file)


def test_pictures_that_do_not_change_grow_old(serve: Serve, runner: PolicyRunner, tmp_path: Path) -> None:
    robot = Robot(threading.Event(), 99, {})
    robot.seed = 0
    result = run(serve, runner, robot, limits=limits_file(tmp_path, max_age=0.12, stop_after=3, ramp=0))
    assert not result.success and "3 ticks without a good action" in result.message
    assert "the observation is" in result.message and "at most 120 ms" in result.message
    assert runner.feedback().status == "idle" and len(robot.published) < 10


def test_black_picture_is_a_missing_camera(serve: Serve, runner: PolicyRunner, tmp_path: Path) -> None:
    robot = Robot(threading.Event(), 99, {})
    robot.changes = {"wrist_image": np.zeros((40, 48, 3), np.uint8)}
    result = run(serve, runner, robot, limits=limits_file(tmp_path, stop_after=2))
    assert "wrist_image: the picture is all zeros: the camera is missing" in result.message


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_picture_of_another_type_is_refused_and_not_rounded(
    kind: type, serve: Serve, runner: PolicyRunner, tmp_path: Path
) -> None:
    robot = Robot(threading.Event(), 99, {})
    robot.changes = {"front_image": np.full((40, 48, 3), 0.5 if kind != np.int16 else 300, kind)}
    result = run(serve, runner, robot, limits=limits_file(tmp_path, stop_after=2))
    assert f"front_image is {np.dtype(kind).name}; the policy takes uint8" in result.message


def test_limits_come_from_a_file_and_their_faults_end_the_run(
    serve: Serve, runner: PolicyRunner, tmp_path: Path
) -> None:
    robot = Robot(threading.Event(), 2, {})
    step = [1e-4, 1e-4, 1e-4]
    assert run(serve, runner, robot, limits=limits_file(tmp_path, ramp=0, step=step)).success
    assert np.abs(robot.published[0]["action"]).max() <= 1e-4 + 1e-9
    robot = Robot(threading.Event(), 2, {})
    result = run(serve, runner, robot, limits=limits_file(tmp_path, steps=step))
    assert not result.success and "GuardError: " in result.message and "limits.json: expected" in result.message
    assert runner.feedback().status == "idle" and robot.safety == 1 and not robot.published


def test_request_that_came_while_nothing_ran_does_not_end_the_next_run(serve: Serve, runner: PolicyRunner) -> None:
    stop = threading.Event()
    robot = Robot(stop, 2, {})
    with serve() as server:
        runner.setup(Node({"url": server.url, "measured_key": "pose"}), None)
        runner.request_stop()
        assert runner.run(robot, task="", stop_event=stop).success
    assert len(robot.published) == 2
