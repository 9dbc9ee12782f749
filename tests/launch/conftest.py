"""A tiny world for the tests of commands."""

from pathlib import Path

import pytest

from tests.dots import write_dots


@pytest.fixture
def dots(tmp_path: Path) -> tuple[Path, Path]:
    """Return a task file and a prior file of a world that takes no simulator."""
    return write_dots(tmp_path / "task.hdf5", "task", 6, size=32), write_dots(
        tmp_path / "prior.hdf5", "prior", 6, size=32
    )
