"""An actor of your own: noise within narrow bounds around one action, so that no sample strays from it."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from dots import collect
from torch import Tensor, nn

from pixelrl import BC, TD, MaximizeQ, Train, load_policy, quick_cog
from pixelrl.learning.actors import ActionDistribution, Actor, Reparameterised
from pixelrl.learning.policies import GaussianPolicy


class BoundedNoise(ActionDistribution):
    """tanh(mean) plus tanh of noise, times `width`; `[B, A]`."""

    def __init__(self, mean: Tensor, width: float) -> None:
        self.mean, self.width, self.shape = torch.tanh(mean), width, mean.shape

    @property
    def mode(self) -> Tensor:
        """Return the action for the world, `[B, A]`."""
        return self.mean

    def of_noise(self, noise: Tensor) -> Tensor:
        """Return the actions `[N, B, A]` that standard normal noise `[N, B | 1, A]` stands for."""
        return (self.mean + self.width * torch.tanh(noise)).clamp(-1, 1)

    def reparameterised(self, generator: object) -> Reparameterised:
        """Return the action that the actor's loss is about: one, without noise, and there is no density."""
        return Reparameterised(self.mean.unsqueeze(0), None, None)


class BoundedActor(Actor):
    """Two layers from features to the distribution."""

    def __init__(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> None:
        super().__init__(encoder)
        self.layers = nn.Sequential(nn.Linear(features, hidden[0]), nn.ReLU(), nn.Linear(hidden[0], actions))

    def forward(self, features: Tensor) -> ActionDistribution:
        """Return the distribution of actions for features `[B, D]`."""
        return BoundedNoise(self.layers(features), 0.1)


@dataclass(frozen=True, kw_only=True)
class BoundedPolicy(GaussianPolicy):
    """What goes into `Recipe.policy`: it builds the actor."""

    has_density = False

    def build(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> Actor:
        """Return a fresh actor on features `[B, D]`, with `encoder` as its own."""
        return BoundedActor(features, actions, hidden, encoder)


def main(steps: int = 60, recorded: int = 40) -> None:
    """Train TD3+BC's objective with this actor."""
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    task = collect(folder / "task.hdf5", "task", recorded)
    imitate = BC(loss="squared_error")
    recipe = replace(
        quick_cog(),
        policy=BoundedPolicy(),
        critic=(TD(),),
        actor=(MaximizeQ(normalize=True), imitate),
        warmup=(),
        warmup_steps=0,
        steps=steps,
        batch_size=32,
    )
    Train(recipe=recipe, task=(task,), out=folder / "run")()
    print(f"the policy takes {dict(load_policy(folder / 'run').pictures)}")


if __name__ == "__main__":
    tyro.cli(main)
