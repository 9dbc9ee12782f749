"""A tiny world for tests of learning: 12x12 pictures, three actions, networks of a few units."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pixelrl.encoders.conv import CogCNN
from pixelrl.learning.batch import Batch, Metrics, Observation, Spec
from pixelrl.learning.build import build_networks
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Networks
from pixelrl.learning.objective import Objective
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionDim
from pixelrl.terms.expectile import Expectile
from pixelrl.terms.td import TD
from pixelrl.training.diagnostics import measure, precision_metrics

CPU = torch.device("cpu")
SPEC = Spec(
    images={"front_image": (3, 12, 12), "wrist_image": (3, 8, 12)},
    proprio={"position": 3, "gripper": 1},
    action=(ActionDim(name="dx"), ActionDim(name="dy"), ActionDim(name="grip")),
    sources=("task", "prior"),
    proprio_mean=(0.1, 0.2, 0.3, 0.4),
    proprio_std=(1.0, 2.0, 0.5, 0.1),
)
SIZE = 6


def seeded(seed: int = 0) -> torch.Generator:
    """Return a generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def observation(seed: int = 0, size: int = SIZE, spec: Spec = SPEC) -> Observation:
    """Return random pictures and readings."""
    generator = seeded(seed)
    images = {
        key: torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8)
        for key, shape in spec.stacks.items()
    }
    return Observation(images=images, proprio=torch.randn(size, spec.proprio_dim, generator=generator))


def transitions(seed: int = 0, size: int = SIZE) -> Batch:
    """Return random transitions: half of them rewarded, a third of them ends, sources taking turns."""
    generator = seeded(seed + 1000)
    rows = torch.arange(size)
    return Batch(
        obs=observation(2 * seed, size),
        action=torch.rand(size, SPEC.action_dim, generator=generator) * 2 - 1,
        reward=(rows % 2).float(),
        discount=0.9 * (rows % 3 > 0).float(),
        next_obs=observation(2 * seed + 1, size),
        next_action=torch.rand(size, SPEC.action_dim, generator=generator) * 2 - 1,
        return_to_go=torch.rand(size, generator=generator),
        source=rows % 2,
    )


def shrink(recipe: Recipe, **changes: Any) -> Recipe:
    """Return a recipe with the same terms and switches, for networks of a few units and two steps of warm-up."""
    small: dict[str, Any] = {
        "encoder": CogCNN(channels=2),
        "critic_hidden": (16, 8),
        "actor_hidden": (16,),
        "batch_size": SIZE,
        "warmup_steps": min(recipe.warmup_steps, 2),
        "shift": 1,
        "steps": 6,
    }
    return replace(recipe, **(small | changes))


def networks_of(spec: Spec, *, value: bool = False, **changes: Any) -> Networks:
    """Return networks for data of these shapes, of a recipe with a critic and an actor, and perhaps a value network."""
    small: dict[str, Any] = {
        "encoder": CogCNN(channels=2),
        "critic_hidden": (16, 8),
        "actor_hidden": (16,),
        "value": (Expectile(),) if value else (),
    }
    return build_networks(Recipe(critic=(TD(),), actor=(), steps=1, **(small | changes)), spec)


def make_networks(*, seed: int = 0, **options: Any) -> Networks:
    """Return tiny networks whose last layers are as large as the others, so that nothing is hidden by zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = networks_of(SPEC, **options)
        with torch.no_grad():
            lasts = [networks.critic.learning_head.last, networks.value and networks.value.last]
            lasts.append(getattr(networks.actor, "last", None))
            for parameter in [parameter for last in lasts if last is not None for parameter in last.parameters()]:
                nn.init.normal_(parameter, std=0.3)
        networks.target.load_state_dict(networks.critic.state_dict())
    return networks


def make_learner(recipe: Recipe) -> Learner:
    """Return a fresh learner on the CPU."""
    return Learner(recipe, SPEC, CPU)


def learn(learner: Learner, steps: int, *, measured: bool = False) -> Learner:
    """Take some steps, each on the batch of its number."""
    for _ in range(steps):
        if measured:
            measure(learner, transitions(learner.step))
        learner.update(transitions(learner.step))
    return learner


def measured_update(learner: Learner, batch: Batch) -> Metrics:
    """Measure, take one step, and return all figures, as the loop does."""
    figures = measure(learner, batch)
    return learner.distributed.mean_metrics(figures | learner.update(batch)) | precision_metrics(learner)


def flat(objective: Objective) -> Tensor:
    """Return all parameters of an objective as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in objective.parameters])


def flat_gradient(objective: Objective) -> Tensor | None:
    """Return the gradient of all parameters of an objective as one vector, if a step has left one."""
    found = [parameter.grad for parameter in objective.parameters if parameter.grad is not None]
    return torch.cat([gradient.flatten() for gradient in found]) if found else None


def known(batch: Batch | None = None, networks: Any = None, **values: Any) -> UpdateContext:
    """Return a context in which some entries are filled in by hand."""
    update = UpdateContext(networks, transitions() if batch is None else batch, seeded())
    every = {} if hasattr(networks, "actor") else {"possible": lambda action: action}
    vars(update).update(every | values)
    return update


def same(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two modules hold the same numbers, bit for bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    """Return d loss / d parameters, zero where there is none."""
    parameters = list(module.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note what is called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def moved(found: list[Tensor]) -> bool:
    """Tell whether any of the gradients is not zero."""
    return any(bool(gradient.any()) for gradient in found)
