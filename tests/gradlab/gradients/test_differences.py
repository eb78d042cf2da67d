"""Norms and inner products of differences: what is left after cancelling has its own precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.base import Estimator
from gradlab.gradients.samples import Factored
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.policies.products import GRAM_TOLERANCE
from gradlab.problems.problem import Problem
from tests.helpers.toy import toy_params, toy_problem

# K calls are few against layers of 64, so that Gram matrices are the cheaper way
DIFFERENCES: dict[str, Estimator] = {
    "same calls": E.RelaxedFOG(0.2) - E.RelaxedFOG(0.2002),
    "other calls": E.Split(0.2) - E.PG() - (E.Split(0.2002) - E.PG()),
    "critic": E.ABPT(3, "all") - 0.999 * E.ABPT(3, "all"),
    "score": E.PG() - 0.9999 * E.PG(baseline="q"),
    "no difference": E.PG() - 0.5 * E.FOG(),
}


def wide(dtype: torch.dtype) -> Problem:
    policy = GaussianPolicy(3, 1, hidden=(64, 64), head_gain=1.0)
    return toy_problem(dtype=dtype, switching=True).replace(policy=policy)


def drawn(name: str, dtype: torch.dtype) -> tuple[Factored, dict[str, Tensor]]:
    """Samples, and the gradients of these very factors in float64."""
    problem = wide(dtype)
    params = toy_params(problem)
    noise = problem.draw(64, torch.Generator().manual_seed(1))
    samples = DIFFERENCES[name](problem, params, noise)
    assert isinstance(samples, Factored)
    exact = replace(
        samples,
        params={n: v.double() for n, v in params.items()},
        obs=samples.obs.double(),
        cotangent=samples.cotangent.double(),
        known=None,
    )
    return samples, exact.per_sample()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_squared_norms_of_a_difference(name: str, dtype: torch.dtype) -> None:
    """A difference d is known to ε·Σ‖δ‖‖x‖, the rounding of its parts; a Gram product of them knows
    it to √ε of that only. Of most samples less than 2 % is lost so."""
    samples, exact = drawn(name, dtype)
    truth = norm_of(exact)
    reach = sum(
        (torch.linalg.vector_norm(x.double(), dim=-1) + 1)
        .mul(torch.linalg.vector_norm(c.double(), dim=-1)).sum(1)
        for _, x, c in samples.factors().linear
    )  # fmt: skip
    rounding = 4 * torch.finfo(dtype).eps * reach
    norms = samples.squared_norms()
    assert (norms >= 0).all()
    error = (norms.sqrt() - truth).abs()
    assert (error <= GRAM_TOLERANCE * truth + rounding).all(), (error / truth).max()
    assert (rounding <= 0.02 * truth).double().mean() > 0.5


def norm_of(leaves: dict[str, Tensor]) -> Tensor:
    return torch.cat([leaf.flatten(1) for leaf in leaves.values()], dim=1).double().norm(dim=1)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_inner_products_with_a_difference(name: str) -> None:
    """Against its own scale ‖a‖‖b‖: orthogonal samples have no relative precision."""
    samples, exact = drawn(name, torch.float32)
    problem = wide(torch.float32)
    noise = problem.draw(64, torch.Generator().manual_seed(1))
    other = E.FOG()(problem, samples.params, noise)
    theirs = other.per_sample()
    truth = sum((exact[n] * theirs[n].double()).flatten(1).sum(1) for n in exact)
    error = (samples.inner(other) - truth).abs()
    assert (error <= 1e-3 * norm_of(exact) * norm_of(theirs) + 1e-9).all(), error.max()


def test_an_estimator_minus_itself_is_exactly_nothing() -> None:
    problem = wide(torch.float32)
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    for estimator in (E.FOG(), E.PG(), E.Split(), E.ABPT(3, "all")):
        assert not (estimator - estimator)(problem, params, noise).squared_norms().any()


def test_calls_at_the_same_observations_are_added_up() -> None:
    problem = wide(torch.float64)
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    fog, relaxed = (e(problem, params, noise) for e in (E.FOG(), E.RelaxedFOG(0.1)))
    assert isinstance(fog, Factored)
    total = fog + 3.0 * relaxed
    assert isinstance(total, Factored)
    assert total.obs.shape == fog.obs.shape and torch.equal(total.steps, fog.steps)
    for name, leaf in total.per_sample().items():
        parts = fog.per_sample()[name] + 3 * relaxed.per_sample()[name]
        torch.testing.assert_close(leaf, parts, rtol=1e-11, atol=1e-12)
