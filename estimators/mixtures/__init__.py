"""Mixtures of estimators of the same quantity; read `mixture`, then `rules`, `alpha_order`,
`best_linear`, `least_error`, `covariances`, `calls`, `elementwise`, `sources`, `dealing`,
`weights`, `blended`.
"""

from estimators.mixtures.alpha_order import AlphaOrder as AlphaOrder
from estimators.mixtures.best_linear import BestLinear as BestLinear
from estimators.mixtures.mixture import FixedMixture as FixedMixture
from estimators.mixtures.mixture import Mixture as Mixture
from estimators.mixtures.rules import InverseVariance as InverseVariance
from estimators.mixtures.rules import Rule as Rule
from estimators.mixtures.sources import Cross as Cross
from estimators.mixtures.sources import Independent as Independent
from estimators.mixtures.sources import Same as Same
from estimators.mixtures.weights import Weights as Weights
