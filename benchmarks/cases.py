"""What `pixelrl bench learner` measures: recipes, nets, shapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.robomimic_cql import robomimics_recipe
from pixelrl.launch.recipes import ENCODERS, RECIPES
from pixelrl.learning.batch import Batch, Observation, Spec
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.seeding import derive


@dataclass(frozen=True, kw_only=True)
class Case:
    """An update to measure: a recipe, and the shape of its pictures.

    Attributes:
        recipe: warm-up is left out, so that the main terms are measured.
        size: height and width of the pictures [px].
        frames: how many are stacked, of 3 channels each.
        actions: length of an action.
        robomimic: whether robomimic's CQL is the same work.
    """

    recipe: Recipe
    size: int
    frames: int = 1
    actions: int = 7
    robomimic: bool = False

    def spec(self) -> Spec:
        """Return the shapes."""
        dims = tuple(ActionDim(name=f"a{index}") for index in range(self.actions))
        images = {"camera_image": (3 * self.frames, self.size, self.size)}
        sources = ("task", "prior")
        return Spec(images=images, proprio={}, action=dims, sources=sources, proprio_mean=(), proprio_std=())

    def batches(self, count: int, device: torch.device) -> list[Batch]:
        """Return random batches on the device: what data cost is not measured here."""
        generator = torch.Generator().manual_seed(derive(0, "bench"))
        size, shape = self.recipe.batch_size, self.spec().images["camera_image"]
        rows = torch.arange(size)

        def act() -> Tensor:
            return torch.rand(size, self.actions, generator=generator) * 1.8 - 0.9

        def observe() -> Observation:
            picture = torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8)
            picture = picture.contiguous(memory_format=torch.channels_last)  # as frames come from a data set
            return Observation(images={"camera_image": picture}, proprio=torch.empty(size, 0))

        made = [
            Batch(
                obs=observe(),
                action=act(),
                reward=(rows % 8 == 0).float(),
                discount=self.recipe.gamma * (rows % 8 > 0).float(),
                next_obs=observe(),
                next_action=act(),
                return_to_go=torch.zeros(size),
                source=rows % 2,
            )
            for _ in range(count)
        ]
        return [batch.to(device) for batch in made]


def named_case(
    recipe: Recipe, *, size: int, frames: int = 1, encoder: str | None = None, batch_size: int | None = None
) -> Case:
    """Return a case of a recipe without its warm-up, with another encoder or batch size if asked for."""
    chosen = recipe.encoder if encoder is None else ENCODERS[encoder]()
    rows = batch_size or recipe.batch_size
    plain = replace(recipe, warmup=(), warmup_steps=0, encoder=chosen, batch_size=rows)
    return Case(recipe=plain, size=size, frames=frames)


CASES: dict[str, Callable[[], Case]] = {
    "quick": lambda: named_case(RECIPES["quick_cog_dr3"](), size=48),
    "cog": lambda: named_case(RECIPES["cog_dr3"](), size=48),
    "impala": lambda: named_case(RECIPES["cog_dr3"](), size=64, frames=3, encoder="impala"),
    "robomimic": lambda: Case(recipe=robomimics_recipe(), size=84, robomimic=True),
}


def chosen_cases(
    names: Sequence[str],
    recipe: str | None,
    *,
    size: int,
    frames: int,
    encoder: str | None,
    batch_size: int | None,
) -> dict[str, Case]:
    """Return the cases of these names (all if none), or the one of a recipe.

    Raises:
        PixelrlError: there is no such case, recipe or encoder.
    """
    for option, name, known in (("--recipe", recipe, RECIPES), ("--encoder", encoder, ENCODERS)):
        if name is not None and name not in known:
            raise PixelrlError(f"{option}: there is none named {name!r}, but: {', '.join(known)}")
    if unknown := [name for name in names if name not in CASES]:
        raise PixelrlError(f"there is no case {unknown[0]!r}, but: {', '.join(CASES)}")
    if recipe is not None:
        made = named_case(RECIPES[recipe](), size=size, frames=frames, encoder=encoder, batch_size=batch_size)
        label = f"{recipe}, {type(made.recipe.encoder).__name__}, {size} px x {frames}, {made.recipe.batch_size}"
        return {label: made}
    return {name: CASES[name]() for name in names or CASES}


def shrunk(case: Case) -> Case:
    """Return a case for which every contender takes a moment."""
    if case.robomimic:
        return replace(case, recipe=robomimics_recipe(actions=2, batch_size=3), size=48)
    small = {"critic_hidden": (16, 8), "actor_hidden": (16,), "batch_size": 4}
    return replace(case, recipe=replace(case.recipe, **small))  # type: ignore[arg-type]
