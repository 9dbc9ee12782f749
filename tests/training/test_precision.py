"""Half precision learns what full precision does: 400 updates of COG + DR3 in each, on a world of dots."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Source
from pixelrl.encoders.conv import CogCNN
from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.launch.recipes import quick_cog_dr3
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.training.diagnostics import measure
from pixelrl.training.execution import make_step
from tests.dots import CAMERA, GOAL, MIDDLE, POSITION, RADIUS, REACH, draw, write_dots
from tests.tiny import CPU

SIZE, STEPS, EVERY = 16, 400, 50
RECIPE = replace(
    quick_cog_dr3(),
    encoder=CogCNN(channels=4),
    critic_hidden=(64, 32),
    actor_hidden=(64,),
    batch_size=32,
    steps=STEPS,
    critic_lr=2e-3,
    actor_lr=2e-3,
    warmup_steps=50,
    shift=0,
    gamma=0.9,
    tau=0.02,
    precision="fp32",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run shows: figures at every fiftieth step, the state of its networks there, and success at the end."""

    loss: list[float]
    value: list[float]
    states: list[dict[str, torch.Tensor]]
    success: float
    skipped: int


def recipe(precision: str) -> Recipe:
    return replace(RECIPE, precision=precision)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    folder = tmp_path_factory.mktemp("dots")
    task = Source(name="task", files=(write_dots(folder / "task.hdf5", "task", 60, size=SIZE),), reward_scale=10.0)
    prior = Source(name="prior", files=(write_dots(folder / "prior.hdf5", "prior", 120, size=SIZE),), reward_scale=0.0)
    wanted = {"batch_size": RECIPE.batch_size, "seed": 0, "gamma": RECIPE.gamma, "n_step": RECIPE.n_step}
    return load_dataset([task, prior], ends=RECIPE.ends, **wanted)  # type: ignore[arg-type]


def success(learner: Learner, starts: int = 200, horizon: int = 25) -> float:
    """Return the share of starts near the middle of the table from which the dot reaches the goal."""
    policy = CheckpointPolicy(copy.deepcopy(learner.networks).to(CPU), learner.spec, CPU)
    positions = np.random.default_rng(0).normal(MIDDLE, 0.1, (starts, 2))
    reached = np.zeros(starts, dtype=bool)
    for _ in range(horizon):
        positions = np.clip(
            positions + REACH * policy({CAMERA: draw(positions, SIZE), POSITION: positions.astype(np.float32)}), 0, 1
        )
        reached |= np.linalg.norm(positions - np.array(GOAL), axis=1) < RADIUS
    return float(reached.mean())


def run(mixture: Mixture, precision: str, device: torch.device = CPU) -> Outcome:
    learner = Learner(recipe(precision), mixture.spec, device)
    step_of = make_step(learner, "eager" if device.type == "cpu" else "graph")
    loss, value, states = [], [], []
    for step in range(STEPS):
        measured, batch = (step + 1) % EVERY == 0, mixture.batch(step).to(device)
        metrics = measure(learner, batch) if measured else {}
        loss.append(step_of(batch)["critic/loss"].clone())
        if measured:
            value.append(metrics["q/data"].item())
            states.append(copy.deepcopy(learner.networks.state_dict()))
    learner.check()
    chunks = torch.stack(loss).view(-1, EVERY).mean(1).tolist()
    skipped = learner.skipped() if precision == "fp16" else 0
    return Outcome(loss=chunks, value=value, states=states, success=success(learner), skipped=skipped)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="module")
def exact(mixture: Mixture, device: torch.device) -> Outcome:
    return run(mixture, "fp32", device)


def gradients(mixture: Mixture, precision: str, exact: Outcome, device: torch.device) -> list[torch.Tensor]:
    """Return the gradients of critic and actor at each of the states that the exact run went through."""
    learner = Learner(recipe(precision), mixture.spec, device)
    found: list[torch.Tensor] = []
    scale = 2.0**10 if precision == "fp16" else 1.0  # one at which a run has settled
    if precision == "fp16":
        learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": scale})
    for number, state in enumerate(exact.states):
        learner.networks.load_state_dict(state)
        learner.step = RECIPE.warmup_steps
        learner.generator.manual_seed(number)  # the same noise in every precision
        direction = learner.differentiate(
            mixture.batch(number).to(device), learner.generator, learner.objectives, learner.loss_scale()
        )
        for gradients in direction.gradients:
            found.append(torch.cat([each.flatten() for each in gradients if each is not None]) / scale)
    return found


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far a run in half precision may be from the exact one; about three times what was seen."""

    cosine: float
    length: float
    loss: float
    value: float
    skipped: range


BOUNDS = {
    "bf16": Bounds(cosine=0.999, length=0.06, loss=0.06, value=0.2, skipped=range(1)),
    "fp16": Bounds(cosine=0.9999, length=0.03, loss=0.1, value=0.8, skipped=range(1, 20)),
}


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_hundreds_of_updates_learn_the_same(
    mixture: Mixture, exact: Outcome, device: torch.device, precision: str
) -> None:
    bounds, rounded = BOUNDS[precision], run(mixture, precision, device)
    assert exact.success > 0.6 and abs(rounded.success - exact.success) < 0.1
    assert rounded.loss == pytest.approx(exact.loss, rel=bounds.loss)  # means over fifty steps
    assert rounded.value == pytest.approx(exact.value, abs=bounds.value)  # Q of one batch, between 0 and 10
    assert rounded.loss != exact.loss  # it was another arithmetic
    assert rounded.skipped in bounds.skipped  # fp16 finds its loss scale by overflowing
    wanted, got = (gradients(mixture, each, exact, device) for each in ("fp32", precision))
    for one, other in zip(wanted, got, strict=True):
        assert torch.cosine_similarity(one, other, dim=0) > bounds.cosine
        assert (other.norm() / one.norm()).item() == pytest.approx(1, abs=bounds.length)
