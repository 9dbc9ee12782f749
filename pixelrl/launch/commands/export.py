"""`pixelrl export`: one directory that a robot can run, proved against the checkpoint."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from pixelrl.export.contract import CONTRACT, evaluation_fault, read_contract
from pixelrl.launch.console import plain_console, progress_bar
from pixelrl.launch.policy_options import CheckpointOptions
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import atomic_path, not_finite, write_json

if TYPE_CHECKING:
    from pixelrl.export.description import Recorded
    from pixelrl.learning.weights import Weight
    from pixelrl.runtime.interfaces import Sensors
    from pixelrl.training.run_directory import Run

FRAMES, DEMOS = 256, 16
"""How many recorded instants the proof uses, spread over so many demos of each source."""


@dataclass(frozen=True, kw_only=True)
class Export(CheckpointOptions):
    """Export a run as one directory for a robot, and prove that it acts as the checkpoint does."""

    run: Positional[Path]
    """directory of a training run"""
    out: Path
    """directory to write: policy.onnx, policy.json (the contract), export.json, README.md (the model card)"""
    camera_size: tuple[int, int] | None = None
    """height and width of the robot's pictures [px]; default: those of the data"""
    data: tuple[Path, ...] = ()
    """recorded data to prove it on; default: those it was trained on"""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """of the network's inner layers; int8 takes its ranges from half of the recorded frames, the others test it"""
    pt2: bool = False
    """also write policy.pt2, the fp32 policy as a program of torch.export, for robots that run torch"""
    instruction: str | None = None
    """what the robot is to do, in words, for people who read the contract"""

    def __call__(self) -> None:
        """Write `policy.onnx`, `policy.json` and `export.json`.

        Raises:
            PixelrlError: not a run, its data are gone, or the artefact does not act as the checkpoint does.
        """
        from pixelrl.export.artefact import export_policy
        from pixelrl.runtime.env_args import control_freq_of
        from pixelrl.training.run_directory import checkpoint_path, read_networks

        check_folder(self.out)
        provenance = Provenance()
        chosen, rule = self.chosen_step(self.run), self.select if self.step is None else "step"
        run, networks, step = read_networks(self.run, chosen)
        networks.set_acting(self.acting)
        if (rate := control_freq_of(run.env_args)) is not None and rate <= 0:
            raise PixelrlError(
                f"{self.run / 'config.json'}: control_freq in env_args is {rate:g}; expected actions a second, above 0"
            )
        checkpoint = checkpoint_path(self.run, chosen)
        result = export_policy(
            networks,
            run.spec,
            self.out,
            control_freq=rate,
            env_args=run.env_args,
            frames=recorded_frames(run, self.data),
            checkpoint=checkpoint,
            step=step,
            camera_sizes=None if self.camera_size is None else dict.fromkeys(run.spec.images, self.camera_size),
            provenance=provenance.record()
            | {"actions": run.actions, "selected_by": rule, "fingerprint": run.fingerprint},
            recorded=self._recorded(run, checkpoint),
            precision=self.precision,
            pt2=self.pt2,
        )
        (self.out / "evaluation.json").unlink(missing_ok=True)  # of an earlier export in the same place
        self._write_card(run, step)
        write_json(self.out / "export.json", {**result, "run": str(self.run), "step": step, **provenance.record()})
        parity = result["parity"]
        plain_console().print(
            f"{self.out}: acts as {self.run} at step {step}: largest difference {parity['data']['normalised']:.1e} on "
            f"{parity['data']['frames']} recorded frames, {parity['random']['normalised']:.1e} on random ones "
            f"(at most {parity['limit']:.0e})" + precision_line(result)
        )

    def _write_card(self, run: "Run", step: int) -> None:
        """Write the model card."""
        from pixelrl.export.model_card import MODEL_CARD, model_card
        from pixelrl.learning.objective import term_name

        recipe = run.recipe
        sides = {"critic": recipe.critic, "value": recipe.value, "actor": recipe.actor}
        terms = "; ".join(
            f"{side}: {', '.join(f'{term_name(term)} {weight_text(term.weight)}' for term in each)}"
            for side, each in sides.items()
            if each
        )
        data = {source: hashed(tuple(map(Path, files))) for source, files in run.data.items()}
        contract = json.loads((self.out / CONTRACT).read_text(encoding="utf-8"))
        text = model_card(contract, recipe=f"Terms of its losses, with their weights: {terms}", steps=step, data=data)
        with atomic_path(self.out / MODEL_CARD) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _recorded(self, run: "Run", checkpoint: Path) -> "Recorded":
        """Return what the contract tells of the recorded actions and of the last evaluation of this checkpoint."""
        from pixelrl.datasets.hdf5.reader import read_contents, read_demos
        from pixelrl.export.description import Recorded, largest_steps
        from pixelrl.runtime.actions import action_limits, to_units

        every_file = dict.fromkeys((*(Path(path) for paths in run.data.values() for path in paths), *self.data))
        files = [path for path in every_file if path.is_file()]
        if len(files) < len(every_file):
            gone = f"{len(every_file) - len(files)} of {len(every_file)} files of the run's data are gone"
            plain_console().print(f"warning: {gone}; the largest steps in {CONTRACT} are those of the others")
        masks = [(path, mask) for path in files for mask in {each["mask"] for each in run.readings_of(path)}]
        contents = [read_contents(path, mask=mask, images=(), proprio=(), required=()) for path, mask in masks]
        bound = 1.0 if run.actions == "unit" else math.inf
        every = (
            to_units(actions.clip(-bound, bound), *action_limits(each.action))
            for each in contents
            for demo in read_demos(each)
            for actions in demo.episodes
        )
        step, change = largest_steps(every, run.spec.action_dim)
        evaluation = evaluation_of(self.run / "evaluation.json", checkpoint, self.acting)
        return Recorded(largest_step=step, largest_change=change, task=self.instruction, evaluation=evaluation)


