"""Combinations of estimators whose cost is measured beside that of their parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradlab
from estimators.abpt import ABPT
from estimators.agpo import AGPO
from estimators.base import Estimator, Params
from estimators.mixtures import BestLinear, Cross, InverseVariance, Mixture, Rule, Same
from estimators.mixtures.weights import Level
from estimators.output_mixtures import action_mixture
from estimators.pathwise import FOG
from estimators.registry import ALPHA_ORDER
from estimators.score import PG
from estimators.switch import Switch
from estimators.total_propagation import TotalPropagation
from estimators.value import QG, NStep
from gradlab.foundation.noise import Noise
from gradlab.problems.problem import Problem

GROUP = 64  # episodes behind the weights of all mixtures

Call = Callable[[], Any]
Parts = tuple[Estimator, ...]
PAIR: Parts = (FOG(), PG())


def _mixture(rule: Rule, level: Level = "global") -> tuple[Estimator, Parts]:
    return Mixture(PAIR, rule, level, Cross(GROUP)), PAIR


def _halves(window: int) -> Parts:
    return NStep(window, starts="tiled"), QG()


# name: from the horizon to the combination and what it combines
COMBINATIONS: dict[str, Callable[[int], tuple[Estimator, Parts]]] = {
    "sum": lambda horizon: (FOG() + PG(), PAIR),
    "abpt": lambda horizon: (ABPT(_window(horizon), "all"), _halves(_window(horizon))),
    "inverse_variance": lambda horizon: _mixture(InverseVariance()),
    "inverse_variance_layer": lambda horizon: _mixture(InverseVariance(), "layer"),
    "inverse_variance_step": lambda horizon: _mixture(InverseVariance(), "step"),
    "alpha_order": lambda horizon: _mixture(ALPHA_ORDER),
    "best_linear": lambda horizon: _mixture(BestLinear()),
    "best_linear_step": lambda horizon: _mixture(BestLinear(), "step"),
    "best_linear_parameter": lambda horizon: _mixture(BestLinear(), "parameter"),
    "action_mixture": lambda horizon: (action_mixture(source=Cross(GROUP)), PAIR),
    "switch": lambda horizon: (Switch(source=Same(GROUP)), PAIR),
    "agpo": lambda horizon: (AGPO(source=Same(GROUP)), (FOG(), QG())),
    "total_propagation": lambda horizon: (TotalPropagation(source=Cross(GROUP)), PAIR),
}


def _window(horizon: int) -> int:
    """A quarter of the episode."""
    return max(1, horizon // 4)


def calls_of(name: str, problem: Problem, params: Params, noise: Noise) -> dict[str, Call]:
    """The combination and its parts, each with the statistics that a comparison needs: "whole",
    "part 0", "part 1".

    Where it needs a critic, of a few gradient steps: what it costs does not depend on its fit.
    """
    whole, parts = COMBINATIONS[name](problem.horizon)
    if any(isinstance(part, QG) for part in parts):
        fitted = gradlab.fit_critic(problem, params, kind="q", steps=1, episodes=64)
        problem = replace(problem, critic=fitted.critic(problem))

    def call(estimator: Estimator) -> Call:
        return lambda: estimator(problem, params, noise).moments()

    named = {"whole": whole} | {f"part {k}": part for k, part in enumerate(parts)}
    return {key: call(estimator) for key, estimator in named.items()}
