"""The loader: batches in order, ahead of the learner, and no thread left behind."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from pixelrl.datasets.buffer.prefetch import Prefetcher
from pixelrl.launch.recipes import quick_cog
from pixelrl.learning.batch import Batch
from pixelrl.training.loop import train
from tests.tiny import learn, make_learner, same, shrink, transitions


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_any_number_of_threads_gives_the_same_batches_in_order(threads: int) -> None:
    asked: list[int] = []

    def batch_at(step: int) -> Batch:
        asked.append(step)
        return transitions(step)

    recipe = shrink(quick_cog())
    learner = learn(make_learner(recipe), 2)  # resumed at step 2
    with Prefetcher(batch_at, 6, threads=threads) as loader:
        assert len(list(train(learner, loader, 6, measure_every=10))) == 4
    assert sorted(asked) == [2, 3, 4, 5], "nothing twice, and nothing that is not learned from"
    assert same(learner.networks, learn(make_learner(recipe), 6).networks)


def test_batches_are_prepared_while_the_learner_is_busy_but_not_without_end() -> None:
    made: list[int] = []
    third = threading.Event()

    def batch_at(step: int) -> Batch:
        made.append(step)
        if step == 2:
            third.set()
        return transitions(step)

    with Prefetcher(batch_at, 100, threads=1) as loader:
        loader(0)
        assert third.wait(10), "steps 1 and 2 come without being asked for"
        assert threading.active_count() > 1
    assert max(made) == 2


def test_another_step_than_the_next_is_served_too() -> None:
    with Prefetcher(transitions, 10, threads=2) as loader:
        for step in (0, 1, 7, 8, 3, 12):
            assert (loader(step).reward == transitions(step).reward).all()
            assert (loader(step).action == transitions(step).action).all()


def test_an_error_in_a_thread_is_raised_where_its_batch_is_asked_for() -> None:
    def batch_at(step: int) -> Batch:
        if step == 3:
            raise RuntimeError("frame 7 is gone")
        return transitions(step)

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="frame 7 is gone"), Prefetcher(batch_at, 10, threads=2) as loader:
        for step in range(10):
            loader(step)
    assert step == 3 and threading.active_count() == before


def test_leaving_early_ends_the_threads() -> None:
    before = threading.active_count()
    loader = Prefetcher(transitions, 1000, threads=3)
    with pytest.raises(KeyboardInterrupt), loader:
        loader(0)
        raise KeyboardInterrupt
    assert threading.active_count() == before


def test_the_share_of_waiting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pixelrl.training.loop.time.perf_counter", lambda: clock[0])

    def batch_at(step: int) -> Batch:
        clock[0] += 3 if step < 6 else 1
        return transitions(step)

    learner = make_learner(replace(shrink(quick_cog()), steps=12))
    plain = learner.update

    def update(batch: Batch, **how: Any) -> object:
        clock[0] += 7
        return plain(batch, **how)

    learner.update = update  # type: ignore[method-assign,assignment]
    measured = [report for report in train(learner, batch_at, 12, measure_every=6) if report.metrics]
    assert [report.metrics["time/data_wait"] for report in measured] == pytest.approx([3 / 10, 1 / 8])
