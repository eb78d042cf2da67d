"""Names of estimators, for command lines and for the tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from estimators.abpt import ABPT
from estimators.agpo import AGPO
from estimators.base import Estimator
from estimators.evolution import EvolutionStrategies
from estimators.mixtures import AlphaOrder, BestLinear, InverseVariance, Mixture
from estimators.output_mixtures import action_mixture
from estimators.pathwise import FOG, RelaxedFOG, Split
from estimators.score import PG
from estimators.switch import Switch
from estimators.total_propagation import TotalPropagation
from estimators.value import QG, LambdaReturn, NStep, ZeroStep
from gradlab.foundation.naming import Names

# γ in standard errors, so that it means the same on every problem, and a confidence of 95 %
ALPHA_ORDER = AlphaOrder(gamma=10.0, relative=True, failure_probability=0.05)

ESTIMATORS = Names(
    kind="estimator",
    group="gradlab.estimators",
    accepts=lambda built: isinstance(built, Estimator) and not isinstance(built, type),
    expected="an Estimator",
    builders={
        "pg": PG,
        "fog": FOG,
        "relaxed_fog": RelaxedFOG,
        "qg": QG,
        "zero_step": ZeroStep,
        "nstep": NStep,
        "lambda_return": LambdaReturn,
        "abpt": ABPT,
        "agpo": AGPO,
        "split": Split,
        "evolution_strategies": EvolutionStrategies,
        "inverse_variance": partial(Mixture, (FOG(), PG()), InverseVariance()),
        "switch": Switch,
        "inverse_variance_qg_pg": partial(Mixture, (QG(), PG()), InverseVariance()),
        "total_propagation": TotalPropagation,
        "action_mixture": action_mixture,
        "alpha_order": partial(Mixture, (FOG(), PG()), ALPHA_ORDER),
        "best_linear": partial(Mixture, (FOG(), PG()), BestLinear()),
    },
)


def names() -> list[str]:
    """The registered names, in the order of the reading, and those of installed packages."""
    return ESTIMATORS.names()


def register(name: str, builder: Callable[..., Estimator]) -> None:
    """Give an estimator a name for `make` and `--estimators`: `register("mine", Mine)`.

    `builder` is its class, or a function that returns one; its parameters are the options. A
    package that is installed does the same with an entry point of the group "gradlab.estimators".
    Raises `BadValue` for a name that is taken.
    """
    ESTIMATORS.register(name, builder)


def make(name: str, **options: object) -> Estimator:
    """The estimator of a name: `make("split", width=0.05)`, `make("my_file.py:Mine")`.

    Raises `UnknownName` with the nearest names for an unknown estimator or option, `BadValue` for
    an option that is missing, `Missing` where the module of an estimator cannot be imported.
    """
    return ESTIMATORS.build(name, options)
