"""A served policy's MCAP: what other programs see in it, and what `pixelrl convert` makes of it, whole or cut."""

import base64
import io
import json
import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from PIL import Image

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.convert.conversion import convert_dataset
from pixelrl.datasets.convert.dataset_stream import DroppedFields, FormatOptions
from pixelrl.datasets.convert.formats import guess_source
from pixelrl.datasets.convert.mcap_reader import read_mcap
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch.commands.serve import recording_of
from pixelrl.launch.mcap_recording import McapSteps, mcap_steps
from pixelrl.launch.recording import Recording, Step
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.serving.client import RemotePolicy
from pixelrl.serving.inference import Reply
from pixelrl.serving.protocol import Request
from tests.serving.conftest import make_frames, recorded, serving

KEYS = ("front_image", "wrist_image", "position")


def step_of(frame: dict[str, Any], connection: int = 1, number: int = 1, **given: Any) -> Step:
    """Return a step whose action is its number."""
    action = np.full((1, 3), number / 64, np.float32)
    reply = Reply(action=action, normalised=action, clipped=(), infer=0.001, queue=0.002)
    request = Request(sensors=frame)
    options = {"gap": False, "time_ns": 10**18 + number * 10**9, "sensors": frame, "request": request, "reply": reply}
    return Step(connection=connection, number=number, **{**options, **given})


def write(policy: ExportedPolicy, path: Path, episodes: int = 2, steps: int = 3) -> Path:
    """Write a finished recording."""
    frames = make_frames(episodes * steps, 1)
    with mcap_steps(policy, path) as file:
        for episode in range(episodes):
            for number in range(steps):
                file.add(episode, step_of(frames[episode * steps + number], number=number + 1))
            file.end(episode, "reset by the peer")
    return path


def read(path: Path) -> tuple[list[Any], DroppedFields]:
    """Return the episodes of a recording, as they lie there, and what is said not to come along."""
    dropped: DroppedFields = Counter()
    return list(read_mcap(path, dropped).episodes()), dropped


def test_a_conversation_is_the_same_data_set_by_way_of_mcap_and_in_hdf5(policy: ExportedPolicy, tmp_path: Path) -> None:
    frames = make_frames(6, 4)
    paths = {name: tmp_path / f"robot.{name}" for name in ("hdf5", "mcap")}
    for path in paths.values():
        with recorded(policy, path) as there:
            for frame in frames[:4]:
                there.act(frame)
            there.reset()
            there.act(frames[0])  # an episode of one instant is none
            there.reset()
            for frame in frames[2:5]:
                there.act(frame)
            assert not path.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["robot.hdf5", "robot.mcap"]
    back = tmp_path / "back.hdf5"
    result = convert_dataset(paths["mcap"], back, guess_source(paths["mcap"]), "hdf5")
    dropped = {item["what"]: item["episodes"] for item in result["dropped"]}
    assert dropped == {
        "rewards and dones, which are not there: 0 is written (--reward and --dones say more)": "all",
        "the last step, a time-out: the picture after it was not recorded": 2,
        "whole episodes of one step, which lead nowhere": 1,
    }
    chosen: dict[str, Any] = {"images": KEYS[:2], "proprio": KEYS[2:]}
    one, other = (read_contents(path, **chosen) for path in (paths["hdf5"], back))
    assert (one.demos, one.action, one.env_args) == (other.demos, other.action, other.env_args)
    assert list(one.demos.values()) == [3, 2]
    for here, there_ in zip(read_demos(one), read_demos(other), strict=True):
        for key in KEYS:
            np.testing.assert_array_equal(here.sensors[key], there_.sensors[key])
            assert here.sensors[key].dtype == there_.sensors[key].dtype
        for name in ("actions", "rewards", "dones"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there_, name))
    first = next(read_demos(other))
    np.testing.assert_array_equal(
        first.sensors["front_image"], np.stack([frame["front_image"] for frame in frames[:4]])
    )
    source = Source(name="task", files=(back,), reward="last:1")
    batch = load_dataset([source], batch_size=4, seed=0, gamma=0.9).batch(0)
    assert bool((batch.action.abs() <= 1).all())


