"""Exported policies beside each other: size, and the time of one action, measured in turns so that all share the load.

python -m benchmarks.artefacts teacher student student_int8 --out sizes.json
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tyro
from tyro.conf import Positional

from pixelrl.export.contract import MODEL
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.files import write_json


@dataclass(frozen=True, kw_only=True)
class Artefacts:
    """Measure exported policies in turns."""

    artefacts: Positional[tuple[Path, ...]]
    """directories of exported policies; times are also told as parts of the first one's"""
    calls: int = 500
    """timed actions of each, after a tenth as many"""
    out: Path = Path("bench_artefacts.json")
    """ledger to write"""

    def __call__(self) -> None:
        """Measure, print, and write the ledger."""
        provenance, policies = Provenance(seed=0), [ExportedPolicy(path) for path in self.artefacts]
        seen = [{key: np.zeros(spec.shape, spec.dtype) for key, spec in policy.instant.items()} for policy in policies]
        times = np.zeros((self.calls + self.calls // 10, len(policies)))
        for row in times:
            for column, (policy, sensors) in enumerate(zip(policies, seen, strict=True)):
                begin = time.perf_counter()
                policy.act(sensors)
                row[column] = 1e3 * (time.perf_counter() - begin)
        p50, p99 = np.percentile(times[self.calls // 10 :], [50, 99], axis=0)
        rows: dict[str, Any] = {}
        for path, middle, most in zip(self.artefacts, p50, p99, strict=True):
            size = (path / MODEL).stat().st_size
            about = {"bytes": size, "p50_ms": round(middle, 3), "p99_ms": round(most, 3)}
            rows[str(path)] = about | {"p50_of_first": round(middle / p50[0], 2)}
            print(path, rows[str(path)])
        load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
        write_json(self.out, {"artefacts": rows, "load_per_core": round(load, 2), **provenance.record()})


if __name__ == "__main__":
    tyro.cli(Artefacts)()
