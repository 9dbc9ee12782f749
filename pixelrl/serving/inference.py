"""From an observation to an action: histories, ranges, and how long it took."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelrl.export.contract import check_sensors
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.actions import ActionDim, action_limits
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import History
from pixelrl.serving.protocol import Request

ROUNDING = 1e-6
"""Of a dimension's range: what is beyond it by less is a rounding and is not told as clipped."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An action, and what it was made of.

    Attributes:
        action, normalised: float32 `[H, A]`, in the robot's units and in [-1, 1].
        clipped: names of the dimensions that were beyond their range.
        infer, queue: how long it took, and had waited [s].
    """

    action: NDArray[np.float32]
    normalised: NDArray[np.float32]
    clipped: tuple[str, ...]
    infer: float
    queue: float


class Recorder(Protocol):
    """Takes what is answered, as fast as it can."""

    def __call__(self, connection: int, step: int, request: Request, reply: Reply, *, gap: bool) -> bool:
        """Take a step, of an episode that begins with step 1; tell whether there was time for it.

        `gap`: what the peer sent right before was refused, superseded or not taken.
        """
        ...

    def end(self, connection: int, why: str) -> None:
        """Note that a peer has left."""
        ...


class Inference:
    """A policy with its ranges."""

    def __init__(self, policy: ExportedPolicy) -> None:
        self.policy = policy
        dims = [ActionDim(**dim) for dim in policy.contract["outputs"]["action"]["dims"]]
        self._dims, (low, high) = dims, action_limits(dims)
        self._low, self._high = low.astype(np.float32), high.astype(np.float32)
        self._margin = ROUNDING * (high - low) + ROUNDING * np.maximum(abs(low), abs(high))

    def __call__(self, request: Request, history: History, since: float) -> Reply:
        """Return the action for an observation that came at `since`; it becomes the newest of the history.

        Raises:
            PixelrlError: the observation is not what the policy takes, or its action is not finite.
        """
        begin = time.perf_counter()
        both = self.policy.both(self._seen(request, history))
        action, normalised = (each.reshape(-1, each.shape[-1]) for each in both)
        allowed = np.minimum(np.maximum(action, self._low), self._high)  # of NaN and infinities something else
        clipped = () if (allowed == action).all() else self._clipped(action, allowed)
        infer = time.perf_counter() - begin
        return Reply(action=allowed, normalised=normalised, clipped=clipped, infer=infer, queue=begin - since)

    def _clipped(self, action: NDArray[np.float32], allowed: NDArray[np.float32]) -> tuple[str, ...]:
        """Return the dimensions that were beyond their range by more than a rounding; refuse what is not finite."""
        if not np.isfinite(action).all():
            raise PixelrlError("the policy's action is not finite")
        beyond = (np.abs(action - allowed) > self._margin).any(axis=0).tolist()
        return tuple(dim.name for dim, far in zip(self._dims, beyond, strict=True) if far)

    def _seen(self, request: Request, history: History) -> dict[str, NDArray[Any]]:
        """Return what the policy sees: pictures with their history, the peer's own if it sends one.

        What the policy does not take is refused; the history is then as it was.
        """
        rows = {key: request.sensors[key][np.newaxis] for key in self.policy.inputs if key in request.sensors}
        if all(key in rows and rows[key].shape[1:] == spec.shape for key, spec in self.policy.inputs.items()):
            return rows
        for key, spec in self.policy.instant.items():
            if key in rows and rows[key].shape[1:] != spec.shape:
                shape = list(rows[key].shape[1:])
                raise PixelrlError(f"{key} is {rows[key].dtype} {shape}; expected {spec.dtype} {list(spec.shape)}")
        return dict(history(check_sensors(rows, self.policy.instant)))
