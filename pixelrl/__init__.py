"""pixelrl: offline reinforcement learning from pixels for robotic manipulation.

What is named here is imported when it is first used: `import pixelrl` imports no torch, and a robot never needs it;
what a simulator or an export needs is in extras (docs/install.md).
"""

# ruff: noqa: F403, F405 (type checkers see the names through the star)
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixelrl.version import __version__

if TYPE_CHECKING:
    from pixelrl.api import *

__all__ = [
    "BC",
    "CQL",
    "DR3",
    "RECIPES",
    "TD",
    "Acting",
    "ActionDim",
    "AdvantageWeighted",
    "AtMost",
    "Backup",
    "Batch",
    "CogCNN",
    "DeterministicPolicy",
    "DrqCNN",
    "Entropy",
    "Episode",
    "EpisodeWriter",
    "Expectile",
    "ExportedPolicy",
    "FlowDistillation",
    "FlowMatching",
    "FlowPolicy",
    "FunctionalRegularization",
    "GaussianPolicy",
    "HLGauss",
    "HybridPolicy",
    "ImpalaCNN",
    "Learner",
    "LoadedPolicy",
    "MaximizeQ",
    "NormPenalty",
    "Observation",
    "Outcome",
    "PixelrlError",
    "Quantile",
    "RankPenalty",
    "Recipe",
    "ResNet18",
    "RobomimicResNet18",
    "Scalar",
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


WITH_EXTRAS = {
    "ExportedPolicy": "pixelrl.export.runtime",
    "Outcome": "pixelrl.simulation.evaluation.rollout",
    "evaluate": "pixelrl.simulation.evaluation.rollout",
    "export_policy": "pixelrl.export.artefact",
    "make_env": "pixelrl.simulation.envs.make",
    "named_env_args": "pixelrl.simulation.envs.make",
}
"""What needs more than the base installation -> where it is."""


def __dir__() -> list[str]:
    """Return the names that there are."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import what is asked for; a robot's policy comes without the rest."""
    if name not in __all__:
        raise AttributeError(f"module 'pixelrl' has no attribute {name!r}")
    from pixelrl.runtime.errors import PixelrlError
    from pixelrl.runtime.extras import missing_extra

    try:
        return getattr(import_module(WITH_EXTRAS.get(name, "pixelrl.api")), name)
    except ModuleNotFoundError as error:
        if extra := missing_extra(error):
            raise PixelrlError(f"pixelrl.{name}: {extra}") from error
        raise
