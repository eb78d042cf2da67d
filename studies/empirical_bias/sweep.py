"""Expectation and variance of every method along a toy's coordinate, beside the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Estimator
from estimators.mixtures import Mixture
from estimators.switch import Switch
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import block_generator
from gradlab.oracle import ORACLE_SEED, closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import seed_for
from gradlab.study.tables import flat
from studies.empirical_bias.methods import Setting, method, usable
from studies.empirical_bias.statistics import mean_interval, slope, spread
from studies.empirical_bias.toys import WEIGHT, Params, Toy
from studies.shared.medians import median_interval

CHUNK = 1024  # episodes at once, of which whole batches are taken
WEIGHED = 16  # batches whose weights are looked at, or a few more
LONG = 512  # the same of toys with many steps


class Truth(NamedTuple):
    """The derivative of J along the coordinate, and how far off it may be."""

    value: float
    reach: float  # of its 95 % interval; 0 if it is exact
    name: str


def truth_of(toy: Toy, problem: Problem, params: Params, episodes: int) -> Truth:
    """By quadrature or closed form for one decision, else by differences."""
    if toy.exact:
        exact = closed_forms.solve(problem, params).gradient
        return Truth(float((exact[WEIGHT] * toy.direction.cpu()).sum()), 0.0, "quadrature")
    seed = seed_for(ORACLE_SEED, "empirical_bias", toy.name)
    direction = {WEIGHT: toy.direction}
    parts = []
    for block in range(0, episodes, LONG):
        noise = problem.draw(min(LONG, episodes - block), block_generator(seed, block))
        parts.append(slope(problem, params, direction, noise, toy.difference))
    found = mean_interval(torch.cat([part.episodes for part in parts]))
    error = abs(sum(part.step_error for part in parts)) / len(parts)
    return Truth(found.estimate, found.high - found.estimate + error, f"differences x {episodes}")


def batches(
    estimator: Estimator,
    problem: Problem,
    params: Params,
    toy: Toy,
    size: int,
    count: int,
    seed: int,
) -> tuple[Float[Tensor, " R"], Float[Tensor, " k"]]:
    """Means of R batches along the coordinate, and weights of the first part in a few of them.

    A batch is `size` episodes, or as many more as the groups of an estimator ask for. Weights are
    NaN for what has none.
    """
    size = math.lcm(size, estimator.group)
    most = CHUNK if toy.exact else LONG
    each = max(1, min(count, most // size))
    means, weights = [], []
    for begin in range(0, count, each):
        some = min(each, count - begin)
        noise = problem.draw(some * size, block_generator(seed, begin))
        samples = estimator(problem, params, noise).per_sample()[WEIGHT]
        along = (samples * toy.direction).flatten(1).sum(-1)
        means.append(along.double().unflatten(0, (some, size)).mean(1))
        if begin < WEIGHED:
            weights.append(first_weight(estimator, problem, params, noise, some))
    return torch.cat(means), torch.cat(weights)


def first_weight(
    estimator: Estimator, problem: Problem, params: Params, noise: Noise, count: int
) -> Float[Tensor, " R"]:
    """The mean weight of the first part in each of `count` batches; at the output, for the mean."""
    if not isinstance(estimator, Mixture | Switch):
        return noise.action.new_full((count,), torch.nan, dtype=torch.float64)
    weights = estimator.weights(problem, params, noise)
    found = weights.values
    if weights.level == "output":  # (mean, log std)
        found = {name: value[..., : problem.simulator.action_dim] for name, value in found.items()}
    first = (
        torch.cat([value[:, 0].reshape(len(value), -1) for value in found.values()], 1)
        .double()
        .mean(1)
    )
    return first.unflatten(0, (count, -1)).mean(1)


def sweep_rows(
    toy: Toy,
    coordinate: float,
    names: Sequence[str],
    size: int,
    count: int,
    episodes: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """One row per method: what it expects, how far that is from the truth, and its variance."""
    problem, params = toy.problem(coordinate), toy.params(coordinate)
    truth = truth_of(toy, problem, params, episodes)
    for name in names:
        if not usable(name, size):
            continue
        estimator = method(name, Setting.of(toy, size))
        means, weights = batches(estimator, problem, params, toy, size, count, seed)
        known = means[means.isfinite()]
        bias = mean_interval(known - truth.value, truth.reach)
        yield {
            "kind": "sweep",
            "toy": toy.name,
            "coordinate": coordinate,
            "method": name,
            "batch": size,
            "batches": count,
            "nonfinite": count - len(known),
            "truth": truth.value,
            "truth_reach": truth.reach,
            "truth_name": truth.name,
            **flat("expectation", mean_interval(known)),
            **flat("bias", bias),
            **flat("median", median_interval(known.tolist())),
            **flat("variance", _scaled(spread(known), float(size))),
            **flat("weight", mean_interval(weights)),
        }


def _scaled(interval: Interval, by: float) -> Interval:
    return Interval(*(by * end for end in interval))
