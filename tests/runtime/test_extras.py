"""Which extra brings a missing package."""

import re
import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import setuptools

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.extras import MODULES, missing_extra, require_extras

SETUP = Path(__file__).resolve().parents[2] / "setup.py"
PACKAGES = {"rerun": "rerun-sdk", "OpenGL": "mujoco", "prometheus_client": "prometheus-client"}
"""Module -> the package of setup.py that brings it, where their names differ."""


def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what setup.py says of the package."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **said: found.update(said))
    runpy.run_path(str(SETUP))
    return found


def names(requirements: list[str]) -> set[str]:
    """Return the packages of requirements."""
    return {re.split(r"[^\w-]", each)[0] for each in requirements}


def test_extras_are_those_of_setup_py(monkeypatch: pytest.MonkeyPatch) -> None:
    said = declared(monkeypatch)
    extras = {extra: names(packages) for extra, packages in said["extras_require"].items()}
    for extra, modules in MODULES.items():
        assert {PACKAGES.get(module, module) for module in modules} <= extras[extra]
        assert extras[extra] <= extras["all"] <= extras["test"] or extra == "rerun"  # half a gigabyte for a viewer
        assert not extras[extra] & names(said["install_requires"])


def test_no_requirement_caps_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    said = declared(monkeypatch)
    every = [*said["install_requires"], *(each for extra in said["extras_require"].values() for each in extra)]
    assert not [each for each in every if each.startswith(("numpy", "mink")) and "<" in each.partition(";")[0]]


def test_missing_package_names_its_extra() -> None:
    expected = "this needs robosuite, which is not installed: pip install 'pixelrl[sim]'"
    assert missing_extra(ModuleNotFoundError("No module named 'robosuite'", name="robosuite.models")) == expected
    assert missing_extra(ModuleNotFoundError("No module named 'foo'", name="foo")) is None
    assert missing_extra(ImportError("libEGL.so.1: cannot open shared object file", name="mujoco")) is None


def test_required_extras_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"onnxscript"}
    monkeypatch.setattr("pixelrl.runtime.extras.find_spec", lambda name: None if name in gone else find_spec("json"))
    require_extras("sim")
    with pytest.raises(PixelrlError, match=r"this needs onnxscript, .* pip install 'pixelrl\[export\]'"):
        require_extras("sim", "export")
