"""The command line of `pixelrl train`: it sets values, never structure."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixelrl.config import Recipe
from pixelrl.encoders.conv import SmallCNN
from pixelrl.errors import PixelrlError
from pixelrl.launch import options
from pixelrl.launch.recipes import RECIPES, cog, quick_cog, quick_cog_dr3
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.sac import KeepEntropy
from pixelrl.terms.td import TD
from pixelrl.weights import AtMost

Parse = Callable[[str], tuple[Recipe, dict[str, Any]]]
each_recipe = pytest.mark.parametrize(("name", "make"), RECIPES.items(), ids=RECIPES)


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Return what `train` would be called with."""
    seen: list[tuple[Recipe, dict[str, Any]]] = []
    monkeypatch.setattr(options, "train", lambda recipe, **job: seen.append((recipe, job)))

    def run(line: str) -> tuple[Recipe, dict[str, Any]]:
        name, *rest = line.split()
        options.train_command([name, "--task", "a.h5", "--out", "run", *rest])
        return seen.pop()

    return run


@each_recipe
def test_the_mirror_of_a_recipe_stands_for_it(name: str, make: Callable[[], Recipe]) -> None:
    assert options.restore(options.mirror(make())()) == make()


@each_recipe
def test_a_recipe_is_itself_unless_told(parse: Parse, name: str, make: Callable[[], Recipe]) -> None:
    recipe, job = parse(name)
    assert recipe == make() and type(recipe) is Recipe
    assert (job["task"], job["prior"], job["out"], job["resume"]) == ((Path("a.h5"),), (), Path("run"), False)


@each_recipe
def test_every_recipe_takes_its_own_values(parse: Parse, name: str, make: Callable[[], Recipe]) -> None:
    recipe, _ = parse(f"{name} --gamma 0.9 --steps 7 --seed 3 --precision bf16 --images front_image wrist_image")
    changes = {"gamma": 0.9, "steps": 7, "seed": 3, "precision": "bf16", "images": ("front_image", "wrist_image")}
    assert recipe == replace(make(), **changes)


def test_a_term_is_reached_by_its_name(parse: Parse) -> None:
    recipe, _ = parse(
        "quick_cog_dr3 --critic.dr3.weight 0.01 --critic.dr3.site encoding --critic.dr3.stop-gradient "
        "--critic.cql.uniform 5 --critic.td.target-range 0 2 --actor.keepentropy.weight.bound -1 --encoder.features 64"
    )
    base = quick_cog_dr3()
    td, cql, imitation, _ = base.critic
    assert recipe.critic == (
        replace(td, target_range=(0.0, 2.0)),  # type: ignore[call-arg]
        replace(cql, uniform=5),  # type: ignore[call-arg]
        imitation,
        DR3(weight=0.01, site="encoding", stop_gradient=True),
    )
    assert recipe.actor[1] == KeepEntropy(weight=AtMost(bound=-1.0))
    assert recipe.encoder == SmallCNN(features=64)
    assert recipe.warmup == base.warmup


def test_none_and_nothing_can_be_said(parse: Parse) -> None:
    recipe, _ = parse("quick_cog --critic.td.target-range None --proprio")
    assert recipe.critic[0] == TD(target_range=None) and recipe.proprio == ()
    assert parse("cog --proprio None")[0].proprio is None


def test_a_share_can_be_taken_away(parse: Parse) -> None:
    assert parse("quick_cog --task-share None")[0].task_share is None
    assert parse("cog --task-share 0.25")[0].task_share == 0.25


def test_a_job_takes_files_and_switches(parse: Parse) -> None:
    _, job = parse("cog --prior b.h5 c.h5 --resume --device cpu --actions min-max --log-every 5 --snapshot-every 9")
    assert job["prior"] == (Path("b.h5"), Path("c.h5")) and job["resume"] is True
    assert (job["device"], job["data"].actions, job["log_every"], job["snapshot_every"]) == ("cpu", "min-max", 5, 9)


@pytest.mark.parametrize(
    "line",
    ["cog --critic.dr3.weight 0.01", "quick_cog --gama 0.9", "bc --critic.td.weight 1", "cog --precision fp8"],
)
def test_what_a_recipe_lacks_is_refused(parse: Parse, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(line)
    said = capsys.readouterr().err
    assert line.split()[1].split(".")[0] in said


def test_an_unknown_recipe_is_named_with_those_that_there_are(parse: Parse) -> None:
    with pytest.raises(PixelrlError, match="no recipe 'dog', but: quick_cog_dr3, quick_cog,"):
        parse("dog")


def test_values_are_checked_by_the_recipe(parse: Parse) -> None:
    with pytest.raises(PixelrlError, match=r"gamma is 1\.5"):
        parse("cog --gamma 1.5")


def test_learned_weights_and_whole_numbers_keep_their_kind() -> None:
    recipe = replace(cog(), critic=(TD(), CQL(weight=AtMost(bound=5.0))))
    assert options.restore(options.mirror(recipe)()) == recipe
    assert quick_cog() == options.restore(options.mirror(quick_cog())())
