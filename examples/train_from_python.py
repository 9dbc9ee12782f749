"""Train COG + DR3 from Python, without the command line, and try the policy: `python train_from_python.py`."""

import tempfile
from dataclasses import replace
from pathlib import Path

import tyro
from dots import collect

from pixelrl import DR3, Train, evaluate, quick_cog


def main(steps: int = 600, episodes: int = 20, recorded: int = 150) -> None:
    """Record `recorded` episodes of each part, take `steps` gradient steps, play `episodes` episodes."""
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    prior = collect(folder / "prior.hdf5", "prior", recorded)
    task = collect(folder / "task.hdf5", "task", recorded)

    recipe = quick_cog()
    recipe = replace(recipe, critic=(*recipe.critic, DR3(weight=0.001)), steps=steps, batch_size=64, warmup_steps=50)
    Train(recipe=recipe, task=(task,), prior=(prior,), out=folder / "run")()

    outcomes = evaluate(folder / "run", episodes=episodes, allow_import=["dots"])
    print(f"{sum(outcome.success for outcome in outcomes)} of {episodes} episodes succeed; the run: {folder}/run")


if __name__ == "__main__":  # the episodes are played by other processes, which import this file
    tyro.cli(main)
