"""Minari's data sets by their files: Minari reads what we write, and we read what Minari writes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, fingerprint
from pixelrl.datasets.convert.minari import FILE, METADATA, read_minari, write_minari
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError
from tests.datasets.convert.recordings import jpeg


def episode(index: int, steps: int) -> Episode:
    random = np.random.default_rng(index)
    sizes = {"front": (36, 40, 3), "tiny": (8, 8, 3), "alpha": (32, 32, 4)}
    pictures = {key: random.integers(0, 256, (steps + 1, *size), dtype=np.uint8) for key, size in sizes.items()}
    return Episode(
        sensors={**pictures, "pos": random.normal(size=(steps + 1, 3)), "count": random.integers(0, 9, (steps + 1, 1))},
        actions=random.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rewards=random.normal(size=steps),
        dones=(np.arange(steps) == steps - 1) & (index == 1),
        states=random.normal(size=(steps + 1, 4)),
        attributes={"model_file": "<mujoco/>"},
        notes={"seed": index},
    )


STREAM = DatasetStream(
    episodes=lambda: (episode(index, steps) for index, steps in enumerate((3, 5))),
    count=2,
    env_args={"env_name": "Lift"},
    action_dims=(ActionDim(name="dx", high=0.05, unit="m"), ActionDim(name="grip")),
    masks={"train": (1,)},
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set that pixelrl wrote."""
    write_minari(tmp_path / "lift-v0", STREAM)
    return tmp_path / "lift-v0"


def read(root: Path) -> tuple[list[Episode], DroppedFields]:
    dropped = DroppedFields()
    return list(read_minari(root, dropped).episodes()), dropped


def test_what_pixelrl_wrote_comes_back(root: Path) -> None:
    dropped = DroppedFields()
    assert fingerprint(read_minari(root, dropped)).digests() == fingerprint(STREAM).digests()
    assert not dropped


