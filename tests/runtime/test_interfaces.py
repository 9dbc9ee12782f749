"""The last k pictures."""

import numpy as np
import pytest

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import History


def shot(*values: int) -> dict[str, np.ndarray]:
    """Return a reading of pictures of two channels, one value a row, beside a vector."""
    pictures = np.stack([np.full((2, 3, 2), (value, value + 100), np.uint8) for value in values])
    return {"a_image": pictures, "position": np.array([[value] for value in values], np.float32)}


def stacks(history: History, *values: int, fresh: list[bool] | None = None) -> list[list[int]]:
    seen = history(shot(*values), None if fresh is None else np.array(fresh))
    assert seen["a_image"].shape == (len(values), 2, 3, 2 * history.length) and seen["position"].shape == (
        len(values),
        1,
    )
    return [row[0, 0].tolist() for row in seen["a_image"]]


def test_the_oldest_comes_first_and_the_first_stands_for_those_before_it() -> None:
    history = History(3)
    assert stacks(history, 1) == [[1, 101, 1, 101, 1, 101]]
    assert stacks(history, 2) == [[1, 101, 1, 101, 2, 102]]
    assert stacks(history, 3) == [[1, 101, 2, 102, 3, 103]]
    assert stacks(history, 4) == [[2, 102, 3, 103, 4, 104]]
    history.reset()
    assert stacks(history, 5) == [[5, 105, 5, 105, 5, 105]]


def test_rows_begin_anew_one_by_one() -> None:
    history = History(2)
    stacks(history, 1, 11)
    assert stacks(history, 2, 12, fresh=[False, True]) == [[1, 101, 2, 102], [12, 112, 12, 112]]
    assert stacks(history, 3, 13, fresh=[False, False]) == [[2, 102, 3, 103], [12, 112, 13, 113]]


def test_what_was_given_may_be_overwritten_afterwards() -> None:
    history = History(2)
    reading = shot(1)
    history(reading)
    reading["a_image"][:] = 77
    assert stacks(history, 2) == [[1, 101, 2, 102]]


def test_a_history_of_one_changes_nothing() -> None:
    reading = shot(1)
    assert History(1)(reading) is reading


def test_another_number_of_rows_wants_a_reset() -> None:
    history = History(2)
    stacks(history, 1)
    with pytest.raises(PixelrlError, match=r"a_image is \[2, 2, 3, 2\] after \[1, 2, 3, 4\]: call reset\(\) first"):
        stacks(history, 1, 2)
