"""α of groups of episodes: AGPO's at the action node, inverse variance and AoBG's over θ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import estimators
from estimators.agpo import action_gradients
from estimators.alphas import ActionGradients, VarianceRatio
from estimators.mixtures import AlphaOrder, InverseVariance
from estimators.mixtures.alpha_order import distances
from estimators.mixtures.rules import inverse_variance_shares, variances
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import GradientSamples
from gradlab.problems.problem import Problem

Params = dict[str, Tensor]

# how α of SG + QG is read; the first is the published one
READINGS = {
    "published": VarianceRatio(),
    "not normalised": VarianceRatio(median_normalisation=False),
    "norms": VarianceRatio(spread="norm"),
}
GAMMA, TAU = "gamma", "tau"  # what a number of AoBG's sweep bounds


def of_critic(
    problem: Problem, params: Params, noise: Noise, size: int
) -> dict[str, Float[Tensor, "G T"]]:
    """AGPO's α of every step, for each of G groups of `size` episodes, by reading; NaN where fewer
    than two episodes of a group are alive.
    """
    policy = problem.bind(params).frozen
    found = action_gradients(problem, policy, noise, problem.horizon)
    grouped = ActionGradients(*(part.unflatten(0, (-1, size)) for part in found))
    there = grouped.alive.sum(-2) >= 2
    return {name: torch.where(there, rule(grouped), torch.nan) for name, rule in READINGS.items()}


class OverTheta(NamedTuple):
    """α of SG + PG over all parameters, of G groups."""

    whole: Float[Tensor, " G"]  # one for everything, γ = ∞
    steps: Float[Tensor, "G T"]  # by the time step of the policy's call; NaN where all have ended
    bounded: dict[tuple[str, float], Float[Tensor, " G"]]  # AoBG's, by reading and number


def of_score(
    problem: Problem,
    params: Params,
    noise: Noise,
    size: int,
    window: int,
    orders: Sequence[AlphaOrder],
) -> OverTheta:
    """Inverse-variance weights of SG over windows beside PG, and AoBG's by every one of `orders`.

    PG has the baseline Q(s, μ(s)), as AGPO's appendix B. Both run on the same episodes.
    """
    parts = estimators.NStep(window, "tiled"), estimators.PG(baseline="q")
    samples = [part(problem, params, noise).prepared() for part in parts]
    rule, horizon = InverseVariance(), problem.horizon
    whole: list[Tensor] = []
    steps: list[Tensor] = []
    bounded: dict[tuple[str, float], list[Tensor]] = {}
    for start in range(0, noise.count, size):
        seen = [part.rows(start, start + size) for part in samples]
        whole.append(rule(seen, "global", horizon, True)[""][0])
        by_step = variances(seen, "step", horizon)[""]
        steps.append(
            torch.where(by_step.sum(0) > 0, inverse_variance_shares(by_step)[0], torch.nan)
        )
        for key, alpha in _bounded(seen, orders, whole[-1], horizon):
            bounded.setdefault(key, []).append(alpha)
    return OverTheta(
        torch.stack(whole),
        torch.stack(steps),
        {key: torch.stack(values) for key, values in bounded.items()},
    )


def _bounded(
    seen: Sequence[GradientSamples], orders: Sequence[AlphaOrder], free: Tensor, horizon: int
) -> Iterator[tuple[tuple[str, float], Tensor]]:
    """AoBG's α by γ, and by τ = γ − ε, as AGPO's appendix C has it: min(ᾱ, τ/B)."""
    for order in orders:
        yield (GAMMA, order.gamma), order(seen, "global", horizon, True)[""][0]
        apart = distances(seen[0], seen[1], "global", horizon)[""]
        yield (TAU, order.gamma), capped(free, apart, order.gamma)


def capped(free: Float[Tensor, ""], apart: Float[Tensor, ""], tau: float) -> Float[Tensor, ""]:
    """The largest α up to the free one with α B ≤ τ."""
    most = torch.where(apart > 0, tau / apart, torch.inf)
    return torch.minimum(free, most)
