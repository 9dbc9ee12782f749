"""The command line of `pixelrl train`: it sets values, never structure."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixelrl.learning.recipe import Recipe
from pixelrl.datasets.buffer.sources import Source
from pixelrl.encoders.conv import SmallCNN
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.launch.commands import train as options
from pixelrl.launch.recipes import RECIPES, cog, quick_cog, quick_cog_dr3
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.sac import Entropy
from pixelrl.terms.td import TD
from pixelrl.learning.weights import AtMost

Parse = Callable[[str], tuple[Recipe, dict[str, Any]]]
each_recipe = pytest.mark.parametrize(("name", "make"), RECIPES.items(), ids=RECIPES)


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Return what `train` would be called with."""
    seen: list[tuple[Recipe, dict[str, Any]]] = []
    monkeypatch.setattr(
        options,
        "train",
        lambda recipe, data, *, out, **job: seen.append((recipe, {"out": out, **data.keywords, **job})),
    )

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
    (task,) = job["sources"]
    assert (task.name, task.files, task.share, task.reward_scale) == (
        "task",
        (Path("a.h5"),),
        None,
        make().reward_scale,
    )
    assert (job["out"], job["resume"]) == (Path("run"), False)


@each_recipe
def test_every_recipe_takes_its_own_values(parse: Parse, name: str, make: Callable[[], Recipe]) -> None:
    recipe, _ = parse(f"{name} --gamma 0.9 --steps 7 --seed 3 --precision bf16 --images front_image wrist_image")
    changes = {"gamma": 0.9, "steps": 7, "seed": 3, "precision": "bf16", "images": ("front_image", "wrist_image")}
    assert recipe == replace(make(), **changes)


def test_a_term_is_reached_by_its_name(parse: Parse) -> None:
    recipe, _ = parse(
        "quick_cog_dr3 --critic.dr3.weight 0.01 --critic.dr3.site encoding --critic.dr3.stop-gradient "
        "--critic.cql.uniform 5 --critic.td.target-range 0 2 --actor.entropy.weight.bound -1 --encoder.features 64"
    )
    base = quick_cog_dr3()
    td, cql, imitation, _ = base.critic
    assert recipe.critic == (
        replace(td, target_range=(0.0, 2.0)),  # type: ignore[call-arg]
        replace(cql, uniform=5),  # type: ignore[call-arg]
        imitation,
        DR3(weight=0.01, site="encoding", stop_gradient=True),
    )
    assert recipe.actor[1] == Entropy(weight=AtMost(bound=-1.0))
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
    assert job["sources"][1] == Source(name="prior", files=(Path("b.h5"), Path("c.h5")), reward_scale=0.0)
    assert job["resume"] is True
    assert (job["device"], job["actions"], job["log_every"], job["snapshot_every"]) == ("cpu", "min-max", 5, 9)


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


def test_shares_are_the_tasks_the_other_sources_and_what_is_left_to_the_prior_data(parse: Parse) -> None:
    _, job = parse("quick_cog --task-share 0.5 --prior b.h5 --source name=c,files=c.h5,share=0.3,reward_scale=0")
    assert [(source.name, source.share, source.reward_scale) for source in job["sources"]] == [
        ("task", 0.5, 10.0),
        ("prior", pytest.approx(0.2), 0.0),
        ("c", 0.3, 0.0),
    ]
    _, job = parse("quick_cog --task-fraction 0.05 --source name=c,files=c.h5 --source name=d,files=d.h5")
    assert [(source.name, source.share, source.reward_scale, source.fraction) for source in job["sources"]] == [
        ("task", None, 10.0, 0.05),
        ("c", None, 10.0, 1.0),
        ("d", None, 10.0, 1.0),
    ]
    assert [source.share for source in parse("cog --task-share 0.5")[1]["sources"]] == [None]


def test_a_source_is_parsed_from_one_word() -> None:
    text = "name=human,files=a/*.hdf5,b.hdf5,share=0.3,mask=train,fraction=0.25,pick=first,reward_scale=0,ends=dones"
    assert options.parse_source(text, {"reward_scale": 10.0}) == Source(
        name="human",
        files=(Path("a/*.hdf5"), Path("b.hdf5")),
        share=0.3,
        mask="train",
        fraction=0.25,
        pick="first",
        reward_scale=0.0,
        ends="dones",
    )
    assert options.parse_source("files=a.h5,name=b", {"reward_scale": 10.0}).reward_scale == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name=a,files=b,shares=1", r"'shares=1' is not KEY=VALUE with KEY one of name, files, share, mask, fraction"),
        ("name=a,b.hdf5", r"'b.hdf5' is not KEY=VALUE"),
        ("name=a,files=b,share=half", r"share is 'half'; expected a number"),
        ("name=a,files=b,mask=c,mask=d", r"mask is given 2 times"),
        ("files=b", r"has no name; expected name=...,files=..."),
        ("name=a", r"has no files"),
        ("name=a,files=b,ends=end", r"source 'a': ends is 'end'; expected never, goal, dones"),
        ("name=a,files=b,fraction=5", r"fraction is 5.0; expected above 0 and at most 1"),
        ("name=a,files=b,fraction=nan", r"fraction is nan"),
        ("name=a,files=b,share=0", r"share is 0.0; expected at least 0.001"),
        ("name=a,files=b,reward_scale=inf", r"reward_scale is inf; expected a number"),
        ("name=a,files=b,pick=last", r"pick is 'last'; expected first or random"),
    ],
)
def test_what_cannot_be_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        options.parse_source(text, {})
