"""A policy to be tried, from a run or an exported artefact, and the environment that fits it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.export.runtime import CONTRACT, ExportedPolicy
from pixelrl.runtime.actions import ActionDim, action_limits, from_units, to_units
from pixelrl.runtime.env_args import GYMNASIUM_TYPE, control_freq_of, drawing_of
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import sha256_of
from pixelrl.runtime.interfaces import Policy, Sensors
from pixelrl.simulation.envs.make import named_env_args, with_cameras
from pixelrl.training.run_directory import checkpoint_path, read_networks


@dataclass(frozen=True, kw_only=True)
class LoadedPolicy:
    """A policy, what it was made for, and where it comes from.

    Attributes:
        policy: acts in [-1, 1].
        env_args: robomimic's description of its data's environment; empty if unknown.
        pictures: observation key of each camera -> (height, width) that the policy takes [px].
        action: what its [-1, 1] means.
        origin: what to write about it.
        history: how many pictures of each camera it looks at.
        control_freq: how often it acts [Hz]; None if its data do not say.
        values: what its critics think of its actions, `[B, E]`; None: it has none, as exported and BC policies.
    """

    policy: Policy
    env_args: Mapping[str, Any]
    pictures: Mapping[str, tuple[int, int]]
    action: tuple[ActionDim, ...]
    origin: Mapping[str, Any]
    history: int = 1
    control_freq: float | None = None
    values: Callable[[Sensors], NDArray[np.float32]] | None = None


def load_policy(directory: Path, step: int | None) -> LoadedPolicy:
    """Open an exported policy, or the policy of a run.

    Raises:
        PixelrlError: no policy there, or a step is asked of an exported one.
    """
    if not (directory / CONTRACT).is_file():
        return load_trained(directory, step)
    if step is not None:
        raise PixelrlError(f"{directory}: an exported policy has no snapshots; export the run with --step {step}")
    return load_exported(directory)


def load_exported(directory: Path) -> LoadedPolicy:
    """Open an exported policy."""
    policy = ExportedPolicy(directory)
    inputs, outputs = policy.contract["inputs"], policy.contract["outputs"]
    return LoadedPolicy(
        policy=policy,
        env_args=policy.contract["env_args"],
        pictures={key: tuple(entry["shape"][1:3]) for key, entry in inputs.items() if entry["dtype"] == "uint8"},
        action=tuple(ActionDim(**dim) for dim in outputs["action"]["dims"]),
        origin={"export": str(directory), "sha256": policy.contract["sha256"]},
        history=policy.contract.get("history", 1),
        control_freq=policy.contract.get("control_freq"),
    )


def load_trained(directory: Path, step: int | None) -> LoadedPolicy:
    """Open the policy of a run."""
    run, networks, found = read_networks(directory, step)
    torch.set_num_threads(1)  # the cores belong to the simulators
    policy = CheckpointPolicy(networks, run.spec, torch.device("cpu"))
    digest = sha256_of(checkpoint_path(directory, step))
    return LoadedPolicy(
        policy=policy,
        env_args=run.env_args,
        pictures={key: shape[1:] for key, shape in run.spec.images.items()},
        action=run.spec.action,
        origin={"run": str(directory), "step": found, "sha256": digest},
        history=run.spec.history,
        control_freq=control_freq_of(run.env_args),
        values=policy.values if run.recipe.critic else None,
    )


def environment_for(
    loaded: LoadedPolicy,
    env: str | None,
    options: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    drawing: str | None = None,
) -> dict[str, Any]:
    """Return the description of the environment to use: its cameras are those that the policy takes.

    Args:
        loaded: the policy.
        env: name of the environment; None: the one of its data.
        options: of the environment, instead of the usual ones, or of those of the data.
        sources: camera -> what a Gymnasium environment calls it.
        drawing: `stock` or `fast`; None: as its data, or as usual for `env`.

    Raises:
        PixelrlError: none is known, or a camera is not one of a simulator.
    """
    env_args = loaded.env_args if env is None else named_env_args(env)
    if not env_args:
        raise PixelrlError("the policy's data name no environment (no env_args); name one, say --env Lift")
    env_args = {**env_args, "env_kwargs": {**(env_args.get("env_kwargs") or {}), **(options or {})}}
    if drawing is not None and env_args.get("type", 1) == GYMNASIUM_TYPE:
        raise PixelrlError(f"--drawing {drawing}: {env_args['env_name']} is Gymnasium's, and draws in its own way")
    if drawing is not None:
        env_args["drawing"] = drawing
    return with_cameras(env_args, loaded.pictures, sources or {})


def check_control_rate(policy: float | None, env: float | None, env_args: Mapping[str, Any]) -> None:
    """Raise if a policy acts at another rate [Hz] than its environment; None: unknown."""
    if policy is not None and env is not None and abs(policy - env) > 1e-3 * policy:
        raise PixelrlError(
            f"the policy acts at {policy:g} Hz and {env_args['env_name']} at {env:g} Hz; its actions mean what they "
            f"meant in its data only at {policy:g} Hz (say --env-options control_freq={policy:g} for a robosuite task)"
        )


def warn_about_drawing(loaded: LoadedPolicy, env_args: Mapping[str, Any], console: Console) -> None:
    """Warn if the policy is shown pictures of another kind than its data's."""
    known = loaded.env_args.get("type") == env_args.get("type") == 1  # else they are no simulator's, or nobody knows
    if known and (data := drawing_of(loaded.env_args)) != (now := drawing_of(env_args)):
        console.print(
            f"warning: the policy's data are drawn {data}, and what it is shown now {now}: that looks otherwise",
            style="bold yellow",
        )


def in_environment_units(dims: tuple[ActionDim, ...], loaded: LoadedPolicy) -> Policy:
    """Return the policy with its [-1, 1] as the environment's: they differ if the data's actions were rescaled.

    Where the units differ (the data may not say what their actions mean), a recorded action is the environment's own.

    Raises:
        PixelrlError: the environment takes another number of actions.
    """
    own, policy = loaded.action, loaded.policy
    if len(own) != len(dims):
        raise PixelrlError(f"the policy gives {len(own)} actions and its environment takes {len(dims)}")
    dims = tuple(
        dim if dim.unit == mine.unit else ActionDim(name=dim.name) for dim, mine in zip(dims, own, strict=True)
    )
    if [(dim.low, dim.high) for dim in own] == [(dim.low, dim.high) for dim in dims]:
        return policy
    mine, its = action_limits(own), action_limits(dims)

    def act(sensors: Sensors) -> NDArray[np.float32]:
        scaled = from_units(to_units(policy(sensors), *mine), *its)
        return np.asarray(np.clip(scaled, -1, 1), np.float32)

    return act
