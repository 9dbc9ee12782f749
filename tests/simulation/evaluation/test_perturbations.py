"""Perturbations: nothing at level 0, what they say at others, and nothing left behind."""

import hashlib
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env
from pixelrl.simulation.evaluation.perturbations import (
    ActionDelay,
    Blur,
    ControlNoise,
    DroppedFrames,
    EditedSceneEnv,
    Perturbation,
    PictureNoise,
    make_perturbed,
    perturbed,
)
from pixelrl.simulation.evaluation.scene_perturbations import (
    KINDS,
    Brightness,
    CameraMoved,
    CameraTurned,
    Clutter,
    Distractor,
    LightTurned,
    ObjectColour,
    SceneryColour,
    Scenic,
    Texture,
)
from tests.simulation.evaluation.test_rollout import Walk

TRAY = default_env_args("pick-place-tray")
SCENIC = [kind for kind in KINDS if issubclass(kind, Scenic) and kind is not Distractor]


@pytest.fixture(scope="module")
def plain() -> Iterator[RobosuiteEnv]:
    env = make_robosuite_env(TRAY)
    yield env
    env.close()


def play(env: Any, seed: int, steps: int = 6) -> tuple[str, str, NDArray[np.uint8]]:
    """Return digests of the states and of all that is sensed after a seed, and the first picture."""
    random = np.random.default_rng(seed)
    sensors, _ = env.reset(seed=seed)
    first = sensors["agentview_image"].copy()
    states, seen = hashlib.sha256(), hashlib.sha256()
    for _ in range(steps):
        states.update(env.unwrapped.state().tobytes())
        for key in sorted(sensors):
            seen.update(sensors[key].tobytes())
        sensors, *_ = env.step(random.uniform(-1, 1, 4).astype(np.float32))
    return states.hexdigest(), seen.hexdigest(), first


def test_perturbations_of_level_0_together_change_nothing_bit_for_bit(plain: RobosuiteEnv) -> None:
    nothing = [kind(level=0) for kind in KINDS]
    assert all(perturbation.options(TRAY) == TRAY for perturbation in nothing)
    env = perturbed(plain, nothing)
    for seed in (1, 2):
        assert play(env, seed)[:2] == play(plain, seed)[:2]


@pytest.mark.parametrize("kind", SCENIC, ids=lambda kind: kind.name)
def test_scene_looks_otherwise_and_nothing_else_changes_and_it_is_undone(
    plain: RobosuiteEnv, kind: type[Perturbation]
) -> None:
    states, seen, first = play(plain, 1, steps=2)
    env = EditedSceneEnv(plain, [kind(level=kind.levels[-1])])
    changed_states, changed, picture = play(env, 1, steps=2)
    assert changed_states == states and changed != seen
    assert np.abs(picture.astype(int) - first).max() > 20
    other = play(env, 2, steps=2)
    assert play(env, 1, steps=2)[:2] == (changed_states, changed), "an episode depends on the one before"
    assert other[1] != changed
    env._undo()
    assert play(plain, 1, steps=2)[:2] == (states, seen), "something was left behind"


def test_cameras_and_lights_move_by_their_level_the_same_way_at_all_levels(plain: RobosuiteEnv) -> None:
    model = plain.robosuite.sim.model._model
    camera = plain.robosuite.sim.model.camera_name2id("agentview")

    def edited(*perturbations: Perturbation) -> dict[str, NDArray[np.float64]]:
        env = EditedSceneEnv(plain, perturbations)
        env.reset(seed=5)
        fields = ("cam_pos", "cam_quat", "light_dir", "light_diffuse", "geom_rgba")
        found = {name: np.array(getattr(model, name), np.float64) for name in fields}
        found["headlight"] = np.array(model.vis.headlight.diffuse, np.float64)
        env._undo()
        return found

    usual = edited()
    near, far = (
        edited(CameraMoved(level=level))["cam_pos"][camera] - usual["cam_pos"][camera] for level in (0.01, 0.04)
    )
    assert np.linalg.norm(far) == pytest.approx(0.04)
    np.testing.assert_allclose(far, 4 * near, atol=1e-12)
    turned = edited(CameraTurned(level=8))["cam_quat"][camera]
    assert 2 * np.degrees(np.arccos(abs(turned @ usual["cam_quat"][camera]))) == pytest.approx(8)
    light = edited(LightTurned(level=40))["light_dir"][0]
    assert np.degrees(np.arccos(light @ usual["light_dir"][0])) == pytest.approx(40)
    dim = edited(Brightness(level=-0.3))
    np.testing.assert_allclose(dim["light_diffuse"], 0.7 * usual["light_diffuse"], rtol=1e-6)
    np.testing.assert_allclose(dim["headlight"], 0.7 * usual["headlight"], rtol=1e-6)
    changed = {
        kind.name: {
            plain.robosuite.sim.model.geom_id2name(geom)
            for geom in np.flatnonzero((edited(kind(level=0.5))["geom_rgba"] != usual["geom_rgba"]).any(axis=1))
        }
        for kind in (ObjectColour, SceneryColour)
    }
    assert changed["object-colour"] == {"cube_g0", "cube_g0_vis"}
    assert {"table_collision", "tray_floor"} <= changed["scenery-colour"]
    assert not any(name.startswith(("robot", "gripper", "cube")) for name in changed["scenery-colour"] if name)


