"""An encoder of your own: say what its trunk is, and it serves every recipe, camera, and export."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from dots import collect
from torch import nn

from pixelrl import Train, load_policy, quick_bc
from pixelrl.encoders.cameras import PixelEncoder


@dataclass(frozen=True, kw_only=True)
class SpaceToDepth(PixelEncoder):
    """Patches of 4 x 4 pixels become channels, two convolutions look at them, and an average makes features."""

    channels: int = 32
    """filters of each convolution, and features of each camera"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return a network from float pictures `[B, C, H, W]` in [0, 1] to features `[B, channels]`."""
        return nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16 * shape[0], self.channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.channels, self.channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.LayerNorm(self.channels),
        )


def main(steps: int = 60, recorded: int = 40) -> None:
    """Train a policy on this encoder, and load it."""
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    task = collect(folder / "task.hdf5", "task", recorded)
    recipe = replace(quick_bc(), encoder=SpaceToDepth(), steps=steps, batch_size=32)
    Train(recipe=recipe, task=(task,), out=folder / "run")()
    print(f"the policy takes {dict(load_policy(folder / 'run').pictures)}")


if __name__ == "__main__":
    tyro.cli(main)
