"""Optimisation from the published starts, and what the expectations alone would do, and plain runs
in numbers that tell how far apart single ones end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.gradients.sampling import block_generator
from gradlab.oracle import ORACLE_SEED
from gradlab.oracle.closed_forms import linear_gaussian, static
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import seed_for
from gradlab.study.tables import flat
from gradlab.tasks import Decision
from studies.empirical_bias.methods import Setting, method
from studies.empirical_bias.statistics import returns
from studies.empirical_bias.sweep import first_weight
from studies.empirical_bias.toys import WEIGHT, Params, Toy

LOOKS, LONG_LOOKS = 20, 5  # at the objective, along the way
EVALUATED = 256  # episodes behind an objective without a formula
PLAIN = 400  # runs behind the law of an end


def ascent_rows(
    toy: Toy, name: str, trial: int, size: int, updates: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Plain gradient ascent with the published step; a row for each look at where it is.

    All methods have the same episodes in an update of a trial, as far as they take as many.
    """
    problem, params = toy.optimised()
    estimator = method(name, Setting.of(toy, size))
    count = max(size, estimator.group)
    stride = max(1, updates // (LOOKS if toy.exact else LONG_LOOKS))
    for update in range(updates + 1):
        done = update == updates
        noise = problem.draw(count, block_generator(seed, update))
        if done or update % stride == 0:
            weight = float(first_weight(estimator, problem, params, noise, 1))
            row = {"update": update, "last": done, "weight": weight, "nonfinite": 0}
            yield _row(toy, name, trial, problem, params) | row
        if done:
            return
        gradient = estimator(problem, params, noise).mean()[WEIGHT]
        if not bool(gradient.isfinite().all()):
            row = {"update": update, "last": True, "weight": torch.nan, "nonfinite": 1}
            yield _row(toy, name, trial, problem, params) | row
            return
        params = {WEIGHT: params[WEIGHT] + toy.step / (update + 1) ** toy.decay * gradient}


def _row(toy: Toy, name: str, trial: int, problem: Problem, params: Params) -> dict[str, Any]:
    return {
        "kind": "ascent",
        "toy": toy.name,
        "method": name,
        "trial": trial,
        "coordinate": float(params[WEIGHT].mean()) if toy.exact else None,
        "objective": objective(toy, problem, params),
    }


def objective(toy: Toy, problem: Problem, params: Params) -> float:
    """J, by quadrature or on the same episodes for all."""
    if toy.exact:
        return float(static.moments(problem, params).value)
    seed = seed_for(ORACLE_SEED, "empirical_bias", "objective", toy.name)
    parts = [
        returns(problem, params, problem.draw(128, block_generator(seed, block)))
        for block in range(EVALUATED // 128)
    ]
    return float(torch.cat(parts).mean())


def flow_rows(toy: Toy, updates: int) -> Iterator[dict[str, Any]]:
    """Where exact expectations lead, ∇J ("pg") and what FOG expects: after as many updates, and
    where they vanish; and between what 95 % of single runs end."""
    places = {name: zero(toy, name) for name in ("pg", "fog")}
    best = objective_at(toy, places["pg"])
    for name, place in places.items():
        yield {
            "kind": "flow",
            "toy": toy.name,
            "method": name,
            "end": flow(toy, name, updates),
            "zero": place,
            "best": best,
            **flat("single", middle(plain_ends(toy, name, updates))),
        }


def flow(toy: Toy, name: str, updates: int) -> float:
    """The coordinate after updates by an expectation, from the published start."""
    assert toy.start is not None
    problem, place = toy.problem(toy.start), toy.start
    for _ in range(updates):
        place += toy.step * expected(problem, toy, place, name)
    return place


def plain_ends(toy: Toy, name: str, updates: int, runs: int = PLAIN) -> Float[Tensor, " runs"]:
    """Coordinates after the updates of many runs side by side, of batches as published.

    FOG and PG ("pg", the value without noise as baseline) written out for one decision, apart from
    the estimators, on episodes of their own.
    """
    assert toy.start is not None
    problem = toy.problem(toy.start)
    reward = cast(Decision, problem.task).landscape.reward
    std = float(linear_gaussian.read(problem.policy, toy.params(toy.start), 1).std)
    generator = block_generator(seed_for(ORACLE_SEED, "empirical_bias", "plain", toy.name), 0)
    places = torch.full((runs, 1), toy.start, dtype=torch.float64)
    for _ in range(updates):
        noise = torch.randn(runs, toy.batch, generator=generator, dtype=torch.float64)
        decisions = (places + std * noise)[..., None]
        if name == "pg":
            gained = reward(decisions) - reward(places[..., None])
            samples = gained * noise / std
        else:
            with torch.enable_grad():
                decisions.requires_grad_()
                samples = torch.autograd.grad(reward(decisions).sum(), decisions)[0][..., 0]
        places = places + toy.step * samples.mean(1, keepdim=True)
    return places[:, 0]


def middle(values: Float[Tensor, " n"]) -> Interval:
    """The median, and where 95 % of the values are."""
    ends = torch.tensor([0.5, 0.025, 0.975], dtype=values.dtype)
    return Interval(*values.quantile(ends).tolist())


def expected(problem: Problem, toy: Toy, place: float, name: str) -> float:
    """∇J ("pg"), or what FOG expects."""
    known = static.moments(problem, toy.params(place))
    return float((known.gradient if name == "pg" else known.fog).mean)


def objective_at(toy: Toy, place: float) -> float:
    """J of one decision."""
    return objective(toy, toy.problem(place), toy.params(place))


def zero(toy: Toy, name: str) -> float:
    """Where an expectation falls through 0 between the start and the end of the grid; NaN if it
    does not."""
    assert toy.start is not None
    problem = toy.problem(toy.start)
    places = torch.linspace(toy.start, toy.grid[-1], 41, dtype=torch.float64).tolist()
    values = [expected(problem, toy, place, name) for place in places]
    for (a, b), (left, right) in zip(pairwise(places), pairwise(values), strict=True):
        if left > 0 >= right:
            for _ in range(30):
                middle = 0.5 * (a + b)
                rises = expected(problem, toy, middle, name) > 0
                a, b = (middle, b) if rises else (a, middle)
            return 0.5 * (a + b)
    return math.nan
