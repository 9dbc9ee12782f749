"""Write HDF5 files that appear whole: a full disk is one error, and crashes nothing."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import h5py

from pixelrl.datasets.hdf5.file_objects import NamedFile
from pixelrl.runtime.files import atomic_path


@contextmanager
def create_file(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file that appears at `path` when it is whole.

    Raises:
        OSError: the disk is full, or something else keeps it from being written.
    """
    with atomic_path(path) as temporary, closing(OutputFile(temporary, "w+", path)) as raw:
        try:
            with h5py.File(raw, "w") as file:
                yield file
        finally:
            if raw.error is not None:
                raise raw.error


class OutputFile(NamedFile):
    """A file that HDF5 can always close: after an error nothing more is written, lest the library crash.

    Attributes:
        error: the first error, if any; to be raised once the library has closed the file.
    """

    error: BaseException | None = None

    def write(self, buffer: Any) -> int:
        """Write all of a block, or pretend to."""
        left = memoryview(buffer).cast("B")
        try:
            while left and self.error is None:
                left = left[super().write(left) :]  # a full disk may take a part of it before it says so
        except BaseException as error:  # also Ctrl-C
            self.error = error
        return len(buffer)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or pretend to."""
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size
