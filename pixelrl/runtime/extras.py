"""Which extra of pixelrl brings a package that is not installed: `pip install 'pixelrl[sim]'`."""

from importlib.util import find_spec

from pixelrl.runtime.errors import PixelrlError

MODULES = {
    "sim": ("av", "gymnasium", "matplotlib", "mujoco", "OpenGL", "robosuite"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "resnet": ("torchvision",),
    "lerobot": ("pyarrow",),
    "zarr": ("imagecodecs", "numcodecs"),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "mcap": ("mcap",),
    "serve": ("msgpack", "onnxruntime", "prometheus_client", "websockets"),
    "rerun": ("rerun",),
}
"""Extra of setup.py -> the modules that are imported from its packages."""


def missing_extra(error: BaseException) -> str | None:
    """Return what to install, where an import failed for want of a package of an extra; None for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = (error.name or "").partition(".")[0]
    return next((_advice(package, extra) for extra, modules in MODULES.items() if package in modules), None)


def require_extras(*extras: str) -> None:
    """Raise unless all packages of these extras are installed: before long work that needs them at its end.

    Raises:
        PixelrlError: one is not.
    """
    for extra in extras:
        for package in MODULES[extra]:
            if find_spec(package) is None:
                raise PixelrlError(_advice(package, extra))


def _advice(package: str, extra: str) -> str:
    return f"this needs {package}, which is not installed: pip install 'pixelrl[{extra}]'"
