"""The two ways to draw: what `fast` makes of a scene, and that the physics does not notice."""

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.launch.policy_options import environment_for, warn_about_drawing
from pixelrl.runtime.env_args import drawing_of
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.rendering import simplified
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env

SCENE = """
<mujoco>
  <visual/>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" width="8" height="8"/>
    <texture name="wood" file="{wood}"/>
    <material name="wooden" texture="wood" rgba="1 0.5 1 1"/>
    <material name="blue" rgba="0 0 1 1"/>
    <mesh name="shell" file="shell.stl"/>
    <mesh name="hull" file="hull.stl"/>
    <mesh name="ghost" file="ghost.stl"/>
  </asset>
  <worldbody>
    <geom name="floor" group="1" type="plane" size="1 1 1" material="wooden"/>
    <body name="arm">
      <geom name="a" mesh="hull" type="mesh" rgba="0 1 0 1"/>
      <geom name="a_vis" mesh="shell" type="mesh" group="1" contype="0" conaffinity="0" material="wooden"/>
      <geom name="b" group="0" size="1"/>
      <geom name="c" group="1" contype="0" conaffinity="0" material="blue" type="box" fromto="0 0 0 0 0 1" size="1"/>
      <body name="finger"><geom name="pad" size="1" rgba="0 1 0 1"/></body>
    </body>
    <body name="mark"><geom name="m" mesh="ghost" group="1" contype="0" conaffinity="0" rgba="1 1 0 0.3"/></body>
    <body name="tray"><geom name="tray_floor" size="1"/><site name="s" material="blue"/></body>
  </worldbody>
</mujoco>"""


def test_solids_are_drawn_in_the_colours_of_what_is_seen(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 255, 0], [255, 255, 102]]], np.uint8)).save(tmp_path / "wood.png")
    root = ET.fromstring(simplified(SCENE.format(wood=tmp_path / "wood.png"), {"tray": (0.1, 0.2, 0.3)}))
    geoms = {str(geom.get("name")): geom for geom in root.iter("geom")}
    colours = {name: [float(value) for value in str(geom.get("rgba")).split()] for name, geom in geoms.items()}
    assert colours["a"] == pytest.approx([1, 0.5, 0.2, 1]), "its twin's: material times the texture's mean"
    assert colours["b"] == pytest.approx([0.5, 0.25, 0.6, 1]), "no twin: the mean of the body's"
    assert colours["pad"] == pytest.approx([0.5, 0.25, 0.6, 1]), "a body of which nothing is seen: its parent's"
    assert colours["tray_floor"] == pytest.approx([0.1, 0.2, 0.3, 1]), "the one given goes before"
    assert colours["m"] == pytest.approx([1, 1, 0, 0.3]), "a body that is there to be seen only stays as it is"
    assert [name for name in colours if colours[name][3] == 0] == ["floor", "a_vis", "c"]
    assert (geoms["a_vis"].get("type"), geoms["c"].get("type")) == ("sphere", "sphere")
    assert [asset.get("name") for asset in root.iter("asset") for asset in asset] == ["sky", "hull", "ghost"]
    assert not any("material" in element.attrib for element in root.iter())
    assert ET.tostring(next(root.iter("quality"))) == b'<quality offsamples="0" shadowsize="0" />'
    again = simplified(ET.tostring(root, encoding="unicode"), {"tray": (0.1, 0.2, 0.3)})
    assert again.count("<quality") == 1, "a recorded scene has been through this"


def play(task: str, drawing: str, steps: int, **options: Any) -> tuple[NDArray[np.float64], NDArray[np.uint8], Any]:
    """Return the states of some random steps, the last picture, and who is drawn how."""
    env = make_robosuite_env(default_env_args(task, drawing=drawing, **options))
    try:
        env.reset(seed=3)
        states = []
        for action in np.random.default_rng(3).uniform(-1, 1, (steps, *env.action_space.shape)):
            observation, *_ = env.step(action)
            states.append(env.state())
        return np.stack(states), observation["agentview_image"], env.robosuite.sim.model._model.vis.quality
    finally:
        env.close()


@pytest.mark.parametrize(("task", "steps"), [("drawer-blocked-object", 5), ("Lift", 3)])
def test_physics_does_not_notice(task: str, steps: int) -> None:
    options = {"camera_names": ["agentview"], "size": 64}
    states, stock, quality = play(task, "stock", steps, **options)
    same, fast, low = play(task, "fast", steps, **options)
    np.testing.assert_array_equal(states, same)
    assert quality.shadowsize > 0 and (low.shadowsize, low.offsamples) == (0, 0)
    assert np.abs(stock.astype(int) - fast).mean() > 5
    red = [(each[..., 0] > 90) & (each[..., 0] > each[..., 1:].max(-1) + 60) for each in (stock, fast)]
    blue = [(each[..., 2] > 90) & (each[..., 2] > each[..., :2].max(-1) + 60) for each in (stock, fast)]
    thing = blue if task.startswith("drawer") else red
    assert thing[0].sum() > 10, "what the task is about can be seen"
    assert (thing[0] & thing[1]).sum() > 0.7 * (thing[0] | thing[1]).sum(), "in the same place"


def test_older_files_mean_what_they_meant() -> None:
    assert drawing_of({"env_name": "PickPlaceTray"}) == "fast"
    assert drawing_of({"env_name": "Lift"}) == drawing_of({}) == "stock"
    assert drawing_of({"env_name": "Lift", "drawing": "fast"}) == "fast"
    assert [default_env_args(task)["drawing"] for task in ("drawer-grasp", "Stack")] == ["fast", "stock"]
    with pytest.raises(SimulationError, match="Lift: env_args name the drawing 'nice'; there are: stock, fast"):
        make_robosuite_env(default_env_args("Lift", drawing="nice"))


def test_policy_that_is_shown_other_pictures_than_its_datas_is_warned_of() -> None:
    data = default_env_args("pick-place-tray")
    data.pop("drawing")
    loaded = LoadedPolicy(policy=lambda sensors: None, env_args=data, pictures={}, action=(), origin={})  # type: ignore[arg-type,return-value]

    def told(drawing: str | None) -> str:
        console = Console(file=io.StringIO(), width=200)
        warn_about_drawing(loaded, environment_for(loaded, None, drawing=drawing), console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert told(None) == told("fast") == ""
    assert "warning: the policy's data are drawn fast, and what it is shown now stock" in told("stock")
