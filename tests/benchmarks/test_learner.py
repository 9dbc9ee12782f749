"""What the learner's bench compares with: the floor counts what it says, and the naive form is the same learner."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.cases import CASES, chosen_cases, named_case, shrunk
from benchmarks.floor import gigaflop, record, replay
from benchmarks.learner import line_up
from benchmarks.tiled import tile, tiled
from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import CogCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.launch.recipes import cog, cog_dr3, quick_cog_dr3
from pixelrl.learning.learner import Learner
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.cql import CQL
from tests.tiny import SIZE, SPEC, make_learner, shrink, transitions

CPU = torch.device("cpu")


def test_the_floor_of_one_convolution_and_one_product() -> None:
    """2 x 18 operations for each of 144 outputs, and again for the weight's gradient; none for the picture's."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    picture = torch.randn(3, 2, 8, 8)

    def update() -> None:
        net(picture).square().sum().backward()

    forward = 3 * (2 * 18 * 144 + 2 * 144 * 5)
    backward = 3 * (2 * 18 * 144 + 2 * 2 * 144 * 5)
    assert gigaflop(update) * 1e9 == forward + backward
    floor = record(update)
    assert [str(func.overloadpacket).removeprefix("aten.") for func, _, _ in floor.calls] == [
        "convolution",
        "addmm",
        "mm",
        "mm",
        "convolution_backward",
    ]
    assert gigaflop(replay(floor)) == gigaflop(update)


def test_the_linear_layer_of_onednn_counts_too() -> None:
    layer = torch.ops.mkldnn._linear_pointwise
    x, weight = torch.randn(8, 32), torch.randn(16, 32)

    def product() -> None:
        layer(x, weight, None, "none", [], "")

    assert gigaflop(product) * 1e9 == 2 * 8 * 32 * 16
    floor = record(product)
    assert len(floor.calls) == 1 and gigaflop(replay(floor)) == gigaflop(product)
    (call,) = record(replay(floor, modules=True)).calls
    assert str(call[0]) == "aten.mm.default" and gigaflop(replay(floor, modules=True)) == gigaflop(product)


def test_an_update_encodes_each_picture_once_for_every_network_that_needs_it() -> None:
    """COG with DR3: 2 critics see s and s', 2 targets see s', the actor sees both: 8 passes, 3 of them learn from s."""
    learner = make_learner(shrink(cog_dr3(), warmup=(), warmup_steps=0))
    update = record(lambda: learner.update(transitions()))
    pass_ = record(lambda: learner.networks.actor.encoder(transitions().obs))  # type: ignore[misc]

    def rows(calls: list[tuple[object, object, object]], name: str, which: int) -> int:
        found = [args for func, args, _ in calls if str(func).startswith(f"aten.{name}.")]
        return sum(args[which].known[0][0] for args in found)  # type: ignore[index]

    alone = rows(pass_.calls, "convolution", 0)
    assert alone == 2 * 3 * SIZE  # cameras, convolutions, batch
    assert rows(update.calls, "convolution", 0) == 8 * alone
    assert rows(update.calls, "convolution_backward", 1) == 3 * alone


@pytest.mark.parametrize("recipe", [cog(), quick_cog_dr3()], ids=["own encoders", "one encoder"])
def test_the_naive_form_learns_the_same_with_more_work(recipe: object) -> None:
    small = shrink(recipe, warmup=(), warmup_steps=0)  # type: ignore[arg-type]
    once, naive = make_learner(small), tiled(make_learner(small))
    for step in range(2):
        ours, theirs = once.update(transitions(step)), naive.update(transitions(step))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, msg=lambda said, name=name: f"{name}: {said}")
    for mine, same in zip(once.networks.parameters(), naive.networks.parameters(), strict=True):
        torch.testing.assert_close(same, mine, atol=1e-5, rtol=1e-4)
    more = gigaflop(lambda: naive.update(transitions())) / gigaflop(lambda: once.update(transitions()))
    assert more > 1.2


