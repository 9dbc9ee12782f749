"""Trackers of experiments beside the run's own files: Weights & Biases, MLflow, Trackio, each where it is installed."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.loop import Report

TrackerName = Literal["wandb", "mlflow", "trackio"]

PROJECT = "pixelrl"
"""Under which runs stand; each tracker has an environment variable of its own for where its server is."""


class Tracker(Protocol):
    """Where figures go."""

    def write(self, report: Report) -> None:
        """Take the figures of a step."""
        ...

    def close(self) -> None:
        """Finish; nothing is written after it."""
        ...


class WandbTracker:
    """Weights & Biases, or Trackio, which speaks its language; a run that is resumed goes on under its name."""

    def __init__(self, module: Any, directory: Path, config: Mapping[str, Any], **options: Any) -> None:
        self._module = module
        module.init(project=PROJECT, name=run_name(directory), config=dict(config), resume="allow", **options)

    def write(self, report: Report) -> None:
        """Take the figures of a step."""
        self._module.log(dict(report.metrics), step=report.step)

    def close(self) -> None:
        """Finish."""
        self._module.finish()


class MlflowTracker:
    """MLflow: the configuration as one file, since its parameters are short texts."""

    def __init__(self, module: Any, directory: Path, config: Mapping[str, Any]) -> None:
        self._module = module
        module.set_experiment(PROJECT)
        module.start_run(run_name=run_name(directory))
        module.log_dict(dict(config), "config.json")

    def write(self, report: Report) -> None:
        """Take the figures of a step; names may hold no `@` there."""
        metrics = {name.replace("@", "."): value for name, value in report.metrics.items()}
        self._module.log_metrics(metrics, step=report.step)

    def close(self) -> None:
        """Finish."""
        self._module.end_run()


def check_trackers(names: tuple[TrackerName, ...]) -> None:
    """Raise a `PixelrlError` that names the first tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise PixelrlError(f"--track {name}: it is not installed; pip install 'pixelrl[{name}]'")


def open_tracker(name: TrackerName, directory: Path, config: Mapping[str, Any]) -> Tracker:
    """Start a run there, with what its `config.json` says."""
    if name == "wandb":
        import wandb

        # one identity a directory, so that what was interrupted goes on, and no other run of that name is gone on with
        place = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:8]
        return WandbTracker(wandb, directory, config, dir=str(directory), id=f"{run_name(directory)}-{place}")
    if name == "trackio":
        import trackio

        return WandbTracker(trackio, directory, config)
    import mlflow

    return MlflowTracker(mlflow, directory, config)


def run_name(directory: Path) -> str:
    """Return the name of a run: that of its directory and of the one above."""
    return "-".join(directory.resolve().parts[-2:]).strip("/")
