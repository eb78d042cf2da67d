"""Switch: what its test looks at, what it decides, and the mixture that follows."""

from __future__ import annotations

import pytest
import torch

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.helpers import checking
from tests.helpers.toy import toy_params, toy_problem

Params = dict[str, torch.Tensor]
TESTS = ("ddcg", "jump")


def known(name: str) -> tuple[Problem, Params]:
    problem = gradlab.make(name, dtype=torch.float64)
    return problem, problem.reference


def noise_gradient(problem: Problem, params: Params, noise: gradlab.Noise) -> torch.Tensor:
    """∇_ε f by autograd through the noise, and not by the policy's cotangents."""
    action = noise.action.clone().requires_grad_()
    path = rollout(problem, problem.bind(params), noise._replace(action=action))
    value = evaluate(problem, path).value.sum()
    return torch.autograd.grad(value, [action])[0]


def test_the_published_test_by_hand() -> None:
    problem = toy_problem()
    params, noise = toy_params(problem), problem.draw(64, torch.Generator().manual_seed(1))
    switch = E.Switch(source=E.Same(32))
    g = noise_gradient(problem, params, noise).flatten(1)
    path = rollout(problem, problem.bind(params), noise)
    f = evaluate(problem, path).value.sum(-1)
    found = switch.tests(problem, params, noise)
    weights = switch.weights(problem, params, noise).values[""]
    fog, pg = (e(problem, params, noise).per_sample() for e in (E.FOG(), E.PG()))
    for block in range(2):
        rows = slice(32 * block, 32 * block + 32)
        v1, variance = g[rows].var(0).sum(), f[rows].var()
        d = 2 * variance - 2 * g[rows].mean(0).square().sum() - v1
        torch.testing.assert_close(found.unseen[block], d / (2 * variance), rtol=1e-9, atol=1e-12)
        trusted = v1 >= 2 * (1 - 0.3) * variance - 2 * g[rows].mean(0).square().sum()
        assert bool(found.unseen[block] <= found.allowed[block]) is bool(trusted)
        spread = [sum(leaf[rows].var(0).sum() for leaf in part.values()) for part in (fog, pg)]
        alpha = spread[1] / (spread[0] + spread[1]) if trusted else torch.zeros(())
        torch.testing.assert_close(weights[block, 0], alpha.double(), rtol=1e-9, atol=0)
    mixed = switch(problem, params, noise).per_sample()
    by_row = weights.repeat_interleave(32, 0)
    for leaf, value in mixed.items():
        a, b = (by_row[:, k].view(-1, *[1] * (value.ndim - 1)) for k in (0, 1))
        torch.testing.assert_close(value, a * fog[leaf] + b * pg[leaf], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("test", TESTS)
def test_a_jump_leaves_pg_alone(test: str) -> None:
    problem, params = known("heaviside")
    noise = problem.draw(256, torch.Generator().manual_seed(0))
    switch = E.Switch(test, source=E.Same(128))
    assert torch.equal(
        switch.weights(problem, params, noise).values[""],
        torch.tensor([[0.0, 1.0]] * 2, dtype=torch.float64),
    )
    pg = E.PG()(problem, params, noise).per_sample()
    for leaf, value in switch(problem, params, noise).per_sample().items():
        assert torch.equal(value, pg[leaf])


@pytest.mark.parametrize("test", TESTS)
def test_what_is_smooth_keeps_fog(test: str) -> None:
    problem, params = known("quadratic")
    noise = problem.draw(256, torch.Generator().manual_seed(0))
    weights = E.Switch(test, source=E.Same(128)).weights(problem, params, noise).values[""]
    expected = E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), source=E.Same(128))
    torch.testing.assert_close(weights, expected.weights(problem, params, noise).values[""])
    assert (weights[:, 0] > 0.5).all()


