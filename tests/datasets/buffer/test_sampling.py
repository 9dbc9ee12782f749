"""Quotas, and what follows a transition, by hand."""

import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer.episodes import fold, return_to_go
from pixelrl.datasets.buffer.mixture import Quotas


def test_a_window_stops_at_the_goal_and_at_the_end_of_a_demo() -> None:
    # Demo one: 4 steps that run out of time. Demo two: 3 steps, a reward of 8 in the goal.
    reward = torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0, 0.0, 8.0])
    last = torch.tensor([False, False, False, True, False, False, True])
    end = torch.tensor([False, False, False, False, False, False, True])
    total, discount, steps = fold(reward, end, last, gamma=0.5, n_step=3)
    assert total.tolist() == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 0 + 0 + 2, 0 + 4, 8]
    assert discount.tolist() == [0.125, 0.125, 0.25, 0.5, 0, 0, 0]
    assert steps.tolist() == [3, 3, 2, 1, 3, 2, 1]
    far, none_left = (fold(reward, end, last, gamma=0.5, n_step=n) for n in (10**15, 4))
    assert all(torch.equal(one, other) for one, other in zip(far, none_left, strict=True))


def test_nothing_flows_through_a_goal_in_the_middle() -> None:
    reward, end = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([False, True, False, False])
    last = torch.tensor([False, False, False, True])
    total, discount, steps = fold(reward, end, last, gamma=0.5, n_step=2)
    assert total.tolist() == [0.5, 1, 1.5, 1]
    assert discount.tolist() == [0, 0, 0.25, 0.5]
    assert steps.tolist() == [2, 1, 2, 1]


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


def test_a_share_of_a_half_a_third_and_a_fifth() -> None:
    quotas = Quotas((0.5, 0.3, 0.2), 256)  # exact parts 128, 76.8, 51.2
    counts = np.array([quotas(step) for step in range(5)])
    assert (counts[:, 0] == 128).all() and counts.sum(axis=0).tolist() == [640, 384, 256]


def test_returns_to_go_run_to_the_end_of_the_episode_and_bootstrap_nothing() -> None:
    # Demo one runs out of time; demo two reaches its goal in the middle.
    reward = torch.tensor([1.0, 2.0, 4.0, 0.0, 8.0, 16.0])
    last = torch.tensor([False, False, True, False, False, True])
    end = torch.tensor([False, False, False, False, True, False])
    assert return_to_go(reward, end, last, gamma=0.5).tolist() == [1 + 1 + 1, 2 + 2, 4, 0 + 4, 8, 16]
    assert return_to_go(reward, end, last, gamma=0.0).tolist() == reward.tolist()


def test_returns_to_go_are_the_sums_that_a_loop_makes() -> None:
    random = np.random.default_rng(0)
    reward, last, end = random.normal(size=500), random.random(500) < 0.02, random.random(500) < 0.01
    last[-1] = True
    expected = np.zeros(501)
    for step in range(499, -1, -1):
        expected[step] = reward[step] + (0 if end[step] or last[step] else 0.97 * expected[step + 1])
    found = return_to_go(torch.from_numpy(reward), torch.from_numpy(end), torch.from_numpy(last), gamma=0.97)
    np.testing.assert_allclose(found, expected[:-1], atol=1e-5)
