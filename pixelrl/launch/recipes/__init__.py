"""The recipes: each is a function that returns a whole configuration; variants are made by `replace`."""

from collections.abc import Callable
from difflib import get_close_matches

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import CogCNN, DrqCNN, SmallCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.launch.recipes.cog import bc, calql, cog, cog_dr3, hlgauss_cog, mc, onestep, qtd_cog, sarsa
from pixelrl.launch.recipes.quick import (
    quick_awr_dr3,
    quick_bc,
    quick_calql,
    quick_cog,
    quick_cog_alone,
    quick_cog_dr3,
    quick_cog_penalties,
    quick_fql,
    quick_hlgauss_cog,
    quick_ifql,
    quick_iql,
    quick_mc,
    quick_onestep,
    quick_qc,
    quick_qtd_cog,
    quick_rebrac,
    quick_riql,
    quick_sarsa,
    quick_td,
)
from pixelrl.launch.recipes.visual import fql, ifql, iql, qc, rebrac, riql
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        *(quick_cog_dr3, quick_cog, quick_bc, quick_awr_dr3, quick_cog_penalties, quick_cog_alone),
        *(quick_calql, quick_hlgauss_cog, quick_qtd_cog, quick_td, quick_sarsa, quick_mc, quick_onestep),
        *(quick_iql, quick_riql, quick_rebrac, quick_fql, quick_ifql, quick_qc),
        *(cog_dr3, cog, bc, calql, hlgauss_cog, qtd_cog, sarsa, mc, onestep),
        *(iql, riql, rebrac, fql, ifql, qc),
    )
}
"""Every recipe by its name, as `pixelrl train` knows it."""

ENCODERS: dict[str, Callable[[], PixelEncoder]] = {
    "small": SmallCNN,
    "cog": CogCNN,
    "drq": DrqCNN,
    "impala": ImpalaCNN,
    "resnet18": ResNet18,
    "resnet18_robomimic": RobomimicResNet18,
}


def require_recipe(name: str, where: str = "") -> None:
    """Raise a `PixelrlError` unless there is a recipe of this name; it names those most alike, or all."""
    if name not in RECIPES:
        alike = get_close_matches(name, RECIPES)
        hint = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(RECIPES)}"
        raise PixelrlError(f"{where}there is no recipe {name!r}; {hint}")
