"""The command line of `pixelrl train`: it sets values, never structure."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pixelrl.datasets.buffer.sources import Source
from pixelrl.encoders.conv import SmallCNN
from pixelrl.launch.recipes import RECIPES, cog, quick_cog_dr3
from pixelrl.launch.train_options import TrainOptions, parse, train_command
from pixelrl.launch.training_data import parse_source
from pixelrl.learning.backup import Backup
from pixelrl.learning.critic_forms import HLGauss, Scalar
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.sac import Entropy
from pixelrl.terms.td import TD

each_recipe = pytest.mark.parametrize(("name", "make"), RECIPES.items(), ids=RECIPES)


def options(line: str) -> TrainOptions:
    """Return the training that a command line asks for."""
    name, *words = line.split()
    return parse(name, ["--task", "a.h5", "--out", "run", *words])


def test_part_may_be_told_with_an_equals_sign_and_may_not_be_left_out() -> None:
    told = options("cog --encoder=drq --encoder.features 64 --form=hl_gauss").recipe
    assert told == options("cog --encoder drq --encoder.features=64 --form hl_gauss").recipe
    assert isinstance(told.form, HLGauss) and not isinstance(told.encoder, type(cog().encoder))
    with pytest.raises(PixelrlError, match=r"--encoder: there is no encoder '', but: small, cog, drq"):
        options("cog --encoder")


@each_recipe
def test_recipe_is_itself_unless_told(name: str, make: Callable[[], Recipe]) -> None:
    train = options(name)
    assert train.recipe == make() and type(train.recipe) is Recipe
    (task,) = train.sources()
    assert (task.name, task.files, task.share, task.reward_scale) == (
        "task",
        (Path("a.h5"),),
        None,
        make().reward_scale,
    )
    assert (train.out, train.resume) == (Path("run"), False)


@each_recipe
def test_recipe_takes_values(name: str, make: Callable[[], Recipe]) -> None:
    recipe = options(f"{name} --gamma 0.9 --steps 7 --seed 3 --precision bf16 --images front_image wrist_image").recipe
    changes = {"gamma": 0.9, "steps": 7, "seed": 3, "precision": "bf16", "images": ("front_image", "wrist_image")}
    assert recipe == replace(make(), **changes)


def test_term_is_reached_by_its_name() -> None:
    recipe = options(
        "quick_cog_dr3 --critic.dr3.weight 0.01 --critic.dr3.site encoding --critic.dr3.stop-gradient "
        "--critic.cql.uniform 5 --critic.td.target-range 0 2 --actor.entropy.weight.bound -1 --encoder.features 64"
    ).recipe
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


def test_form_of_the_critic_is_chosen_by_name() -> None:
    assert options("quick_cog").recipe.form == Scalar()
    assert options("quick_cog --form hl_gauss --form.bins 51").recipe.form == HLGauss(bins=51)
    with pytest.raises(PixelrlError, match="--form: there is no form 'c51', but: scalar, hl_gauss"):
        options("quick_cog --form c51")


def test_parts_are_checked_against_each_other_when_all_options_are_in() -> None:
    assert options("quick_td --form quantile --backup.of-samples best").recipe.backup.of_samples == "best"
    with pytest.raises(PixelrlError, match=r"backup\.of_samples is mean; quantiles are fitted to one action's"):
        options("quick_td --form quantile")


def test_backup_is_a_group_of_options() -> None:
    recipe = options("quick_cog --backup.action recorded --backup.aggregate mean").recipe
    assert recipe.backup == Backup(action="recorded", aggregate="mean")


def test_options_may_be_none_or_empty() -> None:
    recipe = options("quick_cog --critic.td.target-range None --proprio").recipe
    assert recipe.critic[0] == TD(target_range=None) and recipe.proprio == ()
    assert options("cog --proprio None").recipe.proprio is None


def test_task_share_may_be_none() -> None:
    assert options("quick_cog --task-share None").recipe.task_share is None
    assert options("cog --task-share 0.25").recipe.task_share == 0.25


def test_training_takes_files_and_switches() -> None:
    train = options("cog --prior b.h5 c.h5 --resume --device cpu --actions min-max --log-every 5 --snapshot-every 9")
    assert train.sources()[1] == Source(name="prior", files=(Path("b.h5"), Path("c.h5")), reward_scale=0.0)
    assert train.resume is True
    assert (train.device, train.actions, train.log_every, train.snapshot_every) == ("cpu", "min-max", 5, 9)


@pytest.mark.parametrize(
    "line",
    ["cog --critic.dr3.weight 0.01", "quick_cog --gama 0.9", "bc --critic.td.weight 1", "cog --precision fp8"],
)
def test_option_that_recipe_lacks_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(line)
    assert line.split()[1].split(".")[0] in capsys.readouterr().err


def test_unknown_recipe_is_told_with_those_that_there_are() -> None:
    with pytest.raises(PixelrlError, match="no recipe 'dog'; did you mean cog"):
        train_command(["dog"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gamma 1.5", r"gamma is 1\.5; it must be between 0 and 1"),
        ("--seed -1", "seed is -1; it must be at least 0"),
        ("--reward-scale 1e300", r"reward_scale is 1e\+300; it must be a number of at most 1e\+09"),
        ("--reward-shift nan", r"reward_shift is nan; it must be a number of at most 1e\+09"),
    ],
)
def test_values_are_checked_by_the_recipe(words: str, message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        options(f"cog {words}")


def test_learned_weight_keeps_its_kind_and_number_takes_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(cog(), critic=(TD(weight=1), CQL(weight=AtMost(bound=5.0))))
    monkeypatch.setitem(RECIPES, "mine", lambda: recipe)
    assert options("mine").recipe == recipe
    critic = options("mine --critic.td.weight 0.5 --critic.cql.weight.rate 0.1").recipe.critic
    assert critic == (TD(weight=0.5), CQL(weight=AtMost(bound=5.0, rate=0.1)))


def test_prior_data_get_the_share_that_is_left() -> None:
    sources = options(
        "quick_cog --task-share 0.5 --prior b.h5 --source name=c,files=c.h5,share=0.3,reward_scale=0"
    ).sources()
    assert [(source.name, source.share, source.reward_scale) for source in sources] == [
        ("task", 0.5, 10.0),
        ("prior", pytest.approx(0.2), 0.0),
        ("c", 0.3, 0.0),
    ]
    sources = options("quick_cog --task-fraction 0.05 --source name=c,files=c.h5 --source name=d,files=d.h5").sources()
    assert [(source.name, source.share, source.reward_scale, source.fraction) for source in sources] == [
        ("task", None, 10.0, 0.05),
        ("c", None, 10.0, 1.0),
        ("d", None, 10.0, 1.0),
    ]
    with pytest.raises(PixelrlError, match=r"^--task-share 0.5: there are no other data; expected --prior FILES"):
        options("cog --task-share 0.5").sources()


def test_source_is_parsed_from_one_word() -> None:
    text = "name=human,files=a/*.hdf5,b.hdf5,share=0.3,mask=train,fraction=0.25,pick=first,reward_scale=0,ends=dones"
    assert parse_source(text, {"reward_scale": 10.0}) == Source(
        name="human",
        files=(Path("a/*.hdf5"), Path("b.hdf5")),
        share=0.3,
        mask="train",
        fraction=0.25,
        pick="first",
        reward_scale=0.0,
        ends="dones",
    )
    assert parse_source("files=a.h5,name=b", {"reward_scale": 10.0}).reward_scale == 10


def test_a_source_whose_rewards_do_not_count_has_no_shift_of_the_task() -> None:
    train = options("cog --reward-shift 1 --source name=a,files=a.h5,reward_scale=0 --source name=b,files=b.h5")
    assert [source.reward_shift for source in train.sources()] == [1, 0, 1]
    said = parse_source("name=a,files=a.h5,reward_scale=0,reward_shift=2", {"reward_shift": 1.0})
    assert said.reward_shift == 2


def test_what_a_source_says_counts_whatever_its_value() -> None:
    whole = options(
        "quick_cog --task-reward last:1 --task-dones last --held-out 0.3 --corrupt action:0.5 --prior b.h5 --source "
        "name=c,files=c.h5,held_out=0,corrupt= --source name=d,files=d.h5,reward=recorded,dones=recorded "
        "--source name=e,files=e.h5,reward_scale=0 --source name=f,files=f.h5,reward_scale=0,reward=last:2,held_out=0.1"
    ).sources()
    assert {each.name: (each.reward, each.dones, each.held_out, each.corrupt) for each in whole} == {
        "task": ("last:1", "last", 0.3, "action:0.5"),
        "prior": ("recorded", "recorded", 0.3, "action:0.5"),
        "c": ("last:1", "last", 0.0, ""),
        "d": ("recorded", "recorded", 0.3, "action:0.5"),
        "e": ("recorded", "recorded", 0.3, "action:0.5"),
        "f": ("last:2", "recorded", 0.1, "action:0.5"),
    }


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
def test_wrong_source_is_told(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_source(text, {})
