"""Estimators that read a critic: value gradients, n-step and λ-returns.

Values are V(s) = Q(s, a) at the policy's one pre-drawn action of that time (ABPT eq. 15), or a V
critic as in SHAC. Where a value ends a window its policy parameters are constants: with live ones
the call at the boundary would count twice as soon as windows are tiled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Params, SurrogateEstimator, check_window
from estimators.outputs import at_outputs, reads_outputs
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import shared
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import GradientSamples
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, View, evaluate, views, while_alive
from gradlab.rollouts.rollout import Trajectory, rollout


def q_values(
    problem: Problem,
    policy: BoundPolicy,
    path: Trajectory,
    result: Outcome,
    noise: Noise,
    times: slice,
    entropy: float = 0.0,
) -> Float[Tensor, "*batch K"]:
    """Q_t(s_t, a_t) − κ·log π(a_t|s_t) at times < T, a_t the pre-drawn action of `policy`.

    A recurrent policy remembers what it did in `path`; its critic does not know of that.
    """
    view = views(problem, path, result, times)
    z = policy(view.obs, range(problem.horizon + 1)[times], path.carry[..., times, :])
    return q_values_of(problem, policy, view, z, noise.action[..., times, :], entropy)


def q_values_of(
    problem: Problem,
    policy: BoundPolicy,
    view: View,
    z: Float[Tensor, "*batch K nz"],
    eps: Float[Tensor, "*batch K nu"],
    entropy: float = 0.0,
) -> Float[Tensor, "*batch K"]:
    """`q_values` where the policy has given z at what the critic sees."""
    q = problem.require_q("a value of Q")
    value = q(view, policy.action(policy.latent(z, eps)))
    if not entropy:
        return value
    return value - entropy * policy.log_prob_action(z, eps)


def tail_values(
    problem: Problem,
    policy: BoundPolicy,
    path: Trajectory,
    result: Outcome,
    noise: Noise,
    times: slice,
    tail: Literal["q", "v"],
    entropy: float = 0.0,
) -> Float[Tensor, "*batch K"]:
    """γ^t alive_t V_t(s_t) at times < T, with the policy's parameters constant."""
    if tail == "v":
        value = problem.require_v("a tail of V")(views(problem, path, result, times))
    else:
        value = q_values(problem, policy.frozen, path, result, noise, times, entropy)
    return while_alive(result, value, times)


def _require(problem: Problem, tail: str, who: str) -> None:
    if tail not in ("q", "v"):
        raise BadValue(f"{who} tail must be 'q' or 'v', got {tail!r}")
    if tail == "q":
        problem.require_q(who)
    else:
        problem.require_v(who)


def value_gradient(
    problem: Problem, policy: BoundPolicy, noise: Noise, at: str, entropy: float = 0.0
) -> Float[Tensor, "*batch"]:
    """The surrogate of QG: Σ_t γ^t alive_t Q_t(s_t, π_θ(s_t)) with the states as constants."""
    length = 1 if at == "start" else problem.horizon
    path = rollout(problem, policy.frozen, noise, length=length)
    return value_along(problem, policy, noise, path, evaluate(problem, path), length, entropy)


def value_along(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    path: Trajectory,
    result: Outcome,
    length: int,
    entropy: float,
) -> Float[Tensor, "*batch"]:
    """Σ_{t<length} γ^t alive_t Q_t(s_t, π_θ(s_t)) along a path, as constants whatever it is."""
    path, result = path.detach(), result.detach()
    times = slice(0, length)
    values = q_values(problem, policy, path, result, noise, times, entropy)
    return while_alive(result, values, times).sum(-1)


@dataclass(frozen=True)
class QG(SurrogateEstimator):
    """Value gradient: Σ_t γ^t alive_t ∇_θ Q_t(s_t, π_θ(s_t)), states cut.

    Estimates: ∇J; call weights 1 for `at="all"`, (1, 0, 0, ...) for `at="start"`.
    Requires: a Q critic.
    Unbiased when: at="all", Q is exact *and* Q_t(s, ·) is continuous in the action: on a hard event
    an exact Q misses what no later noise smooths.
    Cost: T environment steps (1 for "start"), one backward pass through the critic alone.
    Reference: ABPT eq. 5; AGPO section 3.1 (QG).
    """

    at: Literal["all", "start"] = "all"
    entropy: float = field(default=0.0, hash=False)  # κ of V = Q + κ·entropy [reward]

    @property
    def label(self) -> str:
        return "QG" if self.at == "all" else "QG(start)"

    def check(self, problem: Problem) -> None:
        if self.at not in ("all", "start"):
            raise BadValue(f"QG at must be 'all' or 'start', got {self.at!r}")
        problem.require_q(self.label)

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        return value_gradient(problem, policy, noise, self.at, self.entropy)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        if self.at == "start" or not reads_outputs(self, QG, problem, context.layers):
            return super().sample(problem, params, noise, context)
        policy, times = problem.bind(params, memo=context.memo).frozen, slice(0, problem.horizon)
        with torch.no_grad():
            path = rollout(problem, policy, noise)
            result = evaluate(problem, path)
            view = views(problem, path, result, times)

        def values(z: Tensor) -> Tensor:
            each = q_values_of(problem, policy, view, z, noise.action, self.entropy)
            return while_alive(result, each, times).sum(-1)

        return at_outputs(problem, params, (path.obs, path.output), values)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        weights = torch.ones(problem.horizon, dtype=problem.dtype)
        if self.at == "start":
            weights[1:] = 0
        return weights

    def cost(self, problem: Problem) -> Cost:
        length = problem.horizon if self.at == "all" else 1
        return Cost(length, 1 / problem.horizon, reads=frozenset({length}))


