"""What a study asks: arms trained on replicates, how they are tried, what may be concluded; and its records.

RECORDS/REPLICATE_ARM.json is all that is kept of a run, small enough for git.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelrl.datasets.buffer.sources import Source
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is compared.

    Attributes:
        name: in file names and in comparisons.
        title: for people.
        recipe: of `pixelrl train`.
        train: its options, as words; {replicate} stands for the replicate's number.
        replicates: those of the study that it is trained on; None: all.
        of: another arm, whose runs this one takes, in one of the two ways below; it trains nothing.
        stop_at_peak: a figure of the probe, say `q/data`; those runs count as stopped where it is highest.
        average: steps; what is tried are the means of those runs' weights over so many steps before.
    """

    name: str
    title: str
    recipe: str
    train: tuple[str, ...] = ()
    replicates: tuple[int, ...] | None = None
    of: str | None = None
    stop_at_peak: str | None = None
    average: int | None = None

    def options(self, replicate: int) -> list[str]:
        """Return its options on a replicate."""
        return [word.replace("{replicate}", str(replicate)) for word in self.train]

    @property
    def label(self) -> str:
        """Return its name, and its title where there is one."""
        return self.name if self.title == self.name else f"{self.name} ({self.title})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms whose difference is asked for; a confirmatory one has a verdict, adjusted for the number of these.

    Its outcome is the mean success at `steps` (none: the study's late ones), and `replicates` alone count (none: all).
    """

    first: str
    second: str
    confirmatory: bool
    steps: tuple[int, ...] = ()
    replicates: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return what claims call it."""
        return f"{self.first} - {self.second}" + (f" at {', '.join(map(str, self.steps))}" if self.steps else "")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that may be said when each of some comparisons came to one of the given verdicts."""

    sentence: str
    when: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of runs, one for each replicate and arm; a replicate is a seed of data, training and starts."""

    name: str
    question: str
    replicates: tuple[int, ...]
    arms: Mapping[str, Arm]
    steps: tuple[int, ...]
    late: tuple[int, ...]
    episodes: int
    starts: str
    evaluate: tuple[str, ...]
    environment: str | None
    collect: Mapping[str, int]
    files: Mapping[str, tuple[str, ...]]
    comparisons: tuple[Comparison, ...]
    claims: tuple[Claim, ...]
    rows: int
    held_out: bool
    seed: int
    order: str
    alpha: float
    margin: float
    text: str

    @property
    def tried(self) -> list[Arm]:
        """Return the arms that have runs of their own, trained or averaged."""
        return [arm for arm in self.arms.values() if arm.stop_at_peak is None]

    def paths(self, part: str) -> tuple[Path, ...]:
        """Return the files of a part of the data, none where it is collected; see `Source.paths`."""
        names = self.files.get(part, ())
        return Source(name=part, files=names).paths() if names else ()

    def runs(self) -> list[tuple[int, Arm]]:
        """Return every run in the order in which they are to be made: at random, maybe within each replicate alone.

        Those of averaged weights come last, or last of their replicate.
        """
        runs = [
            (replicate, arm)
            for replicate in self.replicates
            for arm in self.tried
            if arm.replicates is None or replicate in arm.replicates
        ]
        mixed = [runs[place] for place in np.random.default_rng(self.seed).permutation(len(runs))]
        mixed.sort(key=lambda run: run[1].average is not None)
        if self.order == "replicates":
            mixed.sort(key=lambda run: self.replicates.index(run[0]))
        return mixed

    def design(self, arm: Arm) -> dict[str, Any]:
        """Return everything that decides what an arm's run is, as JSON values: records of another one are refused."""
        return {
            "recipe": arm.recipe,
            "train": list(arm.train),
            "evaluate": {"steps": list(self.steps), "episodes": self.episodes, "starts": self.starts},
            "evaluate_options": list(self.evaluate),
            "data": {"environment": self.environment, **self.collect}
            if self.environment
            else {key: list(names) for key, names in self.files.items()},
            "probe": {"rows": self.rows, "held_out": self.held_out},
            **({} if arm.average is None else {"of": arm.of, "average": arm.average}),
        }


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
    """Read a record."""
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
