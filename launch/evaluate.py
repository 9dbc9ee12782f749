"""Evaluate a run or an exported policy by rollouts."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pixelrl.errors import PixelrlError
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.files import write_json
from pixelrl.interfaces import Policy
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.simulation.environment import make_env
from pixelrl.simulation.rollout import Outcome, rollout
from pixelrl.simulation.statistics import summarise
from pixelrl.simulation.video import Row, contact_sheet, mosaic, write_video


def evaluate(
    policy_directory: Path,
    *,
    episodes: int,
    seed: int,
    workers: int,
    films: int = 0,
    step: int | None = None,
    out: Path | None = None,
    console: Console,
) -> dict[str, Any]:
    """Roll a policy out and write `evaluation.json` (and films) into its directory, or into `out`.

    Raises:
        PixelrlError: no policy there, no environment known, or one that does not fit the policy.
    """
    provenance = Provenance(seed=seed)
    policy, env_args, origin = open_policy(policy_directory, step)
    if not env_args:
        raise PixelrlError(f"{policy_directory}: its data had no env_args, so there is no environment to try it in")
    make = partial(make_env, env_args)
    outcomes: list[Outcome] = []
    with progress_bar(console) as bar:
        job = bar.add_task("evaluate", total=episodes, note="")
        for outcome in rollout(policy, make, episodes=episodes, seed=seed, workers=workers, films=films):
            outcomes.append(outcome)
            successes = sum(each.success for each in outcomes)
            bar.update(job, completed=len(outcomes), note=f"{successes} of {len(outcomes)} succeed")
    outcomes.sort(key=lambda outcome: outcome.index)
    result = summarise(outcomes) | {"policy": origin, "env_args": env_args} | provenance.record()
    directory = policy_directory if out is None else out
    if films:
        show(outcomes, directory, fps=float(env_args.get("env_kwargs", {}).get("control_freq", 20)))
    write_json(directory / "evaluation.json", result)
    low, high = result["success_interval_95"]
    console.print(
        f"{policy_directory}: {result['successes']} of {episodes} episodes succeed: "
        f"{result['success_rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
    )
    return result


def open_policy(directory: Path, step: int | None) -> tuple[Policy, Mapping[str, Any], dict[str, Any]]:
    """Return the policy of a run or of an export, its environment, and what to write about it."""
    if (directory / "policy.json").is_file():
        exported = ExportedPolicy(directory)
        return exported, exported.contract["env_args"], {"export": str(directory)}
    import torch

    from pixelrl.policy import TorchPolicy  # only here: an exported policy needs no torch
    from pixelrl.run import read_networks

    torch.set_num_threads(1)  # the cores belong to the simulators
    run, networks, found = read_networks(directory, step)
    return TorchPolicy(networks, run.spec, torch.device("cpu")), run.env_args, {"run": str(directory), "step": found}


def show(outcomes: Sequence[Outcome], directory: Path, fps: float) -> None:
    """Write a film of each filmed episode, all of them side by side, and a sheet of pictures, failures first."""
    filmed = [(outcome, outcome.frames) for outcome in outcomes if outcome.frames is not None]
    rows = []
    for outcome, frames in filmed:
        word = "success" if outcome.success else "failure"
        write_video(directory / "videos" / f"episode_{outcome.index:03d}_{word}.mp4", frames, fps)
        rows.append(Row(f"episode {outcome.index} · {word} · {outcome.length} steps", frames, outcome.success))
    write_video(directory / "evaluation.mp4", mosaic([frames for _, frames in filmed]), fps)
    rows.sort(key=lambda row: bool(row.ok))
    count = sum(outcome.success for outcome, _ in filmed)
    contact_sheet(directory / "evaluation.png", rows, title=f"{count} of {len(filmed)} filmed episodes succeed")
