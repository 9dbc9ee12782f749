"""What a served policy saw and said is a data set."""

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pixelrl.datasets.convert.conversion import convert_dataset
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch import recording
from pixelrl.launch.commands.serve import recording_of
from pixelrl.launch.recording import Demos, Recording, Step
from pixelrl.runtime.errors import PixelrlError
from pixelrl.serving.client import RemoteError
from pixelrl.serving.client.wire import pack
from pixelrl.serving.inference import Reply
from pixelrl.serving.protocol import Request
from tests.serving.conftest import DIMS, Slow, as_another, make_frames, recorded, remote, serving
from tests.serving.test_server import ask, connected

ACTION = np.zeros((1, 3), np.float32)
REPLY = Reply(action=ACTION, normalised=ACTION, clipped=(), infer=0.001, queue=0.002)


def test_episodes_of_a_server_are_a_data_set(policy: ExportedPolicy, tmp_path: Path) -> None:
    path, frames = tmp_path / "robot.hdf5", make_frames(5, 4)
    with recorded(policy, path) as there:
        normalised = [there.infer(frame)["pixelrl"]["normalised"][0] for frame in frames]
        there.reset()
        there.act(frames[0])  # an episode of one instant is none
        there.reset()
        for frame in frames[:3]:
            there.act(frame)
    contents = read_contents(path, images=("front_image", "wrist_image"), proprio=("position",))
    demos = list(read_demos(contents))
    assert [len(demo.actions) for demo in demos] == [4, 2] and contents.action == DIMS
    np.testing.assert_array_equal(demos[0].actions, np.stack(normalised[:4]))
    np.testing.assert_array_equal(demos[0].sensors["position"], np.stack([frame["position"] for frame in frames]))
    np.testing.assert_array_equal(demos[0].sensors["front_image"], np.stack([frame["front_image"] for frame in frames]))
    assert not demos[0].rewards.any()
    with pytest.raises(PixelrlError, match="exists already"), recording_of(policy, path):
        pass


def test_recording_without_episodes_says_so_and_one_that_cannot_be_written_too(
    policy: ExportedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PixelrlError, match="no episodes came"), recording_of(policy, tmp_path / "none.hdf5"):
        pass
    from pixelrl.datasets.hdf5.writer import EpisodeWriter

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EpisodeWriter, "add", full)
    with pytest.raises(OSError, match="No space left"), recorded(policy, tmp_path / "full.hdf5") as there:
        for frame in make_frames(3):
            assert there.act(frame).shape == (1, 3)


def test_an_answer_does_not_wait_for_the_recording(policy: ExportedPolicy) -> None:
    arrived = threading.Event()

    class Slow:
        waited = False

        def __call__(self, *step: object, gap: bool) -> bool:
            self.waited = arrived.wait(20)
            return True

        def end(self, connection: int, why: str) -> None:
            pass

    slow = Slow()
    with serving(policy, record=slow) as server, remote(server, deadline=10.0) as there:
        assert there.act(make_frames(1)[0]).shape == (1, 3)
        arrived.set()
    assert slow.waited


def test_an_episode_ends_where_the_server_refused_an_observation(policy: ExportedPolicy, tmp_path: Path) -> None:
    """The arm held there, and whatever it saw next came of no recorded action."""
    paths, frames, none = (tmp_path / "robot.hdf5", tmp_path / "robot.mcap"), make_frames(6, 4), np.full(3, np.nan)
    for path in paths:
        with recorded(policy, path) as there:
            for number, frame in enumerate(frames):
                there.act(frame)
                if number == 2:
                    with pytest.raises(RemoteError, match="NaN"):
                        there.act(frame | {"position": none.astype(np.float32)})
    back = tmp_path / "back.hdf5"
    convert_dataset(paths[1], back, "mcap", "hdf5")
    for path in (paths[0], back):
        demos = list(read_demos(read_contents(path, images=(), proprio=("position",))))
        assert [len(demo.actions) for demo in demos] == [2, 2]
        np.testing.assert_array_equal(demos[1].sensors["position"], [frame["position"] for frame in frames[3:]])


def test_an_episode_ends_where_an_observation_was_superseded(policy: ExportedPolicy) -> None:
    """What is computed meanwhile belongs to what came before it, and what is computed next does not."""
    slow, gaps = as_another(policy, Slow), list[tuple[int | None, bool]]()

    class Record:
        def __call__(self, connection: int, step: int, request: Request, reply: Reply, *, gap: bool) -> bool:
            gaps.append((request.seq, gap))
            return request.seq != 3

        def end(self, connection: int, why: str) -> None:
            pass

    frames = make_frames(5)
    with serving(slow, record=Record()) as server, connected(server) as (connection, _):
        connection.send(pack(frames[0] | {"pixelrl/seq": 0}))
        assert slow.begun.wait(20)
        for number in (1, 2):
            connection.send(pack(frames[number] | {"pixelrl/seq": number}))
        assert connection.recv(timeout=10) == "seq 1: superseded by a newer observation"
        slow.go_on.set()
        for _ in (0, 2):
            connection.recv(timeout=10)
        for number in (3, 4):
            ask(connection, frames[number] | {"pixelrl/seq": number})
    assert gaps == [(0, False), (2, True), (3, False), (4, True)]


def test_episodes_are_cut_where_they_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LARGEST", 100)
    held, ends = list[tuple[int, int]](), list[tuple[int, str]]()
    file = SimpleNamespace(
        add=lambda episode, step: held.append((episode, step.number)),
        end=lambda *said: ends.append(said),
        flush=lambda: None,
    )
    with Recording(file, {"camera": (2, 5, 4)}, 2**20) as record:
        for number in (1, 2, 3, 4, 5):
            record(1, number, Request(sensors={"camera": np.zeros((2, 5, 8), np.uint8)}), REPLY, gap=False)
    assert held == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5)]
    assert ends == [(1, "cut after 2 steps"), (2, "cut after 2 steps"), (3, "the server stopped")]


def test_of_a_whole_history_the_newest_picture_alone_stays_in_memory() -> None:
    demos, whole = Demos(SimpleNamespace()), np.zeros((48, 64, 12), np.uint8)  # type: ignore[arg-type]
    request = Request(sensors={"camera": whole})
    seen = {"camera": whole[..., -3:]}
    demos.add(1, Step(connection=1, number=1, gap=False, time_ns=0, sensors=seen, request=request, reply=REPLY))
    assert not np.shares_memory(demos._steps[1][0]["camera"], whole)
