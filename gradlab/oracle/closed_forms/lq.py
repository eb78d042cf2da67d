"""The linear-quadratic problem by Riccati and Lyapunov recursions.

With x = [s, 1], policy a = K x + std·ε, K = [W b], dynamics x' = A x + B a + w and reward
x'ᵀ G x' − aᵀ R a, the value functions are quadratic forms: with H_t = G + γ P_{t+1} and P_T = 0,

    Q_t(x, a) = (A x + B a)ᵀ H_t (A x + B a) + tr(H_t Σ_w) − aᵀ R a
    V_t(x)    = xᵀ P_t x,   P_t = (A + B K)ᵀ H_t (A + B K) − Kᵀ R K + constants in its last corner.

The second moments M_t = E[x_t x_tᵀ] run forward, and each call's own gradient is

    ∂J/∂K_t = 2 γ^t [Bᵀ H_t (A + B K) − R K] M_t,    ∂J/∂log std_t = 2 γ^t diag(Bᵀ H_t B − R) std²,

the finite-horizon form of the policy gradient of Fazel et al. 2018 (arXiv 1801.05039).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Matrix, Vector
from gradlab.oracle.closed_forms.answer import Answer, exact_critic
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian, read, write
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.simulators.point_mass import PointMass
from gradlab.tasks.lq import Regulation


class LinearQuadratic(NamedTuple):
    """The problem's matrices, for the state with a 1 appended (m = ns + 1)."""

    transition: Float[Tensor, "m m"]  # A
    control: Float[Tensor, "m nu"]  # B
    process: Float[Tensor, "m m"]  # Σ_w
    state_reward: Float[Tensor, "m m"]  # G
    action_cost: Float[Tensor, "nu nu"]  # R
    start: Float[Tensor, "m m"]  # M_0
    discount: float  # γ


class Values(NamedTuple):
    """Quadratic forms of the value functions."""

    q: Float[Tensor, "T m m"]  # H_t, with tr(H_t Σ_w) added to its corner
    v: Float[Tensor, "times m m"]  # P_t, t = 0..T


def linear(problem: Problem) -> PointMass:
    """The problem's dynamics, if they are linear; else `BadValue`."""
    if not isinstance(problem.simulator, PointMass):
        raise BadValue(
            f"the exact solution of {problem.task.name} needs linear dynamics, got "
            f"{type(problem.simulator).__name__}; try PointMass"
        )
    return problem.simulator


def matrices(simulator: PointMass, task: Regulation, discount: float) -> LinearQuadratic:
    """Simulator and task in homogeneous coordinates, float64 on the CPU."""
    n = simulator.state_dim
    transition = torch.eye(n + 1, dtype=torch.float64)
    transition[:n, :n] = _exact(simulator.transition)
    control = transition.new_zeros(n + 1, simulator.action_dim)
    control[:n] = _exact(simulator.control)
    process = torch.zeros_like(transition)
    if simulator.process_std:
        process[:n, :n] = torch.diag(_exact(simulator.process_std).square())
    error = torch.cat([torch.eye(n, dtype=torch.float64), -_exact(task.goal)[:, None]], dim=1)
    mean = _exact((*task.start_mean, 1.0))
    factor = transition.new_zeros(n + 1, task.initial_dim)
    factor[:n] = _exact(task.start_factor)
    return LinearQuadratic(
        transition,
        control,
        process,
        -error.T @ _symmetric(_exact(task.state_cost)) @ error,
        _symmetric(_exact(task.action_cost)),
        torch.outer(mean, mean) + factor @ factor.T,
        discount,
    )


