"""`pixelrl study`: recipes compared over replicates, from one file to a page with what may be said."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from pixelrl.launch.console import plain_console
from pixelrl.launch.options import key_values, told_in_a_line, worker_count
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.extras import require_extras
from pixelrl.runtime.files import exclusive_directory, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from pixelrl.launch.study_design import Arm, Study, Workplace


@dataclass(frozen=True, kw_only=True)
class StudyCommand:
    """Compare recipes over replicates that draw data, training and starts anew; docs/study.md explains the file.

    Runs are made in random order, one thread each, as many at once as there are cores. After any interruption the same
    command goes on. One small record a run; a table, figures and a page are made of the records.
    """

    file: Positional[Path]
    """TOML file that describes the study"""
    out: Path | None = None
    """folder for data, runs and the page; default: studies/NAME"""
    records: Path | None = None
    """folder for the records; default: OUT/records"""
    jobs: int | None = None
    """how many runs at a time; default: one a core"""
    arms: tuple[str, ...] = ()
    """make the runs of these arms alone"""
    replicates: tuple[int, ...] = ()
    """make the runs of these replicates alone"""
    keep_data: bool = False
    """keep collected data when all arms of a replicate are done"""
    report_only: bool = False
    """make no run; make tables, figures and page from the records that are there"""
    blind: bool = False
    """print how much paired differences vary, for choosing the number of replicates, and nothing about their direction;
    write no tables, figures and page"""
    single: Annotated[tuple[int, str] | None, arg(metavar="REPLICATE ARM")] = None
    """make this one run alone, in this process"""
    slurm: tuple[str, ...] = ()
    """submit the runs as one array to SLURM, and wait for nothing; parameters of submitit, say timeout_min=90
    slurm_partition=cpu slurm_array_parallelism=32. All nodes must see OUT; takes pip install 'pixelrl[slurm]'"""
    parent: int | None = None
    """process that this one ends with; a study says it to its runs"""

    def __call__(self) -> None:
        """Make the runs that have no record, then tables, figures and page.

        Raises:
            PixelrlError: the file is wrong, records are of another study, or runs could not be made.
        """
        from pixelrl.launch.parallel_runs import run_trainings
        from pixelrl.launch.study_design import Workplace
        from pixelrl.launch.study_file import read_study
        from pixelrl.launch.study_runs import make_run, submit_array, waiting_runs
        from pixelrl.runtime.child_process import end_with_parent

        if self.parent is not None:
            end_with_parent(self.parent)
        study, console = read_study(self.file), plain_console()
        out = self.out or Path("studies") / study.name
        place = Workplace(study=study, file=self.file, out=out, records=self.records or out / "records")
        if self.single is None or study.episodes or study.environment:  # a run that is only probed simulates nothing
            require_extras("sim", *(["slurm"] if self.slurm else []))
        if self.single is not None:
            replicate, name = self.single
            if (replicate, name) not in {(each, arm.name) for each, arm in study.runs()}:
                arms = ", ".join(arm.name for arm in study.tried)
                raise PixelrlError(
                    f"--single {replicate} {name}: {self.file} has no such run, but arms {arms} on replicates "
                    f"{', '.join(map(str, study.replicates))}"
                )
            make_run(place, replicate, study.arms[name], console)
            return
        for path in () if self.report_only else (*study.paths("task"), *study.paths("prior")):
            if not path.exists():
                raise PixelrlError(f"{self.file}: data: {path}: no such file")
        if study.episodes and not self.report_only:
            check_environment(self.file, study)
        for option, asked, known in (
            ("--arms", {*self.arms}, {arm.name for arm in study.tried}),
            ("--replicates", {*self.replicates}, {*study.replicates}),
        ):
            if unknown := asked - known:
                raise PixelrlError(
                    f"{option}: {min(unknown)} is not in {self.file}; it has {', '.join(map(str, sorted(known)))}"
                )
        if self.report_only and not place.read_records():
            raise PixelrlError(f"{place.records}: no record of this study; without --report-only its runs are made")
        jobs, provenance = worker_count(self.jobs, "--jobs"), Provenance()
        with exclusive_directory(out):
            try:
                if not self.report_only:
                    chosen = [run for run in study.runs() if self._chosen(*run)]
                    waiting = waiting_runs(place, chosen, keep_data=self.keep_data, console=console)
                    if waiting and self.slurm:
                        first = submit_array(waiting, place, key_values("--slurm", self.slurm))
                        console.print(f"{len(waiting)} runs submitted, the first one is job {first}")
                    elif waiting:
                        run_trainings(waiting, workers=jobs, console=console, stop_at_failure=False)
            finally:  # what is done is worth a look, whatever happened to the rest
                report(place, provenance, console, blind=self.blind)

    def _chosen(self, replicate: int, arm: "Arm") -> bool:
        """Tell whether `--arms` and `--replicates` ask for a run; without them all are."""
        return (not self.arms or arm.name in self.arms) and (not self.replicates or replicate in self.replicates)


def check_environment(file: Path, study: "Study") -> None:
    """Raise a `PixelrlError` unless options or data name an environment that there is to try snapshots in."""
    from pixelrl.datasets.hdf5.access import json_attribute, open_file
    from pixelrl.launch.commands.evaluate import Evaluate
    from pixelrl.simulation.envs.make import check_named

    asked = tyro.cli(Evaluate, args=["x", *study.evaluate])
    if asked.env is not None:
        with told_in_a_line(f"{file}: evaluate.options"):
            check_named(asked.env)
    elif study.environment is None:
        path = study.paths("task")[0]
        with open_file(path) as opened:
            known = json_attribute(opened["data"], "env_args", {})
        if not known:
            why = f"evaluate.episodes is {study.episodes}, and {path} names no environment to try them in (no env_args)"
            raise PixelrlError(f'{file}: {why}; give evaluate.options = {{env = "NAME"}}, or episodes = 0')


def report(place: "Workplace", provenance: Provenance, console: "Console", *, blind: bool) -> None:
    """Write `study.json`, figures and `study.html` from the records, and print the tables."""
    from pixelrl.launch.reports.study_page import print_study, write_study
    from pixelrl.launch.study_analysis import analyse

    records = place.read_records()
    if not records:
        console.print(f"{place.records}: no record of this study")
        return
    result = analyse(place.study, records)
    if blind:
        spread = "unknown" if result["pooled_sd"] is None else f"{100 * result['pooled_sd']:.0f} points"
        console.print(f"{len(records)} of {result['planned']} runs; SD of paired differences, pooled: {spread}")
        return
    write_json(place.out / "study.json", result | provenance.record())
    write_study(place.out, result, place.study.text, provenance.record())
    print_study(result, console)
    console.print(f"{place.out / 'study.html'}: tables, figures, and what may be said")
