"""Processes that share out a list: the order is the list's, and errors say whose they are."""

import multiprocessing
import os
from functools import partial

import pytest

from pixelrl.errors import SimulationError
from pixelrl.simulation.team import in_order


def test_results_come_in_turn() -> None:
    shares = [partial(range, 0, 5, 2), partial(range, 1, 5, 2)]
    assert list(in_order(shares, (f"number {index}" for index in range(5)))) == [0, 1, 2, 3, 4]
    assert not multiprocessing.active_children()
    assert list(in_order([], ())) == []


def test_an_error_and_a_death_name_the_result_that_did_not_come() -> None:
    with pytest.raises(SimulationError, match=r"number 0: ZeroDivisionError: "):
        list(in_order([partial(divmod, 1, 0)], ["number 0"]))
    with pytest.raises(SimulationError, match=r"number 1: its worker died with exit code 3"):
        list(in_order([partial(iter, "a"), partial(os._exit, 3)], ["number 0", "number 1"]))
    assert not multiprocessing.active_children()
