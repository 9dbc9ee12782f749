"""Open everything in HDF5 files in a process of its own: some damaged files crash the HDF5 library, or never return.

Run as a module it names the number of each file that it begins, so that its parent knows which one it did not survive.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py

from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.inspect.file_structure import DAMAGE
from pixelrl.runtime.child_process import limit_this_process, run_module

SECONDS = 60
"""Of the processor: a file that takes longer to open is given up. Other load on the machine does not count."""


def crashing_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the files that crash the HDF5 library when they are opened, or do not return, and how."""
    left, found = list(paths), dict[Path, str]()
    while left:
        done = run_module(__name__, *map(str, left))
        if done.returncode >= 0:
            break
        reason, begun = signal.Signals(-done.returncode), max(1, len(done.stdout.split()))
        what = f"takes more than {SECONDS} s" if reason == signal.SIGXCPU else "crashes"
        found[left[begun - 1]] = f"badly damaged: the HDF5 library {what} on it ({reason.name})"
        left = left[begun:]
    return found


def visit(path: Path) -> None:
    """Open every object of a file once, and follow no links; what is merely broken is not told of here."""
    with open_file(path) as file:
        waiting, seen = [file["/"]], set[int]()
        while waiting:
            group = waiting.pop()
            for name in group:
                try:
                    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                        continue
                    item = group[name]
                    address = h5py.h5o.get_info(item.id).addr
                    if isinstance(item, h5py.Group) and address not in seen:
                        seen.add(address)
                        waiting.append(item)
                    elif isinstance(item, h5py.Dataset) and item.is_virtual:
                        item.virtual_sources()
                except DAMAGE:
                    continue


def main() -> None:
    """Visit the files named on the command line, each with a time limit."""
    for number, name in enumerate(sys.argv[1:]):
        print(number, flush=True)
        limit_this_process(seconds=SECONDS)
        try:
            visit(Path(name))
        except DAMAGE:
            continue


if __name__ == "__main__":
    main()
