"""`pixelrl probe`: what happens inside a run's critics, on the same fixed transitions at any step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from pixelrl.launch.console import plain_console, progress_bar, table_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measure a run's networks on fixed, un-augmented transitions of its data: features, Q, gradients of the terms."""

    run: Positional[Path]
    """directory of a training run"""
    step: tuple[int, ...] = ()
    """use the snapshots of these steps, not the last checkpoint"""
    rows: int = 2048
    """how many transitions, half of them of each of two sources"""
    seed: int = 0
    """of the choice of rows and of the actions that are drawn"""
    on_held_out: Annotated[bool, arg(aliases=("--held-out",))] = False
    """use the episodes that were held out of training (train --held-out 0.1)"""
    plasticity: int = 0
    """also regress copies of the critics, and fresh ones, on random targets for so many steps"""
    stay: tuple[float, ...] = ()
    """an action in [-1, 1], say that which moves nothing, to compare the Q of the recorded actions with"""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """JSON file to write; default: RUN/probe.json"""

    def __call__(self) -> None:
        """Measure, print a table, and write the file.

        Raises:
            PixelrlError: no run there, its data are gone or have changed, or nothing was held out.
        """
        provenance, console = Provenance(seed=self.seed), plain_console()
        steps = self.step or (None,)
        found = probe_run(
            self.run,
            steps,
            self.rows,
            self.seed,
            console,
            held_out=self.on_held_out,
            plasticity_steps=self.plasticity,
            stay=self.stay,
        )
        result = {"run": str(self.run), "rows": self.rows, "held_out": self.on_held_out, "steps": found}
        write_json(self.out or self.run / "probe.json", result | provenance.record())
        table = table_of("", *(f"step {step}" for step in found))
        for name in next(iter(found.values())):
            values = [each.get(name) for each in found.values()]
            table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values))
        console.print(table)


def probe_run(
    directory: Path,
    steps: Sequence[int | None],
    rows: int,
    seed: int,
    console: "Console",
    *,
    held_out: bool = False,
    plasticity_steps: int = 0,
    stay: tuple[float, ...] = (),
) -> dict[int, dict[str, float | None]]:
    """Return step -> what was measured of a run's snapshot (None: its last checkpoint); None for what is not finite.

    Raises:
        PixelrlError: as `Probe` says.
    """
    import torch

    from pixelrl.datasets.buffer.sources import Source
    from pixelrl.launch.training_data import load_training_data
    from pixelrl.training.plasticity import plasticity
    from pixelrl.training.probe import learnable, probe, with_recorded_actions
    from pixelrl.training.run_directory import read_networks, read_run

    if rows < 2:
        raise PixelrlError(f"--rows is {rows}; it must be at least 2")
    run = read_run(directory)
    if stay and len(stay) != run.spec.action_dim:
        raise PixelrlError(f"--stay has {len(stay)} numbers; an action of this run has {run.spec.action_dim}")
    if plasticity_steps and not run.recipe.critic:
        raise PixelrlError("--plasticity: this run has no critics")
    rules: Mapping[str, Any] = run.sources
    sources = [
        Source(name=name, files=tuple(map(Path, files)), **rules.get(name, {})) for name, files in run.data.items()
    ]
    mixture = load_training_data(
        torch.device("cpu"),
        with_recorded_actions(run.recipe),
        sources,
        actions=run.actions,  # type: ignore[arg-type]
        memory="file",
        console=console,
    )
    if (fingerprint := mixture.table.fingerprint()) != run.fingerprint:
        raise PixelrlError(f"{directory}: was trained on other data ({run.fingerprint}), not these ({fingerprint})")
    batch = mixture.rows(mixture.probe(rows, seed, held_out=held_out))
    found: dict[int, dict[str, float | None]] = {}
    with progress_bar(console) as bar:
        for step in steps:
            _, networks, done = read_networks(directory, step)
            tell = partial(bar.advance, bar.add_task("probe", total=len(batch), note=f"step {done}"))
            metrics = probe(learnable(networks), run.recipe, batch, run.spec.sources, seed, stay, tell)
            if plasticity_steps:
                metrics |= plasticity(networks, run.recipe, run.spec, batch, plasticity_steps, seed)
            found[done] = {key: value.item() if value.isfinite() else None for key, value in metrics.items()}
    return found
