"""Which GPU each process draws on, where there are several."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

CHOICE = "MUJOCO_EGL_DEVICE_ID"
"""What MuJoCo, robosuite and gymnasium look at: an index into EGL's list of devices."""


def draw_on(worker: int) -> None:
    """Choose the GPU that this process will draw on; call it in a worker, before anything is drawn."""
    if os.environ.get("MUJOCO_GL") == "egl" and (chosen := egl_device(worker, gpus(), os.environ)) is not None:
        os.environ[CHOICE] = chosen  # of this process alone


def egl_device(worker: int, gpus: Sequence[int], environ: Mapping[str, str]) -> str | None:
    """Return the EGL device of a worker, round-robin over several GPUs; None to leave the choice to the renderer.

    The user's own choice stands: `MUJOCO_EGL_DEVICE_ID`; of `CUDA_VISIBLE_DEVICES`, only those are used (robosuite
    takes both for numbers of the same list).
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = [gpu for gpu in gpus if str(gpu) in visible.split(",")]
    if CHOICE in environ or len(gpus) < 2:
        return None
    return str(gpus[worker % len(gpus)])


def gpus() -> list[int]:
    """Return which of EGL's devices are GPUs: all that do not draw in software; none where there are not several."""
    nodes = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev/dri").glob("renderD*")]
    if len(nodes) < 2:  # the usual case, and to ask EGL takes a while
        return []
    try:
        egl = importlib.import_module("mujoco.egl").egl_ext
        query = importlib.import_module("OpenGL.EGL.EXT.device_query").eglQueryDeviceStringEXT
        kinds = [query(device, egl.EGL_EXTENSIONS) or b"" for device in egl.eglQueryDevicesEXT()]
    except Exception:  # ImportError, AttributeError, GLError, ...: whoever draws will say what is wrong
        return []
    return [index for index, kind in enumerate(kinds) if b"software" not in kind]
