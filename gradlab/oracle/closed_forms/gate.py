"""The one-dimensional gate with a one-time bonus, by backward quadrature.

Until the gate is passed, the value is the quadratic form of the dense rewards plus bonus·B_t(x),
where B_t is the expected discount at which the gate will first be passed:

    B_t(x) = E[h_t(x')],  h_t(x') = 1[x' > gate] + γ 1[x' <= gate] B_{t+1}(x'),  B_T = 0,

with x' Gaussian given x. The integral over x' <= gate runs over fixed Gauss-Legendre nodes, at
which B_{t+1} is tabulated; away from the nodes B_t is the same sum (Nyström's interpolation), hence
smooth in x and as accurate as the table. Without process noise Q_t(x, a) jumps where x + B a
crosses the gate, by bonus·(1 − γ B_{t+1}(gate)); E[QG] with the exact critic lacks exactly the
density of that crossing times the jump, and E[FOG] lacks the bonus altogether.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.oracle.closed_forms import lq
from gradlab.oracle.closed_forms.answer import Answer, exact_critic
from gradlab.oracle.closed_forms.interpolation import interpolate
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian, read, write
from gradlab.oracle.closed_forms.quadrature import normal_density, normal_panels, panels
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.tasks.gate import Gate

REACH = 9.0  # integration range, in standard deviations of the state


class Line(NamedTuple):
    """Dynamics x' = transition·x + control·a + process_std·w, the gate, and the grid below it."""

    transition: float
    control: float
    process_std: float
    gate: float
    discount: float
    nodes: Float[Tensor, " n"]  # below the gate
    weights: Float[Tensor, " n"]
    highest: float  # state that the policy reaches
    step_std: float  # smallest standard deviation of x' given x

    def expect(self, centre: Tensor, std: Tensor, later: Float[Tensor, "*batch n"]) -> Tensor:
        """E[h_t(x')] for x' ~ N(centre, std²), given B_{t+1} at the nodes."""
        density = normal_density(self.nodes.to(centre), centre[..., None], std[..., None])
        inside = (density * self.weights.to(centre) * later).sum(-1)
        return torch.special.ndtr((centre - self.gate) / std) + self.discount * inside

    def mean(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """E[x' | x] under a policy."""
        return self.transition * x + self.control * (weight * x + bias)

    def std(self, action_std: Tensor) -> Tensor:
        """Standard deviation of x' given x under a policy."""
        return torch.sqrt((self.control * action_std).square() + self.process_std**2)


@dataclass(frozen=True)
class FirstPassage:
    """B_t of T policies of one observation and one action; differentiable in x and the policies."""

    line: Line
    calls: LinearGaussian
    table: Float[Tensor, "times n"]  # B_t at the nodes, t = 0..T; 0 at T

    def before(self, x: Float[Tensor, "*batch"], step: Tensor) -> Float[Tensor, "*batch"]:
        """B_t(x) for integer steps 0..T."""
        last = self.calls.bias.shape[0] - 1
        here = step.clamp(max=last)
        weight, bias, std = (
            part[..., 0].to(x)[here]
            for part in (self.calls.weight[..., 0], self.calls.bias, self.calls.std)
        )
        later = self.table.to(x)[here + 1]
        value = self.line.expect(self.line.mean(x, weight, bias), self.line.std(std), later)
        return torch.where(step <= last, value, torch.zeros_like(value))

    def after(self, centre: Float[Tensor, "*batch"], step: Tensor) -> Float[Tensor, "*batch"]:
        """E[h_t(x')] with only the process noise, about the state that an action leads to."""
        std = torch.full_like(centre, self.line.process_std)
        return self.line.expect(centre, std, self.table.to(centre)[step + 1])


def tabulate(line: Line, calls: LinearGaussian) -> FirstPassage:
    """B_t at every node, backwards in time."""
    rows = [torch.zeros_like(line.nodes)]
    for weight, bias, std in zip(
        calls.weight.flip(0), calls.bias.flip(0), calls.std.flip(0), strict=True
    ):
        centre = line.mean(line.nodes, weight[0, 0], bias[0])
        rows.append(line.expect(centre, line.std(std[0]).expand_as(centre), rows[-1]))
    return FirstPassage(line, calls, torch.stack(rows[::-1]))


def discretise(problem: Problem, calls: LinearGaussian) -> Line:
    """A grid below the gate that holds all but 1e-18 of the states the policy reaches."""
    simulator, task = lq.linear(problem), cast(Gate, problem.task)
    process_std = simulator.process_std[0] if simulator.process_std else 0.0
    control = simulator.control[0][0]
    moments = lq.forward(_dense(problem), calls)
    means = moments[:, 0, 1]
    spread = (moments[:, 0, 0] - means.square()).abs().sqrt()  # abs: rounding of a fixed start
    widest = math.hypot(control * float(calls.std.max()), process_std)
    step_std = math.hypot(control * float(calls.std.min()), process_std)
    low = min(float((means - REACH * spread).min()), task.gate) - REACH * widest
    highest = float((means + REACH * spread).max()) + REACH * widest
    high = max(min(highest, task.gate), low + widest)
    nodes, weights = panels(low, high, 2 * (process_std or step_std))
    return Line(
        simulator.transition[0][0],
        control,
        process_std,
        task.gate,
        problem.discount,
        nodes,
        weights,
        highest,
        step_std,
    )


def crossings(passage: FirstPassage, start: tuple[Tensor, Tensor]) -> LinearGaussian:
    """What E[QG] lacks at each call when Q jumps at the gate (no process noise), per unit bonus.

    γ^k E[density of x_{k+1} at the gate · (1 − γ B_{k+1}(gate)) · ∂x_{k+1}/∂θ_k], over episodes
    that have not passed before; `start` holds nodes and weights of the initial state.
    """
    line, calls = passage.line, passage.calls
    x, mass = start
    gate = torch.tensor(line.gate, dtype=torch.float64)
    by_weight, by_bias, by_log_std = [], [], []
    for k in range(calls.bias.shape[0]):
        mean = line.mean(x, calls.weight[k, 0, 0], calls.bias[k, 0])
        std = line.std(calls.std[k, 0])
        height = 1 - line.discount * passage.before(gate, torch.tensor(k + 1))
        flow = line.discount**k * height * mass * normal_density(gate, mean, std)
        by_weight.append((flow * line.control * x).sum())
        by_bias.append((flow * line.control).sum())
        by_log_std.append((flow * (gate - mean)).sum())
        density = normal_density(line.nodes[:, None], mean, std)
        x, mass = line.nodes, line.weights * (density @ mass)
    return LinearGaussian(
        torch.stack(by_weight)[:, None, None],
        torch.stack(by_bias)[:, None],
        torch.stack(by_log_std)[:, None],
    )


def truth(problem: Problem, params: dict[str, Tensor]) -> Answer:
    """J, every g_k, and what FOG and QG see of it, of a `Gate` task; no critic yet."""
    task = cast(Gate, problem.task)
    system = _dense(problem)
    calls = read(problem.policy, params, problem.horizon)
    line = discretise(problem, calls)
    start_std = math.hypot(*task.dense.start_factor[0])
    start = normal_panels(task.dense.start_mean[0], start_std)
    with torch.enable_grad():
        leaves = LinearGaussian(*(part.clone().requires_grad_() for part in calls))
        x, mass = start
        reached = tabulate(line, leaves).before(x, torch.zeros(len(x), dtype=torch.long))
        bonus = task.bonus * (mass * reached).sum()
        by_bonus = LinearGaussian(*torch.autograd.grad(bonus, leaves))
    passage = tabulate(line, calls)
    dense = lq.gradient(system, calls)
    every = LinearGaussian(*(a + b for a, b in zip(dense, by_bonus, strict=True)))
    seen = every
    if line.process_std == 0:
        jumps = crossings(passage, start)
        seen = LinearGaussian(*(a - task.bonus * b for a, b in zip(every, jumps, strict=True)))
    return Answer(
        lq.value(system, calls) + bonus.detach(),
        write(problem.policy, every),
        write(problem.policy, dense),
        write(problem.policy, seen),
        None,
    )


def critic(problem: Problem, params: dict[str, Tensor]) -> Critic:
    """The dense values plus the bonus that an episode which has not passed may still earn.

    B_t, and E[h_t] where there is process noise, are interpolated: accurate to rounding on all
    states that the policy reaches, constant beyond them.
    """
    task, horizon = cast(Gate, problem.task), problem.horizon
    system = _dense(problem)
    calls = read(problem.policy, params, horizon)
    line = discretise(problem, calls)
    passage = tabulate(line, calls)
    dense_q, dense_v = lq.value_functions(system, calls)
    low, high = float(line.nodes[0]), max(line.gate, line.highest)

    def at(t: int, function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: function(x, torch.full(x.shape, t))

    ahead = interpolate(
        [at(t, passage.before) for t in range(horizon + 1)], low, high, line.step_std
    )
    smoothed = (
        interpolate([at(t, passage.after) for t in range(horizon)], low, high, line.process_std)
        if line.process_std > 0
        else None
    )

    def pending(view: View, chance: Tensor) -> Tensor:
        waiting = view.events[..., 0] < 0.5
        return torch.where(waiting, task.bonus * chance, torch.zeros_like(chance))

    def q(view: View, action: Tensor) -> Tensor:
        centre = line.transition * view.state[..., 0] + line.control * action[..., 0]
        if smoothed is None:
            later = line.discount * ahead(centre, view.step + 1)
            chance = torch.where(centre > line.gate, torch.ones_like(centre), later)
        else:
            chance = smoothed(centre, view.step)
        return dense_q(view, action) + pending(view, chance)

    def v(view: View) -> Tensor:
        return dense_v(view) + pending(view, ahead(view.state[..., 0], view.step))

    return exact_critic(horizon, q, v)


def _dense(problem: Problem) -> lq.LinearQuadratic:
    """The regulation part, after checking that the problem is one-dimensional."""
    simulator, task = lq.linear(problem), cast(Gate, problem.task)
    if simulator.state_dim != 1 or simulator.action_dim != 1:
        raise BadValue(
            "the exact solution of gate needs one state and one action, got "
            f"{simulator.state_dim} and {simulator.action_dim}; try a one-dimensional PointMass"
        )
    return lq.matrices(simulator, task.dense, problem.discount)