def check_folder(out: Path) -> None:
    """Raise a `PixelrlError` if a directory holds files, hidden ones apart, and no contract of an export."""
    from pixelrl.export.model_card import MODEL_CARD

    if not out.is_dir() or all(path.name.startswith(".") for path in out.iterdir()):
        return
    try:
        read_contract(out / CONTRACT)
    except PixelrlError as error:
        what = f"holds files and no {CONTRACT} of an export"
        raise PixelrlError(f"{out}: {what}; name a new or an empty directory") from error
    for name in ("export.json", "evaluation.json", MODEL_CARD):
        if (out / name).is_dir():
            raise PixelrlError(f"{out / name}: is a directory; an export has a file of this name")


def hashed(files: Sequence[Path]) -> list[tuple[str, str | None]]:
    """Return the name of each file and its SHA-256, None if it is gone, and show how far that is."""
    from pixelrl.runtime.files import sha256_of

    found = []
    with progress_bar(plain_console()) as bar:
        job = bar.add_task("hash the data", total=len(files), note="")
        for path in files:
            found.append((path.name, sha256_of(path) if path.is_file() else None))
            bar.advance(job)
    return found


def weight_text(weight: "Weight") -> str:
    """Return the weight of a term, or how it is learned."""
    return f"{weight:g}" if isinstance(weight, float | int) else f"(learned, at most {weight.bound:g})"


def precision_line(result: Mapping[str, Any]) -> str:
    """Return what a smaller precision does to the actions, to be added to a line; nothing of fp32."""
    if (check := result.get("precision_check")) is None:
        return ""
    of = f"of half the range on {check['frames']} recorded frames that it was not fitted to"
    return f"; {result['precision']} moves actions by {check['p99']:.4f} (99 of 100), {check['max']:.4f} at most, {of}"


def evaluation_of(path: Path, checkpoint: Path, acting: str | None) -> dict[str, Any] | None:
    """Return what an evaluation says of a checkpoint; None if there is none, or one of another, or acting otherwise.

    Raises:
        PixelrlError: the file is damaged.
    """
    from pixelrl.runtime.files import sha256_of

    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        policy = result["policy"]
        if policy.get("sha256") != sha256_of(checkpoint) or policy.get("acting") != acting:
            return None
        names = ("episodes", "successes", "success_rate", "success_interval_95", "seeds", "began")
        found = {name: result[name] for name in names} | {"env": result["env_args"]["env_name"]}
        fault = not_finite(found) or evaluation_fault(found)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        fault = repr(error)
    if fault is not None:
        raise PixelrlError(f"{path}: damaged ({fault}); evaluate again, or remove it")
    return found


def recorded_files(run: "Run", data: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return every source's first file, or those that are named.

    Raises:
        PixelrlError: a file is gone; `data` names others to use.
    """
    for path in data:
        if not path.is_file():
            raise PixelrlError(f"--data {path}: there is no such file")
    files = data or tuple(Path(names[0]) for names in run.data.values() if names)
    for path in files:
        if not path.is_file():
            raise PixelrlError(f"{path}: the run was trained on it and it is gone; name recorded data with --data")
    return files


def recorded_frames(run: "Run", data: tuple[Path, ...]) -> "Sensors":
    """Return recorded instants, with their histories, from every source's first file: key -> `[N, ...]`."""
    import numpy as np

    from pixelrl.datasets.hdf5.reader import read_contents, read_demos

    files = recorded_files(run, data)
    parts: dict[str, list[np.ndarray[Any, Any]]] = {key: [] for key in (*run.spec.images, *run.spec.proprio)}
    for path in files:
        contents = read_contents(
            path,
            images=tuple(run.spec.images),
            proprio=tuple(run.spec.proprio),
            required=(),
            **run.reading_of(path),
        )
        for demo in read_demos(contents, islice(contents.demos, DEMOS)):
            stride = max(1, len(demo.actions) * DEMOS * len(files) // FRAMES)
            instants = np.arange(0, len(demo.actions) + 1, stride)
            for key, rows in parts.items():
                back = range(run.spec.history - 1, -1, -1) if key in run.spec.images else (0,)
                rows.append(np.concatenate([demo.sensors[key][np.maximum(instants - k, 0)] for k in back], axis=-1))
    return {key: np.concatenate(rows)[:FRAMES] for key, rows in parts.items()}