def test_other_programs_see_standard_pictures_vectors_and_actions(policy: ExportedPolicy, tmp_path: Path) -> None:
    path, frames, replies = tmp_path / "robot.mcap", make_frames(2, 4), []
    with recorded(policy, path) as there:
        for frame in frames:
            replies.append(there.infer(frame, stamp=2.5))
    held = defaultdict(list)
    with path.open("rb") as file:
        reader = make_reader(file)
        for schema, channel, message in reader.iter_messages():
            assert schema is not None and schema.encoding == "jsonschema" and channel.message_encoding == "json"
            held[channel.topic].append((schema, message, json.loads(message.data)))
        said = {record.name: record.metadata for record in reader.iter_metadata()}
        beside = {each.name: json.loads(each.data) for each in reader.iter_attachments()}
    assert {topic: len(each) for topic, each in held.items()} == {
        "/camera/front_image": 2,
        "/camera/wrist_image": 2,
        "/proprio": 2,
        "/action": 2,
        "/episode": 1,
    }
    schema, message, picture = held["/camera/wrist_image"][1]
    assert schema.name == "foxglove.CompressedImage" and set(picture) == set(json.loads(schema.data)["properties"])
    assert picture["format"] == "png" and picture["timestamp"]["sec"] * 10**9 <= message.log_time
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["data"])))), frames[1]["wrist_image"]
    )
    assert held["/proprio"][0][2]["vectors"] == {"position": frames[0]["position"].tolist()}
    _, message, action = held["/action"][1]
    assert message.publish_time == action["stamp_ns"] == 2_500_000_000
    assert (action["connection"], action["step"], action["seq"], action["clipped"]) == (1, 2, 2, [])
    assert action["actions"][0]["action"] == replies[1]["actions"][0].tolist()
    assert action["infer_ms"] == replies[1]["server_timing"]["infer_ms"]
    assert message.log_time > held["/camera/wrist_image"][1][1].log_time > held["/action"][0][1].log_time
    assert held["/episode"][0][2]["steps"] == 2 and "1000" in held["/episode"][0][2]["ended"]
    assert said["pixelrl"]["layout"] == "1" and beside["policy.json"] == policy.contract
    assert "command" in beside["provenance.json"]


def test_a_recording_cut_anywhere_gives_what_is_whole_in_it(policy: ExportedPolicy, tmp_path: Path) -> None:
    path, frames, ends, left = tmp_path / "robot.mcap", make_frames(6, 1), [0], []
    part = tmp_path / "robot.mcap.part"
    with ExitStack() as stack:
        file = stack.enter_context(mcap_steps(policy, path))
        for episode in range(2):
            for number in range(3):
                file.add(episode, step_of(frames[episode * 3 + number], number=number + 1))
            file.end(episode, "reset by the peer")
            ends.append(part.stat().st_size)
        file.add(2, step_of(frames[0]))
        left.append(part.read_bytes())  # as a killed server leaves it
    cut = tmp_path / "cut.mcap.part"
    assert len(left[0]) == ends[2]
    for size in range(0, len(left[0]), 997):
        cut.write_bytes(left[0][:size])
        try:
            episodes, dropped = read(cut)
        except DataError as error:
            assert size < ends[1] and str(cut) in str(error)
        else:
            if not ends[2] - 500 < size < ends[2]:  # there the steps are whole and what is said of their place is cut
                assert len(episodes) == 1 + (size >= ends[2])
            assert any("its server was killed" in what for what in dropped)
            np.testing.assert_array_equal(episodes[0].sensors["position"], [frame["position"] for frame in frames[:3]])
    cut.write_bytes(left[0])
    assert guess_source(cut) == "mcap"
    result = convert_dataset(cut, tmp_path / "back.hdf5", "mcap", "hdf5")
    assert result["episodes"] == 2 and "(0 bytes behind the last whole record)" in str(result["dropped"])
    part.write_bytes(left[0])
    with pytest.raises(PixelrlError, match=r"left behind by a server that was killed; `pixelrl convert .* reads it"):
        stack.enter_context(mcap_steps(policy, tmp_path / "robot.mcap"))
    assert part.read_bytes() == left[0]


def test_a_step_that_was_left_out_ends_its_episode() -> None:
    """A file that takes its time, and a server that goes on: the pictures of two moments are no transition."""
    wait, started, held = threading.Event(), threading.Event(), list[tuple[int, int]]()

    def add(episode: int, step: Step) -> None:
        held.append((episode, step.number))
        started.set()
        assert wait.wait(20)

    ends = list[tuple[int, str]]()
    slow = SimpleNamespace(add=add, end=lambda *said: ends.append(said), flush=lambda: None)
    frame = make_frames(1)[0]
    reply = step_of(frame).reply
    with Recording(slow, {"position": (3,)}, 2**27) as record:  # two of them fill the memory
        taken = [record(1, 1, Request(sensors=frame), reply, gap=False)]
        assert started.wait(20)
        taken += [record(1, number, Request(sensors=frame), reply, gap=False) for number in (2, 3, 4, 5)]
        wait.set()
        while not record(1, 6, Request(sensors=frame), reply, gap=True):
            pass
    assert taken == [True, True, True, False, False]
    assert held == [(1, 1), (1, 2), (1, 3), (2, 6)]
    assert ends == [(1, "steps were left out"), (2, "the server stopped")]


@pytest.mark.parametrize("suffix", ["hdf5", "mcap"])
def test_an_episode_begins_where_a_peer_of_roboarena_resets(
    policy: ExportedPolicy, tmp_path: Path, suffix: str
) -> None:
    path, frames = tmp_path / f"robot.{suffix}", make_frames(5, 4)
    with recording_of(policy, path) as record, serving(policy, record=record) as server:
        from websockets.sync.client import connect

        from pixelrl.serving.client.wire import pack

        with connect(server.url, compression=None) as socket:
            socket.recv()
            for messages in ([*frames[:3]], [{"endpoint": "reset"}], [*frames[3:]]):
                for message in messages:
                    socket.send(pack(message))
                    socket.recv()
    lengths = [len(each) for each in read(path)[0]] if suffix == "mcap" else list(read_contents(path).demos.values())
    assert lengths == ([3, 2] if suffix == "mcap" else [2, 1])


