"""Export a policy: one directory with the network, its contract, and proof that it acts as the checkpoint does."""

import copy
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.export.contract import CONTRACT, MODEL, PROGRAM, check_contract, is_range
from pixelrl.export.description import Recorded, Sizes, describe, measure_latency, own_statistics
from pixelrl.export.parity import at_size, check_parity
from pixelrl.export.precision import Precision, check_precision, halves, reduce_precision
from pixelrl.export.program import OUTPUTS, ProgramPolicy, write_program
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.learning.batch import Observation, Spec
from pixelrl.learning.networks import Networks
from pixelrl.runtime.actions import action_limits, to_units
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import naming, sha256_of, staging_folder, write_json
from pixelrl.runtime.interfaces import Sensors

WEIGHT_STEPS = 2.0**22
"""Resampling weights are multiples of 2^-22, as in Pillow.

A byte times two such weights has at most 8 + 2 * 22 = 52 bits, so float64 holds every sum exactly: whatever adds
them up, in whatever order, gets the same picture to the last bit, and rounds it alike.
"""

TOLD: tuple[str, ...] = ("precision", "precision_check", "pt2", "parity")
"""What an export returns of the contract."""


class Resize(nn.Module):
    """Resize whole pictures by antialiased bilinear interpolation, rounded to bytes, as an image library does.

    Two constant matrices, one for the rows and one for the columns: an ONNX file needs no resize operator, whose
    meaning differs between runtimes.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, camera: tuple[int, int], trained: tuple[int, int]) -> None:
        super().__init__()
        self.same = camera == trained
        self.register_buffer("rows", resampling(camera[0], trained[0]))
        columns = rearrange(resampling(camera[1], trained[1]), "after before -> before after")
        self.register_buffer("columns", columns.contiguous())

    def forward(self, pictures: Tensor) -> Tensor:
        """Map uint8 `[B, C, H0, W0]` to uint8 `[B, C, H, W]`."""
        return pictures if self.same else (self.rows @ pictures.double() @ self.columns).round().to(torch.uint8)


def resampling(before: int, after: int) -> Tensor:
    """Return the weights of antialiased bilinear interpolation along one axis, float64 `[after, before]`.

    A triangle around each new pixel's centre, as wide as it takes to cover the old pixels that it stands for.
    """
    scale = before / after
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * scale - 0.5
    distances = torch.arange(before, dtype=torch.float64) - rearrange(centres, "after -> after 1")
    triangles = (1 - distances.abs() / max(scale, 1.0)).clamp(min=0)
    weights = triangles / triangles.sum(1, keepdim=True)
    return (weights * WEIGHT_STEPS).round() / WEIGHT_STEPS


class Artefact(nn.Module):
    """Everything between the robot's sensors and its motors, as one network.

    Args:
        networks: of which only the policy's path is exported.
        spec: shapes of the data that they were trained on, and the robot's units.
        sizes: of the robot's pictures.
    """

    low: Tensor
    high: Tensor

    def __init__(self, networks: Networks, spec: Spec, sizes: Sizes) -> None:
        super().__init__()
        self.networks, self.spec, self.sizes = networks, spec, sizes
        self.resize = nn.ModuleList(Resize(sizes[key], (h, w)) for key, (_, h, w) in spec.images.items())
        for name, limits in zip(("low", "high"), action_limits(spec.action), strict=True):
            self.register_buffer(name, torch.from_numpy(limits).float())

    def forward(self, *sensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the action in the robot's units and in [-1, 1], both `[B, A]`, or chunks of them, `[B, h, A]`.

        Args:
            sensors: in the order of the spec, uint8 `[B, H0, W0, k C]` per camera, then float32 `[B, D]` per vector.
        """
        named = dict(zip((*self.spec.images, *self.spec.proprio), sensors, strict=True))
        cameras = zip(self.spec.images, self.resize, strict=True)
        images = {key: resize(rearrange(named[key], "b h w c -> b c h w")) for key, resize in cameras}
        none = torch.empty(sensors[0].shape[0], 0)
        proprio = torch.cat([none, *(named[key] for key in self.spec.proprio)], dim=-1)
        normalised = self.networks.act(Observation(images=images, proprio=proprio))
        if self.spec.chunk > 1:
            normalised = rearrange(normalised, "b (h a) -> b h a", h=self.spec.chunk)
        return to_units(normalised, self.low, self.high), normalised


