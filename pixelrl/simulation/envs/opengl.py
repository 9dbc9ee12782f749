"""Whether and on which device pictures can be drawn, asked before a renderer fails somewhere deep inside."""

import atexit
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import SimulationError

CHOICE = "MUJOCO_EGL_DEVICE_ID"
"""What MuJoCo, robosuite and gymnasium look at: an index into EGL's list of devices."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


def draw_on(worker: int) -> None:
    """Choose the GPU that this process will draw on; call it in a worker, before anything is drawn."""
    if os.environ.get("MUJOCO_GL") == "egl" and (chosen := egl_device(worker, gpus(), os.environ)) is not None:
        os.environ[CHOICE] = chosen  # of this process alone


def egl_device(worker: int, gpus: Sequence[int], environ: Mapping[str, str]) -> str | None:
    """Return the EGL device of a worker, round-robin over several GPUs; None to leave the choice to the renderer.

    The user's own choice stands: `MUJOCO_EGL_DEVICE_ID`; of `CUDA_VISIBLE_DEVICES`, only those are used (robosuite
    takes both for numbers of the same list).
    """
    visible = environ.get(VISIBLE)
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
        from mujoco.egl import egl_ext as egl
        from OpenGL.EGL.EXT.device_query import eglQueryDeviceStringEXT

        kinds = [eglQueryDeviceStringEXT(device, egl.EGL_EXTENSIONS) or b"" for device in egl.eglQueryDevicesEXT()]
    except Exception:  # ImportError, AttributeError, GLError, ...: what draws will say what is wrong
        return []
    return [index for index, kind in enumerate(kinds) if b"software" not in kind]


def before_drawing() -> None:
    """Load triton (torch's compiler), where it is installed, before anything is drawn.

    Mesa and triton each bring an LLVM. Loaded in this order both live; in the other, a process that imports torch's
    optimisers after drawing dies of a segmentation fault.
    """
    with suppress(ImportError):
        import triton  # noqa: F401


def check_drawing() -> None:
    """Raise if robosuite, which is imported, can make no OpenGL context.

    Raises:
        SimulationError: what is missing, or which variable is to blame.
    """
    backend = os.environ.get("MUJOCO_GL", "").lower().strip()  # robosuite has set it by now if the user had not
    if backend == "glx" and not os.environ.get("DISPLAY"):
        raise cannot_draw(OSError("it needs a display, and DISPLAY is not set"))
    if backend not in ("egl", "osmesa"):
        return
    before_drawing()
    try:
        if backend == "egl":
            from robosuite.renderers.context import egl_context

            _open_display(egl_context)
            context = egl_context.EGLGLContext(max_width=64, max_height=64, device_id=-1)
        else:
            from robosuite.renderers.context.osmesa_context import OSMesaGLContext

            context = OSMesaGLContext(max_width=64, max_height=64, device_id=-1)
        context.free()
    except Exception as error:  # ImportError, AttributeError, GLError, ...: PyOpenGL has no one way to fail
        raise cannot_draw(error) from error


def cannot_draw(error: Exception) -> SimulationError:
    """Return the error that tells a user which variable to mend, or what to install."""
    backend, text = os.environ.get("MUJOCO_GL", ""), f"{type(error).__name__}: {error}"
    advice = "set MUJOCO_GL=egl and install the Debian packages libegl1 and libgl1-mesa-dri"
    if "PYOPENGL_PLATFORM" in text:
        advice = "leave PYOPENGL_PLATFORM unset"
    elif CHOICE in os.environ and backend.lower() == "egl":
        said = ", ".join(f"{name}={os.environ[name]}" for name in (CHOICE, VISIBLE) if name in os.environ)
        advice = f"with {said}: leave {CHOICE} unset, or have it name a device of EGL's, counted from 0"
        advice += f", that {VISIBLE} names, too" if VISIBLE in os.environ else ""
    return SimulationError(f"nothing can be drawn here with MUJOCO_GL={backend} ({text}); {advice}")


def _open_display(context: Any) -> None:
    """Have robosuite draw on a device that EGL has, although `CUDA_VISIBLE_DEVICES` names none.

    robosuite takes that variable for indices into EGL's list; but it may be empty, -1, a UUID, or of GPUs that EGL does
    not know. Then it is the first device that works, as MuJoCo itself chooses. `context` is robosuite's module,
    which opens its display once and keeps it.
    """
    if context.EGL_DISPLAY is not None or CHOICE in os.environ or VISIBLE not in os.environ:
        return
    display: Any = None
    with suppress(AssertionError, RuntimeError, ValueError):
        display = context.create_initialized_egl_device_display(device_id=-1)
    if not display:
        from mujoco.egl import create_initialized_egl_device_display

        display = create_initialized_egl_device_display()
    if display:
        context.EGL_DISPLAY = display
        atexit.register(context.EGL.eglTerminate, display)
