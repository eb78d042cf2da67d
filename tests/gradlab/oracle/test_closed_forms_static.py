"""Moments of the one-step problems against adaptive quadrature that knows no formula."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from gradlab.oracle import closed_forms
from gradlab.oracle.closed_forms import smoothing, static
from gradlab.problems.problem import Problem
from tests.helpers.known import assert_close, build

ONE_DIMENSIONAL = ["heaviside", "soft_heaviside", "ball_with_wall", "momentum_transfer"]


def scalar_reward(problem: Problem, x: float) -> tuple[float, float]:
    """f(x) with its hard events, and the derivative that autograd finds."""
    landscape = problem.task.landscape
    point = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    f = landscape.reward(point)
    slope = torch.autograd.grad(f, point)[0].item() if f.requires_grad else 0.0
    bonus = sum(
        event.bonus * float(margin > 0)
        for event, margin in zip(landscape.events, landscape.margins(point), strict=True)
    )
    return f.item() + bonus, slope


def jumps_and_kinks(problem: Problem, low: float, high: float) -> list[float]:
    """Breakpoints found by scanning f and f' for steps and bisecting: no formula involved."""
    grid = np.linspace(low, high, 1001)
    f, slope = np.array([scalar_reward(problem, x) for x in grid]).T
    jump = np.abs(np.diff(f) - 0.5 * (slope[1:] + slope[:-1]) * np.diff(grid)) > 1e-4
    kink = np.abs(np.diff(slope)) > 1e-2
    found = []
    for i in np.flatnonzero(jump | kink):
        a, b = grid[i], grid[i + 1]
        for _ in range(60):
            middle = 0.5 * (a + b)
            left, right, centre = (np.array(scalar_reward(problem, x)) for x in (a, b, middle))
            near_left = np.abs(centre - left).sum() < np.abs(centre - right).sum()
            a, b = (middle, b) if near_left else (a, middle)
        found.append(0.5 * (a + b))
    return found


@pytest.mark.parametrize("name", ONE_DIMENSIONAL)
def test_static_moments_equal_adaptive_quadrature(name):
    problem, params = build(name)
    baseline = 0.3
    known = static.moments(problem, params, baseline)
    mean, std = float(params["layers.0.weight"]), float(params["log_std"].exp())
    points = jumps_and_kinks(problem, mean - 9 * std, mean + 9 * std)

    def expect(g) -> float:
        edges = sorted({mean - 9 * std, mean, *points, mean + 9 * std})
        return sum(
            integrate.quad(
                lambda x: g(*scalar_reward(problem, x), (x - mean) / std)
                * stats.norm.pdf(x, mean, std),
                a, b, epsabs=1e-12, epsrel=1e-11, limit=200,
            )[0]
            for a, b in itertools.pairwise(edges)
        )  # fmt: skip

    value = expect(lambda f, s, e: f)
    gradient = expect(lambda f, s, e: f * e / std), expect(lambda f, s, e: f * (e * e - 1))
    fog = expect(lambda f, s, e: s), expect(lambda f, s, e: s * std * e)
    fog2 = expect(lambda f, s, e: s**2), expect(lambda f, s, e: (s * std * e) ** 2)
    pg2 = (
        expect(lambda f, s, e: ((f - baseline) * e / std) ** 2),
        expect(lambda f, s, e: ((f - baseline) * (e * e - 1)) ** 2),
    )
    assert float(known.value) == pytest.approx(value, abs=1e-10)
    for i in range(2):
        assert float(known.gradient[i]) == pytest.approx(gradient[i], abs=1e-9)
        assert float(known.fog[i]) == pytest.approx(fog[i], abs=1e-9)
        assert float(known.fog_variance[i]) == pytest.approx(fog2[i] - fog[i] ** 2, rel=1e-8)
        assert float(known.pg_variance[i]) == pytest.approx(pg2[i] - gradient[i] ** 2, rel=1e-8)


@pytest.mark.parametrize("name", ["ball_with_wall", "momentum_transfer"])
def test_breakpoints_are_where_a_scan_finds_them(name):
    problem, _ = build(name)
    low, high = -0.5, 2.0
    known = problem.task.landscape.breakpoints(low, high)
    assert known == pytest.approx(jumps_and_kinks(problem, low, high), abs=1e-6)
    turned = problem.task.landscape.breakpoints(low + math.pi, high + math.pi)
    if name == "ball_with_wall":
        assert turned == pytest.approx([b + math.pi for b in known])