def export_policy(
    networks: Networks,
    spec: Spec,
    out: Path,
    *,
    control_freq: float | None,
    env_args: Mapping[str, Any],
    frames: Sensors,
    checkpoint: Path,
    step: int,
    camera_sizes: Sizes | None = None,
    provenance: Mapping[str, Any] | None = None,
    recorded: Recorded | None = None,
    precision: Precision = "fp32",
    pt2: bool = False,
) -> dict[str, Any]:
    """Write `policy.onnx` and `policy.json` into `out`, if they act as the networks do.

    Nothing in `out` changes unless all went well; files of other names in it stay.

    Args:
        networks: the policy, left as it is.
        spec: shapes of the data, and the robot's units.
        out: directory to write, new or old.
        control_freq: actions a second [Hz], None if the data do not tell.
        env_args: robomimic's description of the environment; `pixelrl evaluate` rebuilds it.
        frames: recorded readings to compare on, `[N, ...]` each, at the size of the data or of the camera.
        checkpoint: the file that the networks come from.
        step: at which it was saved.
        camera_sizes: of the robot's pictures, for the cameras that differ from the data.
        provenance: whatever else the contract should tell, as JSON values.
        recorded: what else is known of the data and of the policy.
        precision: of the network's inner layers; fp32 is proved first, then how far this one is from it.
        pt2: also write `policy.pt2`, the fp32 policy as a program of torch.export, proved alike.

    Returns:
        `parity` (see `check_parity`), `precision`, `precision_check`, `pt2` if asked for, `sha256` and `seconds`.

    Raises:
        PixelrlError: wrong arguments, or the artefact's actions differ from the checkpoint's by more than 1e-4.
    """
    start, out = time.perf_counter(), Path(os.path.realpath(out))
    check_arguments(spec, out, checkpoint, camera_sizes or {}, frames)
    sizes = {key: (h, w) for key, (_, h, w) in spec.images.items()} | dict(camera_sizes or {})
    policy = CheckpointPolicy(copy.deepcopy(networks), spec, torch.device("cpu"))
    artefact = Artefact(policy.networks, spec, sizes).eval()
    with naming(out), staging_folder(out / CONTRACT if out.is_dir() else out) as staging:  # on the disk of `out`
        write_onnx(staging / MODEL, artefact)
        contract = describe(own_statistics(spec, networks), sizes, env_args, recorded or Recorded()) | {
            "control_freq": control_freq,
            "env_args": dict(env_args),
            "checkpoint": {"file": checkpoint.name, "step": step, "sha256": sha256_of(checkpoint)},
            "provenance": dict(provenance or {}),
            "sha256": {MODEL: sha256_of(staging / MODEL)},
        }
        check_contract(contract, out / CONTRACT)
        contract = proved(staging, contract, artefact, policy, frames, precision, pt2=pt2)
        replace_files(staging, out, contract)
    told = {name: contract[name] for name in TOLD if name in contract}
    return {**told, "sha256": contract["sha256"][MODEL], "seconds": round(time.perf_counter() - start, 2)}


def proved(
    staging: Path,
    contract: dict[str, Any],
    artefact: Artefact,
    policy: CheckpointPolicy,
    frames: Sensors,
    precision: Precision,
    *,
    pt2: bool,
) -> dict[str, Any]:
    """Prove the network in `staging`, bring it into its last form there, and return the contract that tells of it."""
    write_json(staging / CONTRACT, contract)
    spec, sizes = artefact.spec, artefact.sizes
    resize = dict(zip(spec.images, artefact.resize, strict=True))
    prove = partial(check_parity, checkpoint=policy, resize=resize, sizes=sizes, frames=frames)
    contract = contract | {"parity": prove(ExportedPolicy(staging))}
    if pt2:
        contract = with_program(staging, contract, artefact, prove)
    if precision != "fp32":
        sensed = {key: at_size(frames[key], sizes[key]) if key in sizes else frames[key] for key in policy.inputs}
        contract = reduced(staging, contract, precision, sensed)
    return contract | {"latency": measure_latency(staging, frames, sizes, contract["provenance"])}


