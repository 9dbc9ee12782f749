"""What a served policy saw and said is a data set."""

import threading
from pathlib import Path

import numpy as np
import pytest

from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch.commands.serve import recording_of
from pixelrl.runtime.errors import PixelrlError
from pixelrl.serving.client import RemotePolicy
from tests.serving.conftest import DIMS, make_frames, serving


def test_episodes_of_a_server_are_a_data_set(policy: ExportedPolicy, tmp_path: Path) -> None:
    path, frames = tmp_path / "robot.hdf5", make_frames(5, 4)
    with recording_of(policy, path) as record, serving(policy, record=record) as server:
        there = RemotePolicy(server.url, deadline=20.0)
        normalised = [there.infer(frame)["pixelrl"]["normalised"][0] for frame in frames]
        there.reset()
        there.act(frames[0])  # an episode of one instant is none
        there.reset()
        for frame in frames[:3]:
            there.act(frame)
        there.close()
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
    with (
        pytest.raises(OSError, match="No space left"),
        recording_of(policy, tmp_path / "full.hdf5") as record,
        serving(policy, record=record) as server,
    ):
        there = RemotePolicy(server.url, deadline=20.0)
        for frame in make_frames(3):
            assert there.act(frame).shape == (1, 3)
        there.close()


def test_an_answer_does_not_wait_for_the_recording(policy: ExportedPolicy) -> None:
    arrived = threading.Event()

    class Slow:
        waited = False

        def __call__(self, *step: object) -> bool:
            self.waited = arrived.wait(20)
            return True

        def end(self, connection: int, why: str) -> None:
            pass

    slow = Slow()
    with serving(policy, record=slow) as server:
        there = RemotePolicy(server.url, deadline=10.0)
        assert there.act(make_frames(1)[0]).shape == (1, 3)
        arrived.set()
        there.close()
    assert slow.waited