def test_soft_heaviside_formula_equals_the_generic_quadrature():
    problem, params = build("soft_heaviside", width=0.02)
    mean, std = params["layers.0.weight"][:, 0], params["log_std"].exp()
    formula = smoothing.soft_heaviside(problem.task.landscape, mean, std, 0.2)
    numeric = smoothing.by_quadrature(problem.task.landscape, mean, std, 0.2)
    for a, b in zip(formula[1:], numeric[1:], strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


def test_fog_is_blind_to_the_jumps():
    for name in ("heaviside", "ball_with_wall", "momentum_transfer"):
        answer = closed_forms.solve(*build(name))
        gap = answer.gradient["layers.0.weight"] - answer.seen_by_fog["layers.0.weight"][0]
        assert gap.abs().max() > 0.2 * answer.gradient["layers.0.weight"].abs().max()
    answer = closed_forms.solve(*build("soft_heaviside"))
    torch.testing.assert_close(answer.per_call, answer.seen_by_fog)


def test_heaviside_of_two_components_equals_a_double_integral():
    problem, params = build("heaviside", dim=2, bonus=1.7)
    known = static.moments(problem, params, 0.4)
    mean, std = params["layers.0.weight"][:, 0].numpy(), params["log_std"].exp().numpy()
    low = -mean / std

    def expect(inside, outside, everywhere: float) -> float:
        """inside on the success orthant of (e0, e1), outside elsewhere (everywhere: its mean)."""
        return everywhere + integrate.dblquad(
            lambda b, a: (inside(b) - outside(b)) * math.exp(-(a * a + b * b) / 2) / (2 * math.pi),
            low[0], 8.5, low[1], 8.5, epsabs=1e-11, epsrel=1e-11,
        )[0]  # fmt: skip

    value = expect(lambda e: 1.7, lambda e: 0.0, 0.0)
    assert float(known.value) == pytest.approx(value, abs=1e-10)
    gradient = expect(lambda e: 1.7 * e / std[1], lambda e: 0.0, 0.0)
    assert float(known.gradient.mean[1]) == pytest.approx(gradient, abs=1e-10)
    by_std = expect(lambda e: 1.7 * (e * e - 1), lambda e: 0.0, 0.0)
    assert float(known.gradient.log_std[1]) == pytest.approx(by_std, abs=1e-10)
    beta = 0.4
    second = expect(
        lambda e: ((1.7 - beta) * e / std[1]) ** 2,
        lambda e: (beta * e / std[1]) ** 2,
        (beta / std[1]) ** 2,
    )
    assert float(known.pg_variance.mean[1]) == pytest.approx(second - gradient**2, abs=1e-9)
    second = expect(
        lambda e: ((1.7 - beta) * (e * e - 1)) ** 2,
        lambda e: (beta * (e * e - 1)) ** 2,
        2 * beta**2,
    )
    assert float(known.pg_variance.log_std[1]) == pytest.approx(second - by_std**2, abs=1e-8)


def test_quadratic_moments_equal_a_fine_hermite_grid():
    problem, params = build("quadratic")
    known = static.moments(problem, params, -0.2)
    mean, std = params["layers.0.weight"][:, 0], params["log_std"].exp()
    x, w = np.polynomial.hermite_e.hermegauss(12)
    eps = torch.tensor(list(itertools.product(x, x)))
    weight = torch.tensor([a * b for a, b in itertools.product(w, w)]) / (2 * math.pi)
    point = (mean + std * eps).requires_grad_()
    f = problem.task.landscape.reward(point)
    slope = torch.autograd.grad(f.sum(), point)[0]
    f = f.detach()[:, None]
    first = weight @ slope, weight @ (slope * std * eps)
    score = eps / std, eps.square() - 1
    path = slope, slope * std * eps
    assert_close(known.value, weight @ f[:, 0], 1e-12)
    for i in range(2):
        assert_close(known.gradient[i], first[i], 1e-12)
        assert_close(known.gradient[i], weight @ (f * score[i]), 1e-12)
        assert_close(known.fog_variance[i], weight @ path[i].square() - first[i] ** 2, 1e-12)
        pg = weight @ ((f + 0.2) * score[i]).square() - first[i] ** 2
        assert_close(known.pg_variance[i], pg, 1e-12)


def test_variances_of_the_estimators_on_real_samples():
    """The trace that a study reports, per parameter: within 3 % at 200,000 samples."""
    problem, params = build("quadratic")
    fog, pg = static.variances(problem, params)
    eps = problem.draw(200_000, torch.Generator().manual_seed(5)).action[:, 0]
    x = params["layers.0.weight"][:, 0] + params["log_std"].exp() * eps
    curvature = torch.tensor(problem.task.landscape.curvature, dtype=torch.float64)
    error = x - torch.tensor(problem.task.landscape.target, dtype=torch.float64)
    f = -0.5 * ((error @ curvature) * error).sum(-1, keepdim=True)
    std = params["log_std"].exp()
    torch.testing.assert_close(
        fog["layers.0.weight"][:, 0], (-error @ curvature).var(0), rtol=0.03, atol=0
    )
    torch.testing.assert_close(
        pg["layers.0.weight"][:, 0], (f * eps / std).var(0), rtol=0.03, atol=0
    )
    torch.testing.assert_close(pg["log_std"], (f * (eps**2 - 1)).var(0), rtol=0.03, atol=0)
