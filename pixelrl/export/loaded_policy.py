"""A policy that is ready to act, from a training run or an exported artefact, with what it was made for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.export.contract import CONTRACT, is_rescaled
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.env_args import control_freq_of
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import sha256_of
from pixelrl.runtime.interfaces import Policy, Sensors


@dataclass(frozen=True, kw_only=True)
class LoadedPolicy:
    """A policy, what it was made for, and where it comes from.

    Attributes:
        policy: acts in [-1, 1].
        env_args: robomimic's description of its data's environment; empty if unknown.
        pictures: observation key of each camera -> (height, width) that the policy takes [px].
        action: what its [-1, 1] means.
        rescaled: whether that is the range of the recorded actions (`--actions min-max`), not what the data say.
        origin: what to write about it.
        history: how many pictures of each camera it looks at.
        control_freq: how often it acts [Hz]; None if its data do not say.
        values: the Q values of its actions, `[B, E]`; None: it has no critics, as exported and BC policies.
    """

    policy: Policy
    env_args: Mapping[str, Any]
    pictures: Mapping[str, tuple[int, int]]
    action: tuple[ActionDim, ...]
    origin: Mapping[str, Any]
    rescaled: bool = False
    history: int = 1
    control_freq: float | None = None
    values: Callable[[Sensors], NDArray[np.float32]] | None = None


def load_policy(
    directory: Path | str, step: int | None = None, device: str = "cpu", acting: str | None = None
) -> LoadedPolicy:
    """Load an exported policy, or the policy of a run.

    Args:
        directory: of a training run, or of an exported policy.
        step: load the snapshot of this step, not the last checkpoint.
        device: where a run's networks compute, also in the workers of an evaluation.
        acting: how a run's policy acts, mode, sample or best; None: as its recipe says.

    Raises:
        PixelrlError: no policy there, or a step is asked of an exported one.
    """
    directory = Path(directory)
    if not (directory / CONTRACT).is_file():
        return _load_trained(directory, step, device, acting)
    if acting is not None:
        raise PixelrlError(f"{directory}: an exported policy acts as it was exported; export the run with --acting")
    if step is not None:
        raise PixelrlError(f"{directory}: an exported policy has no snapshots; export the run with --step {step}")
    return _load_exported(directory)


def _load_exported(directory: Path) -> LoadedPolicy:
    """Load an exported policy; that takes no torch."""
    from pixelrl.export.runtime import ExportedPolicy

    policy = ExportedPolicy(directory)
    origin = {"export": str(directory), "sha256": policy.contract["sha256"]}
    return under_contract(policy, policy.contract, origin, rescaled=is_rescaled(policy.contract))


def under_contract(
    policy: Policy, contract: Mapping[str, Any], origin: Mapping[str, Any], *, rescaled: bool
) -> LoadedPolicy:
    """Return a policy that acts under the contract of an exported one."""
    inputs, outputs = contract["inputs"], contract["outputs"]
    return LoadedPolicy(
        policy=policy,
        env_args=contract["env_args"],
        pictures={key: tuple(entry["shape"][1:3]) for key, entry in inputs.items() if entry["dtype"] == "uint8"},
        action=tuple(ActionDim(**dim) for dim in outputs["action"]["dims"]),
        origin=origin,
        rescaled=rescaled,
        history=contract.get("history", 1),
        control_freq=contract.get("control_freq"),
    )


def _load_trained(directory: Path, step: int | None, device: str, acting: str | None) -> LoadedPolicy:
    """Load the policy of a run."""
    import torch

    from pixelrl.export.checkpoint_policy import CheckpointPolicy
    from pixelrl.training.run_directory import checkpoint_path, read_networks

    run, networks, found = read_networks(directory, step)
    networks.set_acting(acting)
    policy = CheckpointPolicy(networks, run.spec, torch.device(device))
    digest = sha256_of(checkpoint_path(directory, step))
    origin = {"run": str(directory), "step": found, "sha256": digest, "training_seed": run.recipe.seed}
    return LoadedPolicy(
        policy=policy,
        env_args=run.env_args,
        pictures={key: shape[1:] for key, shape in run.spec.images.items()},
        action=run.spec.action,
        origin=origin | ({} if acting is None else {"acting": acting}),
        rescaled=run.actions == "min-max",
        history=run.spec.history,
        control_freq=control_freq_of(run.env_args),
        values=policy.values if run.recipe.critic else None,
    )
