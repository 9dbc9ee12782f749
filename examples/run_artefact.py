"""Train, export, and run the exported policy in MuJoCo in a loop of your own: without torch, as a robot does.

The recorded episodes place a cube that the gripper holds already; so do the ones that are played.
"""

import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import tyro

from pixelrl import ExportedPolicy, Train, quick_bc
from pixelrl.launch.commands.collect import Collect
from pixelrl.launch.commands.export import Export
from pixelrl.runtime.actions import action_limits, from_units
from pixelrl.simulation.envs.make import make_env


def main(steps: int = 600, recorded: int = 120, episodes: int = 3) -> None:
    """Act in the robot's units; `policy.json` says what they are."""
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    task = folder / "task.hdf5"
    Collect(task="pick-place-tray", part="task", out=task, episodes=recorded)()
    Train(recipe=replace(quick_bc(), steps=steps), task=(task,), out=folder / "run")()
    Export(run=folder / "run", out=folder / "artefact")()

    policy = ExportedPolicy(folder / "artefact")  # numpy and onnxruntime; a robot needs no more
    print({key: str(spec) for key, spec in policy.inputs.items()})
    with closing(make_env(policy.contract["env_args"])) as robot:
        low, high = action_limits(robot.action_dims)
        for seed in range(episodes):
            seen, _ = robot.reset(seed=seed, options={"start": "held"})
            policy.reset()
            success, moves, over = False, 0, False
            while not (success or over):
                action = policy.act({key: seen[key] for key in policy.inputs})  # metres, radians
                seen, _, _, over, told = robot.step(from_units(action, low, high))
                success, moves = bool(told["success"]), moves + 1
            print(f"episode {seed}: {'the goal' if success else 'no goal'} after {moves} moves")


if __name__ == "__main__":
    tyro.cli(main)
