"""What a mixture remembers, and how small a spread its weights can tell."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

import estimators as E
from estimators.mixtures import _step_variances
from gradlab.samples import Factored
from tests.toy import toy_params, toy_problem

CHANGES = {
    "level": {"level": "step"},
    "layer": {"level": "layer"},
    "parts": {"first": E.RelaxedFOG(0.5)},
    "size": {"group_size": 32},
    "seed": {"pilot_seed": 7},
    "nothing": {},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_of_a_used_mixture_is_a_fresh_one(name: str) -> None:
    """The weights of a pilot belong to the mixture that found them."""
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    used = E.InverseVariance(E.FOG(), E.PG(), "global", "pilot", 8)
    before = used(problem, params, noise).per_sample()
    copied = dataclasses.replace(used, **CHANGES[name])
    options = {"level": "global", "weights_from": "pilot", "group_size": 8, **CHANGES[name]}
    fresh = E.InverseVariance(options.pop("first", E.FOG()), E.PG(), **options)
    found = copied(problem, params, noise).per_sample()
    for leaf, value in fresh(problem, params, noise).per_sample().items():
        assert torch.equal(found[leaf], value), leaf
    for mixture in (used, copy.copy(used), copy.deepcopy(used)):
        again = mixture(problem, params, noise).per_sample()
        assert all(torch.equal(again[leaf], value) for leaf, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_step_variances_of_nearly_equal_samples(dtype: torch.dtype) -> None:
    """A spread of 1e-5 of the mean, against the variance of the gradients in full and in float64."""
    problem = toy_problem(dtype=dtype)
    generator = torch.Generator().manual_seed(2)

    def near(*size: int) -> torch.Tensor:
        return 1 + 1e-5 * torch.randn(50, *size, generator=generator, dtype=torch.float64)

    samples = Factored(
        problem.policy,
        toy_params(problem),
        near(problem.horizon, 3).to(dtype),
        near(problem.horizon, 2).to(dtype),
        torch.arange(problem.horizon),
    )
    double = dataclasses.replace(
        samples,
        params={n: v.double() for n, v in samples.params.items()},
        obs=samples.obs.double(),
        cotangent=samples.cotangent.double(),
    )
    dense = [
        sum(leaf.var(0).sum() for leaf in double.at_step(t).per_sample().values())
        for t in range(problem.horizon)
    ]
    found = _step_variances(samples, problem)
    torch.testing.assert_close(found, torch.stack(dense), rtol=1e-4, atol=0)  # type: ignore[arg-type]
