"""Data that are corrupted on purpose: which rows, how, and what stays as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.corruption import LAG, Corruption, occlude, others, parse_corruptions, rectangles
from pixelrl.learning.batch import Batch
from pixelrl.runtime.errors import DataError
from tests.dots import CAMERA, write_dots


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("dots")
    return write_dots(folder / "task.hdf5", "task", 20), write_dots(folder / "prior.hdf5", "prior", 20)


def mixed(files: tuple[Path, Path], corrupt: str = "", *, seed: int = 0, **options: Any) -> Mixture:
    task, prior = (
        Source(name=name, files=(path,), corrupt=corrupt if name == "task" else "")
        for name, path in zip(("task", "prior"), files, strict=True)
    )
    return load_dataset([task, prior], **{"batch_size": 64, "seed": seed, "gamma": 0.9, "ends": "goal", **options})


def all_rows(mixture: Mixture) -> Batch:
    return mixture.rows(np.arange(len(mixture.table)))


def differs(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return which rows differ, bool `[B]`."""
    return (one != other).flatten(1).any(1) if one.dim() > 1 else one != other


def fields(batch: Batch) -> dict[str, torch.Tensor]:
    return {
        "action": batch.action,
        "reward": batch.reward,
        "discount": batch.discount,
        "picture": batch.obs.images[CAMERA],
        "readings": batch.obs.proprio,
        "next picture": batch.next_obs.images[CAMERA],
        "next readings": batch.next_obs.proprio,
    }


STRUCK = {
    "action": {"action"},
    "reward": {"reward"},
    "observation": {"picture", "readings"},
    "dynamics": {"next picture", "next readings"},
    "swap": {"picture"},
    "freeze": {"picture"},
    "occlude": {"picture"},
}


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("kind", STRUCK)
def test_corruption_strikes_its_part_of_its_source_and_nothing_else(
    files: tuple[Path, Path], kind: str, history: int
) -> None:
    plain = mixed(files, history=history)
    harmed = mixed(files, f"{kind}:0.5", history=history)
    task = all_rows(plain).source == 0
    for name, before in fields(all_rows(plain)).items():
        changed = differs(before, fields(all_rows(harmed))[name])
        assert not changed[~task].any(), name
        if name in STRUCK[kind]:
            assert 0.25 < changed[task].float().mean() < 0.6, name
        else:
            assert not changed.any(), name
    assert torch.equal(plain.transitions.sampled, harmed.transitions.sampled)
    assert any(f"corrupted on purpose: {kind}:0.5" in line for line in harmed.ledger.lines())


def test_rate_of_zero_leaves_the_data_bit_for_bit(files: tuple[Path, Path]) -> None:
    plain, harmed = (
        all_rows(mixed(files)),
        all_rows(mixed(files, "action:0+reward:0+observation:0+dynamics:0+swap:0+freeze:0+occlude:0")),
    )
    assert all(torch.equal(one, other) for one, other in zip(plain.tensors, harmed.tensors, strict=True))


def test_seed_decides_which_rows_and_how(files: tuple[Path, Path]) -> None:
    rule = "action:0.4+reward:0.4+observation:0.4"
    one, again, other = (all_rows(mixed(files, rule, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors, again.tensors, strict=True))
    assert not torch.equal(one.action, other.action) and not torch.equal(one.reward, other.reward)


def test_corrupted_numbers_stay_where_they_may_be(files: tuple[Path, Path]) -> None:
    batch = all_rows(mixed(files, "action:1+reward:1"))
    assert batch.action.abs().max() <= 0.999 and batch.reward.abs().max() <= 1
    assert batch.reward.unique().numel() > 50  # no longer 0 and 1


@pytest.mark.parametrize("kind", ["observation", "swap", "dynamics"])
def test_what_is_held_out_stands_for_nothing_that_is_sampled(files: tuple[Path, Path], kind: str) -> None:
    source = Source(name="task", files=(files[0],), held_out=0.3, corrupt=f"{kind}:0.5")
    mixture = load_dataset([source], batch_size=64, seed=0, gamma=0.9)
    table, chosen, views = mixture.table, mixture.transitions, mixture._views
    held = torch.isin(chosen.episode, chosen.episode[chosen.held_out])
    hidden = torch.cat([table.frame[held], chosen.after[held]])
    shown = torch.cat([views["shown"][chosen.sampled], views["shown_after"][chosen.sampled]])
    assert held.any() and not torch.isin(shown, hidden).any()


def test_without_episodes_held_out_others_are_drawn_from_all() -> None:
    values, chosen, all_of_them = torch.arange(100) + 7, torch.arange(100) % 2 == 0, torch.ones(100, dtype=torch.bool)
    drawn = np.random.default_rng(5).integers(100, size=100)
    expected = torch.where(chosen, torch.from_numpy(drawn) + 7, values)
    assert torch.equal(others(values, chosen, all_of_them, np.random.default_rng(5)), expected)


def test_a_camera_that_freezes_shows_an_earlier_frame_of_its_episode(files: tuple[Path, Path]) -> None:
    plain, harmed = mixed(files), mixed(files, "freeze:1")
    now, seen = all_rows(plain).obs.images[CAMERA], all_rows(harmed).obs.images[CAMERA]
    first = plain.transitions.first - plain.table.frame[0]
    lags = set()
    for row in (plain.table.source == 0).nonzero().flatten().tolist():
        frame, begin = int(plain.table.frame[row]), int(first[row])
        earlier = [back for back in range(LAG + 1) if frame - back >= begin]
        same = [back for back in earlier if torch.equal(seen[row], now[row - back])]
        assert same, row
        lags.add(max(same))
    assert lags == set(range(LAG + 1))  # 0 at an episode's first frame


def test_an_occluded_picture_is_black_in_one_rectangle_and_as_it_was_elsewhere() -> None:
    pictures = torch.full((200, 3, 40, 60), 9, dtype=torch.uint8)
    boxes = rectangles(torch.arange(200) % 2 == 0, np.random.default_rng(0))
    black = (occlude(pictures, boxes) == 0).all(1)
    assert torch.equal(black, (occlude(pictures, boxes) == 0).any(1)) and not black[1::2].any()
    rows, columns = black[::2].any(2).sum(1), black[::2].any(1).sum(1)
    assert torch.equal(black[::2].sum((1, 2)), rows * columns)
    assert rows.min() >= 9 and rows.max() <= 21 and columns.min() >= 14 and columns.max() <= 31


@pytest.mark.parametrize("text", ["reward", "reward:2", "light:0.1", "reward:0.1+reward:0.2", "reward:x"])
def test_rule_that_is_none_is_refused(text: str) -> None:
    assert parse_corruptions(text) is None
    with pytest.raises(DataError, match=r"corrupt is .*; expected KIND:RATE, joined by \+"):
        Source(name="task", files=(Path("a"),), corrupt=text)


def test_rule_is_read() -> None:
    assert parse_corruptions("") == ()
    expected = (Corruption(kind="action", rate=0.3), Corruption(kind="reward", rate=0.0))
    assert parse_corruptions("action:0.3+reward:0") == expected