@dataclass(frozen=True)
class ZeroStep(SurrogateEstimator):
    """The 0-step return of ABPT: ∇_θ V(s_0), V = Q at one pre-drawn action.

    Estimates: ∂J/∂θ_0, the part of ∇J that belongs to the first policy call; call weights
    (1, 0, 0, ...). It is `QG(at="start")`.
    Requires: a Q critic.
    Unbiased when: never for ∇J with T > 1; for its own target, as QG.
    Cost: one policy and one critic call.
    Reference: ABPT eq. 10 (J^0) and eq. 15.
    """

    entropy: float = field(default=0.0, hash=False)  # κ of V = Q + κ·entropy [reward]

    def check(self, problem: Problem) -> None:
        problem.require_q(self.label)

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        return value_gradient(problem, policy, noise, "start", self.entropy)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return QG(at="start").call_weights(problem)

    def cost(self, problem: Problem) -> Cost:
        return QG(at="start").cost(problem)


def n_step(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    window: int,
    starts: str,
    tail: Literal["q", "v"],
    entropy: float = 0.0,
) -> Float[Tensor, "*batch"]:
    """The surrogate of NStep: rewards inside windows plus the value at each window's end."""
    path, result = windows(problem, policy, noise, window, starts)
    return n_step_along(problem, policy, noise, path, result, window, starts, tail, entropy)


def windows(
    problem: Problem, policy: BoundPolicy, noise: Noise, window: int, starts: str
) -> tuple[Trajectory, Outcome]:
    """One window from the start, or windows all along, their start states cut."""
    if starts == "first":
        path = rollout(problem, policy, noise, length=window)
        return path, evaluate(problem, path)
    path = rollout(problem, policy, noise, cut_every=window)
    return path, evaluate(problem, path, cut_every=window)


def n_step_along(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    path: Trajectory,
    result: Outcome,
    window: int,
    starts: str,
    tail: Literal["q", "v"],
    entropy: float,
) -> Float[Tensor, "*batch"]:
    """The rewards of `windows` plus the value at each window's end."""
    horizon = problem.horizon
    ends = slice(window, horizon, window)
    if starts == "first":
        ends = slice(window, min(window + 1, horizon))
    total = result.value.sum(-1)
    if ends.start < horizon:
        tails = tail_values(problem, policy, path, result, noise, ends, tail, entropy)
        total = total + tails.sum(-1)
    return total


def window_label(window: int | None, starts: str) -> str:
    """n, or T for the whole horizon; and how windows start, if not once."""
    length = "T" if window is None else str(window)
    return length if starts == "first" else f"{length}, {starts}"


def check_starts(starts: str, who: str) -> None:
    if starts not in ("first", "tiled"):
        raise BadValue(f"{who} starts must be 'first' or 'tiled', got {starts!r}")


@dataclass(frozen=True)
class NStep(SurrogateEstimator):
    """n-step return with a critic tail: ∇[Σ_{k<n} γ^k r_k + γ^n V(s_n)], per window (SHAC).

    Estimates: with `starts="first"` the window from s_0 alone, call weights 1 for k < n and 0
    after; with `starts="tiled"` windows at 0, n, 2n, ... with cut start states, call weights 1.
    `window=None` means the whole horizon, which is FOG and needs no critic.
    Requires: a Q critic (`tail="q"`, ABPT) or a V critic (`tail="v"`, SHAC) if n < T.
    Unbiased when: tiled, rewards and dynamics continuous in the noise, V exact and smooth.
    Cost: n environment steps and n/T of a backward pass ("first"), T and 1 ("tiled").
    Reference: ABPT eq. 7 and eq. 10 (J^N); SHAC.
    """

    window: int | None = None
    starts: Literal["first", "tiled"] = "first"
    tail: Literal["q", "v"] = "q"
    entropy: float = field(default=0.0, hash=False)  # κ of V = Q + κ·entropy [reward]

    @property
    def label(self) -> str:
        return f"NStep({window_label(self.window, self.starts)})"

    def check(self, problem: Problem) -> None:
        check_starts(self.starts, "NStep")
        window = self._window(problem)
        check_window(window, problem, "NStep")
        if window < problem.horizon:
            _require(problem, self.tail, f"NStep(window={window}) on horizon {problem.horizon}")

    def _window(self, problem: Problem) -> int:
        return problem.horizon if self.window is None else self.window

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        window = self._window(problem)
        return n_step(problem, policy, noise, window, self.starts, self.tail, self.entropy)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        weights = torch.ones(problem.horizon, dtype=problem.dtype)
        if self.starts == "first":
            weights[self._window(problem) :] = 0
        return weights

    def cost(self, problem: Problem) -> Cost:
        steps = self._window(problem) if self.starts == "first" else problem.horizon
        return Cost(steps, steps / problem.horizon, runs=frozenset({steps}))


