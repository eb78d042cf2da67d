"""Names of estimators, for command lines and for the tests that run over all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from estimators.base import Estimator
from estimators.evolution import EvolutionStrategies
from estimators.mixtures import InverseVariance, Mixture
from estimators.pathwise import FOG, RelaxedFOG, Split
from estimators.score import PG
from estimators.value import ABPT, QG, LambdaReturn, NStep, ZeroStep
from gradlab.errors import BadValue, UnknownName

REGISTRY: dict[str, Callable[..., Estimator]] = {
    "pg": PG,
    "fog": FOG,
    "relaxed_fog": RelaxedFOG,
    "qg": QG,
    "zero_step": ZeroStep,
    "nstep": NStep,
    "lambda_return": LambdaReturn,
    "abpt": ABPT,
    "split": Split,
    "evolution_strategies": EvolutionStrategies,
    "inverse_variance": partial(Mixture, (FOG(), PG()), InverseVariance()),
    "inverse_variance_qg_pg": partial(Mixture, (QG(), PG()), InverseVariance()),
}


def names() -> list[str]:
    """The registered names, in the order of the reading."""
    return list(REGISTRY)


def make(name: str, **options: object) -> Estimator:
    """The estimator of a registered name: `make("split", width=0.05)`.

    Raises `UnknownName` with the nearest names for an unknown estimator or option, `BadValue` for an
    option that is missing.
    """
    if not isinstance(name, str) or name not in REGISTRY:
        raise UnknownName("estimator", name, REGISTRY)
    known = set(inspect.signature(REGISTRY[name]).parameters)
    for option in options:
        if option not in known:
            raise UnknownName(f"option of {name}:", option, known)
    try:
        return REGISTRY[name](**options)
    except TypeError as error:
        raise BadValue(f"estimator {name!r} does not take these options: {error}") from None
