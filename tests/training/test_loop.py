"""The loop: a generator of reports."""

import math
from dataclasses import replace

import pytest
import torch

from pixelrl.launch.recipes import cog, quick_cog
from pixelrl.learning.batch import Batch
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.loop import train
from tests.tiny import learn, make_learner, same, shrink, transitions

RECIPE = shrink(quick_cog())


def test_every_step_is_reported_and_some_are_measured() -> None:
    asked: list[int] = []

    def batch_at(step: int) -> Batch:
        asked.append(step)
        return transitions(step)

    learner = make_learner(RECIPE)
    reports = list(train(learner, batch_at, 7, measure_every=3))
    assert asked == [0, 1, 2, 3, 4, 5, 6]
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, 7]
    assert [report.step for report in reports if report.metrics] == [3, 6, 7]  # the last one always
    assert all({"critic/td", "actor/bc", "q/data"} <= report.metrics.keys() for report in reports if report.metrics)
    assert all(type(value) is float for value in reports[-1].metrics.values())
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_it_is_lazy_and_goes_on_from_where_the_learner_is() -> None:
    learner = learn(make_learner(RECIPE), 2)
    asked: list[int] = []

    def batch_at(step: int) -> Batch:
        asked.append(step)
        return transitions(step)

    loop = train(learner, batch_at, 5, measure_every=10)
    assert asked == []
    assert next(loop).step == 3
    assert learner.step == 3 and asked == [2]
    assert [report.step for report in loop] == [4, 5]
    assert list(train(learner, batch_at, 5, measure_every=1)) == []


def test_the_loop_adds_nothing_to_the_updates() -> None:
    looped, by_hand = make_learner(RECIPE), make_learner(RECIPE)
    loop = train(looped, transitions, 6, measure_every=100)
    for _ in range(4):
        next(loop)
    assert same(looped.networks, learn(by_hand, 4).networks)


def poisoned(step: int) -> Batch:
    batch = transitions(step)
    damaged = (batch.source == 1) & (torch.arange(6) > 2)  # rows 3 and 5, of the prior data
    return replace(batch, reward=batch.reward.masked_fill(damaged, math.nan)) if step == 2 else batch


def test_a_loss_that_is_not_finite_stops_it_by_name() -> None:
    loop = train(make_learner(shrink(cog())), poisoned, 10, measure_every=1)
    assert [next(loop).step, next(loop).step] == [1, 2]
    with pytest.raises(
        PixelrlError, match=r"step 3: critic/td is nan, in rows of prior \(2\); try a smaller learning rate"
    ):
        next(loop)


def test_a_loss_that_went_wrong_between_two_measurements_is_named_too() -> None:
    # told at step 5, and of step 3
    with pytest.raises(PixelrlError, match=r"step 3: critic/td is nan, in rows of prior \(2\)"):
        list(train(make_learner(shrink(cog())), poisoned, 10, measure_every=5))


def test_a_source_that_a_batch_lacks_is_no_failure() -> None:
    def one_source(step: int) -> Batch:
        return replace(transitions(step), source=torch.zeros(6, dtype=torch.int64))

    (report,) = train(make_learner(RECIPE), one_source, 1, measure_every=1)
    assert math.isnan(report.metrics["q/data@prior"]) and math.isfinite(report.metrics["q/data@task"])
