"""`pixelrl export`: one directory that a robot can run, proved against the checkpoint."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from pixelrl.launch.console import plain_console
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json

if TYPE_CHECKING:
    from pixelrl.runtime.interfaces import Sensors
    from pixelrl.training.run_directory import Run

FRAMES, DEMOS = 256, 16
"""How many recorded instants the proof uses, spread over so many demos of each source."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export a run as one directory for a robot, and prove that it acts as the checkpoint does."""

    run: Positional[Path]
    """directory of a training run"""
    out: Path
    """directory to write: policy.onnx, policy.json (the contract), export.json"""
    step: int | None = None
    """use the snapshot of this step, not the last checkpoint"""
    camera_size: tuple[int, int] | None = None
    """height and width of the robot's pictures [px]; default: those of the data"""
    data: tuple[Path, ...] = ()
    """recorded data to prove it on; default: those it was trained on"""

    def __call__(self) -> None:
        """Write `policy.onnx`, `policy.json` and `export.json`.

        Raises:
            PixelrlError: not a run, its data are gone, or the artefact does not act as the checkpoint does.
        """
        from pixelrl.export.artefact import export_policy
        from pixelrl.runtime.env_args import control_freq_of
        from pixelrl.training.run_directory import checkpoint_path, read_networks

        provenance = Provenance()
        run, networks, step = read_networks(self.run, self.step)
        result = export_policy(
            networks,
            run.spec,
            self.out,
            control_freq=control_freq_of(run.env_args),
            env_args=run.env_args,
            frames=recorded_frames(run, self.data),
            checkpoint=checkpoint_path(self.run, self.step),
            step=step,
            camera_sizes=None if self.camera_size is None else dict.fromkeys(run.spec.images, self.camera_size),
            provenance={**provenance.record(), "actions": run.actions},
        )
        (self.out / "evaluation.json").unlink(missing_ok=True)  # of an earlier export in the same place
        write_json(self.out / "export.json", {**result, "run": str(self.run), "step": step, **provenance.record()})
        parity = result["parity"]
        plain_console().print(
            f"{self.out}: acts as {self.run} at step {step}: largest difference {parity['data']['normalised']:.1e} on "
            f"{parity['data']['frames']} recorded frames, {parity['random']['normalised']:.1e} on random ones "
            f"(at most {parity['limit']:.0e})"
        )


def recorded_frames(run: "Run", data: tuple[Path, ...]) -> "Sensors":
    """Return recorded instants, with their histories, from every source's first file: key -> `[N, ...]`.

    Raises:
        PixelrlError: a file is gone; `data` names others to use.
    """
    import numpy as np

    from pixelrl.datasets.hdf5.reader import read_contents, read_demos

    files = data or tuple(Path(names[0]) for names in run.data.values() if names)
    for path in files:
        if not path.is_file():
            raise PixelrlError(f"{path}: the run was trained on it and it is gone; name recorded data with --data")
    parts: dict[str, list[np.ndarray[Any, Any]]] = {key: [] for key in (*run.spec.images, *run.spec.proprio)}
    for path in files:
        contents = read_contents(path, images=tuple(run.spec.images), proprio=tuple(run.spec.proprio))
        for demo in read_demos(contents, islice(contents.demos, DEMOS)):
            stride = max(1, len(demo.actions) * DEMOS * len(files) // FRAMES)
            instants = np.arange(0, len(demo.actions) + 1, stride)
            for key, rows in parts.items():
                back = range(run.spec.history - 1, -1, -1) if key in run.spec.images else (0,)
                rows.append(np.concatenate([demo.sensors[key][np.maximum(instants - k, 0)] for k in back], axis=-1))
    return {key: np.concatenate(rows)[:FRAMES] for key, rows in parts.items()}
