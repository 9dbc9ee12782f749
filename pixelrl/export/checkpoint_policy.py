"""A training run's networks as a policy: sensor readings in, actions out."""

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.export.contract import InputSpec, check_sensors
from pixelrl.learning.batch import Observation, Spec
from pixelrl.learning.networks import Networks
from pixelrl.runtime.interfaces import Sensors


class CheckpointPolicy:
    """Act as a run's policy does in the world (`Acting`), in fp32.

    The networks are moved to `device` and put in evaluation mode.
    """

    def __init__(self, networks: Networks, spec: Spec, device: torch.device) -> None:
        self.networks, self.spec, self.device = networks.to(device).eval(), spec, device
        self.inputs = {key: InputSpec("uint8", (h, w, c)) for key, (c, h, w) in spec.stacks.items()}
        self.inputs |= {key: InputSpec("float32", (size,)) for key, size in spec.proprio.items()}

    @torch.inference_mode()
    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return actions in [-1, 1], `[B, A]` or chunks `[B, h, A]`; keys that the policy does not know are ignored.

        Raises:
            PixelrlError: a key is missing, or an array has another shape or type, or is not finite.
        """
        action: NDArray[np.float32] = self.networks.act(self.observation(sensors)).cpu().numpy()
        return action if self.spec.chunk == 1 else rearrange(action, "b (h a) -> b h a", h=self.spec.chunk)

    @torch.inference_mode()
    def values(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return what each of the E critics thinks of the policy's own action, Q(s, its action), `[B, E]`.

        Raises:
            PixelrlError: there are no critics, or as for acting.
        """
        obs = self.observation(sensors)
        action, critic = self.networks.act(obs), self.networks.critic
        value = critic.q_values(critic.embed_state(critic.encode(obs)), action).value
        return np.asarray(value.T.cpu())

    def observation(self, sensors: Sensors) -> Observation:
        """Check readings and lay them out as the networks see them."""
        readings = check_sensors(sensors, self.inputs)
        rows = len(next(iter(readings.values())))
        images = {key: rearrange(self._tensor(readings[key]), "b h w c -> b c h w") for key in self.spec.images}
        vectors = [self._tensor(readings[key]) for key in self.spec.proprio]
        proprio = torch.cat([torch.empty(rows, 0, device=self.device), *vectors], dim=-1)
        return Observation(images=images, proprio=proprio)

    def _tensor(self, value: NDArray[np.generic]) -> Tensor:
        """Move an array to the device; it may be a flipped view, which torch does not know."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device)
