"""`pixelrl study`: the file, a tiny grid that is killed and resumed, and what is concluded."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
from rich.console import Console

from pixelrl.launch import study_runs
from pixelrl.launch.study_analysis import analyse
from pixelrl.launch.study_design import Workplace
from pixelrl.launch.study_file import read_study
from pixelrl.launch.study_runs import StudyRun, make_run, waiting_runs
from pixelrl.runtime.errors import DivergenceError, PixelrlError
from pixelrl.runtime.files import sha256_of, write_json
from pixelrl.training.averaging import average_snapshots
from pixelrl.training.checkpoint import read
from pixelrl.training.run_directory import checkpoint_path
from tests import Pixelrl
from tests.launch.test_evaluate import write_toy

TINY = """
question = "Does a larger batch help?"
recipe = "quick_bc"
replicates = [3]
[train]
steps = 8
batch-size = 8
actor-hidden = 8
log-every = 2
checkpoint-every = 2
device = "cpu"
[evaluate]
steps = [8]
late = [8]
episodes = 2
options = {allow-import = "tests.toy_gym"}
[probe]
rows = 8
[data]
task = ["DATA"]
[arms.small]
[arms.large]
train = {batch-size = 16}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return a study of two runs on a toy."""
    file, data = tmp_path / "tiny.toml", tmp_path / "data[1].hdf5"
    write_toy(data)
    file.write_text(TINY.replace("DATA", str(data)))
    return file


def workplace(file: Path) -> Workplace:
    """Return where a study is at work, beside its file."""
    return Workplace(study=read_study(file), file=file, out=file.parent / "out", records=file.parent / "records")


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every training of a study fail."""

    def fail(*words: Any) -> Any:
        raise error

    monkeypatch.setattr(study_runs, "parse", fail)


DIVERGED = DivergenceError("step 5: critic/td is nan")

DYING = """
import os, sys
from pixelrl.launch.cli import main
from pixelrl.training import checkpoint

save = checkpoint.save

def dying(*words, **options):
    save(*words, **options)
    os.kill(os.getpid(), 9)

checkpoint.save = dying
sys.argv = ["pixelrl", *sys.argv[1:]]
main()
"""
"""Dies at its first checkpoint, at step 2."""


