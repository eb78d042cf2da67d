"""The gate at the last step only: everything in closed form.

With x_{t+1} = x_t + B a_t + process noise and a_t ~ N(m_t, std_t²) whatever the state,
x_T ~ N(μ, v²) and J = γ^{T−1} bonus·Φ(z), z = (μ − gate)/v. Equal calls have equal g_k. The exact
Q of the last call is a step in the action when there is no process noise, so that E[QG] is
(T−1)/T of ∇J; E[FOG] is 0.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.oracle.closed_forms.answer import Answer, exact_critic
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian, read, write
from gradlab.oracle.closed_forms.quadrature import normal_density
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.simulators.point_mass import PointMass
from gradlab.tasks.gate import TerminalGate


def value(problem: Problem, calls: LinearGaussian) -> Tensor:
    """J(θ_0, ..., θ_{T−1}); differentiable."""
    task, _, _ = _parts(problem)
    mean, variance = _remaining(problem, calls)
    z = (task.start_mean + mean[0] - task.gate) / (task.start_std**2 + variance[0]).sqrt()
    return problem.discount ** (problem.horizon - 1) * task.bonus * torch.special.ndtr(z)


def gradient(problem: Problem, calls: LinearGaussian) -> LinearGaussian:
    """g_k of every call: J depends on μ and on v² alone."""
    task, control, _ = _parts(problem)
    mean, variance = _remaining(problem, calls)
    std = (task.start_std**2 + variance[0]).sqrt()
    z = (task.start_mean + mean[0] - task.gate) / std
    scale = problem.discount ** (problem.horizon - 1) * task.bonus / std
    slope = scale * normal_density(z, 0.0, 1.0)
    by_mean = slope * control * torch.ones_like(calls.bias)
    by_log_std = -slope * z / std * (control * calls.std).square()
    return LinearGaussian(by_mean[..., None], by_mean, by_log_std)


def truth(problem: Problem, params: dict[str, Tensor]) -> Answer:
    """J, every g_k, and what FOG and QG see of it, of a `TerminalGate` task; no critic yet."""
    _, _, process_std = _parts(problem)
    calls = read(problem.policy, params, problem.horizon)
    exact = gradient(problem, calls)
    none = LinearGaussian(*(torch.zeros_like(part) for part in exact))
    seen = exact
    if process_std == 0:
        # the last call's Q is a step: its derivative is 0
        seen = LinearGaussian(*(torch.cat([part[:-1], part[-1:] * 0]) for part in exact))
    per_call, by_fog, by_q = (write(problem.policy, part) for part in (exact, none, seen))
    return Answer(value(problem, calls), per_call, by_fog, by_q, None)


def critic(problem: Problem, params: dict[str, Tensor]) -> Critic:
    """Exact Q and V: normal tails, and a step in the last action when there is no process noise."""
    task, control, process_std = _parts(problem)
    calls = read(problem.policy, params, problem.horizon)
    times = torch.arange(problem.horizon, dtype=torch.float64)
    discounts = problem.discount ** times.flip(0)  # γ^{T−1−t}
    mean, variance = _remaining(problem, calls)

    def arrive(x: Tensor, step: Tensor, extra: float) -> Tensor:
        """bonus·P(x_T > gate | x at step, plus noise of variance `extra`)."""
        spread = variance.to(x)[step] + extra
        ahead = x + mean.to(x)[step] - task.gate
        certain = (ahead.detach() > 0).to(x)  # a step function: no derivative to find
        safe = torch.where(spread > 0, spread, torch.ones_like(spread)).sqrt()
        return task.bonus * torch.where(spread > 0, torch.special.ndtr(ahead / safe), certain)

    def q(view: View, action: Tensor) -> Tensor:
        after = view.state[..., 0] + control * action[..., 0]
        chance = arrive(after, view.step + 1, process_std**2)
        return discounts.to(chance)[view.step] * chance

    def v(view: View) -> Tensor:
        chance = arrive(view.state[..., 0], view.step, 0.0)
        return discounts.to(chance)[view.step] * chance

    return exact_critic(problem.horizon, q, v)


def _remaining(problem: Problem, calls: LinearGaussian) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_T − x_t for t = 0..T, [T+1] each."""
    _, control, process_std = _parts(problem)
    mean = control * (calls.weight[:, 0, 0] + calls.bias[:, 0])
    variance = (control * calls.std[:, 0]).square() + process_std**2
    end = torch.zeros(1, dtype=torch.float64)
    mean, variance = (part.flip(0).cumsum(0).flip(0) for part in (mean, variance))
    return torch.cat([mean, end]), torch.cat([variance, end])


def _parts(problem: Problem) -> tuple[TerminalGate, float, float]:
    """The task, B and the process noise, after checking that the formulas hold for them."""
    simulator, task = problem.simulator, cast(TerminalGate, problem.task)
    if not isinstance(simulator, PointMass) or simulator.transition != ((1.0,),):
        raise BadValue(
            "the exact solution of terminal_gate needs x' = x + B a; try PointMass(((1.0,),), ((1.0,),))"
        )
    if problem.horizon != task.default_horizon:
        raise BadValue(
            f"terminal_gate ends after {task.default_horizon} steps, got horizon {problem.horizon}; "
            f"try TerminalGate(default_horizon={problem.horizon})"
        )
    return task, simulator.control[0][0], sum(simulator.process_std)