def test_clutter_of_a_higher_level_adds_things_and_keeps_off_the_cube(plain: RobosuiteEnv) -> None:
    def laid_out(level: float) -> list[Any]:
        env = EditedSceneEnv(plain, [Clutter(level=level)])
        env.reset(seed=4)
        assert env._scene is not None
        shapes = env._scene.shapes
        env._undo()
        return shapes

    few, many = laid_out(3), laid_out(6)
    assert len(few) == 3 and len(many) == 6
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one.pos, other.pos)
    assert all(np.linalg.norm(shape.pos[:2] - plain.robosuite.cube_pos[:2]) >= 0.06 for shape in many)
    assert all(0.8 < shape.pos[2] < 0.83 for shape in many)


class Echo(Walk):
    """A walk that also tells what it was made to do."""

    def reset(self, **options: Any) -> Any:
        self.done: list[float] = []
        return super().reset(**options)

    def step(self, action: NDArray[np.float32]) -> Any:
        self.done.append(float(action[0]))
        return super().step(action)


def acted(perturbation: Perturbation, actions: list[float]) -> list[float]:
    """Return what reaches the environment; the caller's buffer is used again, as gymnasium's is."""
    echo = Echo()
    env: gymnasium.Env[Any, Any] = perturbed(echo, [perturbation])
    env.reset(seed=3)
    buffer = np.zeros(2, np.float32)
    for action in actions:
        buffer[:] = action
        env.step(buffer)
    return echo.done


def test_action_delay_of_two_steps() -> None:
    assert acted(ActionDelay(level=2), [0.5, -0.5, 0.25, 1.0]) == [0, 0, 0.5, -0.5]


def test_control_noise_has_its_size_stays_in_range_and_follows_the_seed() -> None:
    actions = [0.0] * 12
    small, large = acted(ControlNoise(level=0.01), actions), acted(ControlNoise(level=0.02), actions)
    assert np.std(small) == pytest.approx(0.01, rel=0.6)
    np.testing.assert_allclose(large, 2 * np.array(small), rtol=1e-4)
    assert acted(ControlNoise(level=0.01), actions) == small
    assert set(acted(ControlNoise(level=1000), actions)) == {-1.0, 1.0}


def shades(perturbation: Perturbation, steps: int) -> tuple[list[int], list[float]]:
    """Return the first number of each picture of a walk, and the positions beside them."""
    env: gymnasium.Env[Any, Any] = perturbed(Walk(), [perturbation])
    seen = [env.reset(seed=3)[0]]
    seen += [env.step(np.full(2, 0.5, np.float32))[0] for _ in range(steps)]
    return [int(s["camera_image"][0, 0, 0]) for s in seen], [float(s["position"][0]) for s in seen]


def test_dropped_frames_repeat_the_last_picture_beside_fresh_readings() -> None:
    usual, positions = shades(DroppedFrames(level=0), 8)
    assert len(set(usual)) == 9
    none, fresh = shades(DroppedFrames(level=1), 8)
    assert set(none) == {usual[0]} and fresh == positions
    some, _ = shades(DroppedFrames(level=0.5), 8)
    assert 1 < len(set(some)) < 9
    for step in range(1, 9):
        assert some[step] in (usual[step], some[step - 1])


def test_dropped_frames_stand_where_all_pictures_lie_in_one_buffer() -> None:
    sensed, buffer = DroppedFrames(level=1).sensing(np.random.default_rng(0)), np.zeros((2, 2, 3), np.uint8)
    sensed({"camera_image": buffer})
    buffer += 9
    assert sensed({"camera_image": buffer})["camera_image"].max() == 0


def test_noise_and_blur_do_what_they_say() -> None:
    random = np.random.default_rng(0)
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = PictureNoise(level=10).noisy(grey, random).astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.05) and noisy.mean() == pytest.approx(128, abs=0.5)
    np.testing.assert_array_equal(Blur(level=2).blurred(grey), grey)
    grey[:, 32:] = 28
    soft = Blur(level=2).blurred(grey)[0, :, 0].astype(int)
    assert soft[0] == 128 and soft[-1] == 28 and soft[31] + soft[32] == 156 and 78 < soft[31] < 110


def test_environments_that_lack_something_are_told_what(plain: RobosuiteEnv) -> None:
    assert [kind.name for kind in KINDS if kind(level=0).lack(plain)] == []
    lacking = {kind.name for kind in KINDS if kind(level=0).lack(Walk())}
    assert lacking == {kind.name for kind in KINDS if issubclass(kind, Scenic)}


def test_environment_that_is_compiled_anew_at_each_reset_is_changed_anew() -> None:
    """As robosuite's own tasks are."""
    whole = default_env_args("pick-place-tray", hard_reset=True)
    env = make_perturbed(whole, [CameraMoved(level=0.05), Texture(level=0.4)])
    pictures = [env.reset(seed=seed)[0]["agentview_image"] for seed in (1, 2, 1)]
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert (pictures[0] != pictures[1]).any()
    env.close()


def test_distractor_lies_beside_a_cube_that_starts_as_without_it(plain: RobosuiteEnv) -> None:
    env = make_perturbed(TRAY, [Distractor(level=1)])
    for seed in range(3):
        plain.reset(seed=seed)
        env.reset(seed=seed)
        crowded: Any = env.unwrapped
        assert len(crowded.robosuite.cubes) == 2
        usual = plain.robosuite.sim.data.get_joint_qpos(plain.robosuite.cube.joints[0])
        np.testing.assert_array_equal(
            crowded.robosuite.sim.data.get_joint_qpos(crowded.robosuite.cube.joints[0]), usual
        )
    env.close()
