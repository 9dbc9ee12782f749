"""What `benchmarks.learner` measures: recipes and the shapes of their pictures."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.robomimic_cql import robomimics_recipe
from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.launch.recipes import ENCODERS, RECIPES
from pixelrl.learning.batch import Batch, Observation, Spec
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.seeding import derive

CASES = ("quick", "cog", "impala", "robomimic")
ACTION_DIM = 7


@dataclass(frozen=True, kw_only=True)
class Case:
    """An update to measure: a recipe, and the shape of its pictures.

    Attributes:
        recipe: without its warm-up, so that the main terms are measured.
        size: height and width of the pictures [px].
        frames: how many are stacked, of 3 channels each.
        robomimic: whether robomimic's CQL is the same work.
    """

    recipe: Recipe
    size: int = 48
    frames: int = 1
    robomimic: bool = False

    def spec(self) -> Spec:
        """Return the shapes."""
        dims = tuple(ActionDim(name=f"a{index}") for index in range(ACTION_DIM))
        images = {"camera_image": (3 * self.frames, self.size, self.size)}
        sources = ("task", "prior")
        return Spec(images=images, proprio={}, action=dims, sources=sources, proprio_mean=(), proprio_std=())

    def batches(self, count: int, device: torch.device) -> list[Batch]:
        """Return random batches on the device: what data cost is not measured here."""
        generator = torch.Generator().manual_seed(derive(0, "bench"))
        size, shape = self.recipe.batch_size, self.spec().images["camera_image"]
        rows = torch.arange(size)

        def act() -> Tensor:
            return torch.rand(size, ACTION_DIM, generator=generator) * 1.8 - 0.9

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

    def shrunk(self) -> "Case":
        """Return a case for which every contender takes a moment."""
        if self.robomimic:
            return replace(self, recipe=robomimics_recipe(actions=2, batch_size=3), size=48)
        recipe = replace(self.recipe, critic_hidden=(16, 8), actor_hidden=(16,), batch_size=4)
        return replace(self, recipe=recipe)


def named_case(name: str) -> Case:
    """Return one of `CASES`, or that of RECIPE[:ENCODER[:PIXELS[:FRAMES[:BATCH_SIZE]]]].

    Raises:
        PixelrlError: there is none of that name.
    """
    if name == "robomimic":
        return Case(recipe=robomimics_recipe(), size=84, robomimic=True)
    known = {"quick": "quick_cog_dr3", "cog": "cog_dr3", "impala": "cog_dr3:impala:64:3"}
    recipe, encoder, *numbers = f"{known.get(name, name)}:".split(":")
    sizes = [int(number) for number in numbers if number.isdigit()]
    wrong = len(sizes) > 3 or len(sizes) != len([*filter(None, numbers)])
    if wrong or recipe not in RECIPES or encoder not in ("", *ENCODERS):
        expected = f"{', '.join(CASES)}, or RECIPE[:ENCODER[:PIXELS[:FRAMES[:BATCH_SIZE]]]]"
        raise PixelrlError(f"there is no case {name!r}; expected {expected}; recipes: {', '.join(RECIPES)}")
    plain = replace(RECIPES[recipe](), warmup=(), warmup_steps=0)
    chosen: PixelEncoder = ENCODERS[encoder]() if encoder else plain.encoder  # type: ignore[assignment]
    size, frames, batch_size = (*sizes, *(48, 1, plain.batch_size)[len(sizes) :])
    return Case(recipe=replace(plain, encoder=chosen, batch_size=batch_size), size=size, frames=frames)
