"""Policies of the user's own: each engine gives the gradient of the policy
that was run, or refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import estimators as E
import gradlab
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.gradients.engines import LAYERS
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.gradlab.gradients.test_engines import TOLERANCE, build
from tests.helpers.toy import toy_params, toy_problem


@dataclass(frozen=True)
class LayerNorm(GaussianPolicy):
    """Normalised hidden layers and an activation of its own, where only `apply` is overridden."""

    def apply(self, params: dict[str, Tensor], obs: Tensor) -> Tensor:
        out = obs
        for name, _, size in self._layers[:-1]:
            out = F.linear(out, params[f"{name}.weight"], params.get(f"{name}.bias"))
            out = F.gelu(F.layer_norm(out, (size,)))
        name = self._layers[-1][0]
        return self._output(
            params, F.linear(out, params[f"{name}.weight"], params.get(f"{name}.bias"))
        )


@dataclass(frozen=True)
class Gained(GaussianPolicy):
    """One more parameter, a gain of the whole output."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {**GaussianPolicy.shapes(self), "gain": ()}

    def apply(self, params: dict[str, Tensor], obs: Tensor) -> Tensor:
        return (1 + params["gain"]) * GaussianPolicy.apply(self, params, obs)


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


ENGINED = {name: e for name, e in build("pullback").items() if hasattr(e, "engine")}


@pytest.mark.parametrize("name", ENGINED)
@pytest.mark.parametrize("kind", [LayerNorm, Gained])
def test_pullback_refuses_a_network_of_ones_own(kind: type[GaussianPolicy], name: str) -> None:
    problem = posed(kind)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    with pytest.raises(BadValue, match=f'{kind.__name__} has its own .*apply; use engine="vmap"'):
        ENGINED[name](problem, toy_params(problem), noise)


@pytest.mark.parametrize("name", ["fog", "pg", "split", "qg", "abpt-all"])
@pytest.mark.parametrize("kind", [LayerNorm, Gained])
def test_the_other_engines_differentiate_it(kind: type[GaussianPolicy], name: str) -> None:
    problem = posed(kind)
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    samples = build("vmap")[name](problem, params, noise)
    loop = build("loop")[name](problem, params, noise).per_sample()
    for leaf, value in samples.per_sample().items():
        assert (value - loop[leaf]).abs().max() <= TOLERANCE * value.abs().max(), leaf
        assert value.abs().max() > 0, leaf
    dense = sum(leaf.reshape(8, -1).square().sum(1) for leaf in loop.values())
    torch.testing.assert_close(samples.squared_norms(), dense, rtol=1e-9, atol=0)


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
        path = rollout(problem, problem.policy.bind(moved), noise)
        return evaluate(problem, path).value.sum(-1)

    exact = sum((fog[name] * way[name]).reshape(4, -1).sum(1) for name in params)
    slopes = [(value(h) - value(-h)) / (2 * h) for h in (1e-3, 5e-4)]
    extrapolated = (4 * slopes[1] - slopes[0]) / 3
    torch.testing.assert_close(extrapolated, exact, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", build("pullback"))
def test_engines_agree_where_the_layers_are_untouched(name: str) -> None:
    problem = posed(Softsign)
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    answers = [
        build(engine)[name](problem, params, noise).per_sample()
        for engine in ("pullback", "vmap", "loop")
    ]
    for other in answers[1:]:
        for leaf, value in answers[0].items():
            assert (value - other[leaf]).abs().max() <= TOLERANCE * value.abs().max(), leaf


@pytest.mark.parametrize("method", LAYERS)
def test_every_method_of_the_layers_is_watched(method: str) -> None:
    """Also where the override computes the same: the engine cannot know that."""
    kind = type("Mine", (GaussianPolicy,), {method: _copied(LAYERS[method])})
    problem = posed(kind)
    noise = problem.draw(2, torch.Generator().manual_seed(1))
    with pytest.raises(BadValue, match=f"Mine has its own {method}; use") as caught:
        E.FOG()(problem, toy_params(problem), noise)
    assert "\n" not in str(caught.value)
    E.FOG(engine="vmap")(problem, toy_params(problem), noise)


def _copied(found: property | Callable) -> property | Callable:
    if isinstance(found, property):
        return property(lambda self: found.__get__(self))
    return lambda self, *args: found(self, *args)


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
