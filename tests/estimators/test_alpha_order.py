"""AoBG's rule: weights by hand, by a plain twin at every level, and the limits of its bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.mixtures.rules import variances
from estimators.mixtures.weights import LEVELS, Level, layer_of
from gradlab.foundation.errors import BadValue
from gradlab.gradients.samples import Dense, Factored, GradientSamples
from tests.helpers.toy import toy_params, toy_problem


def of_numbers(*rows: float) -> Dense:
    """Samples of a gradient of one number."""
    return Dense({"a.weight": torch.tensor(rows, dtype=torch.float64)[:, None]})


# v1 = 1/3 about 1.5, v0 = 20/3 about 3, B = 1.5
FIRST, ZEROTH = of_numbers(1, 1, 2, 2), of_numbers(0, 2, 4, 6)
BEST = (20 / 3) / (7 + 1e-5)  # 0.952
LOG = math.log(2 / 0.05)  # 3.689
RADIUS = math.sqrt(2 * (20 / 3) * LOG / 4) + 2 * 1 / (3 * 4) * LOG  # 3.507 + 0.615


def alpha(rule: E.AlphaOrder, first: Dense = FIRST, zeroth: Dense = ZEROTH) -> float:
    """Weight of the first-order part; the other one has the rest."""
    shares = rule([first, zeroth], "global", 1, True)[""]
    assert float(shares.sum()) == 1.0
    return float(shares[0])


def rule_of(gamma: float, **options: Any) -> E.AlphaOrder:
    return E.AlphaOrder(gamma, bound=1.0, failure_probability=0.05, **options)


def test_three_regimes_by_hand() -> None:
    assert pytest.approx(4.1214, abs=1e-4) == RADIUS
    assert float(rule_of(1.0).radius(torch.tensor(20 / 3), 4, 1)) == pytest.approx(RADIUS, rel=1e-6)
    assert alpha(rule_of(4.0)) == 0.0  # ε > γ: nothing is known of the bias
    assert alpha(rule_of(10.0)) == pytest.approx(BEST, rel=1e-12)  # ᾱB = 1.43 <= γ − ε
    assert alpha(rule_of(5.0)) == pytest.approx((5 - RADIUS) / 1.5, rel=1e-12)  # 0.586
    edge = RADIUS + BEST * 1.5
    assert alpha(rule_of(edge - 1e-6)) == pytest.approx(BEST - 1e-6 / 1.5, rel=1e-9)
    assert alpha(rule_of(edge + 1e-6)) == pytest.approx(BEST, rel=1e-12)


def test_the_published_failure_probability_gives_a_smaller_radius() -> None:
    published = E.AlphaOrder(3.0, bound=1.0)
    log = math.log(2 / 0.95)
    expected = math.sqrt(2 * (20 / 3) * log / 4) + 2 / 12 * log
    found = published.radius(torch.tensor(20 / 3).double(), 4, 1)
    assert float(found) == pytest.approx(expected, rel=1e-7)
    assert alpha(published) > 0.0 == alpha(rule_of(3.0))


def test_relative_gamma_is_in_standard_errors_of_the_zeroth_order_mean() -> None:
    unit = math.sqrt(20 / 3 / 4)
    for gamma in (3.0, 3.5, 8.0):
        relative = rule_of(gamma / unit, relative=True)
        assert alpha(relative) == pytest.approx(alpha(rule_of(gamma)), rel=1e-12)


def test_the_radius_has_a_variance_per_sample() -> None:
    """With a sum of squares in place of v0, ε is √N too large and α stays at 0: a public slip."""
    generator = torch.Generator().manual_seed(0)
    count, size = 400, 6
    draws = torch.randn(2, count, size, generator=generator, dtype=torch.float64)
    first, zeroth = Dense({"a.weight": 1 + 0.1 * draws[0]}), Dense({"a.weight": 1 + 2 * draws[1]})
    rule = E.AlphaOrder(gamma=2.0, bound=10.0, failure_probability=0.05)
    centred = zeroth.leaves["a.weight"] - zeroth.leaves["a.weight"].mean(0)
    summed = centred.square().sum()
    right, slip = rule.radius(summed / (count - 1), count, size), rule.radius(summed, count, size)
    assert right < rule.gamma < slip
    assert alpha(rule, first, zeroth) > 0.99


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_their_plain_twins(level: Level) -> None:
    """d, v0, v1 and B of whatever has a weight of its own, from dense gradients one unit at a
    time; three values of γ for the three regimes."""
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(24, torch.Generator().manual_seed(1))
    parts = [part(problem, params, noise) for part in (E.FOG(), E.PG())]
    seen: set[str] = set()
    for gamma in (3.0, 5.0, 9.0):
        rule = E.AlphaOrder(gamma, relative=True, bound=0.5, failure_probability=0.1)
        found = rule(parts, level, problem.horizon, True)
        for key, units in by_units(parts, level, problem.horizon).items():
            for index, (first, zeroth) in units.items():
                expected, regime = plain(rule, first, zeroth)
                assert float(found[key][(0, *index)]) == pytest.approx(
                    expected, rel=1e-9, abs=1e-12
                )
                seen.add(regime)
        assert all(torch.equal(value.sum(0), torch.ones_like(value[0])) for value in found.values())
    assert "none" in seen and "best" in seen


def plain(rule: E.AlphaOrder, first: Tensor, zeroth: Tensor) -> tuple[float, str]:
    """α of samples [N, d], and how it came about."""
    count, size = zeroth.shape
    v0, v1 = float(zeroth.var(0).sum()), float(first.var(0).sum())
    log = math.log((size + 1) / rule.failure_probability)
    radius = math.sqrt(2 * v0 * log / count) + 2 * rule.bound / (3 * count) * log
    gamma = rule.gamma * math.sqrt(v0 / count)
    apart = float((first.mean(0) - zeroth.mean(0)).norm())
    if radius > gamma:
        return 0.0, "none"
    best = v0 / (v0 + v1 + rule.regulariser)
    return (
        (best, "best") if best * apart <= gamma - radius else ((gamma - radius) / apart, "capped")
    )


def by_units(
    parts: list[GradientSamples], level: Level, horizon: int
) -> dict[str, dict[tuple[int, ...], tuple[Tensor, Tensor]]]:
    """{key: {index: samples [N, d] of both parts}}."""
    if level == "step":
        units = {}
        for t in range(horizon):
            steps = [part.at_step(t).per_sample() for part in parts if isinstance(part, Factored)]
            first, zeroth = ({n: x.flatten(1) for n, x in rows.items()} for rows in steps)
            units[(t,)] = torch.cat(list(first.values()), 1), torch.cat(list(zeroth.values()), 1)
        return {"": units}
    if level == "output":
        given = [
            torch.stack([part.at_step(t).cotangent.sum(1) for t in range(horizon)], 1)
            for part in parts
            if isinstance(part, Factored)
        ]
        places = product(range(horizon), range(given[0].shape[-1]))
        return {"": {(t, i): (given[0][:, t, i, None], given[1][:, t, i, None]) for t, i in places}}
    first, zeroth = (part.per_sample() for part in parts)
    if level == "parameter":
        out = {}
        for name, value in first.items():
            places = torch.cartesian_prod(*(torch.arange(n) for n in value.shape[1:]))
            out[name] = {
                tuple(place): (
                    value[(slice(None), *place)][:, None],
                    zeroth[name][(slice(None), *place)][:, None],
                )
                for place in places.reshape(-1, value.ndim - 1).tolist()
            }
        return out
    groups: dict[str, list[str]] = {}
    for name in first:
        groups.setdefault(layer_of(name) if level == "layer" else "", []).append(name)
    return {
        key: {
            (): (
                torch.cat([first[n].flatten(1) for n in names], 1),
                torch.cat([zeroth[n].flatten(1) for n in names], 1),
            )
        }
        for key, names in groups.items()
    }


@pytest.mark.parametrize("level", LEVELS)
def test_without_limit_it_is_inverse_variance_to_the_last_bit(level: Level) -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(16, torch.Generator().manual_seed(1))
    parts = E.FOG(), E.PG()
    free = E.AlphaOrder(math.inf, regulariser=0.0)
    mixed = [
        E.Mixture(parts, rule, level, E.Cross(8))(problem, params, noise).per_sample()
        for rule in (free, E.InverseVariance())
    ]
    assert all(torch.equal(value, mixed[1][name]) for name, value in mixed[0].items())
    # the published regulariser moves weights by 1e-5 over the sum of variances
    samples = [part(problem, params, noise) for part in parts]
    spread = variances(samples, level, problem.horizon)
    shares = E.AlphaOrder(math.inf)(samples, level, problem.horizon, True)
    for key, (first, zeroth) in spread.items():
        torch.testing.assert_close(shares[key][0], zeroth / (zeroth + first + 1e-5))


def test_parts_that_do_not_vary_or_are_not_finite() -> None:
    still, nan = of_numbers(3, 3, 3, 3), of_numbers(1, 2, float("nan"), 4)
    assert alpha(rule_of(0.0), FIRST, still) == 0.0  # nothing to gain
    assert alpha(E.AlphaOrder(0.0, bound=0.0, regulariser=0.0), still, ZEROTH) == 0.0
    assert alpha(rule_of(100.0), still, still) == 0.0
    assert alpha(rule_of(100.0, regulariser=0.0), still, still) == 0.5
    for gamma in (1.0, 100.0, math.inf):
        assert alpha(rule_of(gamma), nan, ZEROTH) == 0.0
        assert alpha(rule_of(gamma), FIRST, nan) == 0.0


def test_weight_zero_returns_the_zeroth_order_part() -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(16, torch.Generator().manual_seed(1))
    mixture = E.Mixture((E.FOG(), E.PG()), E.AlphaOrder(0.0), source=E.Same(8))
    part = E.PG()(problem, params, noise).per_sample()
    for name, value in mixture(problem, params, noise).per_sample().items():
        torch.testing.assert_close(value, part[name], rtol=1e-12, atol=1e-14)


WRONG: dict[str, Callable[[], object]] = {
    "gamma should be at least 0, got -1": lambda: E.AlphaOrder(-1.0),
    "gamma should be at least 0, got nan": lambda: E.AlphaOrder(math.nan),
    "bound should be at least 0": lambda: E.AlphaOrder(1.0, bound=-1.0),
    "failure_probability should lie between 0 and 1, got 1": lambda: E.AlphaOrder(
        1.0, failure_probability=1.0
    ),
    "regulariser should be at least 0": lambda: E.AlphaOrder(1.0, regulariser=-1e-5),
    "AlphaOrder mixes two parts.*got 3": lambda: E.AlphaOrder(1.0)([FIRST] * 3, "global", 1, True),
}


@pytest.mark.parametrize("pattern", WRONG)
def test_what_is_refused_is_one_line(pattern: str) -> None:
    with pytest.raises(BadValue, match=pattern) as caught:
        WRONG[pattern]()
    assert "\n" not in str(caught.value)
