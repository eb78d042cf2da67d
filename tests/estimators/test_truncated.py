"""Truncated backpropagation: limits, a slow twin of one rollout per window, weights, critics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import estimators
import gradlab
from estimators import NStep, TruncatedBPTT
from gradlab.foundation.errors import BadValue, Missing
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views

Params = dict[str, Tensor]


def made(name: str, **options: object) -> tuple[Problem, Params]:
    problem = gradlab.make(name, dtype=torch.float64, **options)  # pyright: ignore
    params = problem.reference if problem.skewed else problem.init(torch.Generator().manual_seed(0))
    return problem, {k: 3 * v if name != "lq" else v for k, v in params.items()}


def lq() -> tuple[Problem, Params]:
    problem, params = made("lq", horizon=8)
    return problem.replace(critic=closed_forms.solve(problem, params).critic), params


def close(one: Params, other: Params) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("weighted", [True, False])
def test_one_window_is_first_order(weighted: bool) -> None:
    problem, params = made("gate", horizon=6)
    noise = problem.draw(5, torch.Generator().manual_seed(1))
    fog = estimators.FOG()(problem, params, noise).per_sample()
    for window in (None, 6):
        ours = TruncatedBPTT(window, weighted=weighted)(problem, params, noise).per_sample()
        close(ours, fog)


def test_with_weights_and_v_it_is_tiled_n_step() -> None:
    problem, params = lq()
    noise = problem.draw(5, torch.Generator().manual_seed(1))
    ours = TruncatedBPTT(3, "v")(problem, params, noise).per_sample()
    close(ours, NStep(3, "tiled", "v")(problem, params, noise).per_sample())


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("tail", ["none", "v"])
def test_a_rollout_per_window_gives_the_same(tail: str, weighted: bool) -> None:
    """The windows of 3, 3 and 2 steps begin at detached moments, one after the other."""
    problem, params = lq()
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
    policy = problem.bind(leaves)
    moment, total = None, torch.zeros((), dtype=torch.float64)
    for begin in range(0, problem.horizon, 3):
        end = min(begin + 3, problem.horizon)
        path = gradlab.rollout(
            problem, policy, noise.during(begin, end), start=moment, length=end - begin
        )
        result = evaluate(problem, path)
        earned = result.value.sum()
        if tail == "v" and end < problem.horizon:
            view = views(problem, path, result, slice(end - begin, None))
            earned = earned + problem.discount**end * problem.require_v("here")(view).sum()
        total = total + earned / (1.0 if weighted else problem.discount**begin)
        moment = gradlab.moment_at(path, result).detach()
    slopes = torch.autograd.grad(total, list(leaves.values()))
    estimator = TruncatedBPTT(3, tail, weighted)  # pyright: ignore[reportArgumentType]
    ours = {k: 4 * v for k, v in estimator(problem, params, noise).mean().items()}
    close(dict(zip(leaves, slopes, strict=True)), ours)


def test_without_a_tail_later_effects_are_missing() -> None:
    problem, params = lq()
    truth = gradlab.OracleGradient.exact(closed_forms.solve(problem, params).gradient, "exact")
    measured = gradlab.measure(
        [TruncatedBPTT(2), TruncatedBPTT(2, "v")], problem, params, count=1000, seed=0
    ).compare(truth)
    without, critic = (row.overall.relative_bias for row in measured.values())
    assert without.low > 0.05 and critic.low < 0.02


def test_call_weights_are_those_of_windows() -> None:
    problem, _ = lq()
    found = TruncatedBPTT(3, weighted=False).call_weights(problem)
    begin = torch.tensor([0, 0, 0, 3, 3, 3, 6, 6], dtype=torch.float64)
    torch.testing.assert_close(found, problem.discount**-begin)
    assert TruncatedBPTT(3).call_weights(problem).eq(1).all()


def test_mistakes_are_named() -> None:
    problem, params = made("lq")
    noise = problem.draw(2, torch.Generator().manual_seed(1))
    with pytest.raises(Missing, match="V critic"):
        TruncatedBPTT(3, "v")(problem, params, noise)
    with pytest.raises(BadValue, match="window"):
        TruncatedBPTT(9)(problem, params, noise)
    assert TruncatedBPTT(3, "v", False).label == "TruncatedBPTT(3, v, unweighted)"
