"""Rules of a conversion: no reward is lost with the last step, and rewards, ends and keys are those asked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrl.datasets.convert.conversion import convert_dataset
from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.rules import REPEATED, RewardSums, apply_rules
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.keys import parse_renames
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError, PixelrlError


def episode(rewards: list[float], *, frames: int = 0, done: bool = False, **notes: Any) -> Episode:
    """Return an episode with `frames` more pictures than steps; each picture shows its number."""
    steps = len(rewards)
    pictures = np.arange(steps + frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    return Episode(
        sensors={"image": pictures, "pos": np.zeros((steps + frames, 2), np.float32)},
        actions=np.zeros((steps, 2), np.float32),
        rewards=np.array(rewards, np.float32),
        dones=(np.arange(steps) == steps - 1) & done,
        states=np.arange(steps + 1.0)[:, None],
        notes=notes,
    )


def ruled(*episodes: Episode, **options: Any) -> tuple[list[Episode], DroppedFields, RewardSums]:
    dims = (ActionDim(name="x"), ActionDim(name="y"))
    stream = DatasetStream(episodes=lambda: iter(episodes), count=len(episodes), env_args={}, action_dims=dims)
    dropped, sums = DroppedFields(), RewardSums()
    changed = apply_rules(stream, FormatOptions(**options), Path("a.hdf5"), dropped, sums)
    return list(changed.episodes()), dropped, sums


def test_the_last_step_is_kept_where_it_ends_in_the_goal() -> None:
    came, dropped, sums = ruled(episode([0, 0, 1]), episode([0, 0], done=True), episode([0, 0, 0]))
    assert [held.sensors["image"][:, 0, 0, 0].tolist() for held in came] == [[0, 1, 2, 2], [0, 1, 1], [0, 1, 2]]
    assert [len(held) for held in came] == [3, 2, 2]
    assert dropped == {REPEATED: 2, "the last step, a time-out: the picture after it was not recorded": 1}
    assert sums == RewardSums(recorded=1, ruled=1, dropped=0)


def test_the_last_step_is_kept_where_it_alone_is_free() -> None:
    """Costs of a step, and none in the goal."""
    came, dropped, sums = ruled(episode([-1, -1, 0]), episode([-1, -1, -1]), episode([-0.5, -0.2]))
    assert [len(held) for held in came] == [3, 2, 1] and dropped[REPEATED] == 1
    assert sums.dropped == pytest.approx(-1.2)


def test_the_last_step_can_be_repeated_or_dropped_always() -> None:
    came, _, sums = ruled(episode([0, 0]), episode([0, 1]), last_step="repeat")
    assert [len(held) for held in came] == [2, 2] and sums.dropped == 0
    came, dropped, sums = ruled(episode([0, 0]), episode([0, 1]), last_step="drop")
    assert [len(held) for held in came] == [1, 1] and sums == RewardSums(recorded=1, ruled=1, dropped=1)
    assert [held.states is not None and held.states[:, 0].tolist() for held in came] == [[0, 1], [0, 1]]
    assert any(what.startswith("the last step and its reward") for what in dropped)
    _, dropped, _ = ruled(episode([-1, -1]))
    assert next(iter(dropped)).startswith("the last step, a time-out and its reward (--last-step repeat keeps them)")


def test_episodes_with_their_last_frame_stay_as_they_are() -> None:
    before = episode([0, 0, 0], frames=1)
    came, dropped, _ = ruled(before, last_step="drop")
    assert came[0].sensors["image"] is before.sensors["image"] and not dropped


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=2, max_size=5), min_size=1, max_size=4),
    st.sampled_from(["keep", "repeat", "drop"]),
    st.sampled_from(["recorded", "last:1", "last:3"]),
    st.sampled_from([0.0, -1.0]),
)
def test_the_sum_of_rewards_is_an_invariant(
    rewards: list[list[float]], last_step: str, reward: str, shift: float
) -> None:
    given_ = [episode(each) for each in rewards]
    came, _, sums = ruled(*given_, last_step=last_step, reward=reward, reward_shift=shift)
    assert sums.recorded == sum(map(sum, rewards))
    assert sum(float(held.rewards.sum()) for held in came) == sums.ruled - sums.dropped
    if last_step == "repeat":
        assert sums.dropped == 0 and [len(held) for held in came] == [len(each) for each in rewards]
    if last_step == "keep":
        assert sums.dropped <= 0  # costs of time-outs alone


def test_rewards_follow_a_rule(tmp_path: Path) -> None:
    pair = episode([5, 5, 5], success=True), episode([5, 5, 5], success=False, good=True)
    options: dict[str, Any] = {"last_step": "repeat"}
    came, _, sums = ruled(*pair, reward="last:2", **options)
    assert [held.rewards.tolist() for held in came] == [[0, 1, 1], [0, 1, 1]]
    assert (sums.recorded, sums.ruled) == (30, 4)
    came, _, _ = ruled(*pair, reward="success", **options)
    assert [held.rewards.tolist() for held in came] == [[0, 0, 1], [0, 0, 0]]
    with pytest.raises(DataError, match=r"a\.hdf5: episode 0: attribute 'good' is missing; expected 0 or 1"):
        ruled(*pair, reward="success:good", **options)
    labels = tmp_path / "l.json"
    labels.write_text(json.dumps({"demo_0": [0, 0.5, 1], "demo_1": 2}))
    came, _, _ = ruled(*pair, reward=f"labels:{labels}", **options)
    assert [held.rewards.tolist() for held in came] == [[0, 0.5, 1], [0, 0, 2]]
    came, _, _ = ruled(*pair, dones="last", reward_shift=-6, **options)
    assert came[0].dones.tolist() == [False, False, True] and came[0].rewards.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("said", [0.3, -1, 2, "yes", [[1], [1, 2]]])
def test_success_is_a_truth_value_as_in_training(said: Any) -> None:
    with pytest.raises(DataError, match=r"a\.hdf5: episode 0: attribute 'success' is .*; expected 0 or 1"):
        ruled(episode([0, 0, 0], success=said), reward="success")


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"demo_0": [1]}')
    with pytest.raises(DataError, match=r"l\.json: demo_0 is '\[1\]'; expected a number, or a list of 3"):
        ruled(episode([0, 0, 0]), reward=f"labels:{tmp_path / 'l.json'}")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_rewards_that_are_no_numbers_are_refused(value: float) -> None:
    held = replace(episode([0, 0]), rewards=np.array([0, value]))
    with pytest.raises(DataError, match=r"a\.hdf5: episode 0: rewards hold .*; expected finite numbers"):
        ruled(held)


def test_keys_are_chosen_renamed_and_turned() -> None:
    held = episode([0, 1], frames=1)
    held.sensors["image"][..., 0] = 9
    (came,), _, _ = ruled(held, keys=("image",), rename=parse_renames(("image=agentview_image",)), bgr=True)
    assert list(came.sensors) == ["agentview_image"]
    assert came.sensors["agentview_image"][1, 0, 0].tolist() == [1, 1, 9]
    exchanged = ruled(held, rename=parse_renames(("image=pos", "pos=image")))[0][0].sensors
    assert exchanged["pos"].shape == held.sensors["image"].shape
    with pytest.raises(DataError, match="no 'nothing' among image, pos"):
        ruled(held, keys=("nothing",))
    for rename in ({"nothing": "a"}, {"pos": "b"}):
        with pytest.raises(DataError, match="to rename; expected one of image"):
            ruled(held, keys=("image",), rename=rename)
    for names in ({"image": "pos"}, {"image": "a/b"}):
        with pytest.raises(DataError, match="expected another name"):
            ruled(held, rename=names)
    for said in (("a",), ("a=b", "a=c"), ("a=c", "b=c"), ("=b",), ("a=a",), ("a=b/c",)):
        with pytest.raises(PixelrlError, match="expected OLD=NEW"):
            parse_renames(said)


def test_numbers_that_training_refuses_are_told() -> None:
    held = episode([0, 1], frames=1)
    held.sensors["pos"][1, 1] = np.nan
    _, dropped, _ = ruled(held)
    assert dropped == {"pos: NaN or infinities, which came along, and which training refuses (first in episode 0)": 1}


@pytest.mark.parametrize("next_obs", [True, False])
@pytest.mark.parametrize("target", ["o.hdf5", "o", "o-v0"])
def test_a_file_without_next_obs_keeps_its_only_reward(tmp_path: Path, target: str, next_obs: bool) -> None:
    """LIBERO's and MimicGen's layout: the only reward is on the last step."""
    pytest.importorskip("pyarrow")
    with h5py.File(tmp_path / "in.hdf5", "w") as file:
        for index in range(3):
            demo = file.create_group(f"data/demo_{index}")
            demo["actions"], demo["rewards"], demo["dones"] = np.zeros((4, 2)), [0.0, 0, 0, 1], [0, 0, 0, 1]
            demo["obs/image"] = np.full((4, 32, 32, 3), index, np.uint8)
            demo["obs/pos"] = np.zeros((4, 2))
            if next_obs:
                demo["next_obs/image"] = np.full((4, 32, 32, 3), index, np.uint8)  # and no position
    kind = {"o.hdf5": "hdf5", "o": "lerobot", "o-v0": "minari"}[target]
    result = convert_dataset(tmp_path / "in.hdf5", tmp_path / target, "hdf5", kind, options=FormatOptions(fps=20))
    assert result["rewards"] == {"recorded": 3.0, "ruled": 3.0, "dropped": 0.0, "written": 3.0}
    assert {"what": REPEATED, "episodes": 3} in result["dropped"]
    back = convert_dataset(tmp_path / target, tmp_path / "back.hdf5", kind, "hdf5")
    assert back["rewards"]["written"] == 3.0
    with h5py.File(tmp_path / "back.hdf5") as file:
        assert [len(file[f"data/demo_{index}/actions"]) for index in range(3)] == [4, 4, 4]


def test_a_fourth_channel_stays_the_fourth(tmp_path: Path) -> None:
    one = episode([0, 1], frames=1)
    held = replace(one, sensors={"zed": np.full((3, 8, 8, 4), (10, 20, 30, 255), np.uint8)})
    (came,), *_ = ruled(held, bgr=True)
    assert came.sensors["zed"][0, 0, 0].tolist() == [30, 20, 10, 255]
