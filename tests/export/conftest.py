"""What tests of exports share."""

from functools import cache

import pytest
from torch.onnx._internal.exporter import _registration


@pytest.fixture(autouse=True, scope="session")
def operators_are_registered_once() -> None:
    """Keep torch's table of ONNX operators, which it makes anew for each export: a quarter of what an export takes."""
    _registration.ONNXRegistry.from_torchlib = staticmethod(cache(_registration.ONNXRegistry.from_torchlib))  # type: ignore[method-assign, assignment]
