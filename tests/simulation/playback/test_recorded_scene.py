"""Recorded scenes are taken from anywhere, and lead nowhere but into robosuite's assets."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import robosuite

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.playback.recorded_scene import localise

ASSETS = Path(robosuite.__file__).parent / "models/assets"
PEDESTAL = "meshes/rethink_mount/pedestal.stl"


def scene(path: str) -> str:
    return f'<mujoco><asset><mesh name="m" file="{path}"/></asset></mujoco>'


def file_in(xml: str) -> str:
    mesh = ET.fromstring(xml).find("asset/mesh")
    assert mesh is not None
    return mesh.attrib["file"]


@pytest.mark.parametrize(
    "path",
    [
        "/home/somebody/robosuite/robosuite/models/assets/bases/" + PEDESTAL,
        "/opt/venv/lib/python3.8/site-packages/robosuite/models/assets/arenas/../bases/" + PEDESTAL,
        "C:\\code\\robosuite\\models\\assets\\bases\\" + PEDESTAL.replace("/", "\\"),
        "/home/somebody/robosuite/models/assets/mounts/" + PEDESTAL,  # where 1.4 had it
        str(ASSETS / "bases" / PEDESTAL),
    ],
)
def test_files_of_another_machine_are_found_here(path: str) -> None:
    assert file_in(localise(scene(path))) == str(ASSETS.resolve() / "bases" / PEDESTAL)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "robosuite.png",
        "../robosuite.stl",
        "/x/robosuite/models/assets/../../../../../../../../../../etc/passwd",
        "/x/robosuite/macros.py",
        "/x/robosuite/models/assets",
        "/x/robosuite/models/assets/none.stl",
        "/x/robosuite/",
        "",
    ],
)
def test_other_files_are_refused(path: str) -> None:
    with pytest.raises(SimulationError, match=r"names the file '.*', which is not among robosuite's assets here"):
        localise(scene(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<mujoco><include file="/etc/passwd"/></mujoco>', "has a <include>"),
        ('<mujoco><extension><plugin plugin="x"/></extension></mujoco>', "has a <extension>"),
        ('<mujoco><asset><model name="a" file="b.xml"/></asset></mujoco>', "has a <model>"),
        ('<mujoco><worldbody><composite count="999 999 999"/></worldbody></mujoco>', "has a <composite>"),
        ('<mujoco><asset><texture fileright="/etc/passwd"/></asset></mujoco>', "file '/etc/passwd'"),
        ('<!DOCTYPE m [<!ENTITY a "aaa">]><mujoco>&a;</mujoco>', "declares a document type"),
        ('<!-- - --><!DOCTYPE m SYSTEM "file:///etc/passwd"><mujoco/>', "declares a document type"),
        ("<mujoco>", "is not XML"),
        ("", "is not XML"),
        ("<html/>", "begins with <html>"),
        ("x" * (32 * 2**20 + 1), "characters; expected at most"),
    ],
)
def test_hostile_scenes_are_refused(text: str, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        localise(text)


def test_folders_are_forgotten_and_all_else_stays() -> None:
    text = '<mujoco><compiler angle="radian" meshdir="/etc" texturedir="/etc" assetdir="/etc"/><!-- fine --></mujoco>'
    assert localise(text) == '<mujoco><compiler angle="radian" /></mujoco>'


def test_scenes_of_1_4_get_the_names_of_1_5() -> None:
    old = """<mujoco><worldbody>
        <body name="robot0_base"><body name="mount0_base"/><body name="gripper0_eef">
          <geom name="gripper0_right_gripper" mesh="gripper0_hand"/></body></body>
        <body name="robot1_base"><site name="gripper1_right_eef"/><site name="gripper1_left_eef"/></body>
        </worldbody></mujoco>"""
    own = """<mujoco><worldbody>
        <body name="robot0_base"><body name="robot0_fixed" pos="1 2 3"><site name="robot0_right_center" pos="0 0 0"/>
          </body></body><body name="stranger"><site name="robot9_center"/></body></worldbody></mujoco>"""
    root = ET.fromstring(localise(old, own))
    names = [element.get("name") for element in root.iter() if element.get("name")]
    assert names == [
        "robot0_base",
        "fixed_mount0_base",
        "gripper0_right_eef",
        "gripper0_right_right_gripper",
        "robot0_fixed",
        "robot0_right_center",
        "robot1_base",
        "gripper1_right_eef",  # this robot has two arms: their names were there before
        "gripper1_left_eef",
    ]
    assert root.find(".//geom[@mesh='gripper0_right_hand']") is not None
    assert root.find(".//body[@pos='1 2 3']/site") is not None


def test_scenes_of_1_4_find_meshes_that_moved_and_thin_ones_stay_thin() -> None:
    here = ASSETS / "bases" / PEDESTAL
    old = scene("/x/robosuite/models/assets/gone.stl")
    own = scene(str(here)).replace("<mesh", '<mesh inertia="shell"')
    assert file_in(localise(old, own)) == str(here.resolve())
    assert 'inertia="shell"' in localise(old, own)
    with pytest.raises(SimulationError, match=r"gone\.stl"):
        localise(old, own.replace('"m"', '"other"'))
