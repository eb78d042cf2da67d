"""The gates' exact solutions against nested integrals, finite differences and their own critics."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from gradlab.events import Sigmoid
from gradlab.foundation.errors import BadValue
from gradlab.oracle import closed_forms
from gradlab.oracle.closed_forms import gate, quadrature, terminal_gate
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian, read
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.rollouts.rollout import rollout
from gradlab.tasks import Transition
from gradlab.tasks.gate import Gate
from tests.helpers.known import assert_close, build, finite_difference, view


def fixed_start(problem: Problem) -> Problem:
    """The gate problem without a random start: one integral less."""
    dense = replace(problem.task.dense, start_factor=((0.0,),))
    return problem.replace(task=replace(problem.task, dense=dense))


def passage_chance(problem: Problem, params: dict[str, torch.Tensor], horizon: int) -> float:
    """Expected discount at the first passage by nested adaptive integrals over x_1, x_2 <= gate."""
    b, process = problem.simulator.control[0][0], sum(problem.simulator.process_std)
    weight, bias = float(params["layers.0.weight"]), float(params["layers.0.bias"])
    std = math.hypot(b * float(params["log_std"].exp()), process)
    wall, gamma = problem.task.gate, problem.discount

    def mean(x):
        return x + b * (weight * x + bias)

    def above(x):
        return stats.norm.sf(wall, mean(x), std)

    def density(y, x):
        return math.exp(-0.5 * ((y - mean(x)) / std) ** 2) / (std * math.sqrt(2 * math.pi))

    x0 = problem.task.dense.start_mean[0]
    low = x0 - 4.0
    total = above(x0)
    if horizon > 1:
        total += gamma * integrate.quad(
            lambda y: density(y, x0) * above(y), low, wall, points=[mean(x0)], epsabs=1e-13
        )[0]  # fmt: skip
    if horizon > 2:
        total += gamma**2 * integrate.dblquad(
            lambda z, y: density(y, x0) * density(z, y) * above(z), low, wall, low, wall,
            epsabs=1e-12, epsrel=1e-12,
        )[0]  # fmt: skip
    return total


@pytest.mark.parametrize("process_std", [0.0, 0.1])
def test_first_passage_equals_nested_integrals(process_std):
    problem, params = build("gate", horizon=3, process_std=process_std)
    problem = fixed_start(problem)
    full = closed_forms.solve(problem, params)
    dense = closed_forms.solve(problem.replace(task=problem.task.dense), params)
    chance = float(full.value - dense.value) / problem.task.bonus
    assert chance == pytest.approx(passage_chance(problem, params, 3), abs=1e-11)


@pytest.mark.parametrize("weight", [-0.5, -3.0])
def test_answer_does_not_depend_on_the_grid(monkeypatch, weight):
    """With weight −3 the gate can be passed from anywhere below, so the grid's far end matters."""
    problem, params = build("gate")
    params["layers.0.weight"] = torch.tensor([[weight]], dtype=torch.float64)
    coarse = closed_forms.solve(problem, params)
    original = quadrature.panels
    monkeypatch.setattr(gate, "panels", lambda low, high, width: original(low, high, width / 2.7))
    monkeypatch.setattr(gate, "REACH", 11.0)
    fine = closed_forms.solve(problem, params)
    assert_close(coarse.value, fine.value, 1e-13)
    for rows in ("per_call", "seen_by_q"):
        for key, value in getattr(coarse, rows).items():
            assert_close(value, getattr(fine, rows)[key], 1e-12)


