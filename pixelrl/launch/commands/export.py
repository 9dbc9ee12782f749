"""Export a run: one directory that a robot can run, proved against the checkpoint."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pixelrl.runtime.env_args import control_freq_of
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.runtime.errors import PixelrlError
from pixelrl.export.artefact import export as write_artefact
from pixelrl.runtime.files import write_json
from pixelrl.runtime.interfaces import Sensors
from pixelrl.launch.provenance import Provenance
from pixelrl.training.run_directory import Run, checkpoint_path, read_networks

FRAMES, DEMOS = 256, 16
"""How many recorded instants the proof uses, spread over so many demos of each source."""


def export(
    directory: Path,
    out: Path,
    *,
    step: int | None = None,
    camera_size: tuple[int, int] | None = None,
    data: tuple[Path, ...] = (),
    console: Console,
) -> dict[str, Any]:
    """Write `policy.onnx`, `policy.json` and `export.json` into `out`.

    Raises:
        PixelrlError: not a run, its data are gone, or the artefact does not act as the checkpoint does.
    """
    provenance = Provenance()
    run, networks, found = read_networks(directory, step)
    sizes = None if camera_size is None else dict.fromkeys(run.spec.images, camera_size)
    result = write_artefact(
        networks,
        run.spec,
        out,
        control_freq=control_freq_of(run.env_args),
        env_args=run.env_args,
        frames=recorded_frames(run, data),
        checkpoint=checkpoint_path(directory, step),
        step=found,
        camera_sizes=sizes,
        provenance=provenance.record(),
    )
    (out / "evaluation.json").unlink(missing_ok=True)  # of an earlier export in the same place
    record: dict[str, Any] = {**result, "run": str(directory), "step": found, **provenance.record()}
    write_json(out / "export.json", record)
    parity = result["parity"]
    console.print(
        f"{out}: acts as {directory} at step {found}: largest difference {parity['data']['normalised']:.1e} on "
        f"{parity['data']['frames']} recorded frames, {parity['random']['normalised']:.1e} on random ones "
        f"(at most {parity['limit']:.0e})"
    )
    return record


def recorded_frames(run: Run, data: tuple[Path, ...]) -> Sensors:
    """Return recorded instants, with their histories, from every source's first file: key -> `[N, ...]`.

    Raises:
        PixelrlError: a file is gone; `data` names others to use.
    """
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
