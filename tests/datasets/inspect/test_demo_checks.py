"""The checks one by one, on a handful of numbers."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.datasets.inspect import demo_checks as checks
from pixelrl.datasets.inspect.comparison import merged
from pixelrl.datasets.inspect.demo_summary import CameraSummary, DemoNumbers, DemoSummary
from pixelrl.datasets.inspect.file_structure import ArrayLayout, DemoStructure, FileStructure
from pixelrl.datasets.inspect.image_checks import check_demos, look_changed
from pixelrl.datasets.inspect.issues import Issue, Occurrence, gather
from pixelrl.datasets.inspect.running_statistics import RunningStatistics, position_keys
from pixelrl.datasets.inspect.structure_checks import check_lengths, unpacked
from pixelrl.runtime.actions import ActionDim


def numbers(
    rewards: list[float] | None = None,
    dones: list[int] | None = None,
    actions: NDArray[np.float64] | None = None,
    **vectors: list[list[float]],
) -> DemoNumbers:
    """Return a demo of a few steps."""
    steps = len(rewards or dones or actions if actions is None else actions)
    return DemoNumbers(
        name="demo_0",
        actions=np.zeros((steps, 2)) if actions is None else actions,
        rewards=np.array(rewards or [0.0] * steps),
        dones=np.array(dones or [0] * steps, bool),
        vectors={key: np.array(rows) for key, rows in vectors.items()},
        notes={},
    )


def seen(checksums: list[int], blank: list[int] | None = None) -> CameraSummary:
    count = len(checksums)
    return CameraSummary(
        checksums=np.array(checksums, np.uint32),
        thumbnails=np.zeros((count, 8, 8, 3), np.uint8),
        blank=np.array(blank or [0] * count, np.uint8),
    )


@pytest.mark.parametrize(
    ("rewards", "dones", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], None),  # a time-out, not marked
        ([0, 0, 1], [0, 0, 1], None),  # the goal
        ([0, 1, 1], [0, 1, 1], None),  # recorded on, in the goal
        ([-1, -1, -1], [0, 0, 1], None),  # costs: rewards do not tell the goal
        ([0, 0, 0], [0, 0, 1], ("warning", "time-outs", 2)),
        ([0, 0, 0], [0, 1, 0], ("warning", "dones", 1)),
        ([0, 1, 1], [0, 0, 0], ("note", "dones", 1)),
        ([0, 1, 0], [0, 0, 1], ("warning", "dones", 2)),  # a step late
        ([0, 0, 1], [0, 1, 0], ("warning", "dones", 1)),  # a step early
    ],
)
def test_ends(rewards: list[float], dones: list[int], expected: tuple[str, str, int] | None) -> None:
    told = [(occurrence.level, occurrence.check, occurrence.row) for occurrence in checks.ends(numbers(rewards, dones))]
    assert told == ([] if expected is None else [expected])


def test_runs() -> None:
    assert list(checks.runs(np.array([5, 5, 6, 7, 7, 7]))) == [(0, 2), (3, 6)]
    assert list(checks.runs(np.array([1, 2, 1]))) == []
    assert list(checks.runs(np.array([4]))) == []


DIMS = (ActionDim(name="a"), ActionDim(name="b"))
RANGES = {"robot0_eef_pos": (np.array([0.0, 0.0]), np.array([1.0, 0.2]))}


@pytest.mark.parametrize(
    ("path", "moved"),
    [
        ([0.0, 0.02, 0.04, 0.06], False),  # 6 % of the longest axis
        ([0.0, 0.05, 0.10, 0.15], True),
        ([0.0, 0.08, 0.00, 0.08], False),  # it trembles
        ([0.0, float("nan"), 0.0, 0.0], False),
    ],
)
def test_who_moves(path: list[float], moved: bool) -> None:
    demo = numbers(actions=np.ones((3, 2)), robot0_eef_pos=[[x, 0.1] for x in path])
    assert checks.moves(demo, RANGES, 0, 4) is moved


def test_without_a_sensor_the_actions_tell_who_moves() -> None:
    pushed, rests = numbers(actions=np.full((8, 2), 0.5)), numbers(actions=np.zeros((8, 2)))
    assert checks.moves(pushed, {}, 0, 7) and not checks.moves(rests, {}, 0, 7)
    assert not checks.moves(pushed, {}, 0, 3)  # too short to tell


def test_frozen_says_where_and_how_long() -> None:
    demo = numbers(actions=np.ones((5, 2)), robot0_eef_pos=[[x / 5, 0.0] for x in range(6)])
    summary = DemoSummary(numbers=demo, pictures={"a": seen([1, 2, 2, 2, 3, 3])}, obs={}, next_obs={})
    (told,) = checks.frozen(summary, RANGES)
    assert (told.where, told.row, told.rows) == ("obs/a", 1, 3)  # two alike are too few
    black = DemoSummary(numbers=demo, pictures={"a": seen([1, 2, 2, 2, 3, 4], [0, 1, 1, 1, 0, 0])}, obs={}, next_obs={})
    assert not list(checks.frozen(black, RANGES))
    assert [(occurrence.row, occurrence.rows) for occurrence in checks.blank(black)] == [(1, 3)]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ([2, 3, 4, 5], None),
        ([1, 2, 3, 5], "is obs itself"),
        ([3, 4, 9, 5], "is obs two steps later"),
        ([2, 9, 4, 5], "is not obs one step later"),
    ],
)
def test_what_next_obs_is(later: list[int], message: str | None) -> None:
    demo = numbers(actions=np.zeros((4, 2)))  # the last frame is next_obs' own last row: nothing else holds it
    summary = DemoSummary(numbers=demo, pictures={"a": seen([1, 2, 3, 4, 5])}, obs={}, next_obs={"a": np.array(later)})
    told = [occurrence.message for occurrence in checks.shifted(summary)]
    assert [text.startswith(message or "") for text in told] == ([] if message is None else [True])


def test_the_last_row_of_next_obs_is_checked_where_frames_hold_it() -> None:
    demo = numbers(actions=np.zeros((3, 2)))
    frames, now = seen([1, 2, 3, 4]), {"a": np.array([1, 2, 3])}
    good = DemoSummary(numbers=demo, pictures={"a": frames}, obs=now, next_obs={"a": np.array([2, 3, 4])})
    bad = DemoSummary(numbers=demo, pictures={"a": frames}, obs=now, next_obs={"a": np.array([2, 3, 9])})
    assert not list(checks.shifted(good))
    assert [occurrence.row for occurrence in checks.shifted(bad)] == [2]


def test_static_scenes_are_not_shifted() -> None:
    demo = numbers(actions=np.zeros((3, 2)))
    summary = DemoSummary(numbers=demo, pictures={"a": seen([7, 7, 7, 7])}, obs={}, next_obs={"a": np.array([7, 7, 7])})
    assert not list(checks.shifted(summary))


def test_switches_are_not_clipped() -> None:
    statistics = RunningStatistics(DIMS)
    statistics.add(numbers(actions=np.stack([np.tile([1.0, -1.0], 10), np.tile([1.0, 0.2], 10)], axis=1)))
    assert [issue.where for issue in checks.action_use(statistics.actions(), "f")] == ["actions, b"]


def test_statistics_of_actions_by_hand() -> None:
    statistics = RunningStatistics(DIMS[:1])
    statistics.add(numbers(actions=np.array([[-1.0], [0.0]])))
    statistics.add(numbers(actions=np.array([[1.0], [1.0], [np.nan]])))
    (found,) = statistics.actions()
    assert (sum(found.histogram), found.low, found.high, found.mean) == (4, -1, 1, 0.25)
    assert found.std == pytest.approx(np.std([-1, 0, 1, 1]))
    assert found.clipped == 0.75
    assert (found.histogram[0], found.histogram[20], found.histogram[-1]) == (1, 1, 2)


def test_which_way_the_gripper_goes() -> None:
    statistics = RunningStatistics(DIMS)
    demo = numbers(
        actions=np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]),
        robot0_gripper_qpos=[[0.0, 0.0], [0.2, -0.2], [0.2, -0.2], [0.3, -0.3]],
    )
    statistics.add(demo)  # it opens by 0.4, 0 and 0.2: (0.4 - 0.2) / 0.6
    np.testing.assert_allclose(statistics.gripper(), [1 / 3, -1 / 3])
    np.testing.assert_array_equal(RunningStatistics(DIMS).gripper(), [0, 0])


def test_copies() -> None:
    demos = [
        ("a", "demo_0", "x"),
        ("a", "demo_1", "y"),
        ("a", "demo_2", "x"),
        ("b", "demo_0", "x"),
        ("b", "demo_1", "x"),
    ]
    told = [(issue.file, issue.demo, issue.demos) for issue in checks.duplicates(demos)]
    assert told == [("a", "demo_2", 1), ("b", "demo_0", 2)]


def test_odd_ones_are_found_even_if_they_are_many() -> None:
    looks = np.array([[10.0, 200.0]] * 3 + [[200.0, 10.0]] * 5) + np.arange(8)[:, None]

    def exchange(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
        return pairs[:, ::-1]

    np.testing.assert_array_equal(look_changed(looks, exchange), [False] * 3 + [True] * 5)
    alike = np.array([[10.0, 12.0], [12.0, 10.0], [11.0, 11.0]])
    assert not look_changed(alike, exchange).any()  # two views that hardly differ
    other = np.array([[10.0, 200.0], [11.0, 199.0], [90.0, 120.0]])
    assert not look_changed(other, exchange).any()  # neither straight nor crossed
    assert not look_changed(looks[:1], exchange).any()


def test_of_two_equal_halves_the_first_counts_as_right() -> None:
    looks = {"a": np.full((4, 8, 8, 3), 10.0), "b": np.full((4, 8, 8, 3), 200.0)}
    for key, value in (("a", 200.0), ("b", 10.0)):
        looks[key][2:] = value
    told = [
        (occurrence.check, occurrence.demo)
        for occurrence in check_demos(looks, ["demo_0", "demo_1", "demo_2", "demo_3"])
    ]
    assert told == [("camera-swapped", "demo_2"), ("camera-swapped", "demo_3")]


def array(shape: tuple[int, ...], chunks: tuple[int, ...] | None = None, compression: str = "gzip") -> ArrayLayout:
    return ArrayLayout(shape=shape, dtype="uint8", kind="u", chunks=chunks, compression=compression)


def test_what_is_unpacked_to_read_a_picture() -> None:
    assert unpacked(array((50, 84, 84, 3), (1, 84, 84, 3))) == 1
    assert unpacked(array((50, 84, 84, 3), (1, 42, 42, 3))) == 1
    assert unpacked(array((50, 84, 84, 3), (10, 84, 84, 3))) == 10
    assert unpacked(array((50, 84, 84, 3), (8, 50, 84, 3))) == pytest.approx(8 * 100 / 84)  # two chunks of 50 rows
    assert unpacked(array((50, 84, 84, 3), (10, 84, 84, 3), "none")) == 1
    assert unpacked(array((50, 84, 84, 3))) == 1


def test_demos_without_a_step_are_too_short() -> None:
    demo = {"actions": array((0, 2)), "rewards": array((0,)), "dones": array((0,)), "obs/a": array((0, 8, 8, 3))}
    structure = FileStructure(
        path=Path("f"),
        bytes=1,
        demos={"demo_0": DemoStructure(arrays=demo, samples=0, refused={})},
    )
    assert [occurrence.message for occurrence in check_lengths(structure)] == ["too short: there is no step in it"]


def test_symptoms_alike_become_one_finding() -> None:
    def occurrence(demo: str, index: int, message: str = "black") -> Occurrence:
        return Occurrence("c", "warning", "obs/a", message, demo, index, rows=2)

    first, second = gather(
        [occurrence("demo_3", 5), occurrence("demo_4", 1), occurrence("demo_9", 0, "odd")], file="f", looked=9
    )
    assert first.message == "black in 2 of 9 demos, 4 rows; first: demo_3[5]"
    assert (first.place, first.demos, first.places, first.looked) == ("/data/demo_3/obs/a[5]", 2, 4, 9)
    assert second.message == "odd in 1 of 9 demos, 2 rows; first: demo_9[0]"
    assert first.fix == ""


def test_demos_with_errors_are_named_to_be_left_out() -> None:
    bad = [Occurrence("finite", "error", "actions", "NaN", f"demo_{index}", 0) for index in (3, 3, 7)]
    (issue,) = gather(bad, file="f.hdf5", looked=9)
    assert "`pixelrl convert f.hdf5 NEW.hdf5 --leave-out demo_3 demo_7`" in issue.fix
    (every,) = gather(bad, file="f.hdf5", looked=2)
    assert every.fix == ""
    (many,) = gather(
        [each._replace(demo=f"demo_{index}") for index in range(30) for each in bad[:1]], file="f", looked=99
    )
    assert "demo_19 ...`" in many.fix


def test_findings_alike_of_several_files_become_one() -> None:
    issues = [Issue(check="c", level="error", where="w", message="bad", file=file) for file in "abc"]
    (one,) = merged(issues)
    assert (one.file, one.message) == ("a", "bad (and so 2 more)")


def test_where_the_robot_is() -> None:
    assert position_keys(("robot0_eef_quat", "robot0_eef_pos", "robot0_joint_pos")) == ("robot0_eef_pos",)
    assert position_keys(("robot0_joint_pos_cos", "robot0_joint_pos", "robot0_joint_vel")) == ("robot0_joint_pos",)
    assert position_keys(("state", "state_vel")) == ("state",)
