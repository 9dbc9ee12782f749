"""Every worker draws on a GPU of its own, where there are several."""

import pytest

from pixelrl.simulation.envs.egl_devices import egl_device


@pytest.mark.parametrize(
    ("gpus", "environ", "expected"),
    [
        ([0, 1, 3], {}, ["0", "1", "3", "0"]),
        ([0, 1, 2, 3], {"CUDA_VISIBLE_DEVICES": "3,1"}, ["1", "3", "1", "3"]),
        ([0, 1], {"MUJOCO_EGL_DEVICE_ID": "1"}, [None] * 4),
        ([0, 1], {"CUDA_VISIBLE_DEVICES": "1"}, [None] * 4),
        ([0], {}, [None] * 4),
        ([], {}, [None] * 4),
    ],
)
def test_workers_take_turns_on_the_gpus(gpus: list[int], environ: dict[str, str], expected: list[str | None]) -> None:
    assert [egl_device(worker, gpus, environ) for worker in range(4)] == expected
