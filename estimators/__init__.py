"""Policy-gradient estimators.

Read `base`, then `pathwise`, `score`, `value`, `abpt`, `mixtures`, `alphas`, `agpo`,
`output_mixtures`, `total_propagation`, `switch`, `window_rules`, `truncated`.
"""

from estimators.abpt import ABPT as ABPT
from estimators.agpo import AGPO as AGPO
from estimators.alphas import AlphaRule as AlphaRule
from estimators.alphas import MaxNorm as MaxNorm
from estimators.alphas import Quantile as Quantile
from estimators.alphas import StepWeights as StepWeights
from estimators.alphas import VarianceRatio as VarianceRatio
from estimators.base import Cost as Cost
from estimators.base import Estimator as Estimator
from estimators.base import SurrogateEstimator as SurrogateEstimator
from estimators.base import TwoPassEstimator as TwoPassEstimator
from estimators.evolution import EvolutionStrategies as EvolutionStrategies
from estimators.mixtures import AlphaOrder as AlphaOrder
from estimators.mixtures import BestLinear as BestLinear
from estimators.mixtures import Cross as Cross
from estimators.mixtures import FixedMixture as FixedMixture
from estimators.mixtures import Independent as Independent
from estimators.mixtures import InverseVariance as InverseVariance
from estimators.mixtures import Mixture as Mixture
from estimators.mixtures import Rule as Rule
from estimators.mixtures import Same as Same
from estimators.mixtures import Weights as Weights
from estimators.output_mixtures import action_mixture as action_mixture
from estimators.pathwise import FOG as FOG
from estimators.pathwise import RelaxedFOG as RelaxedFOG
from estimators.pathwise import Split as Split
from estimators.registry import make as make
from estimators.registry import names as names
from estimators.registry import register as register
from estimators.score import PG as PG
from estimators.switch import Switch as Switch
from estimators.total_propagation import TotalPropagation as TotalPropagation
from estimators.truncated import TruncatedBPTT as TruncatedBPTT
from estimators.value import QG as QG
from estimators.value import LambdaReturn as LambdaReturn
from estimators.value import NStep as NStep
from estimators.value import ZeroStep as ZeroStep
from estimators.window_rules import JacobianGrowth as JacobianGrowth
from estimators.window_rules import JumpWindow as JumpWindow
from estimators.window_rules import Windows as Windows
