"""Which steps are learned from: episodes within demos, last steps, costs, and the rules of sources, by hand."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer.ledger import largest_motion
from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.buffer.value_checks import check_calibration, check_values
from pixelrl.datasets.inspect.inspector import inspect_files
from pixelrl.launch.recipes.cog import calql
from pixelrl.runtime.errors import DataError
from tests.dots import CAMERA, POSITION, write_dots

LENGTH = 4


def write(
    path: Path,
    episodes: Sequence[Sequence[float]],
    *,
    demos: bool = True,
    next_obs: bool = True,
    dones: Sequence[Sequence[int]] | None = None,
    **attributes: Any,
) -> Path:
    """Write episodes with these rewards; each has its own place, and its last step is done unless `dones` says else.

    Args:
        path: of the file.
        episodes: the rewards of each.
        demos: a demo each; else all of them lie in one.
        next_obs: whether it is recorded.
        dones: of each.
        attributes: of every demo.
    """
    ends = dones or [[*np.zeros(len(rewards) - 1), 1] for rewards in episodes]
    places = [100.0 * number + np.arange(len(rewards) + 1) for number, rewards in enumerate(episodes)]
    columns = {
        "actions": [np.full((len(rewards), 2), 0.1 * number) for number, rewards in enumerate(episodes)],
        "rewards": [np.array(rewards, np.float32) for rewards in episodes],
        "dones": [np.array(end) for end in ends],
    }
    for group, rows in (("obs", slice(0, -1)), ("next_obs", slice(1, None))):
        if group == "obs" or next_obs:
            columns[f"{group}/{POSITION}"] = [np.stack([place, place], 1)[rows] for place in places]
            columns[f"{group}/{CAMERA}"] = [_pictures(place)[rows] for place in places]
    with h5py.File(path, "w") as file:
        for number in range(len(episodes) if demos else 1):
            demo = file.create_group(f"data/demo_{number}")
            demo.attrs.update(attributes)
            for key, parts in columns.items():
                demo[key] = parts[number] if demos else np.concatenate(parts)
    return path


def _pictures(places: np.ndarray) -> np.ndarray:
    """Return a picture for each place, `[F, 24, 24, 3]`."""
    return np.repeat((places % 251).astype(np.uint8), 24 * 24 * 3).reshape(-1, 24, 24, 3)


def mixed(*sources: Source, **options: Any) -> Mixture:
    """Return the mixture of some sources."""
    return load_dataset(sources, **{"batch_size": 8, "seed": 0, "gamma": 0.5, "ends": "goal", **options})


def task(path: Path, **rules: Any) -> Source:
    """Return a file as a source."""
    return Source(name="task", files=(path,), **rules)


def seen(mixture: Mixture) -> list[tuple[float, float, float]]:
    """Return (place before, place after, discount) of each step that is sampled."""
    index, columns = mixture._live, mixture._columns
    proprio = columns["proprio"][:, 0]
    before, after = proprio[columns["frame"][index]], proprio[columns["after"][index]]
    return [*zip(before.tolist(), after.tolist(), columns["discount"][index].tolist(), strict=True)]


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("next_obs", [True, False])
def test_next_frame_is_never_that_of_another_episode(tmp_path: Path, next_obs: bool, n_step: int) -> None:
    rewards = [[0.0] * (LENGTH - 1) + [1.0], [0.0] * LENGTH, [0.0] * (LENGTH - 1) + [1.0]]
    path = write(tmp_path / "a.h5", rewards, demos=False, next_obs=next_obs)
    mixture = mixed(task(path), n_step=n_step)
    assert all(after // 100 == before // 100 for before, after, _ in seen(mixture))
    assert len(mixture) == 3 * LENGTH - 1  # the time-out has no frame after it
    assert mixture.ledger.sources[0].left_out["time-outs without a frame after them"] == 1
    togo = mixture.transitions.return_to_go
    assert togo[0] == pytest.approx(0.5 ** (LENGTH - 1)) and togo[LENGTH] == 0
    folded = mixture.transitions.folded[LENGTH - 2]
    assert folded == (0 if n_step == 1 else 0.5)


def test_history_begins_anew_with_each_episode_of_a_demo(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 1.0]] * 2, demos=False)
    mixture = mixed(task(path), history=3)
    assert mixture.transitions.first.tolist() == [0] * LENGTH + [LENGTH] * LENGTH


@pytest.mark.parametrize(
    ("ends", "after", "discount"),
    [("goal", 3.0, 0.0), ("never", 3.0, 0.5)],
)
def test_only_reward_of_a_file_without_next_obs_is_kept(
    tmp_path: Path, ends: str, after: float, discount: float
) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 1.0]], next_obs=False)
    mixture = mixed(task(path), ends=ends)
    assert seen(mixture)[-1] == (3.0, after, discount)  # the goal is absorbing: its picture is repeated
    (ledger,) = mixture.ledger.sources
    assert (ledger.rewards, ledger.kept, ledger.sampled) == (1, 1, 4)


def test_time_out_of_a_file_without_next_obs_is_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 0.0], [0, 0, 0, 1.0]], next_obs=False, dones=[[0] * 4, [0, 0, 0, 1]])
    mixture = mixed(task(path), n_step=3)
    assert [before for before, _, _ in seen(mixture)] == [0, 1, 2, 100, 101, 102, 103]
    assert seen(mixture)[0] == (0, 3, 0.125) and seen(mixture)[1] == (1, 3, 0.25)  # bootstrapped from the last frame
    assert mixture.transitions.following[2] == 3  # which action was taken there is known
    assert "1 left out: time-outs without a frame after them" in "\n".join(mixture.ledger.lines())


def test_sarsa_leaves_out_steps_after_which_nothing_was_done(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 0.0], [0, 0, 0, 1.0]])
    mixture = mixed(task(path), sarsa=True)
    assert [before for before, _, _ in seen(mixture)] == [0, 1, 2, 100, 101, 102, 103]  # the goal needs no action
    assert len(mixed(task(path))) == 8
    assert [before for before, _, _ in seen(mixed(task(path), sarsa=True, n_step=3))] == [0, 100, 101, 102, 103]
    assert "1 left out: time-outs without an action after them" in "\n".join(mixture.ledger.lines())


def test_task_whose_only_rewards_are_left_out_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 1.0]] * 2)
    check_values(mixed(task(path), sarsa=True), None)
    with pytest.raises(DataError, match=r"that have a reward are left out, .* --ends goal keeps a last step"):
        check_values(mixed(task(path), sarsa=True, ends="never"), None)


def test_recording_that_goes_on_behind_the_goal_is_learned_from_by_masks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[-1, 0, -1, -1, 0.0, -1]], dones=[[0, 1, 0, 0, 1, 0]])
    by_masks, by_dones = mixed(task(path), ends="masks"), mixed(task(path), ends="dones")
    assert [(before, discount) for before, _, discount in seen(by_masks)] == [
        (0, 0.5),
        (1, 0),
        (2, 0.5),
        (3, 0.5),
        (4, 0),
        (5, 0.5),
    ]
    assert by_masks.transitions.return_to_go.tolist() == [-1, 0, -1.5, -1, 0, -1]
    assert [before for before, _, _ in seen(by_dones)] == [0, 1]
    assert seen(mixed(task(path), ends="masks", n_step=3))[0] == (0, 2, 0)  # nothing is summed across a goal


def test_returns_that_end_bound_costs_however_long_the_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[-1, -1, 0, -1.0]], dones=[[0, 0, 1, 0]])
    recipe = calql()
    check_calibration(mixed(task(path), ends="goal"), recipe)
    with pytest.raises(DataError, match="steps with costs lie in recordings that do not end"):
        check_calibration(mixed(task(path), ends="never"), recipe)


def test_costs_end_in_the_goal_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[-1, -1, -1, 0.0]] * 2)
    mixture = mixed(task(path, reward_shift=1.0))
    assert mixture.transitions.reward.tolist() == [0, 0, 0, 1] * 2
    assert [discount for _, _, discount in seen(mixture)] == [0.5, 0.5, 0.5, 0] * 2


@pytest.mark.parametrize("next_obs", [True, False])
def test_costs_recorded_as_positive_numbers_are_judged_after_the_scale(tmp_path: Path, next_obs: bool) -> None:
    path = write(tmp_path / "a.h5", [[1, 1, 1, 0.0]] * 2, next_obs=next_obs)
    mixture = mixed(task(path, reward_scale=-1.0))
    assert mixture.transitions.reward.tolist() == [-1, -1, -1, 0] * 2
    assert [discount for _, _, discount in seen(mixture)] == [0.5, 0.5, 0.5, 0] * 2


def test_costs_beside_unrewarded_data_are_refused_and_the_shift_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[-1, -1, -1, 0.0]])
    prior = Source(name="prior", files=(write(tmp_path / "b.h5", [[0, 0, 0.0]]),), reward_scale=0.0)
    with pytest.raises(DataError, match=r"task are costs.* step of prior counts 0: .*--reward-shift 1 makes"):
        check_values(mixed(task(path), prior), None)
    check_values(mixed(task(path, reward_shift=1.0), prior), (0.0, 1.0))


def test_unrewarded_steps_that_are_paid_more_than_those_of_the_task_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[-1, -1, -1, 0.0]])
    human = Source(name="human", files=(write(tmp_path / "b.h5", [[0, 0, 0.0]]),), reward_scale=0.0, reward_shift=1.0)
    with pytest.raises(DataError, match=r"'human': .* reward_shift=1, .* 0\.25 on average: .* at most reward_shift=0"):
        check_values(mixed(task(path, reward_shift=1.0), human), None)
    check_values(mixed(task(path, reward_shift=1.0), replace(human, reward_shift=0.2)), None)


def test_rewards_that_do_not_count_may_be_nan(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, math.nan, 0, math.inf]])
    prior = Source(name="prior", files=(path,), reward_scale=0.0)
    by_rule = Source(name="task", files=(path,), reward="last:1")
    assert mixed(by_rule, prior).transitions.reward.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    report = inspect_files([(path, "prior")], selections={"prior": prior.selection("goal", None, None)}).reports[0]
    assert not [each for each in report.issues if each.level == "error"]
    for refused in ((lambda: mixed(task(path))), (lambda: mixed(by_rule, replace(prior, reward_scale=1.0)))):
        with pytest.raises(DataError, match=r"a\.h5: /data/demo_0/rewards\[1\] is nan"):
            refused()


def test_rewards_that_come_later_than_gamma_looks_are_no_costs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 1.0]])
    prior = Source(name="prior", files=(write(tmp_path / "b.h5", [[0, 0, 0.0]]),), reward_scale=0.0)
    check_values(mixed(task(path), prior, gamma=0.0), None)


@pytest.mark.parametrize(
    ("rewards", "shift", "low", "message"),
    [
        (
            [1, 1, 1, 1.0],
            0.0,
            0.0,
            r"'task': returns reach from 1 to 1\.875, .* \[0, 1\]; --critic\.td\.target-range 0 1\.875 ",
        ),
        ([0, 0, 0, 1.0], -0.1, 0.0, r"'task': .* \[0, 1\]; --reward-shift 0 makes"),
        (
            [0, 0, 0, 1.0],
            0.0,
            0.5,
            r"\[0\.5, 1\]; --critic\.td\.target-range 0\.125 1 .*--form\.low 0\.125 --form\.high 1\)",
        ),
        ([-1, -1, -1, 0.0], 0.0, 0.0, r"'task': returns reach from -1\.75 to 0, .* \[0, 1\]; --reward-shift 1 makes"),
    ],
)
def test_returns_that_targets_cannot_reach_are_refused(
    tmp_path: Path, rewards: list[float], shift: float, low: float, message: str
) -> None:
    path = write(tmp_path / "a.h5", [rewards], dones=[[0, 0, 0, 0]])
    with pytest.raises(DataError, match=message):
        check_values(mixed(task(path, reward_shift=shift)), (low, 1.0))
    check_values(mixed(task(path, reward_shift=shift)), (-2.0, 2.0))


def test_data_without_any_reward_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 0.0]])
    with pytest.raises(DataError, match=r"a\.h5: no transition of the task data has a reward.*--task-reward last:1"):
        check_values(mixed(task(path)), None)


def test_rewards_by_rule(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 0.0], [0, 0, 0.0]], success=True)
    with h5py.File(path, "a") as file:
        file["data/demo_1"].attrs["success"] = np.bool_(False)
    (tmp_path / "labels.json").write_text(json.dumps({"demo_0": [0, 0, 0.5, 2], "a.h5/demo_1": 3}))

    def rewards(rule: str) -> list[float]:
        found: list[float] = mixed(task(path, reward=rule)).table.reward.tolist()
        return found

    assert rewards("last:2") == [0, 0, 1, 1, 0, 1, 1]
    assert rewards("success") == [0, 0, 0, 1, 0, 0, 0]
    assert rewards(f"labels:{tmp_path}/labels.json") == [0, 0, 0.5, 2, 0, 0, 3]
    assert "rewards sum to 0 in the files, 1 by its rule, 1 in" in "\n".join(
        mixed(task(path, reward="success")).ledger.lines()
    )


def test_rewards_and_dones_by_rule_need_not_be_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 0.0]], next_obs=False)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/rewards"], file["data/demo_0/dones"]
    with pytest.raises(DataError, match=r"/data/demo_0: no 'rewards' in it"):
        mixed(task(path))
    mixture = mixed(task(path, reward="last:1", dones="last"))
    assert seen(mixture)[-1] == (3.0, 3.0, 0.0) and len(mixture) == LENGTH


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("success:solved", r"/data/demo_0: attribute 'solved' is missing; expected 0 or 1"),
        ("success:colour", r"/data/demo_0: attribute 'colour' is 'red'; expected 0 or 1"),
        ("labels:gone.json", r"gone\.json: no JSON that can be read"),
        ("labels:short.json", r"short\.json: demo_0 is '\[1, 2\]'; expected a number, or a list of 4 numbers"),
        ("labels:empty.json", r"empty\.json: demo_0 is missing; expected a number"),
        ("labels:list.json", r"list\.json: holds a list; expected an object"),
    ],
)
def test_rules_that_cannot_be_followed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.h5", [[0, 0, 0, 0.0]], colour="red")
    for name, held in (("short", {"demo_0": [1, 2]}), ("empty", {}), ("list", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps(held))
    with pytest.raises(DataError, match=message):
        mixed(task(path, reward=rule))


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(DataError, match=r"reward is 'first:1'; expected recorded, last:K, success"):
        Source(name="task", files=(Path("a.h5"),), reward="first:1")


def test_source_of_which_nothing_can_be_learned_from_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0.0]], next_obs=False, dones=[[0]])
    with pytest.raises(DataError, match=r"'task': none of its 1 steps can be learned from: 1 are time-outs without"):
        mixed(task(path))


def test_batches_show_what_the_table_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 1.0]] * 3, demos=False)
    batch = mixed(task(path), batch_size=64).batch(0)
    moved = batch.next_obs.proprio[:, 0] - batch.obs.proprio[:, 0]
    assert set(moved.tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(batch.next_obs.images[CAMERA][:, 0, 0, 0].float(), batch.next_obs.proprio[:, 0] % 251)


def test_chunk_of_actions_lies_within_its_episode(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 1.0]] * 3)
    with h5py.File(path, "a") as file:
        for number in range(3):
            file[f"data/demo_{number}/actions"][:] = 0.1 * number + 0.01 * np.arange(LENGTH)[:, None]
    mixture = mixed(task(path), chunk=3, n_step=3)
    assert mixture.spec.action_dim == 2 and mixture.spec.action_width == 6
    assert len(mixture) == 3 * 2  # steps 0 and 1 of each: their chunks end at the end at the latest
    assert mixture.ledger.sources[0].left_out["too close to the end of their episode for a chunk of actions"] == 6
    batch = mixture.rows(np.array([0, 5]))
    steps = torch.tensor([[0.0, 0.01, 0.02], [0.11, 0.12, 0.13]])
    torch.testing.assert_close(batch.action, steps.repeat_interleave(2, 1))
    # the chunk that follows begins where this one ends; beyond the last step of its episode that one is repeated
    torch.testing.assert_close(batch.next_action, torch.tensor([[0.03] * 6, [0.13] * 6]))
    assert batch.reward.tolist() == [0, 0.25] and batch.discount.tolist() == [0.125, 0]  # gamma is 0.5


def test_chunk_that_reaches_the_goal_counts_if_it_was_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0, 0, 0, 1.0, 1, 1]], dones=[[0, 0, 0, 1, 1, 1]])
    mixture = mixed(task(path), chunk=3, n_step=3)
    assert [(before, discount) for before, _, discount in seen(mixture)] == [(0, 0.125), (1, 0), (2, 0), (3, 0)]
    assert mixture.transitions.folded[:4].tolist() == [0, 0.25, 0.5, 1]


def test_sarsa_wants_a_whole_chunk_after_a_chunk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [[0.0] * 7 + [1]], dones=[[0] * 8])
    assert [before for before, _, _ in seen(mixed(task(path), chunk=3, n_step=3, sarsa=True))] == [0, 1, 2]
    assert [before for before, _, _ in seen(mixed(task(path), chunk=3, n_step=3))] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("moves", "largest"),
    [
        ([0.04, -0.03, 0.02], 0.04),
        ([0.5, -0.3, 0.02], 0.5),
        ([0.1, 0.1, -0.1], math.inf),
    ],  # metres; normalised; a switch
)
def test_largest_motion_leaves_switches_aside(moves: list[float], largest: float) -> None:
    gripper = torch.tensor([1.0, 0.0, 1.0])
    assert largest_motion(torch.stack([torch.tensor(moves), gripper], 1)) == pytest.approx(largest)


def test_actions_in_the_robots_own_units_are_told(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 4)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["actions"][...] *= 0.05
    lines = " ".join(mixed(task(path)).ledger.lines())
    assert "warning: task: no action is beyond +-0.0" in lines and "--actions min-max" in lines
    assert "warning" not in " ".join(mixed(task(path), actions="min-max").ledger.lines())