def test_two_peers_at_a_time_have_episodes_of_their_own(policy: ExportedPolicy, tmp_path: Path) -> None:
    frames = make_frames(6)
    with mcap_steps(policy, tmp_path / "robot.mcap") as file:
        for number in range(3):
            for episode in range(2):
                file.add(episode, step_of(frames[2 * number + episode], episode + 1, number + 1))
        for episode in range(2):
            file.end(episode, "gone")
    episodes, _ = read(tmp_path / "robot.mcap")
    for index, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.sensors["position"], [frame["position"] for frame in frames[index::2]])
        assert episode.notes == {"connection": index + 1, "episode": index, "ended": "gone"}


def test_chunks_are_recorded_but_are_no_steps(policy: ExportedPolicy, tmp_path: Path) -> None:
    chunks: Any = SimpleNamespace(
        contract={**policy.contract, "chunk": 2}, instant=policy.instant, inputs=policy.inputs
    )
    with pytest.raises(PixelrlError, match=r"HDF5 holds single actions; .* record to NAME.mcap"):
        recording_of(chunks, tmp_path / "robot.hdf5").__enter__()
    path, frames = tmp_path / "robot.mcap", make_frames(2)
    action = np.arange(6, dtype=np.float32).reshape(2, 3)
    reply = Reply(action=action, normalised=action / 8, clipped=("dx",), infer=0.001, queue=0.002)
    with mcap_steps(chunks, path) as file:
        for number, frame in enumerate(frames):
            file.add(0, step_of(frame, number=number + 1, reply=reply))
    with path.open("rb") as held:
        (said,) = [json.loads(each[2].data) for each in make_reader(held).iter_messages("/action")][:1]
    assert [each["action"] for each in said["actions"]] == action.tolist() and said["clipped"] == ["dx"]
    with pytest.raises(DataError, match="answers are chunks of 2 actions, which are no steps"):
        read(path)


def test_foreign_files_and_names_are_refused_in_a_line(policy: ExportedPolicy, tmp_path: Path) -> None:
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.add_metadata("rosbag2", {"a": "b"})
        writer.finish()
    with pytest.raises(DataError, match="without a metadata record 'pixelrl'; expected a recording of `pixelrl serve"):
        read(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" * 9)
    with pytest.raises(DataError, match="not MCAP; expected a recording of `pixelrl serve --record"):
        read(path)
    with pytest.raises(PixelrlError, match=r"robot.bag: expected NAME.hdf5 or NAME.mcap"):
        recording_of(policy, tmp_path / "robot.bag").__enter__()
    with pytest.raises(PixelrlError, match="exists already"):
        recording_of(policy, path).__enter__()
    with pytest.raises(DataError, match="no rewards under 'paid'"):
        read_mcap(path, Counter(), FormatOptions(reward="paid"))


def test_a_damaged_chunk_is_told(policy: ExportedPolicy, tmp_path: Path) -> None:
    path = write(policy, tmp_path / "robot.mcap")
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 9', 1))
    with pytest.raises(DataError, match=r"the chunk at byte [0-9]+ is damaged; `mcap recover` leaves it out"):
        read(path)


def test_packed_chunks_are_refused_before_they_are_unpacked(
    policy: ExportedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelrl.launch.mcap_recording.CompressionType", SimpleNamespace(NONE=CompressionType.ZSTD))
    path = write(policy, tmp_path / "robot.mcap")
    with pytest.raises(DataError, match="chunks packed with 'zstd'; expected none: `mcap decompress` unpacks them"):
        read(path)


def test_a_full_disk_is_told_and_keeps_what_came_before(
    policy: ExportedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = make_frames(3)

    def full(self: McapSteps) -> None:
        with self._told():
            raise OSError(28, "No space left on device")

    path = tmp_path / "robot.mcap"
    with (
        pytest.raises(
            DataError, match=r"robot.mcap.part: could not be written \(No space left.*keeps what was recorded"
        ),
        recording_of(policy, path) as record,
        serving(policy, record=record) as server,
    ):
        there = RemotePolicy(server.url, deadline=20.0)
        monkeypatch.setattr(McapSteps, "flush", full)
        for frame in frames:
            assert there.act(frame).shape == (1, 3)
            there.reset()
        there.close()
    assert [each.name for each in tmp_path.iterdir()] == ["robot.mcap.part"]


def test_nothing_is_left_where_nothing_came(policy: ExportedPolicy, tmp_path: Path) -> None:
    with pytest.raises(PixelrlError, match="no observations came"), recording_of(policy, tmp_path / "none.mcap"):
        pass
    assert not list(tmp_path.iterdir())
