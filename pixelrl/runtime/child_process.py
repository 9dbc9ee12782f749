"""Processes of our own: those that end with their parent, and those that read untrusted files within limits."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import parent_process

import psutil

PR_SET_PDEATHSIG = 1
"""Linux's prctl: a signal for this process when its parent dies."""


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module as a program, with the import path of this process, and return what it printed and how it ended."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-P", "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def limit_this_process(*, seconds: float, memory: int | None = None) -> None:
    """Let the kernel end this process with SIGXCPU after some time of the processor, and with its parent.

    Args:
        seconds: from now on; load by other processes does not count.
        memory: how many bytes it may ask for from now on; more is a `MemoryError`. None: no limit.
    """
    used = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end_with_parent()
    if memory is not None and sys.platform == "linux":
        limit = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def end_with_parent(parent: int | None = None) -> None:
    """Let Linux's kernel kill this process when its parent ends; at once if `parent`, its id, has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def start_as_child() -> None:
    """Leave Ctrl-C to the parent, and end at once when it is dead; for a process that multiprocessing started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