@pytest.mark.parametrize("encoder", [CogCNN(channels=2), ImpalaCNN(features=8), ResNet18(), RobomimicResNet18()])
def test_encoded_once_or_anew_the_losses_are_the_same(encoder: PixelEncoder) -> None:
    """Even with BatchNorm: the copies of a batch have the batch's own mean and variance."""
    spec = replace(SPEC, images={"front_image": (3, 48, 48)})
    recipe = shrink(cog(), encoder=encoder, warmup=(), warmup_steps=0, critic=(CQL(policy=2),), actor=cog().actor)
    learner = Learner(recipe, spec, CPU)
    batch = CASES["quick"]().batches(1, CPU)[0]
    obs = replace(batch.obs, images={"front_image": batch.obs.images["camera_image"][:2]}, proprio=torch.randn(2, 4))
    critic = learner.networks.critic
    nn.init.normal_(critic.head.last.weight)
    actions = torch.rand(3, 2, SPEC.action_dim) * 2 - 1
    once = critic.q_values(critic.embed_state(critic.encode(obs)), actions).value
    anew = critic.q_values(critic.embed_state(critic.encode(tile(obs, 3))), actions.flatten(0, 1)).value.unflatten(
        1, (3, 2)
    )
    torch.testing.assert_close(anew, once, atol=1e-4, rtol=1e-4)
    first = next(critic.encoders[0].parameters())
    one, other = (torch.autograd.grad(value.square().sum(), first)[0] for value in (once, anew))
    assert (one - other).norm() < 1e-2 * one.norm() and one.any()


def test_the_cases_are_those_of_the_table() -> None:
    shapes = {name: (case.spec().images["camera_image"], case.recipe.batch_size) for name, case in all_cases().items()}
    assert shapes == {
        "quick": ((3, 48, 48), 128),
        "cog": ((3, 48, 48), 256),
        "impala": ((9, 64, 64), 256),
        "robomimic": ((3, 84, 84), 16),
    }
    cases = all_cases()
    assert cases["impala"].recipe.encoder == ImpalaCNN(blocks=1) and cases["cog"].recipe.encoder == CogCNN()
    (samples,) = [term for term in cases["robomimic"].recipe.critic if isinstance(term, CQL)]
    assert (samples.uniform, samples.policy, samples.next_policy) == (10, 10, 10)
    assert all(not case.recipe.warmup and not shrunk(case).recipe.warmup for case in cases.values())


def all_cases() -> dict[str, object]:
    return chosen_cases((), None, size=48, frames=1, encoder=None, batch_size=None)  # type: ignore[return-value]


def test_one_recipe_with_options_is_a_case() -> None:
    ((name, case),) = chosen_cases((), "quick_cog", size=64, frames=2, encoder="impala", batch_size=8).items()
    assert name == "quick_cog, ImpalaCNN, 64 px x 2, 8"
    assert case.spec().images["camera_image"] == (6, 64, 64) and len(case.batches(1, CPU)[0]) == 8


@pytest.mark.parametrize(
    ("names", "recipe", "encoder", "message"),
    [
        (("cogg",), None, None, "'cogg'.*quick, cog"),
        ((), "cogg", None, "--recipe.*'cogg'.*cog_dr3"),
        ((), "cog", "big", "--encoder.*'big'.*impala"),
    ],
)
def test_unknown_names_are_named(names: tuple[str, ...], recipe: str | None, encoder: str | None, message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        chosen_cases(names, recipe, size=48, frames=1, encoder=encoder, batch_size=None)


def test_batch_statistics_have_no_compiled_contender() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    plain, mixing = CASES["quick"](), named_case(cog_dr3(), size=48, encoder="resnet18_robomimic")
    assert {"taped", "graph", "compiled"} < set(line_up(plain, gpu, 1, 1, compiled=False))
    assert "graph" in line_up(mixing, gpu, 1, 1, compiled=False)
    assert all("compiled" not in line_up(case, gpu, 1, 1, compiled=True) for case in (mixing, CASES["robomimic"]()))
    assert "compiled" in line_up(plain, cpu, 1, 1, compiled=True)
    assert "compiled" not in line_up(plain, cpu, 1, 1, compiled=False)
