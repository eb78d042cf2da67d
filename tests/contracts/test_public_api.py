"""What users write most often is short: bound policies, critics, parameters, tables, time."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
import torch

import estimators as E
import gradlab
from gradlab.foundation.errors import BadShape, BadValue, Missing
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems import known_answers
from gradlab.problems.critic import Critic


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


@pytest.mark.parametrize("name", known_answers.PRESETS)
def test_the_reference_of_a_known_answer_fits_it(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        problem = gradlab.make(name, dtype=dtype)
        problem.policy.check(problem.reference, dtype)
        for key, values in known_answers.preset(name).params.items():
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


# ------------------------------------------------------------------------------------------- time


def fresh(problem: gradlab.Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps and discounts, made anew."""
    powers = problem.discount ** torch.arange(problem.horizon + 1, dtype=torch.float64)
    return torch.arange(problem.horizon + 1, dtype=problem.dtype), powers.to(problem.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_and_discounts_are_made_once_per_horizon_discount_and_dtype(
    dtype: torch.dtype,
) -> None:
    for horizon, discount in ((3, 0.9), (3, 0.95), (4, 0.95), (1, 1), (40, 1e-12)):
        problem = gradlab.make("lq", horizon=horizon, discount=discount, dtype=dtype)
        for found, expected in zip((problem.steps, problem.discounts), fresh(problem), strict=True):
            assert found.dtype == dtype
            assert torch.equal(found, expected)
        assert problem.replace(critic=None).discounts is problem.discounts
        assert problem.steps is problem.steps


def asked(problem: gradlab.Problem) -> torch.Tensor:
    return problem.steps * problem.discounts


def under_inference(problem: gradlab.Problem) -> None:
    with torch.inference_mode():
        asked(problem)


def under_transforms(problem: gradlab.Problem) -> None:
    def value(x: torch.Tensor) -> torch.Tensor:
        return (x * asked(problem)).sum()

    torch.func.vmap(torch.func.grad(value))(torch.ones(3))


def under_compile(problem: gradlab.Problem) -> None:
    torch.compile(lambda x: x * asked(problem), backend="eager", fullgraph=True)(torch.ones(()))


def under_another_default(problem: gradlab.Problem) -> None:
    with torch.device("meta"):
        asked(problem)


@pytest.mark.parametrize(
    "first", [under_inference, under_transforms, under_compile, under_another_default]
)
def test_where_time_is_asked_for_first_leaves_no_trace(first) -> None:
    """What is kept is an ordinary tensor with the same bits, whatever the mode it was made in."""
    discount = 0.9 + 1e-3 * len(first.__name__)  # in no other test: nothing is kept yet
    problem = gradlab.make("lq", horizon=7, discount=discount, dtype=torch.float64)
    first(problem)
    for found, expected in zip((problem.steps, problem.discounts), fresh(problem), strict=True):
        assert type(found) is torch.Tensor
        assert not found.is_inference()
        assert not torch._C._functorch.is_functorch_wrapped_tensor(found)
        assert torch.equal(found, expected)
        leaf = torch.ones((), dtype=torch.float64, requires_grad=True)
        (leaf * found).sum().backward()
        assert leaf.grad == expected.sum()


# ------------------------------------------------------------------------------------- tables


def test_a_report_is_a_data_frame_too() -> None:
    problem = gradlab.make("gate", dtype=torch.float64)
    truth = gradlab.oracle.ClosedForm()(problem, problem.reference)
    measured = gradlab.measure([E.FOG(), E.PG()], problem, problem.reference, count=64, seed=1)
    pair = measured.compare_pair("FOG", "PG", truth)
    for report in (*measured.compare(truth).values(), pair):
        frame = report.to_frame()
        assert list(frame["part"]) == list(report.rows)
        pd.testing.assert_frame_equal(frame, pd.DataFrame(report.table()))


def test_samples_are_sliced_like_a_list() -> None:
    problem = gradlab.make("gate", dtype=torch.float64)
    samples = E.FOG()(problem, problem.reference, problem.draw(5, generator()))
    whole = samples.squared_norms()
    for chosen in (slice(1, 3), slice(None, 2), slice(-2, None), slice(3, 99), slice(4, 1)):
        assert torch.equal(samples[chosen].squared_norms(), whole[chosen])
    with pytest.raises(BadValue, match="samples take a slice without a step, got"):
        samples[0:4:2]


@pytest.mark.parametrize("name", ["checkpoints", "errors", "testing"])
def test_a_module_is_had_in_a_new_process(name: str) -> None:
    """Nothing has imported it before."""
    program = f"from gradlab import {name}; print({name}.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith(f".{name}"), done.stderr


def test_every_name_of_gradlab_is_where_the_stub_says() -> None:
    assert {"make", "rollout", "report", "statistics", "testing"} <= set(gradlab.__all__)
    assert [name for name in gradlab.__all__ if not hasattr(gradlab, name)] == []
    assert set(gradlab.__all__) <= set(dir(gradlab))
