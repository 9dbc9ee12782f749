"""Train, export, and run the exported policy in a loop of your own, as a robot's computer does: without torch."""

import tempfile
from dataclasses import replace
from pathlib import Path

import tyro
from dots import Dots, collect

from pixelrl import ExportedPolicy, Train, quick_bc
from pixelrl.launch.commands.export import Export


def main(steps: int = 100, recorded: int = 40, episodes: int = 3) -> None:
    """Act in the robot's units; `policy.json` says what they are."""
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    task = collect(folder / "task.hdf5", "task", recorded)
    Train(recipe=replace(quick_bc(), steps=steps, batch_size=32), task=(task,), out=folder / "run")()
    Export(run=folder / "run", out=folder / "artefact")()

    policy = ExportedPolicy(folder / "artefact")  # numpy and onnxruntime; a robot needs no more
    print({key: str(spec) for key, spec in policy.inputs.items()})
    robot = Dots()
    for seed in range(episodes):
        seen, _ = robot.reset(seed=seed, options={"start": "middle"})
        policy.reset()
        reached, moves = False, 0
        while not reached and moves < 20:
            action = policy.act({"top_image": seen["top"], "position": seen["position"]})  # metres
            seen, _, reached, _, _ = robot.step(action)
            moves += 1
        print(f"episode {seed}: {'the goal' if reached else 'no goal'} after {moves} moves")


if __name__ == "__main__":
    tyro.cli(main)
