"""An exported policy acts as its checkpoint does, or is not written."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import CogCNN, SmallCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.export import artefact
from pixelrl.export.artefact import Artefact, Resize, export_policy, resampling, write_onnx
from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.export.loaded_policy import load_policy
from pixelrl.export.parity import check_parity
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.learning.actors import GaussianActor
from pixelrl.learning.batch import Spec
from pixelrl.learning.networks import Networks
from pixelrl.learning.policies import Acting, DeterministicPolicy, FlowPolicy, HybridPolicy
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from tests.tiny import networks_of, observation

SPEC = Spec(
    images={"front_image": (3, 48, 48), "wrist_image": (3, 32, 40)},
    proprio={"position": 3, "gripper": 1},
    action=(
        ActionDim(name="dx", low=-0.05, high=0.05, unit="m"),
        ActionDim(name="dz", low=-0.5, high=1.5, unit="rad"),
        ActionDim(name="gripper"),
    ),
    sources=("task",),
    proprio_mean=(0.1, 0.2, 0.8, 0.04),
    proprio_std=(0.1, 0.2, 0.1, 0.01),
)
CAMERA = {"front_image": (120, 160)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_networks(spec: Spec = SPEC, *, seed: int = 0, **options: Any) -> Networks:
    """Return networks whose actions depend on all that they see; fresh actors hardly look."""
    torch.manual_seed(seed)
    small = {"encoder": SmallCNN(), "shared_encoder": True, "critic_hidden": (32, 16), "actor_hidden": (64, 64)}
    networks = networks_of(spec, **(small | options))
    nn.init.normal_(networks.critic.learning_head.last.weight)
    if isinstance(networks.actor, GaussianActor):
        nn.init.normal_(networks.actor.last.weight)
    return networks


def make_frames(count: int, sizes: dict[str, tuple[int, int]] | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Return readings with large dark and bright areas, as pictures of things have."""
    random = np.random.default_rng(seed)
    frames: dict[str, np.ndarray] = {}
    for key, (c, *trained) in SPEC.images.items():
        height, width = (sizes or {}).get(key, trained)
        coarse = random.integers(0, 256, (count, 8, 8, c), dtype=np.uint8)
        frames[key] = coarse[:, np.arange(height) * 8 // height][:, :, np.arange(width) * 8 // width]
    for key, size in SPEC.proprio.items():
        frames[key] = random.normal(0.2, 0.2, (count, size)).astype(np.float32)
    return frames


def go(networks: Networks, out: Path, **options: Any) -> dict[str, Any]:
    """Export with everything that does not matter here filled in; the test's own file stands for the checkpoint."""
    given = {"spec": SPEC, "frames": make_frames(20), "camera_sizes": CAMERA} | options
    env_args = {"env_name": "Lift", "type": 1, "env_kwargs": {}}
    return export_policy(
        networks, out=out, control_freq=20.0, env_args=env_args, checkpoint=Path(__file__), step=7, **given
    )


@dataclass
class Exported:
    networks: Networks
    directory: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    networks = make_networks()
    out = tmp_path_factory.mktemp("exported") / "export"
    return Exported(networks, out, go(networks, out, provenance={"recipe": "quick_cog"}))


def test_export_with_two_cameras_and_proprioception_agrees_with_the_checkpoint(exported: Exported) -> None:
    assert list(exported.directory.parent.iterdir()) == [exported.directory]
    assert sorted(path.name for path in exported.directory.iterdir()) == ["policy.json", "policy.onnx"]
    for source in ("data", "random"):
        assert exported.result["parity"][source]["normalised"] < 1e-5
        assert exported.result["parity"][source]["robot"] < 1e-5
    names = [weight.name for weight in onnx.load(exported.directory / "policy.onnx").graph.initializer]
    assert any("actor.trunk" in name for name in names)
    assert not [name for name in names if "head" in name or "target" in name], "only the actor's path leaves"


POLICIES: dict[str, dict[str, Any]] = {
    "point": {"policy": DeterministicPolicy()},
    "sampled Gaussian": {"acting": Acting(kind="sample")},
    "switches": {"policy": HybridPolicy(switches=(0, 2))},
    "sampled switches": {"policy": HybridPolicy(switches=(0, 2)), "acting": Acting(kind="sample")},
    "sampled one-step flow": {"policy": FlowPolicy(), "acting": Acting(kind="sample")},
    "best of the Gaussian": {"acting": Acting(kind="best", samples=8), "shared_encoder": False},
}


@pytest.mark.parametrize("options", POLICIES.values(), ids=POLICIES)
def test_export_of_every_way_to_act_agrees_with_the_checkpoint(tmp_path: Path, options: dict[str, Any]) -> None:
    result = go(make_networks(**options), tmp_path / "export", camera_sizes={})
    assert max(result["parity"][source]["normalised"] for source in ("data", "random")) < 1e-5


@pytest.mark.parametrize("acting", [Acting(kind="sample"), Acting(kind="best", samples=4)], ids=["sample", "best"])
def test_export_of_chunks_gives_successive_actions_in_the_robots_units(tmp_path: Path, acting: Acting) -> None:
    spec = replace(SPEC, chunk=4)
    networks = make_networks(spec, policy=FlowPolicy(), acting=acting)
    go(networks, tmp_path / "export", spec=spec, camera_sizes={})
    policy = ExportedPolicy(tmp_path / "export")
    assert policy.contract["chunk"] == 4 and policy.contract["outputs"]["action"]["shape"] == ["B", 4, 3]
    frames = make_frames(2)
    normalised = policy(frames)
    assert normalised.shape == (2, 4, 3)
    low, high = np.array([-0.05, -0.5, -1]), np.array([0.05, 1.5, 1])
    np.testing.assert_allclose(policy.act(frames), low + (normalised + 1) / 2 * (high - low), atol=1e-6)
    one = policy.act({key: value[0] for key, value in frames.items()})
    np.testing.assert_allclose(one, policy.act(frames)[0], atol=1e-6)
    np.testing.assert_allclose(CheckpointPolicy(networks, spec, torch.device("cpu"))(frames), normalised, atol=1e-5)


def test_contract_tells_what_a_robot_must_know(exported: Exported) -> None:
    contract = ExportedPolicy(exported.directory).contract
    front = contract["inputs"]["front_image"]
    assert (front["dtype"], front["shape"], front["trained_at"]) == ("uint8", ["B", 120, 160, 3], [48, 48])
    assert contract["inputs"]["gripper"] == {"dtype": "float32", "shape": ["B", 1], "mean": [0.04], "std": [0.01]}
    assert contract["outputs"]["action"]["dims"][1] == {"name": "dz", "unit": "rad", "low": -0.5, "high": 1.5}
    assert contract["control_freq"] == 20.0
    assert contract["env_args"]["env_name"] == "Lift"
    assert contract["checkpoint"]["step"] == 7 and len(contract["checkpoint"]["sha256"]) == 64
    assert contract["provenance"] == {"recipe": "quick_cog"}
    assert (front["encoding"], front["mount"], contract["inputs"]["wrist_image"]["mount"]) == ("rgb8", None, "wrist")
    assert (contract["format"], contract["chunk"], contract["precision"], contract["task"]) == (2, 1, "fp32", None)
    latency = contract["latency"]
    assert 0 < latency["p50_ms"] <= latency["p95_ms"] <= latency["p99_ms"] and latency["threads"] == 1
    assert contract["parity"] == exported.result["parity"]


def test_one_reading_and_a_batch_of_them_give_the_same_action_in_the_robots_units(exported: Exported) -> None:
    policy = ExportedPolicy(exported.directory)
    sensors = make_frames(5, CAMERA)
    actions, normalised = policy.act(sensors), policy(sensors)
    assert actions.dtype == np.float32 and actions.shape == (5, 3)
    assert np.ptp(normalised, axis=0).min() > 0.1, "these networks would not notice other pictures"
    low, high = np.array([-0.05, -0.5, -1]), np.array([0.05, 1.5, 1])
    np.testing.assert_allclose(actions, low + (normalised + 1) / 2 * (high - low), atol=1e-6)
    for row in range(5):
        single = policy.act({key: value[row] for key, value in sensors.items()})
        np.testing.assert_allclose(single, actions[row], atol=1e-6)


def test_policy_acts_alike_in_another_process(exported: Exported) -> None:
    policy = ExportedPolicy(exported.directory)
    sent = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(sent(make_frames(5, CAMERA)), policy(make_frames(5, CAMERA)))
    assert sent.contract == policy.contract


def test_export_with_pictures_alone_at_the_size_of_the_data(tmp_path: Path) -> None:
    spec = replace(SPEC, images={"front_image": (3, 48, 48)}, proprio={}, proprio_mean=(), proprio_std=())
    networks = make_networks(spec)
    go(networks, tmp_path / "export", spec=spec, camera_sizes=None)
    frames = make_frames(4)
    expected = CheckpointPolicy(networks, spec, torch.device("cpu"))(frames)
    np.testing.assert_allclose(ExportedPolicy(tmp_path / "export")(frames), expected, atol=1e-5)


NOISY = CogCNN(mixing=0.5, experts=2, bottleneck=8)


@pytest.mark.parametrize(
    "encoder", [ImpalaCNN(), pytest.param(ResNet18(), marks=pytest.mark.slow), RobomimicResNet18(), NOISY]
)
def test_export_of_published_encoders_agrees_with_the_checkpoint(tmp_path: Path, encoder: PixelEncoder) -> None:
    spec = replace(SPEC, images={"front_image": (3, 48, 48)})
    torch.manual_seed(0)
    networks = networks_of(spec, encoder=encoder, ensemble=1, critic_hidden=(8,), actor_hidden=(8,))
    nn.init.normal_(networks.actor.last.weight)
    networks.policy(observation(size=4, spec=spec))  # BatchNorm's running statistics are not what they start with
    result = go(networks, tmp_path / "artefact", spec=spec, camera_sizes=None)
    assert max(result["parity"][source]["normalised"] for source in ("data", "random")) < 1e-5


def test_exported_policy_keeps_a_history_as_training_does(tmp_path: Path) -> None:
    spec = replace(SPEC, history=3)
    networks = make_networks(spec)
    frames = make_frames(12)
    stacked = frames | {
        key: np.concatenate([frames[key][np.maximum(np.arange(12) - back, 0)] for back in (2, 1, 0)], axis=-1)
        for key in spec.images
    }
    result = go(networks, tmp_path / "export", spec=spec, frames=stacked, camera_sizes=None)
    assert result["parity"]["data"]["robot"] < 1e-5 and result["parity"]["random"]["robot"] < 1e-5
    policy = ExportedPolicy(tmp_path / "export")
    assert policy.contract["history"] == 3
    assert policy.contract["inputs"]["front_image"]["shape"] == ["B", 48, 48, 9]
    assert policy.contract["inputs"]["front_image"]["channels"].startswith("the last 3 pictures, the oldest first")
    expected = CheckpointPolicy(networks, spec, torch.device("cpu"))(stacked)
    np.testing.assert_allclose(policy(stacked), expected, atol=1e-5)
    low, high = np.array([-0.05, -0.5, -1]), np.array([0.05, 1.5, 1])
    for _ in range(2):  # two episodes alike
        policy.reset()
        for step in range(12):
            action = policy.act({key: value[step] for key, value in frames.items()})
            np.testing.assert_allclose(action, low + (expected[step] + 1) / 2 * (high - low), atol=1e-5)
    with pytest.raises(
        PixelrlError, match=r"front_image is uint8 \[1, 48, 48, 9\]; the policy takes uint8 \[B, 48, 48, 3\]"
    ):
        policy.act({key: value[:1] for key, value in stacked.items()})
    one = {key: value[0] for key, value in frames.items()}
    for spoilt, message in (
        ({key: value for key, value in one.items() if value.ndim == 3}, r"the policy needs 'position'"),
        (one | {"position": one["position"].astype(np.float64)}, r"position is float64 \[\d\]; the policy takes"),
        (one | {"position": one["position"].tolist()}, r"position is a list; the policy takes a NumPy array"),
    ):
        with pytest.raises(PixelrlError, match=message):
            policy.act(spoilt)


def test_changed_network_is_refused(exported: Exported, tmp_path: Path) -> None:
    for name in ("policy.onnx", "policy.json"):
        (tmp_path / name).write_bytes((exported.directory / name).read_bytes())
    content = bytearray((tmp_path / "policy.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "policy.onnx").write_bytes(content)
    with pytest.raises(PixelrlError, match=r"policy.onnx: was changed after the export"):
        ExportedPolicy(tmp_path)


def test_directory_that_is_no_export_or_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelrlError, match=r"not an exported policy"):
        ExportedPolicy(tmp_path)
    for other, said in ((99, "99"), ("2", "'2'")):
        (tmp_path / "policy.json").write_text(json.dumps({"format": other}))
        with pytest.raises(PixelrlError, match=rf"has format {said}; .* reads 1 and 2"):
            ExportedPolicy(tmp_path)


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A process that is killed cannot clean up; `policy.onnx` may be hundreds of megabytes."""
    left = tmp_path / ".export.0badcafe.tmp"
    left.mkdir()
    (left / "policy.onnx").write_bytes(b"half")
    go(make_networks(), tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_artefact_with_other_weights_is_not_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_a_little_wrong(path: Path, artefact: Artefact) -> None:
        bias = artefact.networks.actor.last.bias.data
        bias += 1e-3
        write_onnx(path, artefact)
        bias -= 1e-3

    monkeypatch.setattr(artefact, "write_onnx", write_a_little_wrong)
    with pytest.raises(PixelrlError, match=r"differs from the checkpoint by .* in action .* of the data frames"):
        go(exported.networks, tmp_path / "new")
    assert not list(tmp_path.iterdir())
    before = {path: path.read_bytes() for path in exported.directory.iterdir()}
    with pytest.raises(PixelrlError):
        go(exported.networks, exported.directory)
    assert {path: path.read_bytes() for path in exported.directory.parent.rglob("*") if path.is_file()} == before


def test_parity_refuses_the_policy_of_another_run(exported: Exported) -> None:
    other = CheckpointPolicy(make_networks(seed=1), SPEC, torch.device("cpu"))
    sizes = {"front_image": CAMERA["front_image"], "wrist_image": (32, 40)}
    resize = {"front_image": Resize((120, 160), (48, 48)), "wrist_image": Resize((32, 40), (32, 40))}
    with pytest.raises(PixelrlError, match=r"at most 1e-04 passes"):
        check_parity(ExportedPolicy(exported.directory), other, resize, sizes, make_frames(3))
    resize["front_image"].rows = resize["front_image"].rows.roll(1, dims=1)
    with pytest.raises(PixelrlError, match=r"resized pictures of front_image are off"):
        check_parity(ExportedPolicy(exported.directory), other, resize, sizes, make_frames(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera_sizes": {"side_image": (48, 48)}}, r"'side_image': the policy has no such camera, but front_image"),
        ({"camera_sizes": {"front_image": (0, 48)}}, r"'front_image': 0 x 48"),
        ({"frames": {}}, r"no recorded frames of 'front_image'"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        go(make_networks(), tmp_path / "export", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("before", "after"), [(480, 84), (96, 48), (50, 48), (48, 48), (48, 64), (7, 3)])
def test_resampling_equals_antialiased_interpolation_of_torch(before: int, after: int) -> None:
    impulses = torch.eye(before, dtype=torch.float64)[None, None]
    expected = interpolate(impulses, (after, before), mode="bilinear", antialias=True)[0, 0]
    torch.testing.assert_close(resampling(before, after), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("camera", [(96, 96), (480, 640), (100, 60), (30, 40)])
def test_resized_pictures_equal_those_of_image_libraries(camera: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*camera, 3), dtype=np.uint8)
    channels = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = Resize(camera, (48, 64))(channels)
    assert resized.dtype == torch.uint8 and resized.shape == (1, 3, 48, 64)
    exact = interpolate(channels.double(), (48, 64), mode="bilinear", antialias=True)
    assert (resized - exact).abs().max() <= 0.5 + 1e-3
    pillow = np.asarray(Image.fromarray(picture).resize((64, 48), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resized[0].permute(1, 2, 0).numpy() - pillow).max() <= 1, "Pillow rounds after each axis"


def test_runtime_needs_no_torch(exported: Exported, tmp_path: Path) -> None:
    sensors = {key: value[0] for key, value in make_frames(1, CAMERA).items()}
    np.savez(tmp_path / "sensors.npz", **sensors)
    script = (
        "import sys, numpy; from pixelrl.export.runtime import ExportedPolicy;"
        "action = ExportedPolicy(sys.argv[1]).act(dict(numpy.load(sys.argv[2])));"
        "heavy = {'torch', 'onnx', 'onnxscript', 'einops', 'scipy', 'h5py', 'mujoco'} & set(sys.modules);"
        "print(sorted(heavy), action.tolist())"
    )
    command = [sys.executable, "-c", script, str(exported.directory), str(tmp_path / "sensors.npz")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    action = ExportedPolicy(exported.directory).act(sensors)
    assert printed.strip() == f"[] {action.tolist()}"


@pytest.mark.parametrize(
    "harm",
    [
        {"inputs": 3},
        {"inputs": {"front_image": {"dtype": "uint8"}}},
        {"sha256": "none"},
        {"sha256": {}},
        {"outputs": {"action": {}}},
        {"env_args": None},
        {"history": "many"},
        {"history": 0},
        {"history": 2},
        {"control_freq": "fast"},
        {"control_freq": 10**400},
        {"provenance": []},
        {"outputs": {"action": {"dims": [{"name": "dx", "unit": "m", "low": -(10**400), "high": 1}]}}},
        {"outputs": {"action": {"dims": [{"name": "dx", "unit": "m", "low": 0, "high": 1e39}]}}},
        {"inputs": {}},
        {"inputs": {"front_image": {"dtype": "uint8", "shape": ["B", "48", 48, 3]}}},
        {"inputs": {"front_image": {"dtype": "uint8", "shape": ["B", 48]}}},
        {"inputs": {"front_image": {"dtype": "float64", "shape": ["B", 48]}}},
        {"outputs": {"action": {"dims": [{"name": "dx", "unit": "m", "low": "0", "high": 1}]}}},
        {"outputs": {"action": {"dims": [{"name": "dx", "unit": "m", "low": 0, "high": 1, "is": "os"}]}}},
        {"outputs": {"action": {"dims": []}}},
        {"chunk": 0},
        {"precision": "fp4"},
        {"task": 3},
        {"latency": {"p50_ms": 1.0}},
        {"latency": dict.fromkeys(["p50_ms", "p95_ms", "p99_ms", "calls", "threads", "provider", "machine"], 1)},
        {"evaluation": {"episodes": 3, "successes": 4, "success_interval_95": [0.1, 0.9]}},
        {"evaluation": {"episodes": 3, "successes": 2, "success_interval_95": [0.9]}},
        {"pt2": {"inputs": ["front_image"]}},
        {"pt2": {"inputs": [], "outputs": [], "torch": 2, "parity": {}, "precision": "fp32"}},
        {"control": {"mode": ["delta"]}},
        {"control": {"mode": ["delta", "sideways", None]}},
        {"control": {"hold": [0.0, 0.0, 7.0]}},
        {"control": {"largest_step": [0.1, -0.1, 0.1]}},
        {"control": {"largest_change": [0.1, "a", 0.1]}},
        {"control": {"frame": 3}},
    ],
    ids=str,
)
def test_contract_that_is_damaged_is_refused(exported: Exported, tmp_path: Path, harm: dict[str, Any]) -> None:
    contract = json.loads((exported.directory / "policy.json").read_text())
    (tmp_path / "policy.onnx").write_bytes((exported.directory / "policy.onnx").read_bytes())
    if "control" in harm:
        contract["outputs"]["action"]["control"] |= harm["control"]
        harm = {}
    (tmp_path / "policy.json").write_text(json.dumps(contract | harm))
    with pytest.raises(PixelrlError, match=r"policy.json: not the contract of an exported policy, or damaged"):
        ExportedPolicy(tmp_path)


def test_policy_of_the_first_format_still_runs(exported: Exported, tmp_path: Path) -> None:
    contract = json.loads((exported.directory / "policy.json").read_text())
    for name in ("chunk", "precision", "task", "latency", "evaluation"):
        del contract[name]
    del contract["outputs"]["action"]["control"]
    (tmp_path / "policy.onnx").write_bytes((exported.directory / "policy.onnx").read_bytes())
    (tmp_path / "policy.json").write_text(json.dumps(contract | {"format": 1}))
    frames = make_frames(2, CAMERA)
    np.testing.assert_array_equal(ExportedPolicy(tmp_path).act(frames), ExportedPolicy(exported.directory).act(frames))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_numbers_act_nearly_alike(precision: Any, tmp_path: Path) -> None:
    networks = make_networks()
    nn.init.normal_(networks.actor.last.weight, std=0.02)
    out = tmp_path / "small"
    result = go(networks, out, precision=precision)
    contract = ExportedPolicy(out).contract
    check = contract["precision_check"]
    assert contract["precision"] == result["precision"] == precision and check == result["precision_check"]
    assert (
        check["frames"] == 10 and 0 < check["p50"] <= check["p99"] <= check["max"] < 0.04 and check["sign_flips"] == 0
    )
    kinds = {node.op_type for node in onnx.load(out / "policy.onnx").graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")
    go(networks, tmp_path / "exact")
    size, exact = ((tmp_path / name / "policy.onnx").stat().st_size for name in ("small", "exact"))
    assert size < {"fp16": 0.7, "int8": 0.8}[precision] * exact
    frames = make_frames(4, CAMERA, seed=9)
    np.testing.assert_allclose(ExportedPolicy(out)(frames), ExportedPolicy(tmp_path / "exact")(frames), atol=0.06)


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_smaller_numbers_that_act_otherwise_are_not_written(
    precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = make_networks()
    nn.init.normal_(networks.actor.last.weight, std=0.02)
    monkeypatch.setattr("pixelrl.export.precision.LIMIT", 1e-9)
    with pytest.raises(PixelrlError, match="in this precision 1 of 100 actions differs by more than"):
        go(networks, tmp_path / "new", precision=precision)
    assert not (tmp_path / "new").exists()


def test_contract_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("[" * 100_000)
    with pytest.raises(PixelrlError, match=r"policy.json: not the contract of an exported policy, or damaged"):
        ExportedPolicy(tmp_path)


def test_network_that_is_not_as_its_contract_says_is_told(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes((exported.directory / "policy.onnx").read_bytes())
    contract = json.loads((exported.directory / "policy.json").read_text())
    contract["outputs"]["action"]["dims"].pop()
    del contract["outputs"]["action"]["control"]
    (tmp_path / "policy.json").write_text(json.dumps(contract))
    with pytest.raises(
        PixelrlError, match=r"policy.onnx: for 'action' it gives float32 \[3\]; policy.json says float32 \[2\]"
    ):
        ExportedPolicy(tmp_path)
    contract["inputs"]["gripper"]["shape"] = ["B", 2]
    (tmp_path / "policy.json").write_text(json.dumps(contract))
    with pytest.raises(
        PixelrlError, match=r"policy.onnx: for 'gripper' it takes float32 \[1\]; policy.json says float32 \[2\]"
    ):
        ExportedPolicy(tmp_path)
    del contract["inputs"]["gripper"]
    (tmp_path / "policy.json").write_text(json.dumps(contract))
    with pytest.raises(PixelrlError, match=r"'gripper' it takes float32 \[1\]; policy.json says nothing of that name"):
        ExportedPolicy(tmp_path)


def test_what_is_not_known_of_the_training_is_no_fault(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes((exported.directory / "policy.onnx").read_bytes())
    contract = json.loads((exported.directory / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(contract | {"provenance": None}))
    assert not load_policy(tmp_path).rescaled


def test_export_goes_where_a_link_leads_and_into_the_working_directory(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not written inside the directory may be on another disk, from which no file can be moved."""
    target, link = tmp_path / "disk", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    monkeypatch.chdir(target)
    moved, replace = list[Path](), os.replace

    def see(source: Path, to: Path) -> None:
        moved.append(Path(source))
        replace(source, to)

    monkeypatch.setattr(os, "replace", see)
    for out in (link, Path()):
        go(exported.networks, out)
        assert link.is_symlink() and [*tmp_path.iterdir()] in ([link, target], [target, link])
        assert sorted(path.name for path in target.iterdir()) == ["policy.json", "policy.onnx"]
    assert len(moved) == 8 and all(source.is_relative_to(target) for source in moved)


def test_export_over_folders_of_its_names_changes_nothing(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"mine")
    (tmp_path / "policy.json").mkdir()
    with pytest.raises(PixelrlError, match=r"policy.json: is a directory; an export writes a file of this name"):
        go(exported.networks, tmp_path)
    assert (tmp_path / "policy.onnx").read_bytes() == b"mine"


def test_joints_in_degrees_and_one_that_is_held_are_exported(tmp_path: Path) -> None:
    dims = (
        ActionDim(name="shoulder", low=-2048.0, high=2048.0, unit="deg"),
        ActionDim(name="wrist", low=90.0 - 1e-6, high=90.0 + 1e-6, unit="deg"),
        ActionDim(name="held", low=90.0, high=90.0, unit="deg"),
    )
    spec = replace(SPEC, action=dims)
    result = go(make_networks(spec), tmp_path / "export", spec=spec)
    assert result["parity"]["data"]["robot"] > 1e-5 and result["parity"]["data"]["normalised"] < 1e-5
    actions = ExportedPolicy(tmp_path / "export").act(make_frames(5, CAMERA))
    np.testing.assert_allclose(actions[:, 1:], 90.0, atol=1e-4)


def test_narrow_range_hides_no_difference(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = replace(SPEC, action=tuple(replace(dim, low=-1e-3, high=1e-3) for dim in SPEC.action))

    def write_with_other_limits(path: Path, artefact: Artefact) -> None:
        artefact.high = artefact.high * 1.001
        write_onnx(path, artefact)

    monkeypatch.setattr(artefact, "write_onnx", write_with_other_limits)
    with pytest.raises(PixelrlError, match=r"differs from the checkpoint by .* of half the range in action"):
        go(exported.networks, tmp_path / "new", spec=narrow)


def test_cameras_may_have_any_name(tmp_path: Path) -> None:
    keys = ("pixels.top", "type", "keys", "items", "forward", "images/top", "a b")
    spec = replace(SPEC, images=dict.fromkeys(keys, (3, 48, 48)))
    frames = make_frames(20)
    pictures = frames.pop("front_image")
    frames |= {key: np.roll(pictures, turn, axis=0) for turn, key in enumerate(keys)}
    networks = make_networks(spec)
    go(networks, tmp_path / "export", spec=spec, frames=frames, camera_sizes=None)
    policy = ExportedPolicy(tmp_path / "export")
    assert list(policy.contract["inputs"])[: len(keys)] == list(keys)
    expected = CheckpointPolicy(networks, spec, torch.device("cpu"))(frames)
    np.testing.assert_allclose(policy(frames), expected, atol=1e-5)


def test_network_that_onnxruntime_cannot_load_is_told(exported: Exported, tmp_path: Path) -> None:
    contract = json.loads((exported.directory / "policy.json").read_text())
    (tmp_path / "policy.onnx").write_bytes(b"no network")
    contract["sha256"]["policy.onnx"] = hashlib.sha256(b"no network").hexdigest()
    (tmp_path / "policy.json").write_text(json.dumps(contract))
    with pytest.raises(PixelrlError, match=r"policy.onnx: onnxruntime cannot load it"):
        ExportedPolicy(tmp_path)