def test_minari_reads_what_we_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root.parent))
    held = minari.load_dataset("lift-v0")
    assert (held.total_episodes, held.total_steps, held.id) == (2, 8, "lift-v0")
    assert list(minari.list_local_datasets()) == ["lift-v0"]
    assert held.action_space.high.tolist() == [1, 1]
    assert held.observation_space["front"].shape == (36, 40, 3)
    for ours, theirs in zip(STREAM.episodes(), held.iterate_episodes(), strict=True):
        assert set(theirs.observations) == set(ours.sensors)
        for key, frames in ours.sensors.items():
            np.testing.assert_array_equal(theirs.observations[key], frames, strict=True)
        np.testing.assert_array_equal(theirs.actions, ours.actions, strict=True)
        np.testing.assert_array_equal(theirs.rewards, ours.rewards, strict=True)
        np.testing.assert_array_equal(theirs.terminations, ours.dones)
        assert theirs.truncations.tolist() == [False] * (len(ours) - 1) + [not ours.dones[-1]]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_we_read_what_minari_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own writer, which keeps larger pictures as JPEG."""
    minari = pytest.importorskip("minari")
    spaces = pytest.importorskip("gymnasium").spaces
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    front = np.tile(np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None], (1, 32, 48, 3))
    inner = {"pos": spaces.Box(-1, 1, (2,), np.float32), "mode": spaces.Discrete(3)}
    position = np.arange(10, dtype=np.float32).reshape(5, 2)
    minari.create_dataset_from_buffers(
        "toy/dot-v1",
        [
            minari.data_collector.EpisodeBuffer(
                id=0,
                seed=7,
                observations={"front": front, "robot": {"pos": position, "mode": np.arange(5) % 3}},
                actions=np.full((4, 2), 0.5, np.float32),
                rewards=[0.0, 0.0, 0.0, 1.0],
                terminations=[False, False, False, True],
                truncations=[False] * 4,
                infos={"power": np.zeros(5)},
            )
        ],
        observation_space=spaces.Dict(
            {"front": spaces.Box(0, 255, (32, 48, 3), np.uint8), "robot": spaces.Dict(inner)}
        ),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
    )
    dropped = DroppedFields()
    stream = read_minari(tmp_path / "toy/dot-v1", dropped)
    assert stream.env_args == {"env_name": "toy/dot-v1", "type": 2, "env_kwargs": {}}
    assert [dim.name for dim in stream.action_dims] == ["action_0", "action_1"]
    (came,) = stream.episodes()
    np.testing.assert_array_equal(came.sensors["front"], front)  # even grey survives JPEG
    np.testing.assert_array_equal(came.sensors["robot.pos"], position, strict=True)
    assert came.rewards.tolist() == [0, 0, 0, 1] and came.dones.tolist() == [False, False, False, True]
    assert came.notes == {"seed": 7} and came.states is None
    assert dropped == {"robot.mode, of the space Discrete": 0, "infos/power": 1}


def test_pictures_of_older_versions_lie_there_plainly(root: Path) -> None:
    with h5py.File(root / FILE, "a") as held:
        for index, one in enumerate(STREAM.episodes()):
            del held[f"episode_{index}/observations/front"]
            held[f"episode_{index}/observations/front"] = one.sensors["front"]
    edit(root, minari_version="0.4.3")
    assert fingerprint(read_minari(root, DroppedFields())).digests() == fingerprint(STREAM).digests()


def test_an_observation_may_be_one_picture(root: Path) -> None:
    with h5py.File(root / FILE, "a") as held:
        for index in range(2):
            front = held[f"episode_{index}/observations/front"][()]
            del held[f"episode_{index}/observations"]
            held.create_dataset(f"episode_{index}/observations", data=front, dtype=h5py.vlen_dtype(np.uint8))
    edit(root, observation_space=json.dumps(space("observation_space", root)["subspaces"]["front"]))
    came, _ = read(root)
    for one, other in zip(came, STREAM.episodes(), strict=True):
        assert list(one.sensors) == ["image"]
        np.testing.assert_array_equal(one.sensors["image"], other.sensors["front"], strict=True)


def test_integers_of_others_are_learned_from(root: Path) -> None:
    with h5py.File(root / FILE, "a") as held:
        for index in range(2):
            del held[f"episode_{index}/pixelrl"]
    edit(root, pixelrl=None)
    came, _ = read(root)
    for one, other in zip(came, STREAM.episodes(), strict=True):
        np.testing.assert_array_equal(one.sensors["count"], other.sensors["count"].astype(np.float32), strict=True)
        np.testing.assert_array_equal(one.sensors["front"], other.sensors["front"], strict=True)


def test_actions_beyond_one_make_the_space_endless(tmp_path: Path) -> None:
    far = replace(episode(0, 2), actions=np.array([[2.0, 0.0]] * 2, np.float32))
    write_minari(tmp_path / "a-v0", replace(STREAM, episodes=lambda: iter([far])))
    assert space("action_space", tmp_path / "a-v0")["high"] == [float("inf")] * 2


@pytest.mark.parametrize(
    ("name", "episodes", "why"),
    [
        ("lift", lambda: iter([episode(0, 2)]), r"Minari's names end in a version; expected one like lift-v0"),
        ("lift-v0", lambda: iter([]), r"no episodes came to be written"),
        (
            "lift-v0",
            lambda: iter([replace(episode(0, 2), sensors={"odd": np.zeros((3, 40, 40, 6), np.uint8)})]),
            r"odd has 6 channels; expected \[1, 3, 4\]",
        ),
    ],
)
def test_what_minari_cannot_hold_is_named(
    tmp_path: Path, name: str, episodes: Callable[[], Iterator[Episode]], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        write_minari(tmp_path / name, replace(STREAM, episodes=episodes))


def edit(root: Path, **changes: Any) -> None:
    said = json.loads((root / METADATA).read_text()) | changes
    (root / METADATA).write_text(json.dumps({name: value for name, value in said.items() if value is not None}))


def space(name: str, root: Path) -> Any:
    return json.loads(json.loads((root / METADATA).read_text())[name])


def put(root: Path, name: str, value: Any) -> None:
    with h5py.File(root / FILE, "a") as held:
        del held[f"episode_0/{name}"]
        held[f"episode_0/{name}"] = value


def only(root: Path, **spaces: Any) -> None:
    edit(root, observation_space=json.dumps({"type": "Dict", "subspaces": spaces}))


BLACK = jpeg(np.zeros((8, 8, 3), np.uint8))


def pictures(*encoded: bytes) -> Any:
    held = np.empty(len(encoded), dtype=h5py.vlen_dtype(np.uint8))
    held[:] = [np.frombuffer(data, np.uint8) for data in encoded]
    return held


BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [0, 0], "high": [1, 1]}
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no metadata": (
        lambda root: (root / METADATA).unlink(),
        r"metadata\.json: no such file; expected a data set of Min",
    ),
    "half of them": (lambda root: (root / METADATA).write_text("{"), r"metadata\.json: not a description of Minari's"),
    "no version": (lambda root: edit(root, minari_version=None), r"it lacks 'minari_version'"),
    "a later version": (
        lambda root: edit(root, minari_version="1.0.0"),
        r"written by Minari 1\.0\.0; expected 0\.4 or 0\.5",
    ),
    "arrow": (lambda root: edit(root, data_format="arrow"), r"its data_format is 'arrow'; expected 'hdf5'"),
    "no pictures": (lambda root: only(root, pos=BOX), r"2 episodes of pos; expected one or more, with pictures"),
    "discrete actions": (
        lambda root: edit(root, action_space=json.dumps({"type": "Discrete", "n": 4, "start": 0})),
        r"actions are Discrete ; expected floats \(A,\)",
    ),
    "hostile keys": (lambda root: only(root, **{"../a": BOX}), r"a key '\.\./a'; expected one without '/'"),
    "nested spaces": (
        lambda root: edit(root, observation_space='{"type": "Dict", "subspaces": {"a": ' * 2000 + "1" + "}}" * 2000),
        r"not a description of Minari's",
    ),
    "our part": (lambda root: edit(root, pixelrl={"masks": 3}), r"env_spec or pixelrl is not as expected"),
    "no data": (lambda root: (root / FILE).unlink(), r"main_data\.hdf5: no such file"),
    "truncated data": (
        lambda root: (root / FILE).write_bytes((root / FILE).read_bytes()[:5000]),
        r"main_data\.hdf5: not an HDF5 file, or a damaged one",
    ),
    "too few episodes": (
        lambda root: edit(root, total_episodes=3),
        r"no 'episode_2' in it; it holds episode_0, episode_1",
    ),
    "more episodes than promised": (
        lambda root: edit(root, total_episodes=1),
        r"main_data\.hdf5: holds 2 episodes; expected the 1 that data/metadata\.json promises",
    ),
    "rewards too short": (
        lambda root: put(root, "rewards", np.zeros(2)),
        r"are \(3, 2\), \(2,\), \(3,\), \(3,\); expected",
    ),
    "readings too short": (
        lambda root: put(root, "observations/pos", np.zeros((3, 3))),
        r"observations/pos: shape \(3, 3\); expected \(4, 3\)",
    ),
    "pictures too few": (
        lambda root: put(root, "observations/front", pictures(BLACK)),
        r"front: 1 pictures, .* expected 4",
    ),
    "pictures too small": (
        lambda root: put(root, "observations/front", pictures(*[BLACK] * 4)),
        r"front\[0\]: a picture RGB 8 x 8; expected RGB 36 x 40",
    ),
    "pictures damaged": (
        lambda root: put(root, "observations/front", pictures(*[BLACK[:100]] * 4)),
        r"front\[0\]: a damaged picture",
    ),
    "links to other files": (
        lambda root: put(root, "observations/pos", h5py.ExternalLink("other.hdf5", "/x")),
        r"observations/pos: a link; expected the data themselves",
    ),
    "linked infos": (lambda root: put(root, "infos", h5py.ExternalLink("other.hdf5", "/x")), r"infos"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_named(root: Path, damage: str) -> None:
    harm, why = DAMAGE[damage]
    harm(root)
    with pytest.raises(DataError, match=why) as caught:
        read(root)
    assert str(caught.value).startswith(str(root)) and "\n" not in str(caught.value)


def test_truncations_within_an_episode_are_named(root: Path) -> None:
    put(root, "truncations", np.array([True, False, True]))
    assert read(root)[1] == {"truncations, where they are not just the last step": 1}
