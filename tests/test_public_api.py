"""What users write most often is short: bound policies, critics, parameters, tables, time."""

from __future__ import annotations

import pytest
import torch

import gradlab
from gradlab import known_answer
from gradlab.critics.base import Critic
from gradlab.errors import BadShape, Missing
from gradlab.policies import GaussianPolicy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------- bound policies


def test_a_bound_policy_has_the_functions_of_its_policy() -> None:
    """Of z alone, so that a surrogate needs nothing but the bound policy."""
    policy = GaussianPolicy(3, 2, hidden=(5,))
    bound = policy.bind(policy.init(generator(), dtype=torch.float64))
    z = bound(torch.randn(7, 3, generator=generator(1), dtype=torch.float64))
    eps = torch.randn(7, 2, generator=generator(2), dtype=torch.float64)
    for name in ("latent", "log_prob", "log_prob_held", "log_prob_action"):
        assert torch.equal(getattr(bound, name)(z, eps), getattr(policy, name)(z, eps)), name
    assert torch.equal(bound.action(eps), policy.action(eps))
    assert torch.equal(bound.mean_action(z), policy.mean_action(z))


# ---------------------------------------------------------------------------------------- critics


def test_a_required_critic_is_the_problems_own() -> None:
    def q(view: object, action: torch.Tensor) -> torch.Tensor:
        return action.sum(-1)

    def v(view: gradlab.View) -> torch.Tensor:
        return view.step

    problem = gradlab.make("lq", critic=Critic(q=q, v=v))
    assert problem.require_q("this test") is q
    assert problem.require_v("this test") is v


@pytest.mark.parametrize("critic", [None, Critic()])
def test_a_missing_critic_is_missed_with_what_to_try(critic: Critic | None) -> None:
    problem = gradlab.make("lq", critic=critic)
    for kind, require in (("Q", problem.require_q), ("V", problem.require_v)):
        expected = rf"this test needs a {kind} critic and lq has none; .*kind='{kind.lower()}'"
        with pytest.raises(Missing, match=expected):
            require("this test")


# ------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_of_a_problem_have_its_dtype_and_are_its_policys(dtype: torch.dtype) -> None:
    problem = gradlab.make("hovering", horizon=2, hidden=(4,), dtype=dtype)
    params = problem.init(generator())
    expected = problem.policy.init(generator(), dtype=dtype)
    assert list(params) == list(expected)
    for name, value in params.items():
        assert value.dtype == dtype
        assert torch.equal(value, expected[name])


def test_parameters_of_a_problem_are_on_its_device() -> None:
    params = gradlab.make("lq", device="meta").init(generator())
    assert {value.device.type for value in params.values()} == {"meta"}


@pytest.mark.parametrize("name", known_answer.PRESETS)
def test_the_reference_of_a_known_answer_fits_it(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        problem = gradlab.make(name, dtype=dtype)
        problem.policy.check(problem.reference, dtype)
        for key, values in known_answer.preset(name).params.items():
            assert torch.equal(problem.reference[key], torch.tensor(values, dtype=dtype))


def test_the_reference_follows_the_options_of_its_problem() -> None:
    """The slope of the terminal gate's policy is 0.6/T."""
    problem = gradlab.make("terminal_gate", horizon=8, dtype=torch.float64)
    assert problem.reference["layers.0.weight"].item() == 0.6 / 8


def test_a_problem_without_a_reference_says_what_to_try() -> None:
    with pytest.raises(Missing, match=r"hovering has no reference policy; try problem.init\(gen"):
        _ = gradlab.make("hovering").reference
    with pytest.raises(BadShape, match="parameters do not fit the policy"):
        _ = gradlab.make("lq", hidden=(3,)).reference