@dataclass(frozen=True)
class LambdaReturn(SurrogateEstimator):
    """λ-weighted mixture of windows: (1−λ) Σ_{m<n} λ^{m−1} J^m + λ^{n−1} J^n.

    Estimates: call weights λ^k from one start (window n = T); tiled with `window=n`, λ^{k mod n}.
    Requires: a Q critic (`tail="q"`) or a V critic (`tail="v"`), unless λ = 1 and n = T.
    Unbiased when: for ∇J only with λ = 1 (then FOG, or tiled NStep); for its own target as NStep.
    Cost: n environment steps and n/T of a backward pass ("first"), T and 1 ("tiled").
    Reference: ABPT eq. 13 for the weights.
    """

    lambda_: float = 0.95
    window: int | None = None
    starts: Literal["first", "tiled"] = "first"
    tail: Literal["q", "v"] = "q"
    entropy: float = field(default=0.0, hash=False)  # κ of V = Q + κ·entropy [reward]

    @property
    def label(self) -> str:
        return f"LambdaReturn({self.lambda_:g}, {window_label(self.window, self.starts)})"

    def check(self, problem: Problem) -> None:
        check_starts(self.starts, "LambdaReturn")
        if not 0 <= self.lambda_ <= 1:
            raise BadValue(f"lambda_ must lie in [0, 1], got {self.lambda_}")
        window = self._window(problem)
        check_window(window, problem, "LambdaReturn")
        if problem.horizon > 1 and (self.lambda_ < 1 or window < problem.horizon):
            _require(problem, self.tail, "LambdaReturn")

    def _window(self, problem: Problem) -> int:
        return problem.horizon if self.window is None else self.window

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        horizon, window = problem.horizon, self._window(problem)
        tiled = self.starts == "tiled"
        length = horizon if tiled else window
        cut = window if tiled else None
        path = rollout(problem, policy, noise, length=length, cut_every=cut)
        result = evaluate(problem, path, cut_every=cut)
        cast = {"dtype": result.value.dtype, "device": result.value.device}
        key = self.lambda_, window, horizon
        total = (_powers(*key, **cast)[:length] * result.value).sum(-1)
        times = slice(1, min(length + 1, horizon))
        if times.start >= times.stop or (self.lambda_ == 1 and window == horizon):
            return total
        tails = tail_values(problem, policy, path, result, noise, times, self.tail, self.entropy)
        return total + (_of_tails(*key, **cast)[times] * tails).sum(-1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        window = self._window(problem)
        key = self.lambda_, window, problem.horizon
        weights = _powers(*key, dtype=problem.dtype, device="cpu").clone()
        if self.starts == "first":
            weights[window:] = 0
        return weights

    def cost(self, problem: Problem) -> Cost:
        steps = self._window(problem) if self.starts == "first" else problem.horizon
        return Cost(steps, steps / problem.horizon, runs=frozenset({steps}))


@shared
def _powers(
    lambda_: float, window: int, horizon: int, *, dtype: torch.dtype, device: torch.device | str
) -> Float[Tensor, " T"]:
    """λ^{k mod n} of every step."""
    index = torch.arange(horizon, device="cpu") % window
    return (lambda_ ** index.to(torch.float64)).to(dtype=dtype, device=device)


@shared
def _of_tails(
    lambda_: float, window: int, horizon: int, *, dtype: torch.dtype, device: torch.device | str
) -> Float[Tensor, " T_plus_1"]:
    """(1 − λ) λ^{m−1} of the tail m steps into its window, λ^{n−1} at its end."""
    times = torch.arange(horizon + 1, dtype=torch.float64, device="cpu")
    offsets = (times - 1) % window + 1
    inner = (1 - lambda_) * lambda_ ** (offsets - 1.0)
    weights = torch.where(offsets == window, lambda_ ** (window - 1.0), inner)
    return weights.to(dtype=dtype, device=device)
