"""`python -m benchmarks.dr3_diagnosis STUDY_FOLDER`: stage 4 of the study of DR3, from the snapshots of its runs.

Where prior data end and the task's begin (the drawer open, the gripper at rest), do the critics prefer going on, and
does the policy go? And what do the critics choose among the policy's actions?
"""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from tyro.conf import Positional

from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.study_file import read_study
from pixelrl.runtime.files import write_json
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.robosuite_env import make_robosuite_env
from pixelrl.simulation.tasks.scripted.collect import record_episode
from pixelrl.simulation.tasks.scripted.drawers import joins, take
from pixelrl.simulation.tasks.scripted.moves import OPEN
from pixelrl.training.run_directory import read_networks, read_run

PLAN = Path(__file__).parent / "studies/dr3_primary.toml"

STATES = 200
"""New episodes of the prior script; the ends of those that opened the drawer are looked at."""

STAY = np.array([0.0, 0.0, 0.0, OPEN], np.float32)
"""What the prior script does at its end, but for its noise."""


def main(
    study: Positional[Path],
    /,
    out: Path = Path("benchmarks/results/dr3_study/diagnosis"),
    replicates: tuple[int, ...] = (6, 7, 8, 9, 10, 11, 12, 13),
    arms: tuple[str, ...] = ("A0", "A1"),
) -> None:
    """Write one record for each run; those that are there are not made again.

    Snapshots are asked at rest at the study's steps, and the best of 32 actions by Q is tried with the last of them,
    from the study's own starts.

    Args:
        study: folder of dr3_primary's runs and data.
        out: folder of the records.
        replicates: of the study.
        arms: of the study.
    """
    torch.set_num_threads(1)
    plan = read_study(PLAN)
    for replicate in replicates:
        ends: Ends | None = None
        for arm in arms:
            run, record = study / str(replicate) / arm, out / f"{replicate}_{arm}.json"
            if record.exists():
                continue
            provenance = Provenance(seed=replicate)
            if ends is None:
                ends = prior_ends(run, derive(replicate, "study", "prior ends"))
            found: dict[str, Any] = {"prior_ends": len(ends.go), "at_rest": at_rest(run, plan.steps, ends)}
            found["best_of_32"] = best_of(run, plan.steps[-1], plan.episodes, derive(replicate, "study", plan.starts))
            write_json(record, {"replicate": replicate, "arm": arm, **found} | provenance.record())
            Console().print(f"{record}: {found['best_of_32']}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class Ends:
    """States in which the prior script ended, the drawer open and the gripper at rest: readings, and the next action.

    Attributes:
        sensors: key -> `[B, ...]`.
        go: what the oracle does next, `[B, A]`.
    """

    sensors: dict[str, NDArray[Any]]
    go: NDArray[np.float32]


def prior_ends(run: Path, seed: int) -> Ends:
    """Play new episodes of the prior script in a run's environment, and return the ends of those that succeeded."""
    ends, actions = [], []
    with closing(make_robosuite_env(read_run(run).env_args)) as env:
        for index in range(STATES):
            episode = record_episode(env, "prior", derive(seed, index))
            if not joins(env.robosuite):
                continue
            ends.append({key: values[-1] for key, values in episode.sensors.items()})
            actions.append(next(take(env.robosuite, lambda: env.robosuite.cube_pos)))
    return Ends(sensors={key: np.stack([each[key] for each in ends]) for key in ends[0]}, go=np.stack(actions))


def at_rest(run: Path, steps: Sequence[int], ends: Ends) -> dict[int, dict[str, float]]:
    """Return step -> what critics and policy make of ends of prior episodes; Q is the least of the critics'.

    `margin` is the mean of Q(s, oracle's action) - Q(s, stay) and `prefers` the share of states where it is above 0;
    `own_margin` is the same mean with the policy's action; `moves` how far that action goes, in the greatest way of a
    step along an axis; `distance` its mean distance, number by number, from the oracle's.
    """
    found = {}
    for step in steps:
        saved, networks, _ = read_networks(run, step)
        policy = CheckpointPolicy(networks, saved.spec, torch.device("cpu"))
        with torch.no_grad():
            critic, obs = networks.critic, policy.observation(ends.sensors)
            own, go = torch.from_numpy(policy(ends.sensors)), torch.from_numpy(ends.go)
            state, stay = critic.embed_state(critic.encode(obs)), torch.from_numpy(STAY).expand_as(go)
            q_own, q_go, q_stay = (critic.q_values(state, action).value.amin(0) for action in (own, go, stay))
        found[step] = {
            "margin": float((q_go - q_stay).mean()),
            "prefers": float((q_go > q_stay).float().mean()),
            "own_margin": float((q_own - q_stay).mean()),
            "moves": float(own[:, :3].norm(dim=1).mean()),
            "distance": float((own - go).abs().mean()),
        }
    return found


def best_of(run: Path, step: int, episodes: int, seed: int) -> dict[str, int]:
    """Return how often the best of 32 actions of the policy, by Q, succeeds."""
    out = run / "study" / "best"
    words = [str(run), "--step", str(step), "--acting", "best", "--episodes", str(episodes), "--seed", str(seed)]
    tyro.cli(Evaluate, args=[*words, "--workers", "1", "--out", str(out)])()
    result = json.loads((out / "evaluation.json").read_text())
    return {"successes": result["successes"], "episodes": result["episodes"]}


if __name__ == "__main__":
    tyro.cli(main)
