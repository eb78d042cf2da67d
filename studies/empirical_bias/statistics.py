"""Numbers with intervals that the parts of this study share."""

from __future__ import annotations

import math
from typing import NamedTuple

import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.noise import Noise
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.statistics import Interval, Moments
from gradlab.statistics.parts import ALL
from gradlab.statistics.spread import variance_interval
from studies.empirical_bias.toys import Params

CONFIDENCE = 0.95
POWER = 0.95


def mean_interval(values: Float[Tensor, " n"], more: float = 0.0) -> Interval:
    """The mean with Student's interval, made longer by `more` on either side."""
    count, mean = len(values), float(values.double().mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    error = float(values.double().std()) / math.sqrt(count)
    reach = error * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) + more
    return Interval(mean, mean - reach, mean + reach)


def single_interval(values: Float[Tensor, " n"]) -> Interval:
    """Where one more value is with 95 %, by Student's law: as much wider than the mean's interval
    as one value is noisier than a mean."""
    mean = mean_interval(values)
    reach = (mean.high - mean.estimate) * math.sqrt(len(values) + 1)
    return Interval(mean.estimate, mean.estimate - reach, mean.estimate + reach)


def spread(values: Float[Tensor, " n"]) -> Interval:
    """The variance of one value."""
    return variance_interval(Moments.of({"x": values.double()[:, None]}), ALL, CONFIDENCE)


def replicates_needed(differences: Float[Tensor, " n"], level: float = 1 - CONFIDENCE) -> Interval:
    """Pairs that tell a mean difference like this one from 0 with a probability of 95 %.

    By a normal law, two-sided at `level`: (z_level + z_95)² var/mean², its ends those of the mean.
    Infinite where the mean's interval reaches 0.
    """
    mean = mean_interval(differences)
    wanted = float(scipy.stats.norm.isf(level / 2) + scipy.stats.norm.ppf(POWER))
    deviation = float(differences.double().std())

    def needed(size: float) -> float:
        return max(2.0, (wanted * deviation / size) ** 2) if size > 0 else math.inf

    if not mean.low <= 0 <= mean.high:
        near, far = sorted((abs(mean.low), abs(mean.high)))
        return Interval(needed(abs(mean.estimate)), needed(far), needed(near))
    far = max(abs(mean.low), abs(mean.high))
    return Interval(needed(abs(mean.estimate)), needed(far), math.inf)


class Slope(NamedTuple):
    """A truth by differences, along a direction."""

    episodes: Float[Tensor, " n"]  # of every episode, Richardson's combination
    step_error: float  # what it differs by from the differences of the smaller step


def slope(problem: Problem, params: Params, direction: Params, noise: Noise, h: float) -> Slope:
    """dJ along a direction by central differences with common random numbers, of h and h/2.

    D(h/2) + (D(h/2) − D(h))/3 has an error of order h⁴; a third of their mean difference stands for
    what is left. It sees jumps, whose episodes differ by jump/2h.
    """
    wide, narrow = (
        (_returns(problem, params, direction, noise, s) - _returns(problem, params, direction, noise, -s))
        / (2 * s)
        for s in (h, h / 2)
    )  # fmt: skip
    finer = narrow + (narrow - wide) / 3
    return Slope(finer, abs(float((narrow - wide).mean())) / 3)


def _returns(
    problem: Problem, params: Params, direction: Params, noise: Noise, by: float
) -> Float[Tensor, " n"]:
    moved = {name: value + by * direction[name] for name, value in params.items()}
    return returns(problem, moved, noise)


def returns(problem: Problem, params: Params, noise: Noise) -> Float[Tensor, " n"]:
    """J of every episode."""
    with torch.no_grad():
        path = rollout(problem, problem.bind(params), noise)
        return evaluate(problem, path).value.sum(-1).double()