def test_random_starts_count_against_fog_where_they_are_not_held() -> None:
    """On LQ, which is smooth, Var f is mostly that of the start: the published test says jump."""
    problem = gradlab.make("lq", dtype=torch.float64)
    params = problem.reference
    noise = problem.draw(512, torch.Generator().manual_seed(0))
    published = E.Switch(source=E.Same(512)).tests(problem, params, noise)
    paired = E.Switch("jump", source=E.Same(512)).tests(problem, params, noise)
    assert float(published.unseen) > float(paired.unseen)
    assert float(paired.unseen) <= float(paired.allowed)


@pytest.mark.parametrize("test", TESTS)
def test_episodes_that_are_not_finite_leave_pg(test: str) -> None:
    problem, params = known("quadratic")
    noise = problem.draw(32, torch.Generator().manual_seed(0))
    noise.action[3] = torch.nan
    weights = E.Switch(test, source=E.Same(32)).weights(problem, params, noise).values[""]
    assert weights.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("test", TESTS)
def test_folds_are_tested_and_weighted_by_the_other_folds(test: str) -> None:
    problem = toy_problem()
    params, noise = toy_params(problem), problem.draw(128, torch.Generator().manual_seed(1))
    crossed = E.Switch(test, c=1.0, source=E.Cross(64))
    own = E.Switch(test, c=1.0, source=E.Same(32))
    weights = crossed.weights(problem, params, noise).values[""]
    swapped = own.weights(problem, params, noise).values[""][[1, 0, 3, 2]]
    torch.testing.assert_close(weights, swapped, rtol=1e-12, atol=0)
    tests, others = (s.tests(problem, params, noise) for s in (crossed, own))
    torch.testing.assert_close(tests.unseen, others.unseen[[1, 0, 3, 2]], rtol=1e-9, atol=1e-12)
    assert len(set(weights[:, 0].tolist())) > 1
    fog, pg = (e(problem, params, noise).per_sample() for e in (E.FOG(), E.PG()))
    by_row = weights.repeat_interleave(32, 0)
    for leaf, value in crossed(problem, params, noise).per_sample().items():
        a, b = (by_row[:, k].view(-1, *[1] * (value.ndim - 1)) for k in (0, 1))
        torch.testing.assert_close(value, a * fog[leaf] + b * pg[leaf], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("test", TESTS)
def test_a_pilot_decides_for_any_episodes(test: str) -> None:
    problem = toy_problem()
    params, noise = toy_params(problem), problem.draw(6, torch.Generator().manual_seed(1))
    switch = E.Switch(test, c=1.0, source=E.Independent(seed=3, size=64))
    assert switch.group == 1
    pilot = E.Independent(seed=3, size=64).draw(problem, 2)
    expected = E.Switch(test, c=1.0, source=E.Same(64)).weights(problem, params, pilot).values[""]
    weights = switch.weights(problem, params, noise).values[""]
    assert torch.equal(weights, expected)
    whole = switch(problem, params, noise).per_sample()
    parts = switch(problem, params, noise, chunk_size=1).per_sample()
    fog, pg = (e(problem, params, noise).per_sample() for e in (E.FOG(), E.PG()))
    a, b = weights[0]
    for leaf, value in whole.items():
        torch.testing.assert_close(value, a * fog[leaf] + b * pg[leaf], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(parts[leaf], value, rtol=1e-12, atol=1e-14)


def test_options_are_checked() -> None:
    for match, options in {
        "c should": {"c": 2.0},
        "level should": {"level": 0.0},
        "behind a test": {"source": E.Same(4)},
        "of Cross": {"source": E.Cross(2)},
    }.items():
        with pytest.raises(BadValue, match=match):
            E.Switch(**options)
    with checking.off(), pytest.raises(BadValue, match="test should be"):
        E.Switch("coin")
    problem = toy_problem()
    with pytest.raises(BadValue, match="call weights are 1"):
        E.Switch(zeroth=2.0 * E.PG()).check(problem)
