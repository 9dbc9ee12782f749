"""robomimic's own BC and CQL learn from our files, through its own loader."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dots import ACTION, CAMERA, POSITION, write_dots

SIZE = 48


def configure(name: str) -> Any:
    """Return robomimic's configuration of an algorithm, for one small camera, and batches of two."""
    from robomimic.config import config_factory

    config = config_factory(name)
    with config.values_unlocked():
        modalities = config.observation.modalities.obs
        modalities.low_dim, modalities.rgb = [POSITION], [CAMERA]
        rgb = config.observation.encoder.rgb
        rgb.core_class = "VisualCore"
        rgb.core_kwargs = {
            "feature_dimension": 8,
            "backbone_class": "ResNet18Conv",
            "backbone_kwargs": {"pretrained": False, "input_coord_conv": False},
            "pool_class": "SpatialSoftmax",
            "pool_kwargs": {"num_kp": 4, "learnable_temperature": False, "temperature": 1.0, "noise_std": 0.0},
        }
        config.train.batch_size = 2
        if name == "bc":
            config.algo.actor_layer_dims = (8,)
        else:
            config.algo.actor.layer_dims = config.algo.critic.layer_dims = (8,)
            config.algo.critic.num_random_actions = 1
            config.algo.actor.bc_start_steps = 0
    return config


@pytest.mark.parametrize(("name", "compress"), [("bc", True), pytest.param("cql", False, marks=pytest.mark.slow)])
def test_robomimic_learns_from_our_files(tmp_path: Path, name: str, compress: bool) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    import robomimic.utils.file_utils as file_utils
    import robomimic.utils.obs_utils as obs_utils
    import robomimic.utils.train_utils as train_utils
    from robomimic.algo import algo_factory
    from robomimic.utils.dataset import SequenceDataset

    path = str(write_dots(tmp_path / "a.hdf5", "task", 3, size=SIZE, compress=compress))
    config = configure(name)
    obs_utils.initialize_obs_utils_with_config(config)
    shapes = file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=config.all_obs_keys)
    assert (shapes["ac_dim"], shapes["all_shapes"][CAMERA]) == (len(ACTION), [3, SIZE, SIZE])
    torch.manual_seed(0)
    learner = algo_factory(name, config, shapes["all_shapes"], shapes["ac_dim"], torch.device("cpu"))
    learner.set_train()
    keys = ("actions", "rewards", "dones")
    data = SequenceDataset(path, config.all_obs_keys, keys, hdf5_cache_mode=None, load_next_obs=True)
    before = [parameter.clone() for parameter in learner.nets.parameters()]
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    log = train_utils.run_epoch(learner, loader, epoch=1, num_steps=2)
    losses = {key: value for key, value in log.items() if "Loss" in key}
    assert losses and all(math.isfinite(value) for value in losses.values()), losses
    after = learner.nets.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in learner.nets.parameters())