def test_killed_study_goes_on_and_ends_with_the_same_table(tiny: Path, pixelrl: Pixelrl) -> None:
    whole, killed = tiny.parent / "whole", tiny.parent / "killed"
    for arm in ("small", "large"):
        code, said = pixelrl("study", tiny, "--out", whole, "--single", 3, arm)
        assert code == 0 and "of 2 episodes succeed" in said, said
    code, said = pixelrl("study", tiny, "--out", whole, "--report-only")
    assert code == 0 and "(2 of 2 runs)" in said and "no verdict" in said, said
    words = ["study", str(tiny), "--out", str(killed)]
    first = subprocess.run([sys.executable, "-c", DYING, *words, "--single", "3", "large"], capture_output=True)
    assert first.returncode == -signal.SIGKILL and not (killed / "records").exists()
    assert (killed / "3/large/last.safetensors").exists()
    command = [sys.executable, "-m", "pixelrl.launch.cli", *words, "--jobs", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout is not None
        line = next(line for line in second.stdout if "runs done" in line)  # the other run has just begun, or will
        second.kill()
    assert "1 of 2 runs done" in line and len(list((killed / "records").iterdir())) == 1
    code, said = pixelrl("study", tiny, "--out", killed, "--jobs", 1)
    assert code == 0 and "2 of 2 runs done" in said, said
    one, two = (json.loads((out / "study.json").read_text()) for out in (whole, killed))
    for key in ("arms", "comparisons", "mechanism", "failed"):
        assert one[key] == two[key], key
    record = json.loads((killed / "records/3_large.json").read_text())
    assert [each["step"] for each in record["evaluations"]] == [8] and len(record["evaluations"][0]["outcomes"]) == 2
    assert record["probe"]["8"]["policy/log_std"] is not None and record["seeds"] == {"seed": 3}
    page = (killed / "study.html").read_text()
    assert "Does a larger batch help?" in page and "six are the least" in page and "data:image/png" in page
    tiny.write_text(tiny.read_text().replace("episodes = 2", "episodes = 3"))
    code, said = pixelrl("study", tiny, "--out", killed, "--report-only")
    assert code == 1 and "was made with evaluate" in said and "'episodes': 2" in said, said


def test_averaged_weights_are_tried_as_a_run_of_their_own(tiny: Path, pixelrl: Pixelrl) -> None:
    text = tiny.read_text().replace("steps = [8]\n", "steps = [4, 8]\n")
    tiny.write_text(text + '[arms.mean]\nof = "large"\naverage = 4\n')
    study, out = read_study(tiny), tiny.parent / "out"
    assert [arm.name for _, arm in study.runs()][-1] == "mean"
    code, said = pixelrl("study", tiny, "--out", out, "--single", 3, "mean")  # trains the run that it averages
    assert code == 0, said
    (first, _), (last, _), (mean, _) = (
        read(checkpoint_path(out / "3" / arm, step)) for arm, step in (("large", 4), ("large", 8), ("mean", 8))
    )
    weights = [key for key, value in last.items() if value.is_floating_point() and not value.equal(first[key])]
    assert weights and all(mean[key].allclose((first[key] + last[key]) / 2) for key in last)
    assert read(checkpoint_path(out / "3/mean", 4))[0].keys() == first.keys()
    record = json.loads((out / "records/3_mean.json").read_text())
    assert record["design"]["average"] == 4 and [each["step"] for each in record["evaluations"]] == [4, 8]
    before = (out / "3/large/last.safetensors").stat().st_mtime_ns
    for arm in ("large", "small"):
        code, said = pixelrl("study", tiny, "--out", out, "--single", 3, arm)
        assert code == 0, said
    assert (out / "3/large/last.safetensors").stat().st_mtime_ns == before
    code, said = pixelrl("study", tiny, "--out", out, "--report-only")
    assert code == 0 and "(3 of 3 runs)" in said, said
    with pytest.raises(PixelrlError, match=r"large: has no snapshot of step 5 to average, but of 4, 8$"):
        average_snapshots(out / "3/large", out / "3/other", [5], 4)


def test_diverged_run_counts_as_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch, pixelrl: Pixelrl) -> None:
    place = workplace(tiny)
    study = place.study
    fail_with(DIVERGED, monkeypatch)
    make_run(place, 3, study.arms["small"], Console(quiet=True))
    result = analyse(study, place.read_records())
    assert result["failed"] == [{"replicate": 3, "arm": "small", "failed": "diverged: step 5: critic/td is nan"}]
    assert result["arms"]["small"]["outcomes"] == {3: 0.0}
    code, said = pixelrl("study", tiny, "--out", tiny.parent / "out", "--records", place.records, "--report-only")
    assert code == 0 and "critic/td is nan; counts as 0" in said, said
    words = ("--out", tiny.parent / "blind", "--records", place.records, "--report-only", "--blind")
    code, said = pixelrl("study", tiny, *words)
    assert code == 0 and "SD of paired differences, pooled: unknown" in said and "small" not in said, said

    fail_with(OSError(28, "No space left on device", "disk"), monkeypatch)
    with pytest.raises(OSError, match="No space"):
        make_run(place, 3, study.arms["large"], Console(quiet=True))
    assert not place.record(3, study.arms["large"]).exists()


PEAK = "[arms.s]\nof = 'small'\nstop_at_peak = 'x'"
PAIR = "[[comparisons]]\nfirst = 'small'\nsecond = 'large'"


