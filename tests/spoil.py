"""What tests do to good HDF5 files."""

from typing import Any

import h5py


def put(group: h5py.Group, place: str, value: Any) -> None:
    """Put something in the place of what is there, if anything is."""
    if place in group:
        del group[place]
    group[place] = value
