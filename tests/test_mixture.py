"""The mixture: returns by hand, exact quotas, and batches that depend on nothing but seed and step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelrl.batch import Batch
from pixelrl.datasets.mixture import Ends, Mixture, Quotas, Source, fold
from pixelrl.datasets.synthetic import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes, write_dots
from pixelrl.datasets.writer import write_episodes
from pixelrl.errors import DataError

Make = Callable[..., Mixture]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a factory of mixtures of a prior and a task file."""
    folder = tmp_path_factory.mktemp("dots")
    prior, task = write_dots(folder / "prior.h5", "prior", 40), write_dots(folder / "task.h5", "task", 10)

    def mixture(prior_share: float | None = None, task_share: float | None = None, **options: Any) -> Mixture:
        sources = [
            Source(name="prior", files=(prior,), share=prior_share, reward_scale=0.0),
            Source(name="task", files=(task,), share=task_share),
        ]
        return Mixture(sources, **{"batch_size": 32, "seed": 0, "gamma": 0.9} | options)

    return mixture


def tensors(batch: Batch) -> list[torch.Tensor]:
    """Return everything in a batch."""
    both = [t for obs in (batch.obs, batch.next_obs) for t in (*obs.images.values(), obs.proprio)]
    return [*both, batch.action, batch.reward, batch.discount, batch.source]


def same(one: Batch, other: Batch) -> bool:
    """Tell whether two batches are equal to the bit."""
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_a_window_stops_at_the_goal_and_at_the_end_of_a_demo() -> None:
    # Demo one: 4 steps that run out of time. Demo two: 3 steps, a reward of 8 in the goal.
    reward = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0, 0.0, 8.0])
    last = torch.tensor([False, False, False, True, False, False, True])
    end = torch.tensor([False, False, False, False, False, False, True])
    total, discount, steps = fold(reward, end, last, gamma=0.5, n_step=3)
    assert total.tolist() == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 0 + 0 + 2, 0 + 4, 8]
    assert discount.tolist() == [0.125, 0.125, 0.25, 0.5, 0, 0, 0]
    assert steps.tolist() == [3, 3, 2, 1, 3, 2, 1]


def test_nothing_flows_through_a_goal_in_the_middle() -> None:
    reward, end = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([False, True, False, False])
    last = torch.tensor([False, False, False, True])
    total, discount, steps = fold(reward, end, last, gamma=0.5, n_step=2)
    assert total.tolist() == [0.5, 1, 1.5, 1]
    assert discount.tolist() == [0, 0, 0.25, 0.5]
    assert steps.tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("ends", "prior", "task"),
    [
        ("never", [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]),
        ("goal", [0.9, 0.9, 0.9], [0.9, 0.9, 0]),
        ("dones", [0.9, 0, 0], [0.9, 0, 0]),
    ],
)
def test_what_ends_an_episode(tmp_path: Path, ends: Ends, prior: list[float], task: list[float]) -> None:
    # Three steps: nothing; done without a reward, as where a file marks the end of a demo; the goal.
    episode = next(dot_episodes("task", 1))
    short = replace(
        episode,
        sensors={key: value[:4] for key, value in episode.sensors.items()},
        actions=episode.actions[:3],
        rewards=np.array([0, 0, 1], np.float32),
        dones=np.array([False, True, True]),
        states=None,
    )
    write_episodes(tmp_path / "a.h5", [short], env_args=ENV_ARGS, action_dims=ACTION)
    sources = [
        Source(name="prior", files=(tmp_path / "a.h5",), reward_scale=0, reward_shift=-1),
        Source(name="task", files=(tmp_path / "a.h5",), reward_scale=10, reward_shift=-1),
    ]
    mixture = Mixture(sources, batch_size=200, seed=0, gamma=0.9, ends=ends)
    batch = mixture.batch(0)
    index = mixture._draw(0)
    beyond = {2, 5} if ends == "dones" else set()  # what follows a true end is never drawn
    assert set(index) == set(range(6)) - beyond
    assert len(mixture) == 6 - len(beyond)
    expected = torch.tensor([*prior, *task])[index]
    torch.testing.assert_close(batch.discount, expected)
    torch.testing.assert_close(batch.reward, torch.tensor([-1.0, -1, -1, -1, -1, 9])[index])


