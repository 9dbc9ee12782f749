"""Where pictures are drawn: which worker on which GPU, on an EGL device that is there, and what is to blame if not."""

from typing import Any

import pytest
from robosuite.renderers.context import egl_context

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.imports import cannot_import
from pixelrl.simulation.envs.opengl import cannot_draw, check_drawing, egl_device


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


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let robosuite choose its EGL device anew; the one that it has is back after the test."""
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(egl_context, "EGL_DISPLAY", None)
    for name in ("CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("visible", ["", "-1", "99", "99,98", "GPU-8a4bcb24-1f2d", "0"])
def test_gpus_that_egl_does_not_know_leave_a_device_to_draw_on(fresh: pytest.MonkeyPatch, visible: str) -> None:
    fresh.setenv("CUDA_VISIBLE_DEVICES", visible)
    check_drawing()
    assert egl_context.EGL_DISPLAY


def test_device_that_egl_does_not_have_is_named(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    with pytest.raises(
        SimulationError, match=r"with MUJOCO_EGL_DEVICE_ID=99: leave MUJOCO_EGL_DEVICE_ID unset"
    ) as error:
        check_drawing()
    assert "libegl1" not in str(error.value)
    fresh.setenv("CUDA_VISIBLE_DEVICES", "1")
    message = str(cannot_draw(AssertionError("needs to be set to one of the device id")))
    assert "with MUJOCO_EGL_DEVICE_ID=99, CUDA_VISIBLE_DEVICES=1: " in message


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ImportError("no libEGL"), "install the Debian packages libegl1"),
        (ImportError("The PYOPENGL_PLATFORM environment variable is set to 'osmesa'"), "leave PYOPENGL_PLATFORM unset"),
        (RuntimeError("cannot cache function 'mat2quat': no locator available for file 'x'"), "set NUMBA_CACHE_DIR"),
        (
            PermissionError("[Errno 13] Permission denied: 'x'"),
            "robosuite cannot be imported (PermissionError: [Errno 13]",
        ),
    ],
)
def test_advice_names_the_cause(fresh: pytest.MonkeyPatch, error: Any, advice: str) -> None:
    message = str(cannot_import(error))
    assert advice in message and ("libegl1" in message) == ("libegl1" in advice)
