"""`pixelrl probe`: what happens inside a run's critics, on the same fixed transitions at any step."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
        found = self.measure(console)
        result = {"run": str(self.run), "rows": self.rows, "held_out": self.on_held_out, "steps": found}
        write_json(self.out or self.run / "probe.json", result | provenance.record())
        table = table_of("", *(f"step {step}" for step in found))
        for name in next(iter(found.values())):
            values = [each.get(name) for each in found.values()]
            table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values))
        console.print(table)

    def measure(self, console: "Console") -> dict[int, dict[str, float | None]]:
        """Return step -> what was measured of the networks then; None for what is not finite; errors as of a call."""
        import torch

        from pixelrl.launch.training_data import load_training_data, sources_of
        from pixelrl.training.plasticity import plasticity
        from pixelrl.training.probe import learnable, probe, with_recorded_actions
        from pixelrl.training.run_directory import read_networks, read_run

        if self.rows < 2:
            raise PixelrlError(f"--rows is {self.rows}; it must be at least 2")
        run = read_run(self.run)
        if self.stay and len(self.stay) != run.spec.action_dim:
            raise PixelrlError(f"--stay has {len(self.stay)} numbers; an action of this run has {run.spec.action_dim}")
        if self.plasticity and not run.recipe.critic:
            raise PixelrlError("--plasticity: this run has no critics")
        mixture = load_training_data(
            torch.device("cpu"),
            with_recorded_actions(run.recipe),
            sources_of(run),
            actions=run.actions,  # type: ignore[arg-type]
            memory="file",
            learn=False,
            console=console,
        )
        if (fingerprint := mixture.table.fingerprint()) != run.fingerprint:
            raise PixelrlError(f"{self.run}: was trained on other data ({run.fingerprint}), not these ({fingerprint})")
        batch = mixture.rows(mixture.probe(self.rows, self.seed, held_out=self.on_held_out))
        found: dict[int, dict[str, float | None]] = {}
        with progress_bar(console) as bar:
            for step in self.step or (None,):
                _, networks, done = read_networks(self.run, step)
                tell = partial(bar.advance, bar.add_task("probe", total=len(batch), note=f"step {done}"))
                metrics = probe(learnable(networks), run.recipe, batch, run.spec.sources, self.seed, self.stay, tell)
                if self.plasticity:
                    metrics |= plasticity(networks, run.recipe, run.spec, batch, self.plasticity, self.seed)
                found[done] = {key: value.item() if value.isfinite() else None for key, value in metrics.items()}
        return found