def replace_files(staging: Path, out: Path, contract: Mapping[str, Any]) -> None:
    """Put what lies in `staging`, and the contract, in place of an earlier export.

    A crash in between leaves a hash that does not fit: the runtime refuses it.
    """
    write_json(staging / CONTRACT, contract)
    out.mkdir(exist_ok=True)
    (out / PROGRAM).unlink(missing_ok=True)
    for file in (*contract["sha256"], CONTRACT):
        os.replace(staging / file, out / file)  # noqa: PTH105 (the one call that is known to be atomic)


def with_program(
    staging: Path, contract: dict[str, Any], artefact: Artefact, prove: Callable[[ExportedPolicy], dict[str, Any]]
) -> dict[str, Any]:
    """Write `policy.pt2` beside the network in `staging`, prove it alike, and return the new contract."""
    exact, path = ExportedPolicy(staging), staging / PROGRAM
    write_program(path, artefact, example_of(artefact))
    about = {"inputs": list(exact.inputs), "outputs": list(OUTPUTS), "precision": "fp32", "torch": torch.__version__}
    proof = {"parity": prove(ProgramPolicy(exact, path))}
    return contract | {"sha256": contract["sha256"] | {PROGRAM: sha256_of(path)}, "pt2": about | proof}


def reduced(staging: Path, contract: dict[str, Any], precision: Precision, frames: Sensors) -> dict[str, Any]:
    """Bring the network in `staging` to a precision, see how far that is from fp32, and return the new contract."""
    exact, (ranges, rest) = ExportedPolicy(staging), halves(frames)
    reduce_precision(staging / MODEL, precision, ranges)
    contract = contract | {"precision": precision, "sha256": contract["sha256"] | {MODEL: sha256_of(staging / MODEL)}}
    write_json(staging / CONTRACT, contract)
    return contract | {"precision_check": check_precision(ExportedPolicy(staging), exact, rest)}


def write_onnx(path: Path, artefact: Artefact) -> None:
    """Write the artefact as one ONNX file: inputs under their observation keys, any batch size, weights inside."""
    spec, example = artefact.spec, example_of(artefact)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):  # torchvision is not needed
        warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)  # all inputs share one batch
        torch.onnx.export(
            artefact,
            tuple(example),
            path,
            input_names=[*spec.images, *spec.proprio],
            output_names=[*OUTPUTS],
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Let a logger tell of errors only."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def example_of(artefact: Artefact) -> list[Tensor]:
    """Return two empty readings, as an artefact takes them."""
    stacks, sizes = artefact.spec.stacks, artefact.sizes
    pictures = [torch.zeros(2, *sizes[key], c, dtype=torch.uint8) for key, (c, _, _) in stacks.items()]
    return [*pictures, *(torch.zeros(2, size) for size in artefact.spec.proprio.values())]


def check_arguments(spec: Spec, out: Path, checkpoint: Path, camera_sizes: Sizes, frames: Sensors) -> None:
    """Raise a `PixelrlError` unless files, cameras and frames are there and every action has a range."""
    if os.path.lexists(out) and not out.is_dir():
        raise PixelrlError(f"{out}: is no directory; an export is one")
    for name in (MODEL, PROGRAM, CONTRACT):
        if (out / name).is_dir():
            raise PixelrlError(f"{out / name}: is a directory; an export writes a file of this name")
    if not checkpoint.is_file():
        raise PixelrlError(f"{checkpoint}: there is no such file")
    for key, (height, width) in camera_sizes.items():
        if key not in spec.images:
            raise PixelrlError(f"camera size of {key!r}: the policy has no such camera, but {', '.join(spec.images)}")
        if min(height, width) < 1:
            raise PixelrlError(f"camera size of {key!r}: {height} x {width}; expected a height and a width [px]")
    if missing := [key for key in (*spec.images, *spec.proprio) if len(frames.get(key, ())) == 0]:
        raise PixelrlError(f"export: there are no recorded frames of {missing[0]!r} to compare the policy on")
    for dim in spec.action:
        if not is_range(dim.low, dim.high):  # a joint that is held has one value
            raise PixelrlError(
                f"action {dim.name!r}: its range is [{dim.low}, {dim.high}]; expected low <= high, within float32"
            )
