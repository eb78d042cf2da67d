"""Contracts of every exact answer, and the exact values of relaxed events."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import integrate, stats

import gradlab
from gradlab.events import Arctan, Sigmoid
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.oracle import closed_forms
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems import known_answers
from gradlab.problems.critic import View
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.tasks.smoothing import Heaviside
from gradlab.tasks.static import Decision
from tests.helpers.known import VARIANTS, build


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_answer_has_one_row_per_call(name, options):
    problem, params = build(name, **options)
    answer = closed_forms.solve(problem, params)
    for rows in (answer.per_call, answer.seen_by_fog, answer.seen_by_q):
        assert set(rows) == set(params)
        for key, value in rows.items():
            assert value.shape == (problem.horizon, *params[key].shape)
            assert value.dtype == torch.float64 and not value.requires_grad
    for key, value in answer.gradient.items():
        torch.testing.assert_close(value, answer.per_call[key].sum(0))
    weights = torch.arange(problem.horizon, dtype=torch.float64)
    weighted = closed_forms.total(answer.per_call, weights)
    for key, value in weighted.items():
        expected = sum(w * row for w, row in zip(weights, answer.per_call[key], strict=True))
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_critic_accepts_batches_single_views_vmap_and_float32(name, options):
    problem, params = build(name, **options)
    critic = closed_forms.solve(problem, params).critic
    generator = torch.Generator().manual_seed(0)
    shape = (3, problem.horizon)
    state = torch.randn(*shape, problem.simulator.state_dim, generator=generator).double()
    action = torch.randn(*shape, problem.simulator.action_dim, generator=generator).double()
    step = torch.arange(problem.horizon, dtype=torch.float64).expand(shape)
    events = torch.zeros(*shape, len(problem.task.events), dtype=torch.float64)
    obs = problem.task.observe(state, state[..., :0], step)
    here = View(state, obs, events, step)
    q, v = critic.q(here, action), critic.v(here)
    assert q.shape == v.shape == shape
    mapped = torch.func.vmap(critic.q)(here, action), torch.func.vmap(critic.v)(here)
    torch.testing.assert_close(mapped[0], q)
    torch.testing.assert_close(mapped[1], v)
    single = View(*(part[1, 0] for part in here))
    torch.testing.assert_close(critic.q(single, action[1, 0]), q[1, 0])
    low = View(*(part.float() for part in here))
    assert critic.q(low, action.float()).dtype == critic.v(low).dtype == torch.float32
    over = here._replace(step=torch.full(shape, float(problem.horizon)).double())
    assert (critic.q(over, action) == 0).all() and (critic.v(over) == 0).all()


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_score_function_samples_agree_call_by_call(name, options):
    """g_k = E[∇ log π(a_k|o_k) G_k] on real rollouts; |z| < 5.5 over some 150 entries (1e-5)."""
    problem, params = build(name, **options)
    answer = closed_forms.solve(problem, params)
    noise = problem.draw(100_000, torch.Generator().manual_seed(3))
    path = rollout(problem, problem.bind(params), noise)
    to_go = evaluate(problem, path).to_go()[..., None]
    log_std = path.output.chunk(2, -1)[1]
    by_mean = to_go * noise.action / log_std.exp()
    samples = {
        "layers.0.weight": by_mean[..., None] * path.obs[..., None, :],
        "layers.0.bias": by_mean,
        "log_std": to_go * (noise.action.square() - 1),
    }
    for key, truth in answer.per_call.items():
        mean, std = samples[key].mean(0), samples[key].std(0)
        z = (mean - truth) * math.sqrt(noise.count) / std
        assert z.abs().max() < 5.5, f"{key}: z = {z}"


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_presets_are_skewed(name, options):
    """No policy parameter may have a gradient so small that a wrong sign could pass."""
    problem, params = build(name, **options)
    gradient = closed_forms.solve(problem, params).gradient
    largest = max(float(part.abs().max()) for part in gradient.values())
    for part in gradient.values():
        assert part.abs().max() > 0.02 * largest


def test_user_errors_are_one_line():
    problem, params = build("quadratic")
    squashed = problem.replace(policy=GaussianPolicy(1, 2))
    with pytest.raises(BadValue, match="try LinearPolicy"):
        closed_forms.solve(squashed, params)
    with pytest.raises(BadValue, match="try horizon=1"):
        closed_forms.solve(problem.replace(horizon=2), params)
    problem, params = build("terminal_gate")
    with pytest.raises(BadValue, match="default_horizon=7"):
        closed_forms.solve(problem.replace(horizon=7), params)
    with pytest.raises(UnknownName, match="quadratic"):
        known_answers.preset("quadratc")


@pytest.mark.parametrize("step", [Sigmoid(0.05), Sigmoid(0.7), Arctan(0.1)])
def test_relaxed_heaviside_equals_quadrature(step):
    problem, params = build("heaviside")
    task = Decision(Heaviside(scale=0.5, bonus=1.3, threshold=0.1))
    problem = problem.replace(task=task, event_step=step)
    answer = closed_forms.solve(problem, params)
    mean, std = float(params["layers.0.weight"]), float(params["log_std"].exp())

    def f(x: float) -> float:
        return 1.3 * float(step(torch.tensor((x - 0.1) / 0.5, dtype=torch.float64)))

    def expect(g) -> float:
        edges = [mean - 9 * std, 0.1 - 0.2, 0.1 - 0.02, 0.1, 0.1 + 0.02, 0.1 + 0.2, mean + 9 * std]
        return sum(
            integrate.quad(
                lambda x: f(x) * g((x - mean) / std) * stats.norm.pdf(x, mean, std),
                a, b, epsabs=1e-13, epsrel=1e-12, limit=200,
            )[0]
            for a, b in itertools.pairwise(edges)
        )  # fmt: skip

    assert float(answer.value) == pytest.approx(expect(lambda e: 1.0), abs=1e-9)
    weight = float(answer.gradient["layers.0.weight"])
    assert weight == pytest.approx(expect(lambda e: e / std), abs=1e-8)
    assert float(answer.gradient["log_std"]) == pytest.approx(expect(lambda e: e * e - 1), abs=1e-8)


def test_relaxed_gradients_approach_the_hard_one():
    problem, params = build("heaviside")
    hard = closed_forms.solve(problem, params).gradient["layers.0.weight"]
    errors = [
        float(
            (
                closed_forms.solve(problem.relaxed(w), params).gradient["layers.0.weight"] - hard
            ).abs()
        )
        for w in (0.02, 0.01)
    ]
    # the logistic density is symmetric, so the error is of second order in the width
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_a_relaxation_too_wide_is_refused_in_one_line() -> None:
    """It would be integrated over thousands of panels, and at 1e20 over none."""
    for width in (11.0, 1e20):
        problem = gradlab.make("gate", dtype=torch.float64).relaxed(width)
        with pytest.raises(BadValue, match="at most 10 margin scales"):
            closed_forms.solve(problem, problem.reference)
