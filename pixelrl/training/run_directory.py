"""A run's directory: `config.json` tells the whole of it, `last.safetensors` is where it stands.

RUN/config.json          recipe, shapes, environment, data files
RUN/last.safetensors     the latest checkpoint, from which it resumes
RUN/snapshots/N.safetensors   the networks alone after N steps, if asked for
RUN/metrics.csv, RUN/tensorboard/, RUN/training.json, RUN/evaluation.json
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pixelrl.learning.batch import Spec
from pixelrl.learning.build import build_networks
from pixelrl.learning.networks import Networks
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.rounding import round_weights
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import not_finite, write_json
from pixelrl.training.checkpoint import load_networks
from pixelrl.training.configuration import from_json, to_json


@dataclass(frozen=True, kw_only=True)
class Run:
    """The whole configuration of a run.

    Attributes:
        recipe: what was learned and how.
        spec: shapes and scales of the data.
        data: source -> its files.
        sources: source -> how it is sampled and rewarded, as JSON values; empty in runs of older versions.
        fingerprint: of the transitions that were learned from, whatever their files are called.
        actions: how recorded actions were normalised.
        env_args: robomimic's description of the environment that the task data come from; empty if unknown.
        threads: of the CPU that it is computed on, which decide the last bits; None: on a GPU.
        teacher: of a student, its teacher's directory, and the step and hash of the checkpoint; else empty.
        initial: of a run that started from another one's networks, the same of that one, and which part; else empty.
    """

    recipe: Recipe
    spec: Spec
    data: Mapping[str, tuple[str, ...]]
    fingerprint: str
    actions: str
    sources: Mapping[str, Any] = field(default_factory=dict)
    env_args: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    teacher: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write `config.json`; the environment's description stays as it came, JSON of robomimic's own."""
        write_json(directory / "config.json", to_json(self) | {"env_args": dict(self.env_args)})

    def reading_of(self, path: Path) -> dict[str, Any]:
        """Return `mask` and `rename` of `read_contents`, as the first source that reads a file has them."""
        return self.readings_of(path)[0]

    def readings_of(self, path: Path) -> list[dict[str, Any]]:
        """Return `reading_of` for each source that reads a file; where none does, for the whole file."""
        names = [name for name, files in self.data.items() if str(path.resolve()) in files]
        sources = [self.sources.get(name, {}) for name in names or [""]]
        return [{"mask": each.get("mask"), "rename": each.get("rename", {})} for each in sources]


def checkpoint_path(directory: Path, step: int | None = None) -> Path:
    """Return the latest checkpoint of a run, or its snapshot of a step."""
    return directory / "last.safetensors" if step is None else directory / "snapshots" / f"{step}.safetensors"


def snapshot_steps(directory: Path) -> list[int]:
    """Return the steps of a run's snapshots, ascending."""
    names = (path.stem for path in (directory / "snapshots").glob("*.safetensors"))
    return sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]*", name))  # others are not ours


def read_run(directory: Path) -> Run:
    """Read `config.json`.

    Raises:
        PixelrlError: there is none, or it is not one of ours.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise PixelrlError(f"{directory}: not a run of `pixelrl train`: it has no config.json")
    try:
        body = json.loads(path.read_text())
        if (found := not_finite(body)) is not None:
            raise PixelrlError(f"{path}: {found}; expected a number")
        env_args = body.pop("env_args", {}) if isinstance(body, dict) else {}
        run = from_json(body, Run)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PixelrlError(f"{path}: not a configuration of pixelrl, or damaged ({error})") from error
    if not isinstance(run, Run) or [type(run.recipe), type(run.spec), type(env_args)] != [Recipe, Spec, dict]:
        raise PixelrlError(f"{path}: not the configuration of a run")
    check_scales(path, run.spec)
    return replace(run, env_args=env_args)


def check_scales(path: Path, spec: Spec) -> None:
    """Raise a `PixelrlError` unless every reading has a mean, and a standard deviation to be divided by."""
    for name, low in (("proprio_mean", -math.inf), ("proprio_std", 0.0)):
        for index, value in enumerate(getattr(spec, name)):
            if type(value) not in (int, float) or not low < value:
                wanted = "a number above 0" if low == 0 else "a number"
                raise PixelrlError(f"{path}: spec.{name}[{index}] is {value!r:.40}; expected {wanted}")


def read_networks(directory: Path, step: int | None = None) -> tuple[Run, Networks, int]:
    """Read a run and its trained networks on the CPU, and the step that they are from."""
    run = read_run(directory)
    make = partial(build_networks, run.recipe, run.spec)
    networks, found = load_networks(checkpoint_path(directory, step), make)
    for actor in {networks.actor, networks.that_act[1]}:
        round_weights(actor, run.recipe.weight_bits)
    return run, networks, found


def pick_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is CUDA where there is one.

    Raises:
        PixelrlError: there is no such device, or none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PixelrlError(f"--device {name}: torch knows no such device; use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise PixelrlError(f"--device {name}: only the CPU and CUDA are supported; use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PixelrlError(f"--device {name}: torch finds no CUDA device; use --device cpu")
    return device
