"""Identities without tolerances to argue about: no sampling error enters any of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.base import Estimator
from gradlab.foundation.noise import Noise
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.gradlab.gradients.test_engines import build
from tests.helpers.toy import Swing, toy_params, toy_problem


def gradients(
    estimator: Estimator, problem: Problem, count: int = 8, seed: int = 1
) -> dict[str, Tensor]:
    noise = problem.draw(count, torch.Generator().manual_seed(seed))
    return estimator(problem, toy_params(problem), noise).per_sample()


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-11) -> None:
    for name, value in a.items():
        assert (value - b[name]).abs().max() <= tolerance * value.abs().max(), name


def test_full_window_is_first_order() -> None:
    problem = toy_problem().replace(critic=None)
    fog = gradients(E.FOG(), problem)
    assert_same(fog, gradients(E.NStep(), problem))
    assert_same(fog, gradients(E.NStep(problem.horizon, "tiled"), problem))
    assert_same(fog, gradients(E.LambdaReturn(1.0), problem))


def test_lambda_one_is_n_step_and_lambda_zero_is_one_step() -> None:
    problem = toy_problem()
    for starts in ("first", "tiled"):
        n_step = gradients(E.NStep(3, starts), problem)
        assert_same(n_step, gradients(E.LambdaReturn(1.0, 3, starts), problem))
    one = gradients(E.NStep(1, "first"), problem)
    assert_same(one, gradients(E.LambdaReturn(0.0), problem))


def test_lambda_return_is_the_mixture_of_its_windows() -> None:
    problem, lam = toy_problem(), 0.7
    horizon = problem.horizon
    total: dict[str, Tensor] | None = None
    for n in range(1, horizon + 1):
        weight = lam ** (horizon - 1) if n == horizon else (1 - lam) * lam ** (n - 1)
        part = gradients(weight * E.NStep(n), problem)
        total = part if total is None else {k: total[k] + part[k] for k in part}
    assert total is not None
    assert_same(gradients(E.LambdaReturn(lam), problem), total)


def test_zero_step_is_value_gradient_at_the_start() -> None:
    problem = toy_problem()
    assert_same(gradients(E.ZeroStep(), problem), gradients(E.QG(at="start"), problem))


def test_abpt_is_the_mean_of_its_halves() -> None:
    problem = toy_problem()
    published = gradients(0.5 * (E.ZeroStep() + E.NStep(3)), problem)
    assert_same(gradients(E.ABPT(3), problem), published)
    tiled = gradients(0.5 * (E.QG() + E.NStep(3, "tiled")), problem)
    assert_same(gradients(E.ABPT(3, "all"), problem), tiled)


def test_split_degenerates_to_its_parts() -> None:
    """Without events Split(width) is FOG; where S is the whole reward the residual vanishes."""
    problem = toy_problem(with_events=False)
    assert_same(gradients(E.Split(0.1), problem), gradients(E.FOG(), problem))
    assert_same(gradients(E.Split(None), problem), gradients(E.FOG(), problem))
    relaxed = toy_problem().relaxed(0.1)
    assert_same(gradients(E.Split(0.1), relaxed), gradients(E.FOG(), relaxed))


def test_relaxed_fog_is_fog_of_the_relaxed_problem() -> None:
    problem = toy_problem()
    for step in ("sigmoid", "arctan"):
        expected = gradients(E.FOG(), problem.relaxed(0.2, step))
        assert_same(gradients(E.RelaxedFOG(0.2, step), problem), expected)


def test_fog_sees_no_hard_event() -> None:
    """On a hard task whose only reward is an event, every first-order sample is exactly zero."""

    class Bare(Swing):
        def terms(self, transition):
            return {}

    problem = toy_problem().replace(task=Bare())
    assert all(leaf.abs().max() == 0 for leaf in gradients(E.FOG(), problem).values())
    assert any(leaf.abs().max() > 0 for leaf in gradients(E.PG(), problem).values())


@pytest.mark.parametrize("width", [None, 0.3, 0.05])
def test_finite_differences_per_sample_equal_fog(width: float | None) -> None:
    """Central differences of one sample's return, along random directions, at two step sizes.

    The error of a central difference is O(h²): the two sizes must differ by about a factor 4 and
    their Richardson extrapolation must agree with FOG to O(h⁴).
    """
    problem = toy_problem(with_events=width is not None)
    if width is not None:
        problem = problem.relaxed(width)
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    fog = E.FOG()(problem, params, noise).per_sample()

    def value(shift: dict[str, Tensor], h: float) -> Tensor:
        moved = {name: params[name] + h * shift[name] for name in params}
        path = rollout(problem, problem.bind(moved), noise)
        return evaluate(problem, path).value.sum(-1)

    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        shift = {
            name: torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
            for name, leaf in params.items()
        }
        exact = sum((fog[name] * shift[name]).flatten(1).sum(1) for name in params)
        h = 1e-4
        coarse = (value(shift, h) - value(shift, -h)) / (2 * h)
        fine = (value(shift, h / 2) - value(shift, -h / 2)) / h
        extrapolated = (4 * fine - coarse) / 3
        # the running maximum has kinks: a sample whose argmax changes within h is left out
        smooth = (coarse - fine).abs() <= 1e-5 * (1 + exact.abs())
        assert smooth.sum() >= 3
        error = (extrapolated - exact).abs()[smooth]
        assert (error <= 1e-8 * (1 + exact.abs()[smooth])).all(), error


@pytest.mark.parametrize("name", build("pullback"))
def test_chunks_change_nothing(name: str) -> None:
    problem = toy_problem()
    estimator = build("pullback")[name]
    params = toy_params(problem)
    noise = problem.draw(16, torch.Generator().manual_seed(5))
    whole = estimator(problem, params, noise).per_sample()
    parts = estimator(problem, params, noise, chunk_size=8).per_sample()
    assert_same(whole, parts, 1e-12)


@pytest.mark.parametrize("name", build("pullback"))
def test_rows_or_groups_are_independent(name: str) -> None:
    """Perturbing one episode changes its own row (its own group's rows) and no other."""
    problem = toy_problem()
    estimator = build("pullback")[name]
    params = toy_params(problem)
    noise = problem.draw(16, torch.Generator().manual_seed(6))
    other = problem.draw(16, torch.Generator().manual_seed(7))
    touched = 9
    mixed = Noise(
        *(
            torch.cat([a[:touched], b[touched : touched + 1], a[touched + 1 :]])
            for a, b in zip(noise, other, strict=True)
        )
    )
    before = estimator(problem, params, noise).per_sample()
    after = estimator(problem, params, mixed).per_sample()
    group = touched // estimator.group
    inside = torch.arange(16) // estimator.group == group
    changed = torch.zeros(16, dtype=torch.bool)
    for leaf in before:
        same = (before[leaf] - after[leaf]).abs().flatten(1).amax(1) <= 1e-12
        changed |= ~same
    assert changed[touched]
    assert not changed[~inside].any()


def test_first_order_is_linear_in_the_reward() -> None:
    class Scaled(Swing):
        def terms(self, transition):
            terms = Swing.terms(self, transition)
            return {name: 3.0 * value for name, value in terms.items()}

    problem = toy_problem(with_events=False)
    tripled = problem.replace(task=Scaled(with_events=False))
    for estimator in (E.FOG(), E.PG(), E.Split()):
        once, thrice = gradients(estimator, problem), gradients(estimator, tripled)
        assert_same({k: 3 * v for k, v in once.items()}, thrice)


@dataclass(frozen=True)
class Quiet(E.SurrogateEstimator):
    """An estimate of zero, without variance."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        return 0.0 * rollout(problem, policy, noise).output.sum((-2, -1))

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon, dtype=problem.dtype)


def test_mixture_weight_zero_or_one_returns_a_part() -> None:
    """A part without variance gets all the weight; two equal parts give either."""
    problem = toy_problem()
    for level in ("global", "layer", "parameter"):
        for parts in ((Quiet(), E.FOG()), (E.FOG(), Quiet())):
            mixture = E.Mixture(parts, E.InverseVariance(), level, E.Same(8))
            assert all(v.abs().max() == 0 for v in gradients(mixture, problem).values())
    for level in ("global", "layer", "parameter", "step"):
        same = E.Mixture((E.FOG(), E.FOG()), E.InverseVariance(), level, E.Same(8))
        assert_same(gradients(E.FOG(), problem), gradients(same, problem))


def test_common_noise_across_dtypes() -> None:
    double, single = toy_problem(), toy_problem(dtype=torch.float32)
    a = double.draw(3, torch.Generator().manual_seed(8))
    b = single.draw(3, torch.Generator().manual_seed(8))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.to(y.dtype), y, rtol=0, atol=0)
