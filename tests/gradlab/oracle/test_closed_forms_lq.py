"""Riccati and Lyapunov recursions against exhaustive rollouts and finite differences."""

from __future__ import annotations

import torch

from gradlab.oracle import closed_forms
from gradlab.oracle.closed_forms import lq
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian, read
from gradlab.problems.problem import Problem
from gradlab.tasks import Transition
from tests.helpers.known import assert_close, build, finite_difference, signs, view


def lq_return(problem: Problem, calls: LinearGaussian) -> torch.Tensor:
    """J by rolling out every ±1 noise vector: exact, since the return is quadratic in the noise."""
    simulator, task = problem.simulator, problem.task
    ns, nu = simulator.state_dim, simulator.action_dim
    noisy = [i for i, std in enumerate(simulator.process_std) if std > 0]
    grid = signs(ns + problem.horizon * (nu + len(noisy)))
    xi, rest = grid[:, :ns], grid[:, ns:].reshape(len(grid), problem.horizon, nu + len(noisy))
    state, memory = task.initial(xi)
    total = torch.zeros(len(grid), dtype=torch.float64)
    for t in range(problem.horizon):
        mean = state @ calls.weight[t].T + calls.bias[t]
        action = mean + calls.log_std[t].exp() * rest[:, t, :nu]
        process = torch.zeros(len(grid), ns, dtype=torch.float64)
        process[:, noisy] = rest[:, t, nu:]
        after = simulator.step(state, action, process)
        made = Transition(state, action, after, memory, torch.tensor(float(t)))
        terms = task.terms(made.alone())
        total = total + problem.discount**t * sum(terms.values())[:, 0]
        state = after
    return total.mean()


def test_lq_value_and_every_call_equal_exhaustive_rollouts():
    problem, params = build("lq", horizon=3)
    answer = closed_forms.solve(problem, params)
    calls = read(problem.policy, params, 3)
    leaves = LinearGaussian(*(part.clone().requires_grad_() for part in calls))
    value = lq_return(problem, leaves)
    truth = torch.autograd.grad(value, leaves)
    assert_close(answer.value, value.detach(), 1e-13)
    for key, part in zip(("layers.0.weight", "layers.0.bias", "log_std"), truth, strict=True):
        assert_close(answer.per_call[key], part, 1e-12)


def test_lq_gradient_equals_finite_differences():
    problem, params = build("lq")
    calls = read(problem.policy, params, problem.horizon)
    system = lq.matrices(problem.simulator, problem.task, problem.discount)
    exact = lq.gradient(system, calls)
    numeric = finite_difference(lambda c: lq.value(system, c), calls)
    for a, b in zip(exact, numeric, strict=True):
        assert_close(a, b, 1e-8)


def test_lq_critic_satisfies_the_bellman_equations():
    problem, params = build("lq")
    critic = closed_forms.solve(problem, params).critic
    simulator, task = problem.simulator, problem.task
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    action = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    std = params["log_std"].exp()
    for t in range(problem.horizon):
        w, eps = signs(4)[:, None].expand(16, 7, 4), signs(2)[:, None]
        here, acted = state.expand(16, 7, 4), action.expand(16, 7, 2)
        after = simulator.step(here, acted, w)
        made = Transition(here, acted, after, after[..., :0], torch.tensor(float(t)))
        terms = task.terms(made.alone())
        reward = sum(terms.values())[..., 0]
        backup = (reward + problem.discount * critic.v(view(problem, after, t + 1))).mean(0)
        assert_close(critic.q(view(problem, state, t), action), backup, 1e-12)
        mean = state @ params["layers.0.weight"].T + params["layers.0.bias"]
        many = view(problem, state.expand(4, 7, 4), t)
        average = critic.q(many, mean + std * eps).mean(0)
        assert_close(critic.v(view(problem, state, t)), average, 1e-12)


def test_lq_critic_gradients_equal_finite_differences():
    problem, params = build("lq")
    critic = closed_forms.solve(problem, params).critic
    generator = torch.Generator().manual_seed(2)
    state = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    action = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
    for t in (0, problem.horizon - 1):
        assert torch.autograd.gradcheck(
            lambda s, a, t=t: critic.q(view(problem, s, t), a), (state, action), atol=1e-8
        )
        assert torch.autograd.gradcheck(lambda s, t=t: critic.v(view(problem, s, t)), (state,))
