"""Two ways to draw a robosuite task: `stock`, as robosuite does, and `fast`, as simply as will do.

In `fast` the collision geometry is drawn in flat colours, under plain light: no textures, shadows, reflections or
smoothed edges, no walls and no floor. The Panda's visual meshes alone have 168 000 faces. Shapes and places are those
of the physics, which knows no difference; a policy sees one, so its data and its trials should be drawn alike.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DRAWINGS = ("stock", "fast")

Colour = tuple[float, float, float]
"""Red, green and blue, 0 to 1."""

PLAIN: Colour = (0.3, 0.3, 0.3)
"""Of what is nowhere given a colour: the robot's mount."""


def build(task: Any, options: Mapping[str, Any], drawing: str) -> Any:
    """Return robosuite's environment of a task, drawn in one of the two ways.

    Args:
        task: its class; its attribute `colours`, if it has one, tells what colours to take in `fast`.
        options: of its constructor.
        drawing: one of `DRAWINGS`.
    """
    env = task.__new__(task)
    if drawing == "fast":
        usual, colours = env.edit_model_xml, getattr(task, "colours", {})
        # robosuite lets this method see every scene before it is compiled, from its constructor on.
        env.edit_model_xml = lambda xml: simplified(usual(xml), colours)
        options = {**options, "render_collision_mesh": True, "render_visual_mesh": True}
    env.__init__(**options)
    return env


def simplified(xml: str, colours: Mapping[str, Colour]) -> str:
    """Return a scene of robosuite's (MJCF) that is cheap to draw and to load, and moves as it did.

    Each collision shape has the colour of its visual twin, else the mean of its body's, else its parent's. What is only
    there to be seen stays where a body has nothing else, say a mark on a table, and goes otherwise.

    Args:
        xml: the scene.
        colours: beginning of a geom's name -> its colour, which comes before all others.
    """
    root = ET.fromstring(xml)
    paint = _Paint(root)
    for body, inherited in _bodies(child(root, "worldbody"), paint, PLAIN):
        geoms = body.findall("geom")
        twins = {geom.get("name"): geom for geom in geoms if _is_visual(geom)}
        solid = body.tag == "worldbody" or any(_is_solid(geom) for geom in geoms)
        for geom in geoms:
            name = geom.get("name", "")
            if solid and geom.get("group") == "1":
                _hide(geom)
            elif _is_solid(geom) or _is_visual(geom):
                twin = geom if _is_visual(geom) else twins.get(f"{name}_vis")
                own = inherited if twin is None else paint.of(twin)
                colour = next((colour for start, colour in colours.items() if name.startswith(start)), own)
                alpha = _numbers(geom.get("rgba"))[3] if _is_visual(geom) else 1.0
                geom.set("rgba", " ".join(map(str, (*colour, alpha))))
    _drop_unused_assets(root)
    visual = child(root, "visual")
    quality = visual.find("quality")  # a recorded scene has been here before
    quality = ET.SubElement(visual, "quality") if quality is None else quality
    quality.attrib.update(offsamples="0", shadowsize="0")
    return ET.tostring(root, encoding="unicode")


def child(root: ET.Element, tag: str) -> ET.Element:
    """Return a child that exists."""
    found = root.find(tag)
    assert found is not None, f"robosuite's model has no <{tag}>"
    return found


def _is_solid(geom: ET.Element) -> bool:
    """Return whether a geom is a shape of the physics that robosuite does not draw."""
    return geom.get("group", "0") == "0"


def _is_visual(geom: ET.Element) -> bool:
    """Return whether a geom is there to be seen only."""
    return geom.get("group") == "1" and geom.get("contype") == "0" and geom.get("conaffinity") == "0"


def _hide(geom: ET.Element) -> None:
    """Let a geom be seen no more. It must not go: robosuite looks its visual geoms up by name."""
    if _is_visual(geom):
        for key in ("mesh", "fromto"):
            geom.attrib.pop(key, None)
        geom.attrib.update(type="sphere", size="0.001")
    geom.set("rgba", "0 0 0 0")


def _bodies(body: ET.Element, paint: "_Paint", above: Colour) -> Iterator[tuple[ET.Element, Colour]]:
    """Yield the bodies of a tree, each with the mean colour of what is to be seen of it, else its parent's."""
    seen = [paint.of(geom) for geom in body.findall("geom") if _is_visual(geom)]
    own = _rgb(np.mean(seen, axis=0)) if seen and body.tag == "body" else above
    yield body, own
    for part in body.findall("body"):
        yield from _bodies(part, paint, own)


class _Paint:
    """What colour a geom is to the eye: its own or its material's, times the mean of its texture."""

    def __init__(self, root: ET.Element) -> None:
        assets = list(child(root, "asset"))
        self._materials = {each.get("name"): each for each in assets if each.tag == "material"}
        self._textures = {each.get("name"): each for each in assets if each.tag == "texture"}

    def of(self, geom: ET.Element) -> Colour:
        material = self._materials.get(geom.get("material"))
        if material is None:
            return _rgb(_numbers(geom.get("rgba"))[:3])
        texture = self._textures.get(material.get("texture"))
        return _rgb(_numbers(geom.get("rgba") or material.get("rgba"))[:3] * _mean(texture))


def _numbers(text: str | None) -> NDArray[np.float64]:
    """Return red, green, blue and alpha, `[4]`; white for no text."""
    return np.array([*(text or "1 1 1").split(), "1"][:4], np.float64)


def _rgb(values: NDArray[np.float64]) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue


def _mean(texture: ET.Element | None) -> NDArray[np.float64]:
    """Return the mean colour of a texture, `[3]`; white for none."""
    if texture is None:
        return np.ones(3)
    file = texture.get("file")
    return _numbers(texture.get("rgb1"))[:3] if file is None else np.array(_mean_of_file(file))


@cache  # hard resets would decode it again and again
def _mean_of_file(file: str) -> Colour:
    with Image.open(file) as picture:
        return _rgb(np.asarray(picture.convert("RGB"), np.float64).mean(axis=(0, 1)) / 255)


def _drop_unused_assets(root: ET.Element) -> None:
    """Remove all materials and textures but the sky, and the meshes that no geom names."""
    for element in root.iter():
        element.attrib.pop("material", None)
    used = {geom.get("mesh") for geom in root.iter("geom")}
    assets = child(root, "asset")
    for asset in list(assets):
        sky = asset.get("type") == "skybox"
        if not (sky or (asset.tag == "mesh" and asset.get("name") in used)):
            assets.remove(asset)