@pytest.mark.parametrize("process_std", [0.0, 0.1])
def test_gate_gradient_equals_finite_differences(process_std):
    problem, params = build("gate", horizon=4, process_std=process_std)
    answer = closed_forms.solve(problem, params)
    calls = read(problem.policy, params, 4)
    line = gate.discretise(problem, calls)
    x, mass = quadrature.normal_panels(-1.0, 0.25)

    def bonus(moved: LinearGaussian) -> torch.Tensor:
        reached = gate.tabulate(line, moved).before(x, torch.zeros(len(x), dtype=torch.long))
        return problem.task.bonus * (mass * reached).sum()

    numeric = finite_difference(bonus, calls)
    dense = closed_forms.solve(problem.replace(task=problem.task.dense), params)
    keys = ("layers.0.weight", "layers.0.bias", "log_std")
    for key, part in zip(keys, numeric, strict=True):
        assert_close(answer.per_call[key] - dense.per_call[key], part, 1e-8)
        torch.testing.assert_close(answer.seen_by_fog[key], dense.per_call[key])


@pytest.mark.parametrize("process_std", [0.0, 0.1])
@pytest.mark.parametrize("passed", [0.0, 1.0])
def test_gate_critic_satisfies_the_bellman_equations(process_std, passed):
    problem, params = build("gate", process_std=process_std)
    critic = closed_forms.solve(problem, params).critic
    task, simulator = problem.task, problem.simulator
    policy_std = float(params["log_std"].exp())

    def backup(x: float, a: torch.Tensor, t: int) -> torch.Tensor:
        """E over process noise of reward + bonus + γ V, for a column of actions."""
        shift = x + simulator.control[0][0] * a
        if process_std > 0:
            # the kink of the integrand sits where the noise carries the state over the gate
            rows = [
                quadrature.normal_panels(float(s), process_std, (task.gate,)) for s in shift[:, 0]
            ]
        else:
            rows = [(s, torch.ones(1, dtype=torch.float64)) for s in shift]
        out = []
        for (after, weight), action in zip(rows, a, strict=True):
            after = after[:, None]
            acted = action.expand(len(after), 1)
            made = Transition(after, acted, after, after[:, :0], torch.tensor(float(t)))
            reward = task.dense.terms(made.alone())
            crossed = (after[:, 0] > task.gate).double()
            new = torch.maximum(crossed, torch.tensor(passed))
            here = view(problem, after, t + 1)._replace(events=new[:, None])
            gain = sum(reward.values())[:, 0] + task.bonus * (new - passed)
            out.append(weight @ (gain + problem.discount * critic.v(here)))
        return torch.stack(out)

    for t, x in itertools.product((0, problem.horizon - 2, problem.horizon - 1), (-1.2, 0.05, 0.3)):
        actions = torch.tensor([[-1.0], [0.1], [0.4], [2.0]], dtype=torch.float64)
        state = torch.full((4, 1), x, dtype=torch.float64)
        assert_close(
            critic.q(view(problem, state, t, passed), actions), backup(x, actions, t), 1e-11
        )
        mean = float(params["layers.0.weight"]) * x + float(params["layers.0.bias"])
        jump = (task.gate - x) / simulator.control[0][0]
        a, weight = quadrature.normal_panels(mean, policy_std, (jump,))
        state = torch.full((len(a), 1), x, dtype=torch.float64)
        average = weight @ critic.q(view(problem, state, t, passed), a[:, None])
        assert_close(critic.v(view(problem, state[:1], t, passed))[0], average, 1e-11)


@pytest.mark.parametrize("process_std", [0.0, 0.1])
def test_gate_critic_gradients_equal_finite_differences(process_std):
    problem, params = build("gate", process_std=process_std)
    critic = closed_forms.solve(problem, params).critic
    state = torch.tensor([[-0.6], [0.0]], dtype=torch.float64, requires_grad=True)
    action = torch.tensor([[0.5], [-0.7]], dtype=torch.float64, requires_grad=True)
    for t in (1, problem.horizon - 1):
        assert torch.autograd.gradcheck(
            lambda s, a, t=t: critic.q(view(problem, s, t), a), (state, action), atol=1e-7
        )
        assert torch.autograd.gradcheck(lambda s, t=t: critic.v(view(problem, s, t)), (state,))


