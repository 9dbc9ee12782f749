"""Checkpoints: safetensors with a JSON header, written atomically. Nothing is ever unpickled."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pixelrl.learning.learner import Learner
from pixelrl.learning.objective import Objective
from pixelrl.runtime.errors import DivergenceError, LostRankError, PixelrlError
from pixelrl.runtime.files import atomic_path

FORMAT = 2
"""Of what is written; 2: features of convolutions lie place by place, 1 (unmarked): channel by channel."""


def save(path: Path, learner: Learner, seconds: float = 0.0) -> None:
    """Write everything that a run needs to continue as if it had never stopped, and how long it has taken so far.

    All ranks look at it, and the first one writes, since all hold the same; they go on when it is written.

    Raises:
        DivergenceError: a step has gone wrong since it was last looked; an earlier file is as it was.
    """
    learner.check()
    tensors = prefixed("networks", dict(learner.networks.state_dict()))
    tensors["generator"] = learner.generator.get_state()
    for name, objective in objectives(learner).items():
        tensors |= prefixed(f"{name}.multipliers", dict(nn.ModuleDict(objective.multipliers).state_dict()))
        tensors |= prefixed(f"{name}.optimiser", moments(objective))
        if objective.dual_optimiser is not None:
            for index, state in objective.dual_optimiser.state_dict()["state"].items():
                tensors |= prefixed(f"{name}.dual_optimiser.{index}", state)
    header = {
        "step": learner.step,
        "seconds": seconds,
        "scaler": learner.scaler.state_dict(),
        "device": learner.device.type,
        "tensors": len(tensors),
    }
    check_finite(tensors, learner.step)
    learner.distributed.run_on_all_ranks(lambda: write(path, tensors, header) if learner.distributed.is_main else None)


def load(path: Path, learner: Learner) -> float:
    """Read into a learner of the same recipe and spec what `save` wrote; a file that is refused changes nothing.

    Returns:
        The seconds that the run had taken.

    Raises:
        PixelrlError: the file is damaged, belongs to other networks or another kind of device, or is a snapshot.
    """
    tensors, header = read(path)
    if header.get("tensors") != len(tensors):
        raise PixelrlError(f"{path}: holds networks alone, or not all of a checkpoint; resume from last.safetensors")
    if tensors["generator"].shape != learner.generator.get_state().shape:
        kind = header["device"]
        raise PixelrlError(
            f"{path}: comes from {kind}, and noise does not go on elsewhere; resume with --device {kind}"
        )
    parts: list[tuple[nn.Module, dict[str, Tensor]]] = [(learner.networks, section(tensors, "networks"))]
    for name, objective in objectives(learner).items():
        parts.append((nn.ModuleDict(objective.multipliers), section(tensors, f"{name}.multipliers")))
    for module, values in parts:
        check_fit(path, module, values)
    for module, values in parts:
        module.load_state_dict(values)
    learner.generator.set_state(tensors["generator"])
    for name, objective in objectives(learner).items():
        set_moments(objective, section(tensors, f"{name}.optimiser"))
        if objective.dual_optimiser is not None:
            state = by_index(section(tensors, f"{name}.dual_optimiser"))
            objective.dual_optimiser.load_state_dict(objective.dual_optimiser.state_dict() | {"state": state})
    if header["scaler"]:
        learner.scaler.load_state_dict(header["scaler"])
    learner.step = header["step"]
    return float(header["seconds"])


def save_networks(path: Path, networks: nn.Module, step: int) -> None:
    """Write the networks alone, enough to act and to be examined.

    Raises:
        DivergenceError: a number is not finite.
    """
    tensors = prefixed("networks", dict(networks.state_dict()))
    check_finite(tensors, step)
    write(path, tensors, {"step": step})


def load_networks(path: Path, networks: nn.Module) -> int:
    """Read the networks of a checkpoint or snapshot, and return its step."""
    tensors, header = read(path)
    values = section(tensors, "networks")
    check_fit(path, networks, values)
    networks.load_state_dict(values)
    return int(header["step"])


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically.

    Raises:
        PixelrlError: the disk is full, say. An earlier file of that name is as it was.
    """
    whole = {key: value.detach().contiguous() for key, value in tensors.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(whole, temporary, {"pixelrl": json.dumps(header | {"format": FORMAT})})
    except (OSError, SafetensorError) as error:
        raise PixelrlError(f"{path}: cannot be written ({error}); an earlier one is intact") from error


def check_finite(tensors: dict[str, Tensor], step: int) -> None:
    """Raise a `DivergenceError` if a number is not finite."""
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise DivergenceError(f"step {step}: {key} holds numbers that are not finite")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the header of a file of ours.

    Raises:
        PixelrlError: no such file, or not one of ours.
    """
    if not path.is_file():
        raise PixelrlError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["pixelrl"])
            if header.get("format", 1) != FORMAT:
                raise PixelrlError(
                    f"{path}: format {header.get('format', 1)}, of another version of pixelrl, which orders features "
                    f"otherwise; expected {FORMAT}: train it again, or use that version"
                )
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise PixelrlError(f"{path}: not a checkpoint of pixelrl, or damaged ({error})") from error


@contextmanager
def naming_last_good(path: Path) -> Iterator[None]:
    """Add to the error that ends a training where the last good checkpoint is."""
    try:
        yield
    except (DivergenceError, LostRankError) as error:
        kept = f"is {path}, step {read(path)[1]['step']}" if path.is_file() else "was never saved"
        raise type(error)(f"{error}; the last good checkpoint {kept}") from error


def check_fit(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raise a `PixelrlError` unless a module's tensors are all there, no others, and of its shapes."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    for key in wanted | found:
        if wanted.get(key) != found.get(key):
            came, right = found.get(key, "missing"), wanted.get(key, "no such tensor")
            raise PixelrlError(f"{path}: belongs to other networks: {key} is {came}; expected {right}")


def objectives(learner: Learner) -> dict[str, Objective]:
    """Return a learner's objectives by name."""
    return {"critic": learner.critic, "actor": learner.actor}


MOMENTS = ("exp_avg", "exp_avg_sq")


def moments(objective: Objective) -> dict[str, Tensor]:
    """Return what Adam remembers: `INDEX.exp_avg` and the like of each parameter, and one `0.step` for all."""
    found: dict[str, Tensor] = {}
    for state in objective.optimiser.state.values():  # one, or none before the first step
        for key in MOMENTS:
            found |= {f"{index}.{key}": view for index, view in enumerate(objective.flat.views(state[key]))}
        found["0.step"] = state["step"]
    return found


def set_moments(objective: Objective, found: dict[str, Tensor]) -> None:
    """Give Adam back what `moments` told."""
    whole, optimiser = objective.flat.whole, objective.optimiser
    state: dict[str, Tensor] = {}
    if found:
        state = {key: torch.zeros_like(whole) for key in MOMENTS} | {"step": found["0.step"]}
        for key in MOMENTS:
            for index, view in enumerate(objective.flat.views(state[key])):
                view.copy_(found[f"{index}.{key}"])
    optimiser.load_state_dict(optimiser.state_dict() | {"state": {0: state} if state else {}})


def by_index(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return tensors named `INDEX.entry` as a mapping of mappings."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, entry = key.partition(".")
        state.setdefault(int(index), {})[entry] = tensor
    return state


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix.` before their names."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under `prefix.`, without it."""
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