def more(*lines: str) -> tuple[str, str]:
    """Return what to replace in `TINY`, and by what, so that it has these lines between its arms."""
    return "[arms.large]", "\n".join([*lines, "[arms.large]"])


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("replicates = [3]", "replicates = [3, 3]", r"replicates is \(3, 3\); expected different seeds"),
        ("replicates = [3]", 'replicates = ["a"]', r"replicates is \['a'\]; expected a list, of which each is a whole"),
        ("question", "qestion", r"question is missing; expected a text"),
        ("rows = 8", "row = 8", r"there is no key probe\.row; known: rows, held_out"),
        ("late = [8]", "late = [6]", r"evaluate\.late is \[6\]; expected some of \[8\], each once"),
        ("late = [8]", "late = [8, 8]", r"evaluate\.late is \[8, 8\]; expected some of \[8\], each once"),
        (
            "steps = [8]\nlate = [8]",
            "steps = [7, 800]",
            r"evaluate\.steps is \[7, 800\], for which a run would keep 800 snapshots",
        ),
        ("question", "seed = -1\nquestion", r"seed is -1; expected at least 0"),
        (
            "question",
            "claims = 5\nquestion",
            r"claims is 5; expected a list of tables, the keys of each below \[\[claims",
        ),
        ("question", "comparisons = {}\nquestion", r"comparisons is {}; expected a list of tables"),
        ("batch-size = 16", "gamma = nan", r"arms\.large\.train: .*nan"),
        ("batch-size = 16", "held-out = 1.5", r"arms\.large\.train: source 'task': held_out is 1\.5"),
        ("batch-size = 16", "'seed=5' = []", r"arms\.large\.train: seed is set by the study itself"),
        ("rows = 8", "rows = 1", r"probe\.rows is 1; expected at least 2"),
        ("allow-import", "episods", r"evaluate\.options: .*--episods"),
        ('allow-import = "tests.toy_gym"', "seed = 3", r"evaluate\.options: seed is not for the options of a study"),
        ('allow-import = "tests.toy_gym"', "select = 'q_peak'", r"evaluate\.options: select is not for the options"),
        ('allow-import = "tests.toy_gym"', "'step=4' = []", r"evaluate\.options: step is not for the options"),
        (
            'allow-import = "tests.toy_gym"',
            "env-options = 'x'",
            r"evaluate\.options: --env-options: 'x' is not KEY=VALUE",
        ),
        ("[arms.small]", "[arms.data]", r"arms\.data is no name for a folder; expected letters, .* and not data"),
        ("[arms.large]", "[arms.large]\nreplicates = [4]", r"arms\.large\.replicates is \[4\]; expected some of \[3\]"),
        ("[arms.large]", "[arms.large]\nreplicates = [3, 3]", r"arms\.large\.replicates is \[3, 3\]; expected some"),
        (
            *more(PEAK, "[arms.t]\nof = 's'\nstop_at_peak = 'x'"),
            r"arms\.t is of = 's', stop_at_peak = 'x', average = None; expected of = an arm above that is trained",
        ),
        (
            *more(PEAK, "average = 8"),
            r"arms\.s is of = 'small', stop_at_peak = 'x', average = 8; expected of = an arm above .* one of the two",
        ),
        (*more(PEAK, "replicates = [3]"), r"arms\.s is of = 'small', stop_at_peak = 'x', .* replicates with average$"),
        (
            *more("[arms.s]\nof = 'small'\naverage = 8\nrecipe = 'quick_bc'"),
            r"arms\.s is of = 'small', .* expected of = an arm above .*, no recipe or train, ",
        ),
        (*more("[arms.s]\naverage = 8"), r"arms\.s is of = None, .* average = 8; expected"),
        (
            *more("[arms.s]\nof = 'small'\naverage = 7"),
            r"arms\.s\.average is 7; expected at least 8: runs keep a snapshot every 8",
        ),
        (
            *more("[[comparisons]]\nfirst = 'small'\nsecond = 'small'"),
            r"comparisons\.0\.second is 'small'; expected another arm than first",
        ),
        (
            *more(PAIR, PAIR, "replicates = [3]"),
            r"comparisons\.1\.first is 'small', and 'small - large' is there; expected each pair once at the same",
        ),
        (
            *more(PAIR, "[[comparisons]]\nfirst = 'large'\nsecond = 'small'"),
            r"comparisons\.1\.first is 'large', and 'small - large' is there; expected each pair once",
        ),
        (
            'steps = [8]\nlate = [8]\nepisodes = 2\noptions = {allow-import = "tests.toy_gym"}\n',
            f"steps = [4, 8]\n{PAIR}\nsteps = [4, 8]\n{PAIR}\nsteps = [8, 4]\n",
            r"comparisons\.1\.first is 'small', and 'small - large at 4, 8' is there; expected each pair once",
        ),
        (
            *more(PAIR, "replicates = [3, 3]"),
            r"comparisons\.0\.replicates is \[3, 3\]; expected some of \[3\], each once",
        ),
        (*more("[[claims]]\nsentence = 'x'\nwhen = {}"), r"claims\.0\.when is empty"),
        ("[data]", "[collect]", r"collect\.environment is missing"),
        ("batch-size = 16", "batch-sise = 16", r"arms\.large\.train: .*batch-sise"),
        ("batch-size = 16", "seed = 16", r"arms\.large\.train: seed is set by the study itself"),
        ("episodes = 2", "episodes = -1", r"evaluate\.episodes is -1; expected at least 0"),
        ("rows = 8", "held_out = true", r"probe\.held_out is true, and arms\.small has no train\.held-out"),
        ("steps = 8", "steps = 6", r"arms\.small\.train: steps is 6; expected at least evaluate\.steps' 8"),
        ("quick_bc", "quik_bc", r"arms\.small: there is no recipe 'quik_bc'; did you mean quick_bc"),
        (*more("[[comparisons]]\nfirst = 'a'\nsecond = 'b'"), r"comparisons\.0\.first is"),
        (*more(PAIR, "steps = [9]"), r"comparisons\.0\.steps is \[9\]; expected some of \[8\]"),
        (*more(PAIR, "replicates = [4]"), r"comparisons\.0\.replicates is \[4\]; expected some of \[3\]"),
        ("[arms.small]", "[arms.small", "not TOML"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace(before, after, 1))
    with pytest.raises(PixelrlError, match=complaint) as error:
        read_study(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


def test_order_is_random_and_fixed_by_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace("[3]", "[1, 2, 3, 4, 5]"))
    runs = [(replicate, arm.name) for replicate, arm in read_study(file).runs()]
    assert len({*runs}) == 10 and runs == [(replicate, arm.name) for replicate, arm in read_study(file).runs()]
    assert runs != sorted(runs)
    assert (1, "large") in runs
    file.write_text(file.read_text().replace("[arms.large]", "[arms.large]\nreplicates = [2, 3, 4, 5]"))
    assert {*runs} - {(replicate, arm.name) for replicate, arm in read_study(file).runs()} == {(1, "large")}
    file.write_text('order = "replicates"\n' + file.read_text())
    assert [replicate for replicate, _ in read_study(file).runs()] == [1, 2, 2, 3, 3, 4, 4, 5, 5]


