"""First and zeroth order mixed at the policy's output, per step and coordinate (IVW-H)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
import tests.helpers.checking
from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Factored
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.truth import OracleGradient
from gradlab.testing import Biased, assert_unbiased
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem


def posed(count: int = 8, **options: Any) -> tuple[Problem, dict[str, Tensor], Noise]:
    problem = toy_problem(**options)
    return problem, toy_params(problem), problem.draw(count, torch.Generator().manual_seed(1))


def cotangent(estimator: E.Estimator, *call: Any) -> Tensor:
    samples = estimator(*call)
    assert isinstance(samples, Factored)
    order = samples.steps.argsort()
    return samples.cotangent[:, order]


@pytest.mark.parametrize("events", [False, True])
def test_the_two_gradients_at_the_output_are_those_of_the_formula(events: bool) -> None:
    problem, params, noise = posed(with_events=events)
    path = rollout(problem, problem.bind(params), noise)
    std, eps = path.output[..., 1:].exp(), noise.action
    g1 = cotangent(E.FOG(), problem, params, noise)
    torch.testing.assert_close(g1[..., 1:], g1[..., :1] * std * eps, rtol=1e-12, atol=1e-14)
    to_go = evaluate(problem, path).to_go()
    advantage = (to_go - (to_go.sum(0) - to_go) / 7)[..., None]
    g0 = cotangent(E.PG(baseline="loo", group_size=8), problem, params, noise)
    expected = torch.cat([advantage * eps / std, advantage * (eps.square() - 1)], -1)
    torch.testing.assert_close(g0, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("events", [False, True])
def test_weights_and_gradient_are_those_of_the_formula(events: bool) -> None:
    problem, params, noise = posed(with_events=events)
    mixture = E.action_mixture(source=E.Same(8))
    parts = E.FOG(), E.PG(baseline="loo", group_size=8)
    g1, g0 = (cotangent(part, problem, params, noise) for part in parts)
    v1, v0 = g1.var(0), g0.var(0)
    alpha = v0 / (v0 + v1)  # [T, nz]
    assert 0 < alpha.min() and alpha.max() < 1
    found = mixture.weights(problem, params, noise)
    assert found.level == "output" and found.values[""].shape == (1, 2, problem.horizon, 2)
    torch.testing.assert_close(found.values[""][0, 0], alpha, rtol=1e-12, atol=0)
    samples = mixture(problem, params, noise)
    assert isinstance(samples, Factored)
    assert samples.obs.shape[1] == problem.horizon  # one pass through the policy for both
    torch.testing.assert_close(
        samples.cotangent, alpha * g1 + (1 - alpha) * g0, rtol=1e-12, atol=1e-14
    )


def test_a_weight_of_one_is_that_part() -> None:
    """FOG to the last bit; PG up to the rounding of z, which a mixture takes from the rollout."""
    problem, params, noise = posed()
    parts = E.FOG(), E.PG(baseline="loo", group_size=4)
    for k, part in enumerate(parts):
        values = torch.zeros(1, 2, problem.horizon, 2)
        values[:, k] = 1
        fixed = E.FixedMixture(parts, E.Weights("output", {"": values}))
        found, alone = (cotangent(one, problem, params, noise) for one in (fixed, part))
        if k == 0:
            assert torch.equal(found, alone)
        torch.testing.assert_close(found, alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("source", [E.Same(8), E.Cross(8), E.Independent(size=8)])
def test_recurrent_policies_have_weights_of_what_they_hand_on(source: Any) -> None:
    problem, _, _ = posed()
    problem = problem.replace(policy=gradlab.RecurrentPolicy(3, (5,), std="global"))
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    mixture = E.action_mixture(source=source)
    weights = mixture.weights(problem, params, noise)
    assert weights.values[""].shape[1:] == (2, problem.horizon, 2 + 3)
    found = mixture(problem, params, noise).per_sample()
    alpha = weights.values[""].repeat_interleave(8 // weights.blocks, 0)
    expected: dict[str, Tensor] = {}
    for k, part in enumerate(mixture.parts):
        samples = part(problem, params, noise)
        assert isinstance(samples, Factored)
        scaled = samples.with_cotangent(samples.cotangent * alpha[:, k, samples.steps])
        for name, value in scaled.per_sample().items():
            expected[name] = expected.get(name, torch.zeros_like(value)) + value
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


def test_an_indicator_leaves_no_pathwise_calls_and_all_of_the_weight() -> None:
    problem, params = build("heaviside")
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    mixture = E.action_mixture(source=E.Same(8))
    weights = mixture.weights(problem, params, noise).values[""]
    assert weights[:, 0].min() == 1  # it trusts what is quiet
    assert all(g.abs().max() == 0 for g in mixture(problem, params, noise).per_sample().values())


def test_advantages_windows_and_labels() -> None:
    problem, params, noise = posed()
    for advantage in ("loo", "none", "v", "q", "gae"):
        mixture = E.action_mixture(3, advantage, source=E.Same(8))
        assert len(mixture(problem, params, noise)) == 8
    assert E.action_mixture().label == "IVW-H(FOG, PG)"
    assert E.action_mixture().group == 50
    published = E.action_mixture(3, "gae", source=E.Same(8))
    assert published.parts == (E.NStep(3, "tiled", tail="v"), E.PG(returns="gae"))
    with pytest.raises(Missing, match="needs a V critic"):
        published.check(problem.replace(critic=None))
    with tests.helpers.checking.off(), pytest.raises(BadValue, match="got 'td'"):
        E.action_mixture(advantage="td")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.statistical
def test_weights_of_the_same_episodes_bias_and_are_caught() -> None:
    """On a steep ramp most first-order samples are 0, and so is their variance in a small group."""
    problem, params = build("soft_heaviside")
    truth = OracleGradient.exact(closed_forms.solve(problem, params).gradient, "closed form")
    how: dict[str, Any] = {"detect": 0.06, "chunk_size": 8192, "max_count": 2**18}

    def check(source: Any) -> None:
        mixture = E.action_mixture(source=source)
        assert_unbiased(mixture, problem, params, truth, **how)

    check(E.Cross(8))
    with pytest.raises(Biased):
        check(E.Same(8))