def test_a_batch_is_what_was_recorded(make: Make) -> None:
    mixture = make(0.5, 0.5, n_step=3, ends="goal")
    batch, index = mixture.batch(5), mixture._draw(5)
    episodes = [*dot_episodes("prior", 40), *dot_episodes("task", 10)]
    places = [(episode, step) for episode in episodes for step in range(len(episode))]
    for row, (episode, step) in enumerate(places[i] for i in index):
        length = min(3, len(episode) - step)
        prior = episode.notes["part"] == "prior"
        for obs, instant in ((batch.obs, step), (batch.next_obs, step + length)):
            np.testing.assert_array_equal(obs.images[CAMERA][row].permute(1, 2, 0), episode.sensors[CAMERA][instant])
            np.testing.assert_array_equal(obs.proprio[row], episode.sensors[POSITION][instant])
        paid = 0 if prior else sum(0.9**k * episode.rewards[step + k] for k in range(length))
        assert batch.reward[row] == pytest.approx(paid)
        assert batch.discount[row] == pytest.approx(0 if paid else 0.9**length)
        assert batch.source[row] == int(not prior)
    assert (batch.reward > 0).any()


def test_a_batch_depends_on_seed_and_step_only(make: Make) -> None:
    mixture, again = make(0.3, 0.7), make(0.3, 0.7)
    for step in range(5):
        mixture.batch(step)
    with ThreadPoolExecutor(4) as threads:
        later = list(threads.map(again.batch, (9, 7, 8, 7)))
    assert all(same(mixture.batch(step), batch) for step, batch in zip((9, 7, 8, 7), later, strict=True))
    assert not same(mixture.batch(7), mixture.batch(8))
    assert not same(mixture.batch(7), make(0.3, 0.7, seed=1).batch(7))


@pytest.mark.parametrize(
    ("shares", "batch_size"), [((0.5, 0.5), 128), ((0.25, 0.75), 10), ((1, 2), 32), ((0.15, 0.03, 0.82), 10)]
)
def test_quotas_are_exact(shares: tuple[float, ...], batch_size: int) -> None:
    quotas = Quotas(shares, batch_size)
    exact = batch_size * np.array(shares) / sum(shares)
    counts = np.array([quotas(step) for step in range(1000, 1000 + quotas.period)])
    assert (counts.sum(axis=1) == batch_size).all()
    assert (np.abs(counts - exact) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), exact, rtol=1e-12)


def test_a_share_is_kept_in_every_batch(make: Make) -> None:
    mixture = make(0.75, 0.25)
    assert all(torch.bincount(mixture.batch(step).source).tolist() == [24, 8] for step in range(20))


def test_without_shares_all_transitions_are_alike(make: Make) -> None:
    mixture = make(batch_size=10_000)
    count = np.bincount(mixture._draw(3), minlength=len(mixture))
    expected = 10_000 / len(mixture)
    chi_squared = float(((count - expected) ** 2 / expected).sum())
    assert abs(chi_squared - len(mixture)) < 5 * (2 * len(mixture)) ** 0.5


def test_the_spec_is_read_from_the_files(make: Make) -> None:
    mixture = make()
    spec = mixture.spec
    assert (spec.images, spec.proprio, spec.action) == ({CAMERA: (3, 24, 24)}, {POSITION: 2}, ACTION)
    assert (spec.sources, mixture.env_args) == (("prior", "task"), ENV_ARGS)
    episodes = [*dot_episodes("prior", 40), *dot_episodes("task", 10)]
    frames = np.concatenate([episode.sensors[POSITION] for episode in episodes])
    assert spec.proprio_mean == pytest.approx(frames.mean(axis=0), abs=1e-5)
    assert spec.proprio_std == pytest.approx(frames.std(axis=0), abs=1e-5)
    bare = make(proprio=())
    assert bare.spec.proprio_dim == 0
    assert bare.batch(0).obs.proprio.shape == (32, 0)


@pytest.mark.cuda
def test_pinned_batches_are_the_same(make: Make) -> None:
    pinned = make(pin=True).batch(3)
    assert pinned.obs.images[CAMERA].is_pinned()
    assert same(pinned, make().batch(3))


def test_sources_that_cannot_be_mixed(make: Make) -> None:
    with pytest.raises(DataError, match=r"shares are \[0\.5, None\]; expected a share .* in all sources, or in none"):
        make(0.5, None)
    source = Source(name="task", files=())
    with pytest.raises(DataError, match=r"named \['task', 'task'\]; expected .* different names"):
        Mixture([source, source], batch_size=1, seed=0, gamma=0.9)
    with pytest.raises(DataError, match=r"source 'task' has no files"):
        Mixture([source], batch_size=1, seed=0, gamma=0.9)
