"""The recipes: each is a function that returns a whole configuration; variants are made by `replace`."""

from collections.abc import Callable
from difflib import get_close_matches

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import CogCNN, DrqCNN, SmallCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.launch.recipes.cog import bc as bc
from pixelrl.launch.recipes.cog import calql as calql
from pixelrl.launch.recipes.cog import cog as cog
from pixelrl.launch.recipes.cog import cog_dr3 as cog_dr3
from pixelrl.launch.recipes.cog import hlgauss_cog as hlgauss_cog
from pixelrl.launch.recipes.cog import mc as mc
from pixelrl.launch.recipes.cog import onestep as onestep
from pixelrl.launch.recipes.cog import qtd_cog as qtd_cog
from pixelrl.launch.recipes.cog import sarsa as sarsa
from pixelrl.launch.recipes.quick import quick_awr_dr3 as quick_awr_dr3
from pixelrl.launch.recipes.quick import quick_bc as quick_bc
from pixelrl.launch.recipes.quick import quick_calql as quick_calql
from pixelrl.launch.recipes.quick import quick_cog as quick_cog
from pixelrl.launch.recipes.quick import quick_cog_alone as quick_cog_alone
from pixelrl.launch.recipes.quick import quick_cog_dr3 as quick_cog_dr3
from pixelrl.launch.recipes.quick import quick_cog_penalties as quick_cog_penalties
from pixelrl.launch.recipes.quick import quick_fql as quick_fql
from pixelrl.launch.recipes.quick import quick_hlgauss_cog as quick_hlgauss_cog
from pixelrl.launch.recipes.quick import quick_ifql as quick_ifql
from pixelrl.launch.recipes.quick import quick_iql as quick_iql
from pixelrl.launch.recipes.quick import quick_mc as quick_mc
from pixelrl.launch.recipes.quick import quick_onestep as quick_onestep
from pixelrl.launch.recipes.quick import quick_qc as quick_qc
from pixelrl.launch.recipes.quick import quick_qtd_cog as quick_qtd_cog
from pixelrl.launch.recipes.quick import quick_rebrac as quick_rebrac
from pixelrl.launch.recipes.quick import quick_riql as quick_riql
from pixelrl.launch.recipes.quick import quick_sarsa as quick_sarsa
from pixelrl.launch.recipes.quick import quick_td as quick_td
from pixelrl.launch.recipes.visual import fql as fql
from pixelrl.launch.recipes.visual import ifql as ifql
from pixelrl.launch.recipes.visual import iql as iql
from pixelrl.launch.recipes.visual import qc as qc
from pixelrl.launch.recipes.visual import rebrac as rebrac
from pixelrl.launch.recipes.visual import riql as riql
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
    """Raise unless there is a recipe of this name.

    Raises:
        PixelrlError: there is none; it names those most alike, or all.
    """
    if name not in RECIPES:
        alike = get_close_matches(name, RECIPES)
        hint = f"did you mean {' or '.join(alike)}?" if alike else f"there are {', '.join(RECIPES)}"
        raise PixelrlError(f"{where}there is no recipe {name!r}; {hint}")
