"""The score comes from the noise: it is exact however small the policy's std is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import estimators as E
from gradlab.foundation.errors import BadValue
from gradlab.policies.gaussian import GaussianPolicy, LinearPolicy
from gradlab.problems.problem import Problem
from tests.helpers.toy import toy_params, toy_problem

STDS = [1e-8, 1e-4, 0.3]
ESTIMATORS = {
    "pg": E.PG(),
    "pg-q": E.PG(baseline="q"),
    "split": E.Split(None),
    "vmap": E.PG(engine="vmap"),
    "entropy": E.ZeroStep(entropy=1.0),
    "abpt": E.ABPT(3, "all", entropy=0.1),
}


def narrow(std: float, dtype: torch.dtype, learned: bool) -> Problem:
    """A std of the network's own, or a constant one."""
    options = {"std": "state", "initial_std": std, "log_std_range": (-30.0, 1.0)}
    policy = GaussianPolicy(3, 1, hidden=(5,), **(options if learned else {"std": std}))
    return toy_problem(with_events=False, dtype=dtype).replace(policy=policy)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_float32_agrees_with_float64_at_any_std(name: str, std: float, learned: bool) -> None:
    """Rounding of the states and of log std (up to 20, so 2e-6 of the std) is all that is left."""
    wide, single = (narrow(std, dtype, learned) for dtype in (torch.float64, torch.float32))
    params = toy_params(wide)
    noise = wide.draw(8, torch.Generator().manual_seed(1))
    exact = ESTIMATORS[name](wide, params, noise).per_sample()
    cast = {n: v.float() for n, v in params.items()}
    again = single.draw(8, torch.Generator().manual_seed(1))
    got = ESTIMATORS[name](single, cast, again).per_sample()
    for leaf, value in exact.items():
        error = (got[leaf] - value).abs().max()
        assert error <= 2e-4 * value.abs().max(), f"{leaf}: {float(error / value.abs().max()):.1e}"
        assert value.abs().max() > 0


def test_score_is_noise_over_std_by_hand() -> None:
    """∂log π/∂mean = ε/std and ∂log π/∂log std = ε² − 1, to the last digits of float32."""
    policy = LinearPolicy(2, 1, std="global", initial_std=1e-8)
    eps = torch.tensor([[0.7], [-1.9], [0.0]])
    z = torch.tensor([[0.8, math.log(1e-8)]]).repeat(3, 1).requires_grad_()
    score = torch.autograd.grad(policy.log_prob_held(z, eps).sum(), z)[0]
    std = z.detach()[:, 1].exp()
    torch.testing.assert_close(score[:, 0], eps[:, 0] / std, rtol=1e-6, atol=0)
    torch.testing.assert_close(score[:, 1], eps[:, 0].square() - 1, rtol=1e-6, atol=1e-7)


def test_value_and_score_are_those_of_the_density_at_the_latent() -> None:
    """In float64 the plain density at the detached latent is the slow twin of both forms."""
    policy = GaussianPolicy(3, 2, hidden=(4,))
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(7, 4, generator=generator, dtype=torch.float64).requires_grad_()
    eps = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    latent = policy.latent(z, eps)
    plain = policy.log_prob(z, latent.detach())
    held = policy.log_prob_held(z, eps)
    moving = policy.log_prob(z, latent) - torch.log1p(-torch.tanh(latent).square()).sum(-1)
    action = policy.log_prob_action(z, eps)
    for a, b in ((held, plain), (action, moving)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        slopes = [torch.autograd.grad(x.sum(), z, retain_graph=True)[0] for x in (a, b)]
        torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)


@dataclass(frozen=True)
class Laplace(GaussianPolicy):
    """A latent of another law: its score is not that of a Gaussian."""

    def log_prob(self, z: Tensor, latent: Tensor) -> Tensor:
        mean, log_std = z.chunk(2, dim=-1)
        return (-(latent - mean).abs() * (-log_std).exp() - log_std).sum(-1)


@pytest.mark.parametrize("name", ["pg", "split", "entropy"])
def test_another_density_is_refused(name: str) -> None:
    problem = toy_problem(with_events=False).replace(policy=Laplace(3, 1, hidden=(5,)))
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    with pytest.raises(BadValue, match="Laplace has its own log_prob, so log_prob_"):
        ESTIMATORS[name](problem, toy_params(problem), noise)
    E.FOG()(problem, toy_params(problem), noise)