def test_first_call_sees_what_an_integral_of_the_critic_sees():
    """k = 0 with a fixed start: one integral of ∂Q/∂a · ∂a/∂θ, with and without the jump."""
    problem, params = build("gate")
    problem = fixed_start(problem)
    answer = closed_forms.solve(problem, params)
    x, std = problem.task.dense.start_mean[0], float(params["log_std"].exp())
    mean = float(params["layers.0.weight"]) * x + float(params["layers.0.bias"])
    jump = (problem.task.gate - x) / problem.simulator.control[0][0]
    nodes, weight = quadrature.normal_panels(mean, std, (jump,))
    action = nodes[:, None].clone().requires_grad_()
    q = answer.critic.q(view(problem, torch.full_like(action, x).detach(), 0), action)
    slope = torch.autograd.grad(q.sum(), action)[0][:, 0]
    assert_close(answer.seen_by_q["layers.0.bias"][0, 0], weight @ slope, 1e-11)
    assert_close(answer.seen_by_q["layers.0.weight"][0, 0, 0], weight @ slope * x, 1e-11)
    by_std = weight @ (slope * (nodes - mean))
    assert_close(answer.seen_by_q["log_std"][0, 0], by_std, 1e-11)
    score = weight @ (q.detach() * (nodes - mean) / std**2)
    assert_close(answer.per_call["layers.0.bias"][0, 0], score, 1e-11)


@pytest.mark.statistical
@pytest.mark.parametrize("process_std", [0.0, 0.1])
def test_value_gradients_of_rollouts_average_to_what_q_sees(process_std):
    """|z| < 5 over 18 numbers (1e-5), and with a jump the truth itself is many errors away."""
    problem, params = build("gate", process_std=process_std)
    answer = closed_forms.solve(problem, params)
    noise = problem.draw(40_000, torch.Generator().manual_seed(8))
    path = rollout(problem, problem.bind(params), noise)
    seen = views(problem, path, evaluate(problem, path), slice(0, problem.horizon))
    action = path.action.clone().requires_grad_()
    q = answer.critic.q(seen, action) * problem.discounts[: problem.horizon]
    slope = torch.autograd.grad(q.sum(), action)[0]
    samples = {
        "layers.0.weight": slope[..., None] * path.obs[..., None, :],
        "layers.0.bias": slope,
        "log_std": slope * params["log_std"].exp() * noise.action,
    }
    for key, value in samples.items():
        stderr = value.std(0) / math.sqrt(noise.count)
        assert ((value.mean(0) - answer.seen_by_q[key]) / stderr).abs().max() < 5
    distance = (samples["layers.0.bias"].sum(1).mean() - answer.gradient["layers.0.bias"]).abs()
    stderr = samples["layers.0.bias"].sum(1).std() / math.sqrt(noise.count)
    assert (distance > 20 * stderr) == (process_std == 0)


def test_relaxed_gate_equals_a_double_integral():
    """T = 2 from a fixed start: the integrand has its kink on x_2 = x_1,
    where the maximum moves.
    """
    problem, params = build("gate", horizon=2)
    problem = fixed_start(problem).replace(event_step=Sigmoid(0.4))
    answer = closed_forms.solve(problem, params)
    dense = closed_forms.solve(problem.replace(task=problem.task.dense), params)
    b, std = problem.simulator.control[0][0], 0.3 * float(params["log_std"].exp())
    weight, bias = float(params["layers.0.weight"]), float(params["layers.0.bias"])
    task = problem.task
    x0 = task.dense.start_mean[0]

    def mean(x):
        return x + b * (weight * x + bias)

    def step(x):
        return 1 / (1 + np.exp(-(x - task.gate) / task.scale / 0.4))

    def inner(x1: float) -> float:
        nodes, weights = quadrature.normal_panels(mean(x1), std, (x1,))
        best = np.maximum(nodes.numpy(), x1)
        return step(x1) + problem.discount * float(weights.numpy() @ (step(best) - step(x1)))

    nodes, weights = quadrature.normal_panels(mean(x0), std)
    values = [inner(x1) for x1 in nodes.tolist()]
    expected = task.bonus * float(weights.numpy() @ values)
    assert float(answer.value - dense.value) == pytest.approx(expected, abs=1e-9)


