"""Save, load, continue = never stopped."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from pixelrl.launch.recipes import RECIPES, cog, quick_cog, quick_cog_dr3
from pixelrl.learning.backup import Backup
from pixelrl.learning.build import build_networks
from pixelrl.learning.critic_forms import HLGauss, Quantile
from pixelrl.learning.interventions import HareTortoise, PlasticityInjection, ReDo, Reset, ShrinkPerturb
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Networks
from pixelrl.learning.policies import Acting, DeterministicPolicy, FlowPolicy, HybridPolicy
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.expectile import Expectile
from pixelrl.terms.flow import FlowDistillation, FlowMatching
from pixelrl.terms.information import InformationBottleneck
from pixelrl.terms.penalties import NormPenalty, RankPenalty
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD
from pixelrl.training import checkpoint
from tests.encoders.test_layers import WideCNN
from tests.tiny import SPEC, learn, make_learner, make_networks, same, shrink, transitions

LEARNED = shrink(
    quick_cog_dr3(),
    critic=(TD(), CQL(weight=AtMost(bound=0.5, rate=0.1)), BC()),
    warmup=(BC(), Entropy()),
    warmup_steps=3,
)


def everything(learner: Learner) -> dict[str, torch.Tensor]:
    """Return all that a learner remembers, by name."""
    found = {f"networks.{key}": value for key, value in learner.networks.state_dict().items()}
    found["generator"] = learner.generator.get_state()
    for side in learner.learned:
        for key, multiplier in side.multipliers.items():
            found[f"{side.name}.{key}"] = multiplier.log
        found |= {f"{side.name}.{key}": value for key, value in checkpoint.moments(side).items()}
    return found


PENALTIES = (NormPenalty(weight=1e-3), RankPenalty(weight=1e-3), DR3(weight=1e-3, pairs="shuffled"))
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp16": {"precision": "fp16"},
    "SARSA, hard target, penalties": {
        "backup": Backup(action="recorded", aggregate="mean"),
        "tau": 1.0,
        "target_every": 2,
        "critic": (TD(), CQL(calibrated=True), *PENALTIES),
    },
    "returns": {"backup": Backup(action="returns"), "actor": (MaximizeQ(normalize=True), BC(loss="squared_error"))},
    "histogram": {"form": HLGauss(bins=21), "critic": (TD(), CQL(weight=0.1), DR3(weight=1e-3))},
    "norms": {"layer_norm": True, "layer_norm_place": "after", "feature_norm": True},
    "slow last layer": {"backup": Backup(network="last_layer"), "feature_norm": True, "last_layer_start": 0.3},
    "bottleneck": {"encoder": WideCNN(bottleneck=3), "critic": (TD(), InformationBottleneck(weight=0.01), BC())},
    "A-LIX, experts": {"encoder": WideCNN(mixing=0.5, experts=2), "shared_encoder": False, "precision": "fp16"}
    | {"critic": (TD(), CQL(weight=0.1))},
    "best of four": {"backup": Backup(samples=4), "precision": "bf16"},
    "value network, quantile of five": {
        "value": (Expectile(),),
        "actor": (AdvantageWeighted(advantage="value"),),
        "backup": Backup(action="value", aggregate="quantile"),
        "ensemble": 5,
    },
    "point, slow actor": {
        "critic": (TD(), BC(loss="squared_error")),
        "actor": (MaximizeQ(), BC(loss="squared_error")),
        "warmup": (BC(loss="squared_error"),),
        "policy": DeterministicPolicy(),
        "target_actor": True,
        "actor_every": 2,
        "backup": Backup(penalty=0.1),
        "form": Quantile(quantiles=4),
    },
    "switches": {"policy": HybridPolicy(), "actor": (MaximizeQ(), Entropy())},
    "flow": {
        "critic": (TD(), CQL(policy=0, next_policy=0), FlowMatching()),
        "actor": (FlowMatching(), FlowDistillation(), MaximizeQ()),
        "warmup": (FlowMatching(),),
        "policy": FlowPolicy(steps=2),
        "acting": Acting(kind="best", samples=4),
        "backup": Backup(samples=3, of_samples="mean"),
    },
    "AdamW, noise, schedule": {
        "weight_decay": 0.01,
        "gradient_noise": 0.1,
        "schedule": "linear",
        "lr_warmup": 3,
        "critic_warmup": (TD(target="returns"),),
        "shift_alike": True,
        "shift_chance": 0.5,
    },
    "reset": {"intervention": Reset(every=4)},
    "ReDo": {"intervention": ReDo(every=4)},
    "ReDo in encoders": {"intervention": ReDo(every=4, threshold=0.9, encoders=True)},
    "shrink and perturb": {"intervention": ShrinkPerturb(every=4)},
    "hare and tortoise": {"intervention": HareTortoise(every=4)},
    "injection": {"intervention": PlasticityInjection(at=4)},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("stop", [2, 3, 5])  # within the warm-up, at its end, after it
def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path: Path, stop: int, changes: dict[str, Any]) -> None:
    recipe = replace(LEARNED, **changes)
    first = learn(make_learner(recipe), stop)
    checkpoint.save(tmp_path / "last.safetensors", first)
    never_stopped = learn(first, 3)

    again = make_learner(recipe)
    learn(again, 1)  # whatever it held is forgotten
    checkpoint.load(tmp_path / "last.safetensors", again)
    assert again.step == stop
    learn(again, 3)

    one, other = everything(never_stopped), everything(again)
    assert one.keys() == other.keys() and len(one) > 100
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert again.step == stop + 3
    assert never_stopped.scaler.state_dict() == again.scaler.state_dict()


def test_saving_changes_nothing(tmp_path: Path) -> None:
    saved, unsaved = make_learner(LEARNED), make_learner(LEARNED)
    for _ in range(3):
        learn(saved, 1)
        checkpoint.save(tmp_path / "last.safetensors", saved)
    assert same(saved.networks, learn(unsaved, 3).networks)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_goes_on_as_if_it_had_not_stopped(tmp_path: Path, name: str) -> None:
    recipe = shrink(RECIPES[name]())
    learner = learn(make_learner(recipe), 2)
    checkpoint.save(tmp_path / "a.safetensors", learner)
    again = make_learner(replace(recipe, seed=5))
    checkpoint.load(tmp_path / "a.safetensors", again)
    one, other = everything(learn(learner, 2)), everything(learn(again, 2))
    assert one.keys() == other.keys() and [key for key in one if not torch.equal(one[key], other[key])] == []


def test_the_file_is_plain_safetensors_with_a_json_header(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.safetensors"
    learner = learn(make_learner(LEARNED), 4)
    checkpoint.save(path, learner)
    tensors = safetensors.torch.load_file(path)
    assert torch.equal(tensors["networks.actor.last.weight"], learner.networks.actor.last.weight)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["pixelrl"])
    assert header["step"] == 4
    assert [each.name for each in path.parent.iterdir()] == ["last.safetensors"]


def test_a_snapshot_holds_the_networks_alone(tmp_path: Path) -> None:
    path, networks = tmp_path / "3.safetensors", make_networks(seed=1)
    checkpoint.save_networks(path, networks, 3)
    other, step = checkpoint.load_networks(path, partial(make_networks, seed=2))
    assert step == 3 and same(networks, other) and not any(each.requires_grad for each in other.parameters())
    assert all(name.startswith("networks.") for name in safetensors.torch.load_file(path))


def test_networks_keep_what_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    def make() -> Networks:
        networks = make_networks(seed=1)
        networks.note = torch.arange(3.0)  # as a layer of somebody's own may have it
        return networks

    checkpoint.save_networks(tmp_path / "3.safetensors", make(), 3)
    found, _ = checkpoint.load_networks(tmp_path / "3.safetensors", make)
    assert torch.equal(found.note, torch.arange(3.0))  # type: ignore[arg-type]


def test_networks_are_read_from_a_whole_checkpoint_too(tmp_path: Path) -> None:
    learner = learn(make_learner(shrink(cog())), 1)
    checkpoint.save(tmp_path / "last.safetensors", learner)
    make = partial(build_networks, shrink(cog(), seed=9), SPEC)
    networks, step = checkpoint.load_networks(tmp_path / "last.safetensors", make)
    assert step == 1 and same(networks, learner.networks)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, learner = tmp_path / "last.safetensors", make_learner(LEARNED)
    checkpoint.save(path, learner)
    before = path.read_bytes()

    def disk_full(tensors: object, file: Path, metadata: object) -> None:
        Path(file).write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", disk_full)
    with pytest.raises(PixelrlError, match=r"last\.safetensors: cannot be .*no space.*; the earlier one is intact"):
        checkpoint.save(path, learn(learner, 1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(PixelrlError, match=r"first\.safetensors: cannot be written \(no space[^;]*$"):
        checkpoint.save(tmp_path / "first.safetensors", learner)


def test_a_checkpoint_of_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, learn(make_learner(shrink(quick_cog())), 1))
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["pixelrl"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert header.pop("format") == 4
    safetensors.torch.save_file(tensors, path, {"pixelrl": json.dumps(header)})
    for read in (checkpoint.load, lambda path, learner: checkpoint.load_networks(path, lambda: learner.networks)):
        with pytest.raises(PixelrlError, match=r"last.safetensors: format 1, of another .*; expected 4"):
            read(path, make_learner(shrink(quick_cog())))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(2)}, path)


def pickled(path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, path)


def without_json(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(2)}, path, {"pixelrl": "{"})


def with_header(path: Path, header: str) -> None:
    safetensors.torch.save_file({"weight": torch.ones(2)}, path, {"pixelrl": header})


def with_nested_header(path: Path) -> None:
    with_header(path, "[" * 100_000)


def with_a_list_for_a_header(path: Path) -> None:
    with_header(path, "[1, 2]")


def with_a_word_for_a_step(path: Path) -> None:
    checkpoint.write(path, {"networks.weight": torch.ones(2)}, {"step": "three"})


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "harm",
    [
        truncated,
        garbled,
        emptied,
        foreign,
        pickled,
        without_json,
        with_nested_header,
        with_a_list_for_a_header,
        with_a_word_for_a_step,
        removed,
    ],
)
def test_a_file_that_is_not_whole_and_ours_is_named(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path, learner = tmp_path / "last.safetensors", make_learner(LEARNED)
    checkpoint.save(path, learner)
    harm(path)
    for read in (
        lambda: checkpoint.load(path, learner),
        lambda: checkpoint.load_networks(path, lambda: learner.networks),
    ):
        with pytest.raises(PixelrlError, match=r"last\.safetensors: (not a checkpoint of pixelrl|there is no such)"):
            read()


def test_a_checkpoint_of_other_networks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, make_learner(LEARNED))
    apart = replace(LEARNED, shared_encoder=False, critic=tuple(term for term in LEARNED.critic if not term.imitates))
    for other in (replace(LEARNED, critic_hidden=(16, 9)), apart):
        with pytest.raises(PixelrlError, match=r"last\.safetensors: belongs to other networks: .*"):
            checkpoint.load(path, make_learner(other))


def test_a_checkpoint_without_the_learned_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, make_learner(replace(LEARNED, critic=(TD(), CQL(weight=0.1), BC()))))
    with pytest.raises(PixelrlError, match=r"last\.safetensors: belongs to other networks: .*cql\.log"):
        checkpoint.load(path, make_learner(LEARNED))


def test_a_snapshot_is_no_checkpoint_to_resume_from(tmp_path: Path) -> None:
    learner = make_learner(LEARNED)
    checkpoint.save_networks(tmp_path / "3.safetensors", learner.networks, 3)
    with pytest.raises(PixelrlError, match=r"3\.safetensors: "):
        checkpoint.load(tmp_path / "3.safetensors", learner)


def test_a_checkpoint_from_another_kind_of_device_is_named(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", make_learner(LEARNED)
    checkpoint.save(path, learner)
    tensors, header = checkpoint.read(path)
    checkpoint.write(path, tensors | {"generator": torch.zeros(16, dtype=torch.uint8)}, header)
    with pytest.raises(PixelrlError, match=r"last\.safetensors: "):
        checkpoint.load(path, learner)


def test_a_checkpoint_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, learn(make_learner(replace(LEARNED, critic=(TD(), CQL(weight=0.1), BC()))), 1))
    learner, fresh = make_learner(LEARNED), make_learner(LEARNED)
    with pytest.raises(PixelrlError):
        checkpoint.load(path, learner)
    assert same(learner.networks, fresh.networks)


def test_missing_moments_of_the_optimiser_are_named(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", learn(make_learner(LEARNED), 2)
    checkpoint.save(path, learner)
    tensors, header = checkpoint.read(path)
    kept = {key: value for key, value in tensors.items() if not key.startswith("critic.optimiser.")}
    checkpoint.write(path, kept, header)
    with pytest.raises(PixelrlError, match=r"last\.safetensors: "):
        checkpoint.load(path, learner)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", learn(make_learner(LEARNED), 1)
    checkpoint.save(path, learner)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")  # behind the header
    for place in range(start, len(whole), (len(whole) - start) // 10):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for read in (
            lambda: checkpoint.load(path, learner),
            lambda: checkpoint.load_networks(path, lambda: learner.networks),
        ):
            with pytest.raises(PixelrlError, match=r"last\.safetensors: damaged: its numbers are not those"):
                read()


def test_another_step_or_loss_scale_in_the_header_is_noticed(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", learn(make_learner(replace(LEARNED, precision="fp16")), 1)
    checkpoint.save(path, learner)
    whole = path.read_bytes()
    for was, now in ((rb"\"step\": 1", rb"\"step\": 7"), (rb"\"scale\": ", rb"\"scale\":1")):
        assert whole.count(was) == 1
        path.write_bytes(whole.replace(was, now))
        with pytest.raises(PixelrlError, match=r"last\.safetensors: damaged: its numbers are not those"):
            checkpoint.load(path, learner)


def test_a_relabelled_type_is_noticed(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", learn(make_learner(LEARNED), 1)
    checkpoint.save(path, learner)
    tensors, header = checkpoint.read(path)
    key = next(key for key, value in tensors.items() if value.dtype == torch.float32 and value.dim() == 2)
    checkpoint.write(path, tensors | {key: tensors[key].view(torch.int32)}, header)
    with pytest.raises(PixelrlError, match=r"of int32; expected .* of float32"):
        checkpoint.load(path, learner)


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    path, before = tmp_path / "last.safetensors", os.umask(0o027)
    try:
        checkpoint.save(path, make_learner(LEARNED))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_resuming_at_the_same_step_draws_the_same_noise(tmp_path: Path) -> None:
    learner = learn(make_learner(LEARNED), 2)
    checkpoint.save(tmp_path / "a.safetensors", learner)
    other = make_learner(LEARNED)
    checkpoint.load(tmp_path / "a.safetensors", other)
    assert learner.update(transitions(2))["critic/cql"] == other.update(transitions(2))["critic/cql"]