def backward(system: LinearQuadratic, calls: LinearGaussian) -> Values:
    """Riccati recursion for given policies; differentiable in them."""
    size = system.transition.shape[0]
    corner = torch.zeros(size, size, dtype=torch.float64)
    corner[-1, -1] = 1.0
    values = [torch.zeros_like(corner)]
    qs = []
    for gain, std in zip(calls.gain.flip(0), calls.std.flip(0), strict=True):
        h = system.state_reward + system.discount * values[-1]
        closed = system.transition + system.control @ gain
        spread = system.control.T @ h @ system.control - system.action_cost
        noise = (h * system.process).sum()
        constant = noise + (spread.diagonal() * std.square()).sum()
        values.append(
            closed.T @ h @ closed - gain.T @ system.action_cost @ gain + constant * corner
        )
        qs.append(h + noise * corner)
    return Values(torch.stack(qs[::-1]), torch.stack(values[::-1]))


def forward(system: LinearQuadratic, calls: LinearGaussian) -> Float[Tensor, "times m m"]:
    """Second moments M_t, t = 0..T, of the state with a 1 appended (Lyapunov recursion)."""
    moments = [system.start]
    for gain, std in zip(calls.gain, calls.std, strict=True):
        closed = system.transition + system.control @ gain
        spread = system.control @ torch.diag(std.square()) @ system.control.T
        moments.append(closed @ moments[-1] @ closed.T + spread + system.process)
    return torch.stack(moments)


def value(system: LinearQuadratic, calls: LinearGaussian) -> Float[Tensor, ""]:
    """J(θ_0, ..., θ_{T−1})."""
    return (backward(system, calls).v[0] * system.start).sum()


def gradient(system: LinearQuadratic, calls: LinearGaussian) -> LinearGaussian:
    """g_k of every call, by the formulas at the top of this module."""
    h, moments = backward(system, calls).q, forward(system, calls)[:-1]
    weights = 2 * system.discount ** torch.arange(h.shape[0], dtype=torch.float64)
    closed = system.transition + system.control @ calls.gain
    inner = system.control.T @ h @ closed - system.action_cost @ calls.gain
    by_gain = weights[:, None, None] * (inner @ moments)
    spread = system.control.T @ h @ system.control - system.action_cost
    by_std = weights[:, None] * spread.diagonal(dim1=-2, dim2=-1) * calls.std.square()
    return LinearGaussian(by_gain[..., :-1], by_gain[..., -1], by_std)


def value_functions(
    system: LinearQuadratic, calls: LinearGaussian
) -> tuple[Callable[[View, Tensor], Tensor], Callable[[View], Tensor]]:
    """Exact Q_t(s, a) and V_t(s) for t < T, in float64; they read `state` and integer `step`."""
    values = backward(system, calls)

    def q(view: View, action: Tensor) -> Tensor:
        here = _homogeneous(view.state)
        after = here @ system.transition.to(here).T + action @ system.control.to(here).T
        effort = ((action @ system.action_cost.to(here)) * action).sum(-1)
        return _form(values.q, view.step, after) - effort

    def v(view: View) -> Tensor:
        return _form(values.v, view.step, _homogeneous(view.state))

    return q, v


def truth(problem: Problem, params: dict[str, Tensor]) -> Answer:
    """J and every g_k of a `Regulation` task on a `PointMass`; no critic yet."""
    calls = read(problem.policy, params, problem.horizon)
    system = matrices(linear(problem), cast(Regulation, problem.task), problem.discount)
    per_call = write(problem.policy, gradient(system, calls))
    return Answer(value(system, calls), per_call, per_call, per_call, None)


def critic(problem: Problem, params: dict[str, Tensor]) -> Critic:
    """Exact Q and V of a `Regulation` task under the policy."""
    calls = read(problem.policy, params, problem.horizon)
    system = matrices(linear(problem), cast(Regulation, problem.task), problem.discount)
    return exact_critic(problem.horizon, *value_functions(system, calls))


def _form(table: Tensor, step: Tensor, vector: Tensor) -> Tensor:
    """xᵀ table[t] x for each member of the batch."""
    matrix = table.to(vector)[step]
    return ((matrix @ vector[..., None])[..., 0] * vector).sum(-1)


def _homogeneous(state: Tensor) -> Tensor:
    return torch.cat([state, torch.ones_like(state[..., :1])], dim=-1)


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.T)


def _exact(values: Vector | Matrix) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
