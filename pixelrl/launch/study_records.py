"""The records of a study: RECORDS/REPLICATE_ARM.json is all that is kept of a run, small enough for git."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelrl.launch.provenance import Provenance
from pixelrl.launch.study_design import Arm, Study
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a study is at work: its file, its folder, and its records' folder."""

    study: Study
    file: Path
    out: Path
    records: Path

    def run(self, replicate: int, arm: Arm) -> Path:
        """Return the directory of a run."""
        return self.out / str(replicate) / arm.name

    def record(self, replicate: int, arm: Arm) -> Path:
        """Return where a run's record is."""
        return self.records / f"{replicate}_{arm.name}.json"

    def data(self, replicate: int) -> Path:
        """Return the folder of a replicate's data."""
        return self.out / str(replicate) / "data"

    def read_records(self) -> dict[tuple[int, str], Record]:
        """Return the records that are there, by replicate and arm.

        Raises:
            PixelrlError: one is damaged, of another run, of a run that the study's file no longer describes, or of
                other data than the others.
        """
        found: dict[tuple[int, str], Record] = {}
        for replicate, arm in self.study.runs():
            path = self.record(replicate, arm)
            if not path.exists():
                continue
            record = read_record(path)
            if (record["replicate"], record["arm"]) != (replicate, arm.name):
                raise PixelrlError(
                    f"{path}: is the record of replicate {record['replicate']}, arm {record['arm']}; "
                    f"expected that of replicate {replicate}, arm {arm.name}"
                )
            for key, right in self.study.design(arm).items():
                if (came := record["design"].get(key)) != right:
                    raise PixelrlError(
                        f"{path}: was made with {key} = {came}, and {self.file} says {right}; "
                        f"choose another --records and --out, or move it and {self.run(replicate, arm)} away"
                    )
            found[replicate, arm.name] = record
        self.check_files(found)
        return found

    def check_files(self, records: Mapping[tuple[int, str], Record]) -> None:
        """Raise a `PixelrlError` unless records that tell their data's files were made with the same ones.

        Those of one replicate where data are collected, else all; older records do not tell.
        """
        first: dict[int | None, tuple[int, str]] = {}
        for run, record in records.items():
            if "files" not in record:
                continue
            other = first.setdefault(run[0] if self.study.environment else None, run)
            before, now = records[other]["files"], record["files"]
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    raise PixelrlError(
                        f"{self.records}: {other[0]}_{other[1]} and {run[0]}_{run[1]} are of other data: {name} has "
                        f"SHA-256 {before.get(name, 'none')[:12]} and {now.get(name, 'none')[:12]}; give "
                        "both the same file, or choose another --records and --out"
                    )


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        PixelrlError: it is none, or damaged.
    """
    try:
        record = json.loads(path.read_text())
        for each in (record["design"], record["probe"], record["spent"], record.get("files", {})):
            each.keys()
        for each in record["evaluations"]:
            _ = each["step"], each["successes"] / each["episodes"]
        _ = record["replicate"], record["arm"], record["failed"], record["commit"], record["machine"]["processor"]
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise PixelrlError(f"{path}: not a record of `pixelrl study` ({error!r})") from error
    return dict(record)


def write_record(place: Workplace, replicate: int, arm: Arm, provenance: Provenance, result: Record) -> None:
    """Write a run's record: what came out, and what its directory tells of the training."""
    run = place.run(replicate, arm)
    data, spent = None, dict(result["spent"])
    if (run / "config.json").exists():
        data = json.loads((run / "config.json").read_text())["fingerprint"]
    if (run / "training.json").exists():
        spent["train"] = json.loads((run / "training.json").read_text())["training_seconds"]
    about = {"study": place.study.name, "replicate": replicate, "arm": arm.name}
    made = {"spent": spent, "design": place.study.design(arm), "data": data}
    write_json(place.record(replicate, arm), {**about, **result, **made, **provenance.record()})
