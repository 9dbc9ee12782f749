"""A regulariser of your own in a recipe: here DR3, written anew in ten lines."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from dots import collect
from torch import Tensor

from pixelrl import Term, Train, UpdateContext, quick_cog


@dataclass(frozen=True, kw_only=True)
class Alignment(Term):
    """Features of consecutive state-actions; it logs as `critic/alignment`."""

    def __call__(self, context: UpdateContext) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean dot product, summed over the critics, and a norm."""
        here = context.q_data.features.float()  # [E, B, F]
        there = context.q_next.features.float()
        dot = (here * there).sum(-1)
        dot = dot * (context.batch.discount > 0)  # a true end has no next
        norm = here.detach().norm(dim=-1).mean()
        return dot.mean(-1).sum(), {"norm": norm}


def main(steps: int = 60, recorded: int = 40) -> None:
    """Train `quick_cog` with and without the term, and compare what it is about."""
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    task, prior = collect(folder / "task.hdf5", "task", recorded), collect(folder / "prior.hdf5", "prior", recorded)
    plain = replace(quick_cog(), steps=steps, batch_size=32, warmup_steps=0)
    for name, recipe in {
        "without": plain,
        "with": replace(plain, critic=(*plain.critic, Alignment(weight=0.01))),
    }.items():
        out = folder / name
        Train(recipe=recipe, task=(task,), prior=(prior,), out=out, log_every=steps)()
        header, *_, last = [line.split(",") for line in (out / "metrics.csv").read_text().splitlines()]
        print(f"{name}: phi.phi' is {float(dict(zip(header, last, strict=True))['features/dot']):.3g} at the end")


if __name__ == "__main__":
    tyro.cli(main)
