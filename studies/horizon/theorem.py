"""AGPO's gradient as Theorem 4.2 has it, beside its two bounds.

One window from the start, divided by its length h, with α_i found once from a pilot ("for a large
enough N") and no early cut. With β_{−1} = 1 and S = Σ_{i<h} γ^i (1 − α_i) β_{i−1} + γ^h β_{h−1},

    E‖ĝ − E ĝ‖² ≤ 32 L_Q² L_θ²/h,        ‖E ĝ − ∇ℓ‖ ≤ ε S/h,

∇ℓ being the same with the true Q, and ε the largest ‖∇_θ Q̂(x_i, u_i) − ∇_θ Q(x_i, u_i)‖. The paper
does not say whether x_i depends on θ there: "action" takes it as a constant, as a value gradient
does, "total" differentiates through it, as eq. 4 does. With "total" the bound is the triangle
inequality.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

import estimators
import gradlab
from estimators.agpo import AGPO
from estimators.alphas import StepWeights
from estimators.base import Estimator
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import GradientSamples
from gradlab.gradients.sampling import noise_stream
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval, Moments, OracleGradient, compare
from gradlab.statistics.parts import ALL
from gradlab.study.tables import UNKNOWN, flat
from studies.horizon.config import CHUNK
from studies.horizon.lipschitz import (
    action_slopes,
    difference,
    errors_by_action,
    errors_in_total,
    value_slopes,
)
from studies.horizon.tasks import FITTED, Params, exact_critic, is_sampled

Stream = tuple[int, int]  # number of episodes and seed


@dataclass(frozen=True)
class Apart:
    """A sampler: an estimator with the problem's critic less the same with the exact one."""

    estimator: Estimator
    exact: Problem
    group: int = 1
    label: str = "difference"

    def __call__(self, problem: Problem, params: Params, noise: Noise) -> GradientSamples:
        with_exact = self.estimator(self.exact, params, noise)
        return self.estimator(problem, params, noise) + with_exact * -1.0


def bound_rows(
    task: str,
    critic: str,
    problem: Problem,
    params: Params,
    window: int,
    stream: Stream,
    pilot: Stream,
    judged: int,
) -> Iterator[dict[str, Any]]:
    """AGPO beside its bounds, then N-step (all α = 1) beside the bound of variances."""
    fixed = of_theorem(problem, params, window, pilot)
    slopes = lipschitz(problem, params, stream)
    one_step = replace(fixed, alpha=1.0)
    for name, estimator in (("agpo", fixed), ("nstep", one_step)):
        moments = _moments(estimator, problem, params, stream)
        variance = _report(moments).variance
        limit = slopes.bound(window)
        row = {
            "kind": "bound",
            "estimator": name,
            "l_q": slopes.q,
            "l_theta": slopes.theta,
            **flat("variance", variance),
            "variance_bound": limit,
            "typical_bound": slopes.typical(window),
            **flat("variance_share", Interval(*(v / limit for v in variance))),
        }
        if name == "agpo":
            weights = fixed.weights(problem, params, next(noise_stream(problem, 4, 0, 4)))
            row |= {"looked_at": float(weights.call[0].sum())}
            if critic == FITTED and not is_sampled(task):
                exact = problem.replace(critic=exact_critic(task))
                row |= _bias(fixed, weights, problem, exact, params, stream, judged)
            else:
                row |= {**flat("bias", UNKNOWN)}
        yield row


def of_theorem(problem: Problem, params: Params, window: int, pilot: Stream) -> AGPO:
    """AGPO divided by its window, α fixed by a pilot, without an early cut."""
    published = estimators.AGPO(window, threshold=0.0, average=True)
    (noise,) = noise_stream(problem, *pilot, pilot[0])
    return published.fitted(problem, params, noise)


class Slopes(NamedTuple):
    """Of Q̂ and of the action, at all that the measured episodes visit: the largest, and the root
    of the mean square."""

    q: float  # L_Q
    theta: float  # L_θ
    q_typical: float
    theta_typical: float

    def bound(self, window: int) -> float:
        """Of the variance."""
        return 32 * (self.q * self.theta) ** 2 / window

    def typical(self, window: int) -> float:
        """The same number of typical slopes, which bounds nothing."""
        return 32 * (self.q_typical * self.theta_typical) ** 2 / window


def lipschitz(problem: Problem, params: Params, stream: Stream) -> Slopes:
    """The slopes of Theorem 4.2, as far as they were seen."""
    chunks = list(noise_stream(problem, *stream, CHUNK))
    value = torch.cat([value_slopes(problem, params, noise) for noise in chunks])
    action = torch.cat([action_slopes(problem, params, noise) for noise in chunks])
    both = [part.double() for part in (value, action)]
    largest = [float(part.max()) for part in both]
    typical = [float(part.square().mean().sqrt()) for part in both]
    return Slopes(*largest, *typical)


def weight_sum(weights: StepWeights, discount: float) -> float:
    """S of the bias's bound."""
    alpha, beta, before = weights.alpha[0], weights.beta[0], weights.call[0]
    powers = discount ** torch.arange(len(alpha) + 1, dtype=torch.float64).to(alpha.device)
    return float((powers[:-1] * (1 - alpha) * before).sum() + powers[-1] * beta[-1])


def _bias(
    estimator: AGPO,
    weights: StepWeights,
    problem: Problem,
    exact: Problem,
    params: Params,
    stream: Stream,
    judged: int,
) -> dict[str, Any]:
    """‖E ĝ − ∇ℓ‖ and its bounds by both readings of ε."""
    window = weights.alpha.shape[-1]
    moments = _moments(Apart(estimator, exact), problem, params, stream)
    squared = _report(moments).squared_bias
    bias = Interval(*(math.copysign(math.sqrt(abs(x)), x) for x in squared))
    assert problem.critic is not None and exact.critic is not None
    apart = problem.replace(critic=difference(problem.critic, exact.critic))
    (noise,) = noise_stream(problem, judged, stream[1], judged)
    errors = {
        "action": float(errors_by_action(apart, params, noise)[:window].max()),
        "total": float(errors_in_total(apart, params, noise, window).max()),
    }
    row: dict[str, Any] = {**flat("bias", bias)}
    for reading, error in errors.items():
        limit = error * weight_sum(weights, problem.discount) / window
        row[f"bias_bound_{reading}"] = limit
        row |= flat(f"bias_share_{reading}", Interval(*(b / limit for b in bias)))
    return row


def _moments(estimator: Any, problem: Problem, params: Params, stream: Stream) -> Moments:
    return gradlab.measure(estimator, problem, params, *stream, chunk_size=CHUNK).single


def _report(moments: Moments) -> Any:
    """Against no gradient at all: squared bias is the squared length of the expectation."""
    zero = {name: torch.zeros_like(part) for name, part in moments.mean.items()}
    truth = OracleGradient.exact(zero, "none")
    return compare(moments, truth, only=lambda part: part == ALL).overall
