"""Run an exported policy: numpy and onnxruntime, no torch. This is what a robot's computer imports."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixelrl.export.contract import CONTRACT, MODEL, InputSpec, check_sensors, read_contract
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import History, Sensors

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
"""onnxruntime's names of the types that are taken and given."""


class ExportedPolicy:
    """A policy as it was exported, checked against its own hash: that shows damage, not forgery.

    `act` serves a robot, in the robot's units, and remembers the pictures that a policy with a history looks back on:
    call `reset` where an episode begins. Calling the object serves an evaluation, in [-1, 1] (`Policy`), and remembers
    nothing.

    Attributes:
        contract: what `policy.json` says: inputs, outputs, control rate, hashes, parity.
        inputs: what the network takes, histories included.
        instant: what a robot gives at each instant: the same without histories.
    """

    contract: dict[str, Any]

    def __init__(self, directory: Path | str, *, threads: int = 1, providers: Sequence[str] = ("cpu",)) -> None:
        """Load `policy.onnx` and `policy.json`.

        Args:
            directory: what `pixelrl export` wrote.
            threads: of onnxruntime; a small network gains nothing from more, and a robot has other work to do.
            providers: what computes, the first choice first: cpu, cuda, tensorrt, openvino, coreml, ...

        Raises:
            PixelrlError: not an export, of another format, or changed since; or no such provider here.
        """
        contract = read_contract(Path(directory) / CONTRACT)
        model = _read_model(Path(directory) / MODEL, contract["sha256"][MODEL])
        self._load(contract, model, threads, tuple(providers))
        self._check_network(Path(directory) / MODEL)

    def _load(self, contract: dict[str, Any], model: bytes, threads: int, providers: tuple[str, ...]) -> None:
        self.contract, self._model, self._threads, self._providers = contract, model, threads, providers
        self.inputs = {
            key: InputSpec(each["dtype"], tuple(each["shape"][1:])) for key, each in contract["inputs"].items()
        }
        history = int(contract.get("history", 1))
        self._history = History(history)
        self.instant = {
            key: InputSpec("uint8", (*spec.shape[:2], spec.shape[2] // history)) if spec.dtype == "uint8" else spec
            for key, spec in self.inputs.items()
        }
        chunk, width = contract.get("chunk", 1), len(contract["outputs"]["action"]["dims"])
        self._output = InputSpec("float32", (width,) if chunk == 1 else (chunk, width))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        names = provider_names(providers)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=names)
        except Exception as error:  # its exceptions share no other base
            raise PixelrlError(f"{MODEL}: onnxruntime cannot load it: {' '.join(str(error).split())}") from error

    def _check_network(self, path: Path) -> None:
        """Raise a `PixelrlError` unless the network's inputs and outputs are those of the contract."""
        for kind, said, nodes in (
            ("takes", self.inputs, self._session.get_inputs()),
            ("gives", dict.fromkeys(("action", "normalised"), self._output), self._session.get_outputs()),
        ):
            found = {node.name: f"{DTYPES.get(node.type, node.type)} {node.shape[1:]}" for node in nodes}
            expected = {key: f"{spec.dtype} {[*spec.shape]}" for key, spec in said.items()}
            for key in (*expected, *found):
                has, says = (each.get(key, "nothing of that name") for each in (found, expected))
                if has != says:
                    raise PixelrlError(f"{path}: for {key!r} it {kind} {has}; {CONTRACT} says {says}")

    def __getstate__(self) -> dict[str, Any]:
        state = {"contract": self.contract, "model": self._model}
        return state | {"threads": self._threads, "providers": self._providers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the policy that was sent; of pictures seen before it remembers nothing."""
        self._load(**state)

    def act(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return the action in the robot's units: `[A]` for one reading, `[B, A]` for B.

        A policy of chunks returns `[h, A]` or `[B, h, A]`: h successive actions, to be carried out before it is asked
        again.

        Args:
            sensors: at least the contract's inputs, each with a batch axis in front or none of them; of each camera
                the picture of this instant alone.

        Raises:
            PixelrlError: a key is missing, or an array has another shape or type, or is not finite.
        """
        single = all(np.ndim(sensors[key]) == len(spec.shape) for key, spec in self.instant.items() if key in sensors)
        (action,) = self._run(("action",), self._history(check_sensors(sensors, self.instant, single=single)))
        return np.asarray(action[0]) if single else action

    def reset(self) -> None:
        """Forget the pictures of the episode before; needed only by a policy with a history."""
        self._history.reset()

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return actions `[B, A]`, or chunks `[B, h, A]`, in [-1, 1] for B readings with histories; checks as `act`."""
        return self._run(("normalised",), check_sensors(sensors, self.inputs))[0]

    def both(self, sensors: Sensors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return actions in the robot's units and in [-1, 1], `[B, A]` each, as calling the object does."""
        action, normalised = self._run(("action", "normalised"), check_sensors(sensors, self.inputs))
        return action, normalised

    def _run(self, outputs: Sequence[str], sensors: Sensors) -> list[NDArray[np.float32]]:
        shape = (len(next(iter(sensors.values()))), *self._output.shape)
        try:
            given = self._session.run(list(outputs), dict(sensors))
            actions = [np.asarray(action, dtype=np.float32) for action in given]
        except Exception as error:  # onnxruntime's exceptions share no other base
            raise PixelrlError(f"{MODEL}: does not run as {CONTRACT} says: {' '.join(str(error).split())}") from error
        for output, action in zip(outputs, actions, strict=True):
            if action.shape != shape:
                raise PixelrlError(f"{MODEL}: gives {list(action.shape)} for {output}; {CONTRACT} says {list(shape)}")
        return actions


def provider_names(providers: Sequence[str]) -> list[str]:
    """Return onnxruntime's names of providers that are named in short, as `cuda`.

    Raises:
        PixelrlError: one is not built into this onnxruntime.
    """
    here = {name.removesuffix("ExecutionProvider").lower(): name for name in onnxruntime.get_available_providers()}
    for name in providers:
        if name.lower() not in here:
            raise PixelrlError(f"provider {name!r}: this onnxruntime has {', '.join(here)}")
    return [here[name.lower()] for name in providers]


def _read_model(path: Path, digest: str) -> bytes:
    """Return the network's bytes, the very ones that were hashed."""
    if not path.is_file():
        raise PixelrlError(f"{path}: is missing; export the run again")
    model = path.read_bytes()
    found = hashlib.sha256(model).hexdigest()
    if found != digest:
        raise PixelrlError(
            f"{path}: was changed after the export: its sha256 is {found}, {CONTRACT} says {digest}; export again"
        )
    return model
