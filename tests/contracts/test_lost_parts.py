"""Surrogates of which the pullback engine would lose a part are refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.helpers.toy import toy_params, toy_problem


def returns(problem, policy, noise) -> Tensor:
    return evaluate(problem, rollout(problem, policy, noise)).value.sum(-1)


def decay(policy) -> Tensor:
    return 0.1 * torch.stack([value.square().sum() for value in policy.params.values()]).sum()


def around(problem, policy, noise) -> Tensor:
    """The policy's network called past the bound policy."""
    path = rollout(problem, policy, noise)
    z = policy.policy.bind(policy.params)(path.obs.detach())
    return evaluate(problem, path).value.sum(-1) - 0.1 * z.square().sum((-2, -1))


def normalised(problem, policy, noise) -> Tensor:
    value = returns(problem, policy, noise)
    return (value - value.mean()) / (1 + value.detach().std())


SURROGATES: dict[str, tuple[str, Callable]] = {
    "weights": ("reads layers.0.weight itself", lambda *a: returns(*a) - decay(a[1])),
    "weights alone": ("reads layers.0.weight itself", lambda *a: -decay(a[1]).expand(a[2].count)),
    "around": ("reads layers.0.weight itself", around),
    "coupled": ("couples samples", normalised),
    "sorted": ("couples samples", lambda *a: returns(*a).sort().values.cumsum(0)),
}


@dataclass(frozen=True)
class Mine(E.SurrogateEstimator):
    kind: str = "plain"

    def surrogate(self, problem, policy, noise):
        return SURROGATES[self.kind][1](problem, policy, noise)

    def call_weights(self, problem):
        return torch.ones(problem.horizon)


@pytest.mark.parametrize("kind", SURROGATES)
def test_a_part_that_would_be_lost_is_refused(kind: str) -> None:
    problem = toy_problem()
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    for _ in range(2):  # what was refused is not remembered as fine
        with pytest.raises(BadValue, match=SURROGATES[kind][0]) as caught:
            Mine(kind=kind)(problem, toy_params(problem), noise)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["weights", "around"])
def test_the_other_engines_have_the_part(kind: str) -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    fast, slow = (
        Mine(kind=kind, engine=engine)(problem, params, noise).per_sample()
        if kind == "around"
        else _by_hand(problem, params, noise, engine)
        for engine in ("vmap", "loop")
    )
    for name, value in fast.items():
        torch.testing.assert_close(value, slow[name], rtol=1e-9, atol=1e-12)
    plain = E.FOG()(problem, params, noise).per_sample()
    assert any((fast[name] - plain[name]).abs().max() > 1e-3 for name in plain)


def _by_hand(problem: Problem, params, noise, engine) -> dict[str, Tensor]:
    def surrogate(policy, noise, given):
        return returns(problem, policy, noise) - decay(policy)

    with pytest.raises(BadValue, match="reads layers.0.weight itself"):
        gradlab.per_sample_gradients(surrogate, problem, params, noise)
    return gradlab.per_sample_gradients(
        surrogate, problem, params, noise, engine=engine
    ).per_sample()


def test_an_episode_that_is_not_finite_couples_nothing() -> None:
    problem = toy_problem(with_events=False)
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    noise.initial[0] = torch.inf
    samples = E.FOG()(problem, toy_params(problem), noise).per_sample()
    assert all(torch.isfinite(leaf[1:]).all() for leaf in samples.values())


@dataclass(frozen=True)
class Plain(E.SurrogateEstimator):
    def surrogate(self, problem, policy, noise):
        return returns(problem, policy, noise)

    def call_weights(self, problem):
        return torch.ones(problem.horizon)


@dataclass(frozen=True)
class Coupled(Plain):
    def surrogate(self, problem, policy, noise):
        return normalised(problem, policy, noise)


def test_another_class_with_the_same_fields_is_checked_too() -> None:
    """The hash of a dataclass is that of its fields:
    one class that passed must not pass another.
    """
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(0))
    assert hash(Plain()) == hash(Coupled())
    Plain()(problem, params, noise)
    with pytest.raises(BadValue, match="couples samples"):
        Coupled()(problem, params, noise)