def test_terminal_gate_gradient_and_value_equal_finite_differences_and_a_normal_tail():
    problem, params = build("terminal_gate", process_std=0.3)
    answer = closed_forms.solve(problem, params)
    calls = read(problem.policy, params, problem.horizon)
    numeric = finite_difference(lambda c: terminal_gate.value(problem, c), calls)
    assert_close(answer.per_call["layers.0.weight"], numeric.weight, 1e-8)
    assert_close(answer.per_call["log_std"], numeric.log_std, 1e-8)
    std = math.sqrt(0.2**2 + 4 * (0.5**2 + 0.3**2))
    assert float(answer.value) == pytest.approx(stats.norm.sf(1.0, 0.1 + 0.6, std), abs=1e-14)


@pytest.mark.parametrize("horizon", [2, 4, 9])
def test_an_exact_critic_sees_all_but_one_call_of_a_terminal_gate(horizon):
    """E[∂Q_k/∂a · ∂a/∂θ] by quadrature over (x_k, ε_k) with autograd through the exact critic."""
    problem, params = build("terminal_gate", horizon=horizon)
    answer = closed_forms.solve(problem, params)
    task, std = problem.task, float(params["log_std"].exp())
    mean = float(params["layers.0.weight"])
    total = {"layers.0.weight": 0.0, "log_std": 0.0}
    for k in range(horizon):
        spread = math.sqrt(task.start_std**2 + k * std**2)
        x, wx = quadrature.normal_panels(task.start_mean + k * mean, spread)
        a, wa = quadrature.normal_panels(mean, std)
        state = x[:, None, None].expand(-1, len(a), 1)
        action = a[None, :, None].expand(len(x), -1, 1).clone().requires_grad_()
        q = answer.critic.q(view(problem, state, k), action)
        slope = torch.autograd.grad((q + 0 * action[..., 0]).sum(), action)[0][..., 0]
        here = {
            "layers.0.weight": float(wx @ slope @ wa),
            "log_std": float(wx @ slope @ (wa * (a - mean))),
        }
        for key, value in here.items():
            assert value == pytest.approx(float(answer.seen_by_q[key][k]), abs=1e-11)
            total[key] += value
    share = (horizon - 1) / horizon
    for key, value in total.items():
        assert value == pytest.approx(share * float(answer.gradient[key]), abs=1e-11)


def test_terminal_gate_critic_is_consistent():
    problem, params = build("terminal_gate", process_std=0.3)
    problem = problem.replace(discount=0.9)
    critic = closed_forms.solve(problem, params).critic
    x = torch.tensor([[0.3]], dtype=torch.float64)
    std, mean = float(params["log_std"].exp()), float(params["layers.0.weight"])
    for t in range(problem.horizon):
        a, wa = quadrature.normal_panels(mean, std)
        many = view(problem, x.expand(len(a), 1), t)
        assert_close(critic.v(view(problem, x, t))[0], wa @ critic.q(many, a[:, None]), 1e-12)
        after, w = quadrature.normal_panels(0.3 + 0.7, 0.3, (problem.task.gate,))
        if t == problem.horizon - 1:
            backup = w @ (after > problem.task.gate).double()
        else:
            backup = 0.9 * (w @ critic.v(view(problem, after[:, None], t + 1)))
        action = torch.tensor([[0.7]], dtype=torch.float64)
        assert_close(critic.q(view(problem, x, t), action)[0], backup, 1e-12)


def test_gate_in_two_dimensions_has_no_exact_solution():
    problem, params = build("lq")
    with pytest.raises(BadValue, match="one-dimensional PointMass"):
        closed_forms.solve(problem.replace(task=Gate(problem.task)), params)
