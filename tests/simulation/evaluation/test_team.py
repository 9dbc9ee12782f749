"""Processes that share out a list: the order is the list's, and errors say whose they are."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.evaluation.team import in_order


def divided(number: int, divisors: Iterable[int]) -> Iterator[int | None]:
    """Divide; leave for good where the divisor is negative."""
    for divisor in divisors:
        yield number // divisor if divisor >= 0 else os._exit(3)


def named(*divisors: int) -> Iterator[tuple[str, int]]:
    return ((f"number {index}", divisor) for index, divisor in enumerate(divisors))


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    results = in_order(partial(divided, 60), named(1, 2, 3, 4), workers=workers)
    assert next(results) == 60
    assert len(multiprocessing.active_children()) == min(workers, 4), "no more than jobs are hired"
    assert list(results) == [30, 20, 15]
    assert not multiprocessing.active_children()


def test_nothing_to_do_is_done_at_once() -> None:
    assert list(in_order(partial(divided, 60), named(), workers=2)) == []


def test_an_error_and_a_death_name_the_job_that_was_not_done() -> None:
    with pytest.raises(SimulationError, match=r"number 0: ZeroDivisionError: "):
        list(in_order(partial(divided, 60), named(0), workers=1))
    with pytest.raises(SimulationError, match=r"number 1: its worker died with exit code 3"):
        list(in_order(partial(divided, 60), named(1, -1, 1), workers=2))
    assert not multiprocessing.active_children()