GRID = """
question = "Which?"
recipe = "quick_bc"
replicates = [0, 1, 2, 3, 4, 5, 6]
[train]
steps = 8
[evaluate]
steps = [4, 8]
late = [4, 8]
episodes = 10
[data]
task = ["x"]
[arms.a]
[arms.b]
[arms.c]
[arms.stopped]
of = "b"
stop_at_peak = "q/data"
[[comparisons]]
first = "a"
second = "b"
[[comparisons]]
first = "c"
second = "a"
[[comparisons]]
first = "stopped"
second = "b"
confirmatory = false
[[claims]]
sentence = "a it is"
when = {"a - b" = ["better"], "c - a" = ["equivalent", "worse"]}
[[claims]]
sentence = "never"
when = {"a - b" = ["worse"]}
"""


def record(replicate: int, wins: Mapping[int, int]) -> dict[str, Any]:
    return {
        "failed": None,
        "evaluations": [{"step": step, "successes": count, "episodes": 10} for step, count in wins.items()],
        "probe": {str(step): {"q/data": float(step == 4), "features/dot": 1.0 + replicate} for step in wins},
        "spent": {"train": 3600.0},
        "commit": "abc",
        "machine": {"processor": "slow"},
    }


def test_comparison_of_some_steps_counts_the_replicates_that_it_names(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    extra = '[[comparisons]]\nfirst = "a"\nsecond = "b"\nsteps = [4]\nreplicates = [1, 2, 3, 4, 5, 6]\n'
    file.write_text(GRID + extra)
    study = read_study(file)
    found = {}
    for replicate in study.replicates:
        found[replicate, "a"] = record(replicate, {4: 9 if replicate else 0, 8: 0})
        found[replicate, "b"] = record(replicate, {4: 5, 8: 0})
    result = analyse(study, found)
    late, *_, early = result["comparisons"]
    assert early["name"] == "a - b at 4" and early["n"] == 6 and {*early["differences"]} == {1, 2, 3, 4, 5, 6}
    assert early["difference"] == pytest.approx(0.4) and early["p"] == 2 / 2**6
    assert early["p_adjusted"] == 4 / 2**6 and "undetermined (+40 points at 4 steps, 95 % interval" in early["sentence"]
    assert late["name"] == "a - b" and late["n"] == 7 and late["difference"] == pytest.approx((6 * 0.2 - 0.25) / 7)


def test_conclusions_follow_from_records(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(GRID)
    study = read_study(file)
    found = {}
    for replicate in study.replicates:
        found[replicate, "a"] = record(replicate, {4: 8, 8: 6})  # outcome 0.7
        found[replicate, "b"] = record(replicate, {4: 5, 8: 1 + replicate % 2})  # 0.3 or 0.35
        found[replicate, "c"] = record(replicate, {4: 7, 8: 7})
    result = analyse(study, found)
    better, alike, free = result["comparisons"]
    assert better["words"] == ["better"] and better["p"] == 2 / 2**7 and better["p_adjusted"] == 4 / 2**7
    assert better["difference"] == pytest.approx(0.7 - (4 * 0.3 + 3 * 0.35) / 7)
    assert "a is better than b in this setting (+38 points, 95 % interval" in better["sentence"]
    assert alike["words"] == ["equivalent"] and "within 10 points" in alike["sentence"]
    assert better["all_steps"]["difference"] == pytest.approx(better["difference"])  # both steps are late here
    assert better["last_step"]["difference"] == pytest.approx(0.6 - (4 * 0.1 + 3 * 0.2) / 7)
    # b stopped where q/data peaks, at step 4: 0.5
    assert free["words"] == ["exploratory"] and free["p"] is None
    assert free["difference"] == pytest.approx(0.5 - (4 * 0.3 + 3 * 0.35) / 7)
    assert result["claims"] == ["a it is"] and result["hours"] == 21
    assert result["arms"]["b"]["by_step"][4]["mean"] == 0.5
    assert result["mechanism"]["features/dot"]["within"] is not None
    found[2, "b"]["probe"] = {"4": {"features/dot": 1.0, "q/data": None}}
    assert {*analyse(study, found)["arms"]["stopped"]["outcomes"]} == {0, 1, 3, 4, 5, 6}  # that run has no outcome
    file.write_text(GRID.replace("q/data", "q/dta"))
    complaint = r"^arms\.stopped\.stop_at_peak: no record has the figure 'q/dta'; they have features/dot, q/data$"
    with pytest.raises(PixelrlError, match=complaint):
        analyse(read_study(file), found)
    last = {key: value for key, value in found.items() if key != (6, "c")}
    assert analyse(study, last)["claims"] == []  # the plan is not done
    # the SDs of a - b and of c - a: three replicates of seven differ by 0.05
    spread = 0.05 * (3 * 4 / (7 * 6)) ** 0.5
    assert result["pooled_sd"] == pytest.approx((spread**2 / 2) ** 0.5)
    few = analyse(study, {key: value for key, value in found.items() if key[0] < 5})
    assert few["comparisons"][0]["words"] == ["too few"] and not few["claims"]


def test_without_episodes_the_probe_alone_is_drawn(tiny: Path, pixelrl: Pixelrl) -> None:
    asked = (
        tiny.read_text().replace("episodes = 2", "episodes = 0").replace("steps = [8]\nlate", "steps = [4, 8]\nlate")
    )
    tiny.write_text(asked.replace('recipe = "quick_bc"', 'recipe = "quick_td"'))
    out = tiny.parent / "out"
    for arm in ("small", "large"):
        code, said = pixelrl("study", tiny, "--out", out, "--single", 3, arm)
        assert code == 0 and f"{arm}: measured" in said, said
    code, said = pixelrl("study", tiny, "--out", out, "--report-only")
    assert code == 0 and "verdict" not in said, said
    result = json.loads((out / "study.json").read_text())
    assert result["comparisons"] == [] and result["mechanism"]["features/dot"]["dots"] == []
    records = [json.loads((out / f"records/3_{arm}.json").read_text()) for arm in ("small", "large")]
    drawn = result["probe"]["features/dot"]
    for arm, made in zip(("small", "large"), records, strict=True):
        assert made["evaluations"] == [] and [*drawn[arm]] == ["4", "8"]
        assert drawn[arm]["8"]["values"] == [made["probe"]["8"]["features/dot"]]
    assert "What may be said" not in (out / "study.html").read_text() and not (out / "curves.png").exists()
    tiny.write_text(tiny.read_text() + "[[comparisons]]\nfirst = 'small'\nsecond = 'large'\n")
    with pytest.raises(PixelrlError, match=r"comparisons is of success; expected evaluate\.episodes of at least 1"):
        read_study(tiny)


def test_option_names_the_replicate(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(recipe: str, words: list[str]) -> Any:
        raise PixelrlError(words[words.index("--initial") + 1])

    tiny.write_text(tiny.read_text().replace("batch-size = 16", 'initial = "runs/{replicate}/small"'))
    place = workplace(tiny)
    monkeypatch.setattr(study_runs, "parse", stop)
    with pytest.raises(PixelrlError, match=r"^runs/3/small$"):
        make_run(place, 3, place.study.arms["large"], Console())


@pytest.mark.parametrize(
    "name",
    [
        "dr3_stage0",
        "dr3_stage1",
        "dr3_primary",
        "dr3_stage3",
        "dr3_stage4",
        "dr3_stage4b",
        "dr3_stage4c",
        "cql_weight",
        "dr3_cql03",
    ],
)
def test_studies_of_the_repository_can_be_read(name: str) -> None:
    study = read_study(Path(__file__).resolve().parents[2] / f"benchmarks/studies/{name}.toml")
    pilots = {replicate >= 100 for replicate in study.replicates}
    assert pilots == {name in ("dr3_stage0", "dr3_stage1")} and study.environment == "drawer-grasp"
    assert name.startswith(("dr3_stage3", "dr3_stage4")) or max(study.late) == study.steps[-1] == 12_000


def test_missing_data_are_told_before_a_run_begins(tiny: Path, pixelrl: Pixelrl) -> None:
    (tiny.parent / "data[1].hdf5").unlink()
    code, said = pixelrl("study", tiny, "--out", tiny.parent / "out")
    assert code == 1 and "no file matches" in said and "data[1].hdf5" in said and not (tiny.parent / "out").exists(), (
        said
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "",
            r"evaluate.episodes is 2, and \S+data\[1\].hdf5 names no environment to try them in \(no env_args\); give",
        ),
        ('env = "Nope"', "evaluate.options: there is no task 'Nope' in robosuite"),
        ('env = "gym:Nope-v0"', "evaluate.options: gym:Nope-v0: cannot be made: Environment `Nope` doesn't exist"),
    ],
)
def test_trials_without_an_environment_are_refused_before_a_run_begins(
    tiny: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    def run(*words: Any, **more: Any) -> None:
        raise AssertionError("a run began")

    monkeypatch.setattr("pixelrl.launch.parallel_runs.run_trainings", run)
    with h5py.File(tiny.parent / "data[1].hdf5", "r+") as file:
        del file["data"].attrs["env_args"]
    tiny.write_text(tiny.read_text().replace('allow-import = "tests.toy_gym"', options))
    code, printed = pixelrl("study", tiny, "--out", tiny.parent / "out")
    assert code == 1 and re.search(f"^pixelrl: {re.escape(str(tiny))}: {said}", printed), printed
    code, printed = pixelrl("study", tiny, "--out", tiny.parent / "out", "--report-only")
    assert code == 1 and "no record of this study; without --report-only its runs are made" in printed
    for before, after in (("episodes = 2", "episodes = 0"), (f"{{{options}}}", '{env = "Lift"}')):
        asked = tiny.with_name("asked.toml")
        asked.write_text(tiny.read_text().replace(before, after))
        assert "a run began" in pixelrl("study", asked, "--out", tiny.parent / "out")[1]


def test_runs_are_submitted_as_an_array(tiny: Path, pixelrl: Pixelrl) -> None:
    out = tiny.parent / "out"
    pytest.importorskip("submitit", reason="takes the extra slurm")
    code, said = pixelrl("study", tiny, "--out", out, "--slurm", "cluster=debug", "timeout_min=5", "--arms", "small")
    assert code == 0 and "1 runs submitted" in said, said
    code, said = pixelrl("study", tiny, "--out", out, "--slurm", "cluster=local", "no_such=5")
    assert code == 1 and "--slurm: " in said and "no_such" in said, said


COLLECTED = TINY.replace('[data]\ntask = ["DATA"]', '[collect]\nenvironment = "drawer-grasp"\ntask = 2')


def test_how_a_run_ended_decides_what_becomes_of_it(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(COLLECTED)
    place = workplace(file)
    study = place.study
    one, two = waiting_runs(place, study.runs(), keep_data=False, console=Console(quiet=True))
    one.log.parent.mkdir(parents=True)
    one.log.write_text("something\npixelrl: data.hdf5: no such\nfile\n")
    place.data(3).mkdir(parents=True)

    def ended(run: StudyRun, code: int) -> str | None:
        return run.failure(SimpleNamespace(returncode=code))  # type: ignore[arg-type]

    assert ended(one, 1) == "data.hdf5: no such file"
    for stop in (signal.SIGKILL, signal.SIGHUP, signal.SIGXCPU, signal.SIGPIPE, signal.SIGRTMIN + 5):
        assert "was stopped" in (ended(one, -stop) or "") and not place.records.exists()
    assert ended(one, -signal.SIGSEGV) is None
    assert place.read_records()[3, one.arm.name]["failed"] == "crashed: SIGSEGV"
    assert place.data(3).exists()  # the other arm needs it
    assert ended(two, -signal.SIGABRT) is None and not place.data(3).exists()
    assert waiting_runs(place, study.runs(), keep_data=False, console=Console(quiet=True)) == []
    place.data(3).mkdir(parents=True)  # of a study of files that folder is nobody's
    file.write_text(TINY)
    place = replace(workplace(file), records=tmp_path / "others")
    for run in waiting_runs(place, place.study.runs(), keep_data=False, console=Console(quiet=True)):
        assert ended(run, -signal.SIGSEGV) is None
    assert place.data(3).exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("9 GiB"),
        ModuleNotFoundError("No module named 'mujoco'"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("can't start new thread"),
        RuntimeError("Resource temporarily unavailable"),
    ],
)
def test_what_is_not_the_arms_doing_is_no_result(tiny: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    place = workplace(tiny)
    fail_with(error, monkeypatch)
    with pytest.raises(type(error)):
        make_run(place, 3, place.study.arms["small"], Console(quiet=True))
    assert not place.records.exists()


def change(path: Path, **keys: Any) -> None:
    """Change keys of a record."""
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_records_of_another_run_and_of_other_data_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, data = workplace(tiny), tiny.parent / "data[1].hdf5"
    study = place.study
    fail_with(DIVERGED, monkeypatch)
    make_run(place, 3, study.arms["small"], Console(quiet=True))
    path = place.record(3, study.arms["small"])
    assert json.loads(path.read_text())["files"] == {str(data): sha256_of(data)}
    change(path, study="renamed")
    assert place.read_records()[3, "small"]["study"] == "renamed"
    for keys, complaint in (
        ({"replicate": 4}, r"is the record of replicate 4, arm small; expected that of replicate 3, arm small"),
        ({"replicate": 3, "arm": "large"}, r"is the record of replicate 3, arm large; expected"),
        ({"arm": "small", "design": []}, r"not a record of `pixelrl study` \(AttributeError"),
    ):
        change(path, **keys)
        with pytest.raises(PixelrlError, match=complaint):
            place.read_records()
    change(path, design=study.design(study.arms["small"]))
    data.write_bytes(data.read_bytes() + b" ")
    said = rf"3_small and 3_large are of other data: .*data\[1\]\.hdf5 has SHA-256 \w{{12}} and {sha256_of(data)[:12]}"
    with pytest.raises(PixelrlError, match=said):
        make_run(place, 3, study.arms["large"], Console(quiet=True))
    assert not place.record(3, study.arms["large"]).exists()
    body = json.loads(path.read_text())
    del body["files"]  # as older ones
    path.write_text(json.dumps(body))
    make_run(place, 3, study.arms["large"], Console(quiet=True))
    assert len(place.read_records()) == 2
    change(path, files={str(data): "abc"})
    with pytest.raises(PixelrlError, match="are of other data"):
        place.read_records()


def test_trials_and_collected_data_are_used_again_for_what_they_were_made_for(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run = workplace(tiny), tiny.parent / "run"
    study = place.study
    snapshot = checkpoint_path(run, 8)
    snapshot.parent.mkdir(parents=True)
    snapshot.write_bytes(b"one")
    asked: list[list[str]] = []

    def play(kind: Any, args: list[str]) -> Any:
        asked.append(args)
        result = {"successes": 1, "episodes": 2, "outcomes": [], "mean_length": 1.0, "seeds": {"seed": 1}, "seconds": 1}
        result["policy"] = {"sha256": sha256_of(snapshot)}
        write_json(run / "study/8/evaluation.json", result)
        return lambda: None

    monkeypatch.setattr("pixelrl.launch.study_runs.tyro.cli", play)
    for times in (1, 1):
        assert study_runs.evaluate(study, run, 3, 8)["successes"] == 1 and len(asked) == times
    for times, changed in ((2, {"episodes": 3}), (3, {"starts": "tuning"}), (4, {"evaluate": ("--acting", "best")})):
        study = replace(study, **changed)
        study_runs.evaluate(study, run, 3, 8)
        study_runs.evaluate(study, run, 3, 8)
        assert len(asked) == times
    snapshot.write_bytes(b"two")
    study_runs.evaluate(study, run, 3, 8)
    assert len(asked) == 5
    for times, damaged in ((6, ""), (7, '{"asked": ['), (8, "5")):
        (run / "study/8/evaluation.json").write_text(damaged)
        assert study_runs.evaluate(study, run, 3, 8)["successes"] == 1 and len(asked) == times

    place = replace(place, study=replace(study, environment="drawer-grasp", collect={"task": 3}))
    made = place.data(3) / "task.collection.json"
    write_json(made, {"episodes": 2, "task": "drawer-grasp"})
    with pytest.raises(
        PixelrlError, match=r"task\.hdf5: holds 2 episodes of drawer-grasp, and .* asks for 3 of drawer"
    ):
        study_runs.data_files(place, 3, "task")
    change(made, episodes=3)
    assert study_runs.data_files(place, 3, "task") == [str(place.data(3) / "task.hdf5")]
