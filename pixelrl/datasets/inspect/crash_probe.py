"""Open everything in HDF5 files, in a process of its own: some damaged files crash the HDF5 library, not only h5py.

Run as a script it says which file it begins, so that whoever started it knows which one it did not survive.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py


def crashing_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the files that crash the HDF5 library when they are opened, and how."""
    left, found = list(paths), dict[Path, str]()
    while left:
        command = [sys.executable, "-P", __file__, *map(str, left)]  # nothing else of ours is needed
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode >= 0:
            break
        begun = len(done.stdout.split())
        reason = signal.Signals(-done.returncode).name
        found[left[max(begun, 1) - 1]] = f"badly damaged: the HDF5 library crashes on it ({reason})"
        left = left[max(begun, 1) :]
    return found


def visit(path: str) -> None:
    """Open every object of a file once, and follow no links; what is merely broken is for others to tell."""
    try:
        with h5py.File(path, "r") as file:
            waiting, seen = [file["/"]], set[int]()
            while waiting:
                group = waiting.pop()
                for name in group:
                    try:
                        key = name.encode()
                        if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                            continue
                        item = group[name]
                        address = h5py.h5o.get_info(item.id).addr
                    except (KeyError, OSError, RuntimeError, TypeError, UnicodeError, ValueError):
                        continue
                    if isinstance(item, h5py.Group) and address not in seen:
                        seen.add(address)
                        waiting.append(item)
                    elif isinstance(item, h5py.Dataset) and item.is_virtual:
                        item.virtual_sources()
    except (KeyError, OSError, RuntimeError, TypeError, UnicodeError, ValueError):
        return


if __name__ == "__main__":
    for number, name in enumerate(sys.argv[1:]):
        print(number, flush=True)
        visit(name)
