"""Imports run one way: who may import whom, and nothing is imported behind the reader's back."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "runtime": "",
    "learning": "runtime",
    "terms": "learning runtime",
    "encoders": "learning runtime",
    "datasets": "learning runtime",
    "training": "encoders terms learning runtime",
    "export": "training learning runtime",
    "serving": "export runtime",
    "simulation": "datasets export runtime",
    "launch": "datasets simulation encoders export serving training terms learning runtime",
}
"""Room -> the other rooms that it may import."""

DATASETS = {"hdf5": "", "buffer": "hdf5", "convert": "hdf5", "inspect": "hdf5"}
"""The same within `datasets`; its own modules are for all."""

CLIENT = "pixelrl.serving.client"
"""It is a distribution of its own, too, under another name: it imports itself relatively, and nothing else of ours."""

BY_NAME = {"pixelrl.simulation.envs.imports"}
"""They import what a name says: the module that registers a user's own environment."""


def modules() -> dict[str, Path]:
    """Return the package's modules by name."""
    paths = sorted((ROOT / "pixelrl").glob("*/**/*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def imports() -> dict[str, set[str]]:
    """Return which modules of ours each module imports, wherever in its text."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & known.keys()
            elif isinstance(node, ast.ImportFrom):
                assert node.module and (node.level == 0 or name.startswith(CLIENT)), f"{path}: a relative import"
                module = f"{CLIENT}.{node.module}" if node.level else node.module
                inner = {f"{module}.{alias.name}" for alias in node.names} & known.keys()
                found[name] |= inner or {module} & known.keys()
    return found


def wrong() -> Iterator[str]:
    """Yield the imports that are not allowed."""
    for name, targets in imports().items():
        for target in targets:
            (_, room, *inner), (_, other, *others) = name.split("."), target.split(".")
            one_way = room == other or other in ALLOWED[room].split()
            if room == other == "datasets" and len(inner) > 1 and len(others) > 1:
                one_way = inner[0] == others[0] or others[0] in DATASETS[inner[0]].split()
            if not one_way:
                yield f"{name} -> {target}"


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the nodes that lie on circles: what is left when all that lead nowhere are taken away, both ways."""
    left = {node: {other for other in others if other != node} for node, others in edges.items()}
    while ends := {node for node, others in left.items() if not others & left.keys()}:
        left = {node: others for node, others in left.items() if node not in ends}
    while starts := left.keys() - {other for others in left.values() for other in others}:
        left = {node: others for node, others in left.items() if node not in starts}
    return sorted(left)


def test_imports_run_one_way() -> None:
    assert list(wrong()) == []


def test_the_robots_client_imports_nothing_else_of_ours() -> None:
    targets = {target for name, found in imports().items() if name.startswith(CLIENT) for target in found}
    assert targets and all(target.startswith(CLIENT) for target in targets)


def test_modules_do_not_import_each_other_in_circles() -> None:
    assert circle(imports()) == []


def test_folders_do_not_import_each_other_in_circles() -> None:
    known, folders = modules(), dict[str, set[str]]()
    for name, targets in imports().items():
        folder = known[name].parent
        for other in {known[target].parent for target in targets}:
            if not (folder.is_relative_to(other) or other.is_relative_to(folder)):  # one inside the other
                folders.setdefault(folder.name, set()).add(other.name)
    assert circle(folders) == []


def test_modules_import_nothing_by_name() -> None:
    found = {name for name, path in modules().items() if re.search(r"import_module|__import__", path.read_text())}
    assert found == BY_NAME


def test_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
