"""Recorded scenes (MJCF) from other machines and other versions of robosuite, made fit for this one.

A scene is text from a file that anybody may have written, and MuJoCo opens whatever file it names. Here every file that
it names is looked for among robosuite's own assets, by the part of its path behind `robosuite/`; what lies elsewhere,
and whatever pulls in more text or code, is refused.
"""

import posixpath
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.imports import robosuite

LONGEST = 32 * 2**20
"""No scene of robosuite comes near it. [characters]"""

FORBIDDEN = {"include", "model", "attach", "extension", "plugin", "composite", "flexcomp", "replicate"}
"""Elements that read files, run code, or make much of little. MuJoCo writes none of them into a recorded scene."""

FOLDER_KEYS = ("meshdir", "texturedir", "assetdir", "strippath")

FOLDERS = {"models/assets/mounts/": "models/assets/bases/"}
"""Where robosuite 1.5 moved assets that 1.4 kept elsewhere."""


def localise(xml: str, pattern: str | None = None) -> str:
    """Return a recorded scene as this machine's robosuite can load it.

    Args:
        xml: the recorded scene.
        pattern: for scenes from before robosuite 1.5, which named grippers and mounts otherwise: the scene that
            robosuite makes here for the same task.

    Raises:
        SimulationError: not XML, or XML that asks for more than robosuite's assets.
    """
    root = _parse(xml)
    meshes: dict[str | None, ET.Element] = {}
    if pattern is not None:
        own = ET.fromstring(pattern)
        _rename(root)
        _add_centres(root, own)
        meshes = {mesh.get("name"): mesh for mesh in own.iter("mesh")}
    for element in root.iter():
        if element.tag in FORBIDDEN:
            raise SimulationError(f"the scene has a <{element.tag}>, which no recorded scene needs; it is not loaded")
        if element.tag == "compiler":
            for key in FOLDER_KEYS:
                element.attrib.pop(key, None)
        twin = meshes.get(element.get("name")) if element.tag == "mesh" else None
        if twin is not None and "inertia" in twin.attrib:  # MuJoCo 3 refuses thin meshes without it
            element.set("inertia", twin.attrib["inertia"])
        for key in [key for key in element.attrib if key.startswith("file")]:
            found = _asset(element.attrib[key]) or (_asset(twin.attrib[key]) if twin is not None else None)
            if found is None:
                path = element.attrib[key]
                raise SimulationError(f"the scene names the file {path!r}, which is not among robosuite's assets here")
            element.set(key, str(found))
    return ET.tostring(root, encoding="unicode")


def _parse(xml: str) -> ET.Element:
    """Parse a scene, without the entities that could blow it up."""
    if len(xml) > LONGEST:
        raise SimulationError(f"the scene has {len(xml)} characters; expected at most {LONGEST}")
    if "<!" in re.sub(r"<!--.*?-->", "", xml, flags=re.DOTALL):
        raise SimulationError("the scene declares a document type or entities; expected plain MJCF")
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise SimulationError(f"the scene is not XML ({error})") from error
    if root.tag != "mujoco":
        raise SimulationError(f"the scene begins with <{root.tag}>; expected <mujoco>")
    return root


def _asset(path: str) -> Path | None:
    """Return the file of this machine's robosuite that a path on the recording machine meant, if it is there."""
    package = Path(robosuite().__file__).parent
    parts = path.replace("\\", "/").split("/")
    for index in reversed([i for i, part in enumerate(parts) if part == "robosuite"]):
        tail = posixpath.normpath("/".join(parts[index + 1 :]))
        for before, now in (*FOLDERS.items(), ("", "")):
            if tail.startswith(before):
                found = (package / (now + tail.removeprefix(before))).resolve()
                if found.is_file() and found.is_relative_to((package / "models/assets").resolve()):
                    return found
    return None


def _rename(root: ET.Element) -> None:
    """Give the parts of a robot the names that robosuite 1.5 looks for: `gripper0_right_...`, `fixed_mount0_...`."""
    names = {value for element in root.iter() for value in element.attrib.values() if value.startswith("gripper")}
    # Robots with two arms had their arms' names in it before.
    one_armed = {
        match[0] for name in names if (match := re.match(r"gripper\d+_", name)) and f"{match[0]}left_eef" not in names
    }
    for element in root.iter():
        for key, value in element.attrib.items():
            match = re.match(r"(gripper\d+_|mount\d+_)", value)
            if key.startswith("file") or match is None:
                continue
            if match[0].startswith("mount"):
                element.set(key, f"fixed_{value}")
            elif match[0] in one_armed:
                element.set(key, f"{match[0]}right_{value.removeprefix(match[0])}")


def _add_centres(root: ET.Element, own: ET.Element) -> None:
    """Add the sites from which robosuite 1.5 measures poses, where its own scene has them."""
    held = {site.get("name") for site in root.iter("site")}
    bodies = {body.get("name"): body for body in root.iter("body")}
    parents = {child: body for body in own.iter("body") for child in body}
    for site in own.iter("site"):
        name = site.get("name", "")
        if not re.fullmatch(r"robot\d+_((right|left)_)?center", name) or name in held:
            continue
        chain = [site]
        while chain[-1] in parents and parents[chain[-1]].get("name") not in bodies:
            chain.append(parents[chain[-1]])
        if chain[-1] not in parents:
            continue
        parent = bodies[parents[chain[-1]].get("name")]
        for element in reversed(chain):  # frames that 1.5 has between that body and the site
            pose = {key: value for key, value in element.attrib.items() if key not in ("mocap", "childclass", "class")}
            parent = ET.SubElement(parent, element.tag, pose)
