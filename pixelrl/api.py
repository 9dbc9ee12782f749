"""All that `pixelrl` exports, imported: what a user of the library needs. It takes torch, and no extra."""

from typing import TYPE_CHECKING

from pixelrl.datasets.buffer.load_dataset import load_dataset as load_dataset
from pixelrl.datasets.buffer.sources import Source as Source
from pixelrl.datasets.episode import Episode as Episode
from pixelrl.datasets.hdf5.writer import EpisodeWriter as EpisodeWriter
from pixelrl.datasets.hdf5.writer import write_episodes as write_episodes
from pixelrl.encoders.conv import CogCNN as CogCNN
from pixelrl.encoders.conv import DrqCNN as DrqCNN
from pixelrl.encoders.conv import SmallCNN as SmallCNN
from pixelrl.encoders.impala import ImpalaCNN as ImpalaCNN
from pixelrl.encoders.resnet import ResNet18 as ResNet18
from pixelrl.encoders.resnet import RobomimicResNet18 as RobomimicResNet18
from pixelrl.export.loaded_policy import LoadedPolicy as LoadedPolicy
from pixelrl.export.loaded_policy import load_policy as load_policy
from pixelrl.launch.commands.train import Train as Train
from pixelrl.launch.recipes import RECIPES as RECIPES
from pixelrl.launch.recipes import bc as bc
from pixelrl.launch.recipes import cog as cog
from pixelrl.launch.recipes import cog_dr3 as cog_dr3
from pixelrl.launch.recipes import quick_awr_dr3 as quick_awr_dr3
from pixelrl.launch.recipes import quick_bc as quick_bc
from pixelrl.launch.recipes import quick_cog as quick_cog
from pixelrl.launch.recipes import quick_cog_dr3 as quick_cog_dr3
from pixelrl.learning.backup import Backup as Backup
from pixelrl.learning.batch import Batch as Batch
from pixelrl.learning.batch import Observation as Observation
from pixelrl.learning.batch import Spec as Spec
from pixelrl.learning.context import UpdateContext as UpdateContext
from pixelrl.learning.critic_forms import HLGauss as HLGauss
from pixelrl.learning.critic_forms import Quantile as Quantile
from pixelrl.learning.critic_forms import Scalar as Scalar
from pixelrl.learning.learner import Learner as Learner
from pixelrl.learning.policies import Acting as Acting
from pixelrl.learning.policies import DeterministicPolicy as DeterministicPolicy
from pixelrl.learning.policies import FlowPolicy as FlowPolicy
from pixelrl.learning.policies import GaussianPolicy as GaussianPolicy
from pixelrl.learning.policies import HybridPolicy as HybridPolicy
from pixelrl.learning.recipe import Recipe as Recipe
from pixelrl.learning.term import Term as Term
from pixelrl.learning.weights import AtMost as AtMost
from pixelrl.runtime.actions import ActionDim as ActionDim
from pixelrl.runtime.errors import PixelrlError as PixelrlError
from pixelrl.terms.awr import AdvantageWeighted as AdvantageWeighted
from pixelrl.terms.bc import BC as BC
from pixelrl.terms.cql import CQL as CQL
from pixelrl.terms.dr3 import DR3 as DR3
from pixelrl.terms.expectile import Expectile as Expectile
from pixelrl.terms.flow import FlowDistillation as FlowDistillation
from pixelrl.terms.flow import FlowMatching as FlowMatching
from pixelrl.terms.penalties import NormPenalty as NormPenalty
from pixelrl.terms.penalties import RankPenalty as RankPenalty
from pixelrl.terms.sac import Entropy as Entropy
from pixelrl.terms.sac import MaximizeQ as MaximizeQ
from pixelrl.terms.td import TD as TD
from pixelrl.terms.td import FunctionalRegularization as FunctionalRegularization

if TYPE_CHECKING:  # these need extras: `pixelrl.__getattr__` imports them one by one
    from pixelrl.export.artefact import export_policy as export_policy
    from pixelrl.export.runtime import ExportedPolicy as ExportedPolicy
    from pixelrl.simulation.envs.make import make_env as make_env
    from pixelrl.simulation.envs.make import named_env_args as named_env_args
    from pixelrl.simulation.evaluation.rollout import Outcome as Outcome
    from pixelrl.simulation.evaluation.rollout import evaluate as evaluate
