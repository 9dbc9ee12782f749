"""A loaded policy as one of the environment that it is tried in: all that roll a policy out ask here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.runtime.actions import ActionDim, action_limits, from_units, to_units
from pixelrl.runtime.env_args import ROBOSUITE_TYPE, is_before_1_5
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Policy, Sensors
from pixelrl.simulation.envs.controllers import reorder
from pixelrl.simulation.envs.gymnasium_env import GymnasiumEnv
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv


@dataclass(frozen=True, kw_only=True)
class FittedPolicy:
    """A policy whose actions are given in the order, the units and the bounds of an environment.

    Attributes:
        policy: acts in [-1, 1] of its data's ranges.
        order: which of its numbers each of the environment's is.
        own, theirs: low and high of the data's and of the environment's ranges, `[A]` each, in the environment's order.
        bounds: lowest and highest action that the environment takes, `[A]` each.
    """

    policy: Policy
    order: NDArray[np.int64]
    own: tuple[NDArray[np.float64], NDArray[np.float64]]
    theirs: tuple[NDArray[np.float64], NDArray[np.float64]]
    bounds: tuple[NDArray[np.float32], NDArray[np.float32]]

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return actions, `[B, A]`, or chunks of them, `[B, h, A]`."""
        units = to_units(self.policy(sensors)[..., self.order], *self.own)
        return np.asarray(np.clip(from_units(units, *self.theirs), *self.bounds), np.float32)


def fitted_policy(loaded: LoadedPolicy, env: RobosuiteEnv | GymnasiumEnv, env_args: Mapping[str, Any]) -> Policy:
    """Return a loaded policy with its actions as the environment takes them.

    Raises:
        PixelrlError: the environment takes another number of actions, at another rate, or in units that the policy
            cannot be brought into.
    """
    name = env_args["env_name"]
    check_control_rate(loaded.control_freq, env.control_freq, name)
    dims, order = env.action_dims, np.arange(len(loaded.action))
    if len(dims) != len(order):
        raise PixelrlError(f"the policy gives {len(order)} actions and its environment takes {len(dims)}")
    recorded_by_robosuite = loaded.env_args.get("type", ROBOSUITE_TYPE) == ROBOSUITE_TYPE
    if isinstance(env, RobosuiteEnv) and recorded_by_robosuite and is_before_1_5(loaded.env_args):
        order = reorder(order[np.newaxis], env.robosuite)[0]
    pairs = [
        _matched(loaded.action[index], dim, name, rescaled=loaded.rescaled)
        for index, dim in zip(order, dims, strict=True)
    ]
    same = all((own.low, own.high) == (their.low, their.high) for own, their in pairs)
    if same and order.tolist() == sorted(order):
        return loaded.policy
    own, theirs = (action_limits(side) for side in zip(*pairs, strict=True))
    space: Any = env.action_space
    return FittedPolicy(policy=loaded.policy, order=order, own=own, theirs=theirs, bounds=(space.low, space.high))


def check_control_rate(policy: float | None, env: float | None, name: str) -> None:
    """Raise if a policy acts at another rate [Hz] than the environment of this name; None: unknown."""
    if policy is not None and env is not None and abs(policy - env) > 1e-3 * policy:
        raise PixelrlError(
            f"the policy acts at {policy:g} Hz and {name} at {env:g} Hz; its actions mean what they "
            f"meant in its data only at {policy:g} Hz (say --env-options control_freq={policy:g} for a robosuite task)"
        )


def _matched(own: ActionDim, their: ActionDim, env: str, *, rescaled: bool) -> tuple[ActionDim, ActionDim]:
    """Return a dimension of the policy's action and one of the environment's, as far as their units can be compared.

    Where they cannot, the recorded number is the environment's. Of data without units the policy's range is that of the
    recorded numbers; of others it is that of the units, which lie in [-1, 1] as recorded unless they were rescaled.
    """
    if own.unit == their.unit:
        return own, their
    plain = ActionDim(name=their.name)
    if own.unit == ActionDim(name="").unit:
        return own, plain
    if rescaled:
        raise PixelrlError(
            f"the action {own.name} is in {own.unit} in the policy's data, and {env} has {their.name} in {their.unit}: "
            "after --actions min-max nobody knows what it would be there; train on actions that are in [-1, 1]"
        )
    return plain, plain
