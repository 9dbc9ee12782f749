"""`pixelrl sweep`: how robust a policy is to what differs from the world that it knows."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pixelrl.launch.console import plain_console
from pixelrl.launch.options import nodes_of
from pixelrl.launch.policy_options import SimulationOptions, warn_about_drawing
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import check_writable, write_json


@dataclass(frozen=True, kw_only=True)
class Sweep(SimulationOptions):
    """Tell how robust a policy is: its success as a function of what differs, each from the same starts.

    Camera, light, colours, texture, clutter, a distractor, blur, noise, dropped frames, delay and noise of the actions.
    After an interruption the same command goes on; cells that are done are kept.
    """

    only: tuple[str, ...] = ()
    """perturbations to try, say camera-moved light; default: all that the environment allows"""
    levels: tuple[float, ...] = ()
    """of a single perturbation, instead of its usual ones; at least 0, of light -1; probabilities and shares at most
    1; steps and things whole"""
    episodes: int = 50
    """of each cell"""
    seed: int = 0
    """of the starts"""

    def __call__(self) -> None:
        """Try the policy under each perturbation at each level, and write `sweep.json`, `.png` and `.html`.

        Raises:
            PixelrlError: no such perturbation or level, one that the environment cannot have, or another policy's
                `sweep.json`.
        """
        from pixelrl.launch.reports.sweep_page import draw_sweep, print_sweep, write_sweep_page
        from pixelrl.launch.sweep_cells import check_levels, choose_kinds, compare_cells, key_of, play_cell, read_cells
        from pixelrl.simulation.envs.make import make_env
        from pixelrl.simulation.evaluation.fitted_policy import fitted_policy

        provenance, console = Provenance(seed=self.seed), plain_console()
        kinds = choose_kinds(self.only)
        check_levels(kinds, self.levels)
        loaded = self.policy()
        env_args, allowed = self.env_args(loaded), self.allowed_modules
        warn_about_drawing(loaded, env_args, console)
        with closing(make_env(env_args, allow_import=allowed)) as env:
            policy = fitted_policy(loaded, env, env_args)
            left_out = {kind.name: lack for kind in kinds if (lack := kind(level=0).lack(env)) is not None}
        for name, lack in left_out.items():
            if self.only:
                raise PixelrlError(f"--only {name}: {env_args['env_name']} cannot have it; it takes {lack}")
            console.print(f"{name}: left out; it takes {lack}")
        kinds = [kind for kind in kinds if kind.name not in left_out]
        directory = self.out or Path(self.run)
        asked = {"sha256": loaded.origin["sha256"], "env_args": env_args}
        asked |= {"episodes": self.episodes, "seed": self.seed} | ({"acting": self.acting} if self.acting else {})
        cells, path = read_cells(directory / "sweep.json", asked), directory / "sweep.json"
        check_writable(path)
        with self.pool(console) as pool:
            for cell in (None, *(kind(level=level) for kind in kinds for level in self.levels or kind.levels)):
                if key_of(cell) not in cells:
                    play = partial(play_cell, cell, policy, loaded, env_args, allowed, directory, console)
                    cells[key_of(cell)] = play(episodes=self.episodes, seed=self.seed, pool=pool)
                result = {"asked": asked, "policy": loaded.origin, "left_out": left_out}
                result |= {"cells": compare_cells(cells)} | nodes_of(pool) | provenance.record()
                write_json(path, result)
        draw_sweep(directory / "sweep.png", result)
        write_sweep_page(directory, result)
        print_sweep(result, console)
