"""Policies of the user's own: each engine gives the gradient of the policy that was run."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import estimators as E
import gradlab
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.gradients.samples import Factored
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.policies.perceptron import Perceptron
from gradlab.policies.policy import Policy
from gradlab.policies.pulls import CallPull, LayerPull
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.gradlab.gradients.test_engines import TOLERANCE, build
from tests.helpers.toy import toy_params, toy_problem


@dataclass(frozen=True)
class LayerNorm(GaussianPolicy):
    """Normalised hidden layers and an activation of its own, where only `apply` is overridden."""

    def apply(self, params, buffers, obs, carry):
        out, last = obs, len(self.hidden)
        for i, size in enumerate(self.hidden):
            out = F.linear(out, params[f"layers.{i}.weight"], params[f"layers.{i}.bias"])
            out = F.gelu(F.layer_norm(out, (size,)))
        out = F.linear(out, params[f"layers.{last}.weight"], params[f"layers.{last}.bias"])
        return self.head.output(params, out), carry


@dataclass(frozen=True)
class Gained(GaussianPolicy):
    """One more parameter, a gain of the whole output."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**GaussianPolicy.shapes(self), "gain": ()}

    def init(self, generator, **options) -> dict[str, Tensor]:
        own = GaussianPolicy.init(self, generator, **options)
        return {**own, "gain": next(iter(own.values())).new_zeros(())}

    def apply(self, params, buffers, obs, carry):
        z, after = GaussianPolicy.apply(self, params, buffers, obs, carry)
        return (1 + params["gain"]) * z, after


@dataclass(frozen=True)
class Softsign(GaussianPolicy):
    """Another squashing and another initialisation: nothing that the layers compute."""

    def action(self, latent: Tensor) -> Tensor:
        return latent / (1 + latent.abs())

    def init(self, generator, **options) -> dict[str, Tensor]:
        return {n: 1.5 * v for n, v in GaussianPolicy.init(self, generator, **options).items()}


def posed(kind: type[GaussianPolicy]) -> Problem:
    problem = toy_problem(with_events=False)
    plain = problem.policy
    same = {field.name: getattr(plain, field.name) for field in fields(plain)}
    return problem.replace(policy=kind(**same))


@pytest.mark.parametrize("kind", [LayerNorm, Gained])
def test_vmap_is_the_finite_difference_of_the_policy_that_was_run(
    kind: type[GaussianPolicy],
) -> None:
    problem = posed(kind)
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    fog = E.FOG(engine="vmap")(problem, params, noise).per_sample()
    way = toy_params(problem, seed=3)

    def value(h: float) -> Tensor:
        moved = {name: params[name] + h * way[name] for name in params}
        path = rollout(problem, problem.bind(moved), noise)
        return evaluate(problem, path).value.sum(-1)

    exact = sum((fog[name] * way[name]).reshape(4, -1).sum(1) for name in params)
    slopes = [(value(h) - value(-h)) / (2 * h) for h in (1e-3, 5e-4)]
    extrapolated = (4 * slopes[1] - slopes[0]) / 3
    torch.testing.assert_close(extrapolated, exact, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["fog", "pg", "split", "qg", "abpt-all", "ivw-layer-cross"])
@pytest.mark.parametrize("kind", [LayerNorm, Gained, Softsign])
def test_engines_agree_on_the_policy_that_was_run(kind: type[GaussianPolicy], name: str) -> None:
    problem = posed(kind)
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    answers = [
        build(engine)[name](problem, params, noise) for engine in ("pullback", "vmap", "loop")
    ]
    rows = [answer.per_sample() for answer in answers]
    for leaf, value in rows[0].items():
        for other in rows[1:]:
            assert (value - other[leaf]).abs().max() <= TOLERANCE * value.abs().max(), leaf
        assert value.abs().max() > 0, leaf
    dense = sum(leaf.reshape(8, -1).square().sum(1) for leaf in rows[2].values())
    torch.testing.assert_close(answers[0].squared_norms(), dense, rtol=1e-9, atol=0)
    for leaf, value in answers[0].mean().items():
        torch.testing.assert_close(value, rows[2][leaf].mean(0), rtol=1e-9, atol=1e-12)


def test_layers_are_known_only_where_nothing_is_overridden() -> None:
    """Also where the override computes the same: nobody can know that."""
    same = type("Same", (GaussianPolicy,), {"apply": lambda self, *args: Policy.apply(self, *args)})
    assert isinstance(posed(GaussianPolicy).policy.pull, LayerPull)
    assert isinstance(posed(Softsign).policy.pull, LayerPull)
    for kind in (same, LayerNorm, Gained):
        assert isinstance(posed(kind).policy.pull, CallPull), kind
    other = posed(GaussianPolicy).policy
    found = type("Mine", (Perceptron,), {})(*vars(other.network).values())
    object.__setattr__(other, "network", found)
    assert isinstance(other.pull, CallPull)


def test_samples_of_an_unknown_network_have_no_factors() -> None:
    problem = posed(LayerNorm)
    samples = E.FOG()(problem, toy_params(problem), problem.draw(2, torch.Generator()))
    assert isinstance(samples, Factored) and not samples.layered
    with pytest.raises(BadValue, match="the layers of LayerNorm 3-5-4-1 are not known"):
        samples.factors()


def test_a_parameter_that_no_layer_has_is_refused() -> None:
    problem = toy_problem(with_events=False)
    params = {**toy_params(problem), "gain": torch.ones((), dtype=torch.float64)}
    noise = problem.draw(2, torch.Generator().manual_seed(1))

    def surrogate(policy, noise, given):
        path = rollout(problem, policy, noise)
        return policy.params["gain"] * evaluate(problem, path).value.sum(-1)

    with pytest.raises(BadShape, match='gain is none of its own .*engine="vmap"'):
        gradlab.per_sample_gradients(surrogate, problem, params, noise)
    rows = gradlab.per_sample_gradients(surrogate, problem, params, noise, engine="vmap")
    assert rows.per_sample()["gain"].abs().min() > 0
