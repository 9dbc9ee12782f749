"""pixelrl: offline reinforcement learning from pixels for robotic manipulation.

What is named here is imported when it is first used: `import pixelrl` imports no torch, and a robot never needs it.
"""

# ruff: noqa: F403, F405 (type checkers see the names through the star)
from typing import TYPE_CHECKING, Any

from pixelrl.version import __version__

if TYPE_CHECKING:
    from pixelrl.api import *

__all__ = [
    "BC",
    "CQL",
    "DR3",
    "TD",
    "ActionDim",
    "AdvantageWeighted",
    "AtMost",
    "Backup",
    "Batch",
    "CogCNN",
    "DrqCNN",
    "Entropy",
    "Episode",
    "EpisodeWriter",
    "ExportedPolicy",
    "HLGauss",
    "ImpalaCNN",
    "Learner",
    "LoadedPolicy",
    "MaximizeQ",
    "NormPenalty",
    "Observation",
    "Outcome",
    "PixelrlError",
    "RankPenalty",
    "Recipe",
    "ResNet18",
    "RobomimicResNet18",
    "SmallCNN",
    "Source",
    "Spec",
    "Term",
    "Train",
    "UpdateContext",
    "__version__",
    "bc",
    "cog",
    "cog_dr3",
    "evaluate",
    "export_policy",
    "load_dataset",
    "load_policy",
    "make_env",
    "named_env_args",
    "quick_awr_dr3",
    "quick_bc",
    "quick_cog",
    "quick_cog_dr3",
    "write_episodes",
]


def __dir__() -> list[str]:
    """Return the names that there are."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import what is asked for; a robot's policy comes without the rest."""
    if name == "ExportedPolicy":
        from pixelrl.export.runtime import ExportedPolicy

        return ExportedPolicy
    if name not in __all__:
        raise AttributeError(f"module 'pixelrl' has no attribute {name!r}")
    import pixelrl.api

    return getattr(pixelrl.api, name)
