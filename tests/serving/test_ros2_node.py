"""The example of a ROS 2 node, against a real server and stand-ins for rclpy and its messages."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.serving.client import Guard, Limits
from tests.serving.conftest import HISTORY, Running, make_frames

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples/ros2_node.py"))
TOPICS = ["front_image=/front", "wrist_image=/wrist", "position=/position"]
TYPES = SimpleNamespace(Image=object, Float64MultiArray=SimpleNamespace, Trigger=object)
OUTSIDE = "the arm is at 1.5 in number 2 of the action (from 0), outside -1..1: bring it inside by hand"


class Node:
    """What the example uses of rclpy's Node, whose time is set by hand."""

    def __init__(self, **values: Any) -> None:
        self.values, self.now = values, 100.0
        self.heard: dict[str, Callable[[Any], None]] = {}
        self.published: list[Any] = []
        self.lines: list[str] = []
        self.period = 0.0

    def declare_parameter(self, name: str, default: Any) -> Any:
        return SimpleNamespace(value=self.values.get(name, default))

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], depth: int) -> None:
        self.heard[topic] = callback

    def create_publisher(self, kind: type, topic: str, depth: int) -> Any:
        assert topic == "/policy/action"
        return SimpleNamespace(publish=lambda message: self.published.append(np.array(message.data)))

    def create_service(self, kind: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        self.reset = callback

    def create_timer(self, period: float, callback: Callable[[], None]) -> None:
        self.period = period

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=int(self.now * 1e9)))

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.lines.append, error=self.lines.append)


def image(pixels: np.ndarray, now: float, encoding: str = "rgb8", padding: int = 0) -> Any:
    """Return a sensor_msgs/Image of RGB pixels, with unused bytes at the end of each row."""
    rows = pixels if encoding == "rgb8" else pixels[..., ::-1]
    flat = np.pad(rows.reshape(len(rows), -1), ((0, 0), (0, padding)))
    stamp = SimpleNamespace(sec=int(now), nanosec=int(now % 1 * 1e9))
    about = {"height": pixels.shape[0], "width": pixels.shape[1], "step": flat.shape[1], "encoding": encoding}
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), data=flat.tobytes(), **about)


def tell(node: Node, frame: dict[str, np.ndarray], **options: Any) -> None:
    """Let every sensor speak."""
    node.heard["/front"](image(frame["front_image"], node.now, **options))
    node.heard["/wrist"](image(frame["wrist_image"], node.now))
    node.heard["/position"](SimpleNamespace(data=frame["position"].tolist()))
    node.heard["/measured"](SimpleNamespace(data=[0.0, 0.0, 0.3]))


@pytest.fixture
def driven(server: Running) -> Iterator[tuple[Node, Any]]:
    """Return a node at the artefact's server, and what drives it; a busy machine has ten seconds for an action."""
    node = Node(url=server.url, topics=TOPICS, measured_topic="/measured", deadline=10.0)
    driver = EXAMPLE["PolicyNode"](node, TYPES)
    yield node, driver
    driver.policy.close()


def test_node_publishes_the_guarded_action_at_the_policys_rate(
    driven: tuple[Node, Any], policy: ExportedPolicy
) -> None:
    node, driver = driven
    driver.tick()
    assert node.period == 1 / 20 and node.published == []  # nothing before every sensor has spoken
    guard = Guard(Limits.of_contract(policy.contract, deadline=10.0), clock=lambda: node.now)
    policy.reset()
    for number, frame in enumerate(make_frames(HISTORY + 2)):
        tell(node, frame, encoding="rgb8" if number % 2 else "bgr8", padding=number)
        driver.tick()
        expected, _ = guard(policy, frame, measured=[0.0, 0.0, 0.3])
        np.testing.assert_allclose(node.published[-1], expected, atol=1e-6)
        node.now += node.period
    assert len(node.published) == HISTORY + 2 and np.abs(node.published[-1]).max() > 0
    policy.reset()


def test_node_rests_on_old_pictures_and_stops_until_it_is_reset(driven: tuple[Node, Any]) -> None:
    node, driver = driven
    (frame,) = make_frames(1)
    tell(node, frame)
    node.now += 5.0  # a camera that has died
    for _ in range(10):
        driver.tick()
    assert "hold: the observation is 5000 ms old" in node.lines[0]
    assert "stop: 10 ticks without a good action" in node.lines[-1] and len(node.published) == 10
    tell(node, frame)
    driver.tick()
    assert driver.guard.state.stopped
    assert node.reset(None, SimpleNamespace()).success
    driver.tick()
    assert driver.guard.state.stopped is None and node.lines[-1] == "acts again"


def test_reading_that_cannot_be_read_is_told_and_not_used(driven: tuple[Node, Any]) -> None:
    node, driver = driven
    (frame,) = make_frames(1)
    wrong = image(frame["front_image"], node.now)
    wrong.encoding = "16UC1"
    node.heard["/front"](wrong)
    short = image(frame["front_image"], node.now)
    short.data = short.data[:-1]
    node.heard["/front"](short)
    assert node.lines[0] == "front_image: encoding is 16UC1; expected rgb8 or bgr8"
    assert node.lines[1].startswith("front_image: 5759 bytes, 144 a row, for 40 x 48 pixels")
    assert not driver.readings


def test_input_without_a_topic_is_named(server: Running) -> None:
    with pytest.raises(SystemExit, match="the policy needs position; give position=/TOPIC"):
        EXAMPLE["PolicyNode"](Node(url=server.url, topics=TOPICS[:2]), TYPES)


def test_limits_come_from_a_file_and_an_arm_outside_is_waited_for(server: Running, tmp_path: Path) -> None:
    file, values = tmp_path / "limits.json", {"url": server.url, "topics": TOPICS, "measured_topic": "/measured"}
    file.write_text('{"deadline": 10, "ramp": 3, "steps": 1}')
    with pytest.raises(SystemExit, match=r"limits: .*limits\.json: expected an object"):
        EXAMPLE["PolicyNode"](Node(**values, limits=str(file)), TYPES)
    file.write_text('{"deadline": 10, "ramp": 3, "step": [0.01, 0.1, 0.1]}')
    node = Node(**values, limits=str(file))
    driver = EXAMPLE["PolicyNode"](node, TYPES)
    assert driver.guard.limits.ramp == 3 and driver.policy.deadline == 10
    (frame,) = make_frames(1)
    tell(node, frame)
    node.heard["/measured"](SimpleNamespace(data=[0.0, 0.0, 1.5]))
    driver.tick()
    assert node.published == [] and node.lines == [f"does not begin: {OUTSIDE}"]
    node.heard["/measured"](SimpleNamespace(data=[0.0, 0.0, 0.9]))
    driver.tick()
    assert len(node.published) == 1 and node.lines[-1] == "acts again"
    driver.policy.close()
