"""Where a result comes from: what every JSON that we write says beside its figures."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import PixelrlError
from pixelrl.version import __version__


class Provenance:
    """Remember when a command began; `record()` tells the rest.

    Args:
        seeds: whatever the command draws random numbers from, by the name of the option.

    Raises:
        PixelrlError: a seed below 0.
    """

    def __init__(self, **seeds: int) -> None:
        for name, seed in seeds.items():
            if seed < 0:
                raise PixelrlError(f"--{name} is {seed}; it must be at least 0")
        self.start, self.began = time.perf_counter(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self.seeds = seeds

    def record(self) -> dict[str, Any]:
        """Return command, version, commit, seeds, seconds and machine as JSON values."""
        return {
            "command": ["pixelrl", *sys.argv[1:]],
            "version": __version__,
            "commit": commit(),
            "seeds": self.seeds,
            "began": self.began,
            "seconds": round(time.perf_counter() - self.start, 2),
            "machine": machine(),
        }


def commit() -> str | None:
    """Return the commit of the checkout that this package lies in, with `+` if it was changed; else None."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def machine() -> dict[str, Any]:
    """Describe the machine: system, processor, cores that we may use, and its GPU if torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": processor(),
        "cores": cores(),
        "gpu": gpu,
    }


def processor() -> str:
    """Return the processor's name, as well as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
