"""`pixelrl view`: look at recorded episodes, and at what a run's critics think of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from pixelrl.launch.console import plain_console
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import DataError, PixelrlError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelrl.datasets.hdf5.reader import Demo
    from pixelrl.runtime.actions import ActionDim


@dataclass(frozen=True, kw_only=True)
class View:
    """Show recorded episodes on one HTML page: pictures, actions, rewards; with a run, Q and phi.phi' along them.

    With `--out FILE.rrd`, write them for Rerun's viewer instead.
    """

    file: Positional[Path]
    """recorded data, in robomimic's format"""
    demos: tuple[str, ...] = ()
    """which ones, by name; default: the first `count`"""
    count: int = 4
    """how many, unless they are named"""
    run: Path | None = None
    """a training run, whose critics estimate values of each recorded step"""
    rename: tuple[str, ...] = ()
    """OLD=NEW ...: other names for observations; default: as the run renamed those of this file"""
    step: int | None = None
    """use the run's snapshot of this step, not its last checkpoint"""
    out: Path = Path("view.html")
    """what to write: an HTML page, or FILE.rrd, a recording for the viewer of https://rerun.io, which plays the
    pictures (pip install 'pixelrl[rerun]')"""

    def __call__(self) -> None:
        """Write the page.

        Raises:
            PixelrlError: no such file, demo or run, or a run that is for other data.
        """
        from h5py import is_hdf5

        from pixelrl.datasets.hdf5.access import open_file
        from pixelrl.datasets.hdf5.keys import parse_renames
        from pixelrl.datasets.hdf5.reader import demo_names, read_contents, read_demos
        from pixelrl.training.run_directory import read_run

        if is_hdf5(self.out):
            raise PixelrlError(f"--out {self.out}: holds data; expected a page, FILE.html, or a recording, FILE.rrd")
        if self.out.suffix == ".rrd":
            from pixelrl.launch.reports.view_rerun import write_rerun as write
        else:
            from pixelrl.launch.reports.view_page import write_view_page as write
        provenance, rename = Provenance(), parse_renames(self.rename)
        if self.run is not None and not rename:
            rename = read_run(self.run).reading_of(self.file)["rename"]
        with open_file(self.file) as file:
            names = demo_names(file, None)
        if missing := [name for name in self.demos if name not in names]:
            raise PixelrlError(
                f"{self.file}: has no demo {missing[0]!r}; it has {len(names)}: {', '.join(names[:3])}, ..."
            )
        if self.count < 1 or (self.step is not None and self.run is None):
            raise PixelrlError("--count must be at least 1, and --step goes with --run")
        shown = self.demos or names[: self.count]  # the others may be damaged
        try:
            contents = read_contents(self.file, demos=shown, required=(), rename=rename)
            demos = [*read_demos(contents)]
        except DataError as error:
            raise DataError(
                f"{error}; --demos NAME ... shows others, `pixelrl inspect` tells all that is wrong"
            ) from error
        estimates = (
            {}
            if self.run is None
            else {demo.name: estimates_of(self.run, self.step, demo, contents.action) for demo in demos}
        )
        write(self.out, self.file, demos, contents.action, estimates, provenance.record())
        plain_console().print(f"{self.out}: {len(demos)} of {len(names)} demos", soft_wrap=True)


def estimates_of(
    run: Path, step: int | None, demo: "Demo", recorded_dims: Sequence["ActionDim"]
) -> Mapping[str, "NDArray[np.float32]"]:
    """Return what a run's critics think of each step of a demo, `[N]` each, as means over the critics.

    Raises:
        PixelrlError: the run has no critics, looks at several frames or chunks, or at what the demo does not have.
    """
    import torch
    from einops import rearrange

    from pixelrl.learning.batch import Observation
    from pixelrl.runtime.actions import action_limits, from_units, to_units
    from pixelrl.training.run_directory import read_networks

    found, networks, _ = read_networks(run, step)
    spec = found.spec
    if not found.recipe.critic or spec.history > 1 or spec.chunk > 1:
        raise PixelrlError(
            f"{run}: cannot estimate values of single recorded steps: that takes critics, history 1, chunk 1"
        )
    if missing := [key for key in (*spec.images, *spec.proprio) if key not in demo.sensors]:
        raise PixelrlError(f"{run}: looks at {missing[0]!r}, which {demo.name} does not have")
    images = {key: torch.from_numpy(rearrange(demo.sensors[key], "n h w c -> n c h w").copy()) for key in spec.images}
    vectors = [torch.from_numpy(demo.sensors[key]) for key in spec.proprio]
    proprio = torch.cat([torch.empty(len(demo.actions) + 1, 0), *vectors], -1)
    with torch.inference_mode():
        obs, critic = Observation(images=images, proprio=proprio), networks.critic
        state = critic.embed_state(critic.encode(obs))
        own = critic.q_values(state, networks.policy(obs).mode).value
        action = torch.from_numpy(demo.actions)
        if found.actions == "min-max":
            limits = [torch.from_numpy(limit) for dims in (recorded_dims, spec.action) for limit in action_limits(dims)]
            action = from_units(to_units(action, *limits[:2]), *limits[2:]).float()
        action = action.clamp(-1, 1)
        recorded = critic.q_values(state[:, :-1], action)
        following = torch.cat([recorded.features[:, 1:], recorded.features[:, -1:]], 1)
        product = (recorded.features.float() * following.float()).sum(-1)
    return {
        "Q of the recorded action": recorded.value.mean(0).numpy(),
        "Q of the policy's action": own[:, :-1].mean(0).numpy(),
        "phi.phi' of successive steps": product[:, :-1].mean(0).numpy(),
    }
