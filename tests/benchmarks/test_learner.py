"""The learner benchmark: the floor counts what it says, and the naive form is the same learner."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.cases import CASES, named_case
from benchmarks.compare import read_ledger
from benchmarks.floor import floor, floor_calls, gigaflop
from benchmarks.learner import line_up, main
from benchmarks.ledger import command_line
from benchmarks.tiled import tile, tiled
from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import CogCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.launch.recipes import cog, cog_dr3, quick_cog_dr3
from pixelrl.learning.learner import Learner
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
    calls = floor_calls(update)
    assert [str(call.func.overloadpacket).removeprefix("aten.") for call in calls] == [
        "convolution",
        "addmm",
        "mm",
        "mm",
        "convolution_backward",
    ]
    assert gigaflop(floor(update)) == gigaflop(update)


def test_an_update_encodes_each_picture_once_for_every_network_that_needs_it() -> None:
    """COG with DR3: 2 critics see s and s', 2 targets see s', the actor sees both: 8 passes, 3 of them learn from s."""
    learner = make_learner(shrink(cog_dr3(), warmup=(), warmup_steps=0))
    update = floor_calls(lambda: learner.update(transitions()))
    pass_ = floor_calls(lambda: learner.networks.actor.encoder(transitions().obs))  # type: ignore[misc]

    def rows(calls: list[partial[object]], name: str, which: int) -> int:
        return sum(len(call.args[which]) for call in calls if str(call.func).startswith(f"aten.{name}."))

    alone = rows(pass_, "convolution", 0)
    assert alone == 2 * 3 * SIZE  # cameras, convolutions, batch
    assert rows(update, "convolution", 0) == 8 * alone
    assert rows(update, "convolution_backward", 1) == 3 * alone


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
    batch = named_case("quick").batches(1, CPU)[0]
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


def test_cases_are_those_of_the_readme() -> None:
    cases = {name: named_case(name) for name in CASES}
    shapes = {name: (case.spec().images["camera_image"], case.recipe.batch_size) for name, case in cases.items()}
    assert shapes == {
        "quick": ((3, 48, 48), 128),
        "cog": ((3, 48, 48), 256),
        "impala": ((9, 64, 64), 256),
        "robomimic": ((3, 84, 84), 16),
    }
    assert cases["impala"].recipe.encoder == ImpalaCNN(blocks=1) and cases["cog"].recipe.encoder == CogCNN()
    (samples,) = [term for term in cases["robomimic"].recipe.critic if isinstance(term, CQL)]
    assert (samples.uniform, samples.policy, samples.next_policy) == (10, 10, 10)
    assert all(not case.recipe.warmup and not case.shrunk().recipe.warmup for case in cases.values())


def test_recipe_with_encoder_and_sizes_is_a_case() -> None:
    case = named_case("quick_cog:impala:64:2:8")
    assert case.recipe.encoder == ImpalaCNN(blocks=1) and not case.recipe.warmup
    assert case.spec().images["camera_image"] == (6, 64, 64) and len(case.batches(1, CPU)[0]) == 8
    assert named_case("quick_cog").recipe.encoder == quick_cog_dr3().encoder


@pytest.mark.parametrize("name", ["cogg", "cog_dr3:big", "cog_dr3:impala:big", "cog_dr3:impala:1:2:3:4"])
def test_unknown_case_is_named(name: str) -> None:
    with pytest.raises(SystemExit, match=f"no case '{name}'; expected quick, cog.*RECIPE.*quick_cog"):
        command_line(main, [name])


def test_graph_takes_part_on_cuda_only() -> None:
    case = named_case("quick")
    assert set(line_up(case, "cpu", 1)) == {"eager", "compile", "floor", "tiled"}
    assert "graph" in line_up(case, "cuda:1", 1)


def test_learner_benchmark_writes_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.json"
    command_line(main, ["quick", "--quick", "--skip", "compile", "--out", str(path)])
    assert "eager / floor" in capsys.readouterr().out
    written = read_ledger(path)
    case = written["cases"]["quick"]
    assert set(case["contenders"]) == {"eager", "floor", "tiled"}
    assert case["ratios"]["operations, eager / tiled"] < 1
    assert written["command"][:3] == ["python", "-m", "benchmarks.learner"] and written["settings"]["quick"]
    assert {"machine", "commit", "began"} <= written.keys()
    assert case["case"]["recipe"]["batch_size"] == 4


@pytest.mark.slow
def test_learner_benchmark_beside_robomimic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    path = tmp_path / "ledger.json"
    skipped = ("compile", "tiled", "floor", "robomimic fixed")
    command_line(main, ["robomimic", "--quick", "--out", str(path), "--skip", *skipped])
    said = capsys.readouterr().out
    assert "the same work" in said and "NOT the same work" not in said
    case = read_ledger(path)["cases"]["robomimic"]
    assert set(case["contenders"]) == {"eager", "robomimic"}
    assert max(case["losses_apart"][name] for name in ("td", "cql", "policy")) <= 1e-4
    assert case["ratios"]["operations, eager / robomimic"] < 1 / 4
