"""Checkpoints: safetensors with a JSON header, written atomically. Nothing is ever unpickled."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Networks
from pixelrl.learning.objective import Objective
from pixelrl.runtime.errors import DivergenceError, LostRankError, PixelrlError
from pixelrl.runtime.files import atomic_path

FORMAT = 4
"""Of what is written; 4: the hash is over the header, too, and cameras are counted in the names of tensors."""

HEADER: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "seconds": (int, float),
    "scaler": dict,
    "device": str,
    "tensors": int,
}
"""What a header says, and its types; that of a snapshot says the step alone."""


def save(path: Path, learner: Learner, seconds: float = 0.0) -> None:
    """Write everything that a run needs to continue as if it had never stopped, and how long it has taken so far.

    All ranks look at it, and the first one writes, since all hold the same; they go on when it is written.

    Raises:
        DivergenceError: a step has gone wrong since it was last looked; an earlier file is as it was.
    """
    learner.check()
    tensors = prefixed("networks", dict(learner.networks.state_dict()))
    tensors["generator"] = learner.generator.get_state()
    for objective in learner.learned:
        tensors |= prefixed(f"{objective.name}.multipliers", dict(nn.ModuleDict(objective.multipliers).state_dict()))
        tensors |= prefixed(f"{objective.name}.optimiser", moments(objective))
    header = {
        "step": learner.step,
        "seconds": float(seconds),
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
    if header.get("tensors") != len(tensors) or "generator" not in tensors:
        raise PixelrlError(f"{path}: holds networks alone, or not all of a checkpoint; resume from last.safetensors")
    if tensors["generator"].shape != learner.generator.get_state().shape:
        kind = header["device"]
        raise PixelrlError(
            f"{path}: comes from {kind}, and noise does not go on elsewhere; resume with --device {kind}"
        )
    objectives = learner.learned
    modules: list[tuple[nn.Module, dict[str, Tensor]]] = [(learner.networks, section(tensors, "networks"))]
    for objective in objectives:
        values = section(tensors, f"{objective.name}.multipliers")
        modules.append((nn.ModuleDict(objective.multipliers), values))
    for module, values in modules:
        check_fit(path, module.state_dict(), values)
    for objective in objectives:
        check_moments(path, objective, section(tensors, f"{objective.name}.optimiser"))
    for module, values in modules:
        module.load_state_dict(values)
    for objective in objectives:
        set_moments(objective, section(tensors, f"{objective.name}.optimiser"))
    learner.generator.set_state(tensors["generator"])
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


def load_networks(path: Path, make: Callable[[], Networks]) -> tuple[Networks, int]:
    """Read the networks of a checkpoint or snapshot on the CPU, and return them and their step.

    They are made without memory first, and compared: a configuration that asks for more than the file holds is refused
    before it takes any. A number without a bound would still make layers for ever, so they are counted.

    Raises:
        PixelrlError: the file is damaged, or belongs to other networks.
    """
    tensors, header = read(path)
    values = section(tensors, "networks")
    with torch.device("meta"), at_most_parameters(path, 4 * len(values) + 100):
        check_fit(path, make().state_dict(), values)
    networks = make()
    networks.load_state_dict(values)
    return networks.eval().requires_grad_(False), header["step"]


@contextmanager
def at_most_parameters(path: Path, limit: int) -> Iterator[None]:
    """Raise a `PixelrlError` where networks cannot be made, or more parameters are than the file of `path` can hold."""
    made = itertools.count(1)

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        if next(made) > limit:
            raise PixelrlError(f"{path}: belongs to other networks: config.json asks for more than the file holds")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, MemoryError) as error:
        raise PixelrlError(f"{path}: config.json tells of no networks: {' '.join(str(error).split())}") from error
    finally:
        handle.remove()


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically.

    Raises:
        PixelrlError: the disk is full, say. An earlier file of that name is as it was.
    """
    whole = {key: value.detach().contiguous() for key, value in tensors.items()}
    try:
        with atomic_path(path) as temporary:
            header = header | {"format": FORMAT}
            header["sha256"] = digest(whole, header)
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask says; the library would make a file for its owner alone
            save_file(whole, temporary, {"pixelrl": json.dumps(header)})
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        kept = "; the earlier one is intact" if path.exists() else ""
        raise PixelrlError(f"{path}: cannot be written ({error}){kept}") from error


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
            header = dict(json.loads((file.metadata() or {})["pixelrl"]))
            if (found := header.get("format", 1)) != FORMAT:
                raise PixelrlError(
                    f"{path}: format {found}, of another version of pixelrl; expected {FORMAT}: train it again, or use "
                    "that version"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        sha256 = header.pop("sha256")
    except (SafetensorError, LookupError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise PixelrlError(f"{path}: not a checkpoint of pixelrl, or damaged ({error})") from error
    if digest(tensors, header) != sha256:
        raise PixelrlError(f"{path}: damaged: its numbers are not those that were written; use an earlier checkpoint")
    for key, kind in HEADER.items() if "tensors" in header else [("step", int)]:
        if not isinstance(header.get(key), kind):
            raise PixelrlError(f"{path}: not a checkpoint of pixelrl: {key} is {header.get(key)!r}")
    return tensors, header


@contextmanager
def naming_last_good(path: Path) -> Iterator[None]:
    """Add to the error that ends a training where the last good checkpoint is."""
    try:
        yield
    except (DivergenceError, LostRankError) as error:
        try:
            kept = f"is {path}, step {read(path)[1]['step']}" if path.is_file() else "was never saved"
        except PixelrlError:
            kept = f"is not {path}, which was damaged since"
        raise type(error)(f"{error}; the last good checkpoint {kept}") from error


def check_fit(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise a `PixelrlError` unless all wanted tensors are there, no others, and of their shapes and types."""
    for key in dict.fromkeys([*wanted, *found]):
        right, came = (form(each[key]) if key in each else None for each in (wanted, found))
        if right != came:
            text = f"{key} is {came or 'missing'}; expected {right or 'no such tensor'}"
            raise PixelrlError(f"{path}: belongs to other networks: {text}")


def form(tensor: Tensor) -> str:
    """Return a tensor's shape and type as text."""
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Return a hash over a header, and names, shapes, types and bytes of tensors."""
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        sha.update(f"{key} {form(tensor)}".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def moments(objective: Objective) -> dict[str, Tensor]:
    """Return what Adam remembers, `INDEX.exp_avg` and the like of each tensor that it has moved."""
    state = objective.optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entries in state.items() for key, value in entries.items()}


def check_moments(path: Path, objective: Objective, found: dict[str, Tensor]) -> None:
    """Raise a `PixelrlError` unless Adam's state is of the tensors that the objective moves."""
    wanted: dict[str, Tensor] = {}
    for index, tensor in enumerate(objective.optimised):
        if f"{index}.step" in found:
            moment = {f"{index}.exp_avg": tensor, f"{index}.exp_avg_sq": tensor}
            wanted |= moment | {f"{index}.step": torch.zeros((), dtype=torch.float32)}
    check_fit(path, wanted, found)


def set_moments(objective: Objective, found: dict[str, Tensor]) -> None:
    """Give Adam back what `moments` told."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in found.items():
        index, _, entry = key.partition(".")
        state.setdefault(int(index), {})[entry] = tensor
    objective.optimiser.load_state_dict(objective.optimiser.state_dict() | {"state": state})


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix.` before their names."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under `prefix.`, without it."""
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
