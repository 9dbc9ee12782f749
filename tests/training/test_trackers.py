"""Trackers, with stand-ins that have their interfaces: the packages themselves are not installed here."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.loop import Report
from pixelrl.training.metrics_log import Log
from pixelrl.training.trackers import TrackerName, check_trackers, open_tracker

REPORT = Report(step=7, seconds=1.0, metrics={"q/data": 2.0, "q/data@task": 3.0})


class StandIn(ModuleType):
    """A package that notes what it is asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *values, **options: self.calls.append((name, values, options))


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_tracker_gets_the_configuration_the_figures_and_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: TrackerName
) -> None:
    package = StandIn(name)
    monkeypatch.setitem(sys.modules, name, package)
    run = tmp_path / "first"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"recipe": {"gamma": 0.9}}))
    with Log(run, 0, [name]) as log:
        log.write(REPORT)
    calls = {call: (values, options) for call, values, options in package.calls}
    if name == "mlflow":
        assert list(calls) == ["set_experiment", "start_run", "log_dict", "log_metrics", "end_run"]
        assert calls["log_metrics"] == (({"q/data": 2.0, "q/data.task": 3.0},), {"step": 7})
        assert calls["log_dict"][0] == ({"recipe": {"gamma": 0.9}}, "config.json")
    else:
        assert list(calls) == ["init", "log", "finish"]
        assert calls["log"] == ((REPORT.metrics,), {"step": 7})
        options = calls["init"][1]
        assert options["name"].endswith("-first") and options["config"] == {"recipe": {"gamma": 0.9}}
        if name == "wandb":  # another directory of that name is another run
            other = tmp_path / "other" / tmp_path.name / "first"
            open_tracker("wandb", other, {})
            assert package.calls[-1][2]["name"] == options["name"] and package.calls[-1][2]["id"] != options["id"]
        assert options["resume"] == "allow" and options["project"] == "pixelrl"
    assert (run / "metrics.csv").read_text().count("\n") == 2  # the run's own files are written all the same


def test_tracker_that_is_not_installed_is_named_before_anything_is_made() -> None:
    with pytest.raises(PixelrlError, match=r"--track wandb: it is not installed; pip install 'pixelrl\[wandb\]'"):
        check_trackers(("wandb",))
