"""AGPO: simulation gradients (SG) and value gradients (QG), mixed step by step along windows.

α_t, one number for all episodes of a group, is the share of SG in what flows back into the action
of a step. The rules for it are in `alphas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from estimators.alphas import (
    ActionGradients,
    AlphaRule,
    StepWeights,
    VarianceRatio,
    step_weights,
)
from estimators.base import Cost, Params, TwoPassEstimator, check_window
from estimators.mixtures.sources import LEAST, Independent, Same, Source, check_source
from estimators.value import check_starts, tail_values, window_label, windows
from gradlab.foundation.arguments import got, number
from gradlab.foundation.errors import BadValue
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import shared
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate, views, while_alive
from gradlab.rollouts.relay import Recorder
from gradlab.rollouts.rollout import Trajectory, rollout


class Shares(NamedTuple):
    """What the terms of eq. 4 weigh, in every episode; constants."""

    reward: Float[Tensor, "*batch L"]  # of r_t
    value: Float[Tensor, "*batch L"]  # of Q_t, with the action of the policy
    tail: Float[Tensor, "*batch L"]  # of Q_{t+1}, where the segment ends after step t


@dataclass(frozen=True)
class AGPO(TwoPassEstimator):
    """∇ [Σ_{t<h} γ^t ((1 − α_t) β_{t−1} Q_t + β_t r_t) + γ^h β_{h−1} Q_h], β_t = α_0 ··· α_t.

    `alpha` is a rule (`VarianceRatio()`, as published; `MaxNorm`, `Quantile`), a number for all
    steps, or a sequence with one for each step of a window (or of the horizon). 1 is `NStep` and 0
    is `ZeroStep`. A rule sees one-step gradients of the episodes that `source` says: `Same` (as
    published, there 64), `Cross` or `Independent`. Once β < `threshold` (table 1) the segment ends,
    and its last β is that of a tail Q. `window=None` means the whole horizon; the paper has 32.

    Estimates: Σ_k β_{k−1} g_k over the calls of each window until its cut, β_{−1} = 1: the call
    weights for a fixed `alpha`. With a rule β is random, and `weights` alone tells it. Call weights
    cannot be random: those declared are then those of α = 1, which are 1 in the window (all, if
    tiled), and what β and the cut take from later calls is bias to them, no fault of a critic.
    `fitted` has weights that say what it estimates. `average` divides by the window, as printed in
    eq. 4; by default it does not, so that targets are those of `NStep`.
    Requires: a Q critic; for double Q one with two networks (`Fit(twin=True)`, their min or mean).
    Unbiased when: for Σ_k E[β_{k−1}] g_k, Q exact and smooth, rewards and dynamics continuous, and
    α fixed, fitted, or from `Cross` or `Independent`; α of `Same`, the default, is biased, and so
    is one for each episode. For ∇J if tiled with α = 1, or in windows of 1.
    Cost: twice the window in steps, and two backward passes through it, whatever α a rule finds;
    once if α is fixed.
    Reference: AGPO eq. 1 to 4, sections 4 and 5.3, appendix A.3.
    """

    window: int | None = None
    alpha: AlphaRule | float | Sequence[float] = field(default_factory=VarianceRatio)
    starts: Literal["first", "tiled"] = "first"
    source: Source = field(default_factory=Same)
    threshold: float = 0.1  # of β, below which a segment ends [1]
    average: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.alpha, AlphaRule) and not isinstance(self.alpha, type):
            return
        many = isinstance(self.alpha, Sequence) and not isinstance(self.alpha, str)
        values = (*self.alpha,) if many else (self.alpha,)  # type: ignore[misc]
        hint = "try alpha=VarianceRatio(), alpha=0.6 or a sequence of numbers"
        fixed = tuple(number("alpha", value, hint) for value in values)
        if not fixed or not all(0 <= value <= 1 for value in fixed):
            raise BadValue(f"alpha must lie in [0, 1], got {got(self.alpha)}; {hint}")
        object.__setattr__(self, "alpha", fixed if many else fixed[0])

    @property
    def _rule(self) -> AlphaRule | None:
        """The rule for α; None if it is fixed."""
        return self.alpha if isinstance(self.alpha, AlphaRule) else None

    @property
    def group(self) -> int:
        return 1 if self._rule is None else self.source.group(1)

    @property
    def label(self) -> str:
        if self._rule is not None:
            how = "" if isinstance(self._rule, VarianceRatio) else self._rule.label
        else:
            how = f"α {self.alpha:g}" if isinstance(self.alpha, float) else "fixed"
        return f"AGPO({', '.join(filter(None, (window_label(self.window, self.starts), how)))})"

    def check(self, problem: Problem) -> None:
        check_starts(self.starts, "AGPO")
        check_window(self._window(problem), problem, "AGPO")
        if not 0 <= number("threshold", self.threshold) < 1:
            raise BadValue(
                f"threshold should be at least 0 (no cut) and below 1, got {self.threshold}; try 0.1"
            )
        check_source(self.source)
        self.source.check()
        if self._rule is None:
            self._fixed(problem)
        elif self._rule.own and not isinstance(self.source, Same):
            raise BadValue(
                f"{self._rule.label} weighs every episode by its own gradient and needs "
                f"source=Same(), got {got(self.source)}"
            )
        problem.require_q("AGPO")

    def _window(self, problem: Problem) -> int:
        return problem.horizon if self.window is None else self.window

    def _length(self, problem: Problem) -> int:
        """The steps L that it looks at."""
        return self._window(problem) if self.starts == "first" else problem.horizon

    def _fixed(self, problem: Problem) -> tuple[float, ...]:
        """α of every step. Raises `BadValue` for a sequence of another length."""
        window, length = self._window(problem), self._length(problem)
        if not isinstance(self.alpha, tuple):
            assert isinstance(self.alpha, float)
            return (self.alpha,) * length
        if len(self.alpha) not in (window, length):
            raise BadValue(
                f"alpha should be one number, {window} of a window or {length} of all steps, "
                f"got {len(self.alpha)}"
            )
        return tuple(self.alpha[t % len(self.alpha)] for t in range(length))

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        length, window = self._length(problem), self._window(problem)
        of_calls = torch.ones(length, dtype=torch.float64)
        if self._rule is None:
            alpha = _numbers(*self._fixed(problem), dtype=torch.float64, device="cpu")[None]
            of_calls = step_weights(alpha, window, self.threshold).call[0]
        weights = torch.zeros(problem.horizon, dtype=problem.dtype)
        weights[:length] = of_calls.to(problem.dtype)
        return weights / window if self.average else weights

    def cost(self, problem: Problem) -> Cost:
        length = self._length(problem)
        passes = 1 if self._rule is None else 2
        steps, own = passes * length, frozenset({length})
        return Cost(steps, steps / problem.horizon, runs=own if passes == 1 else frozenset())

    def weights(self, problem: Problem, params: Params, noise: Noise) -> StepWeights:
        """The weights that a call on these episodes uses, in float64: one block for each group
        (`Same`) or fold (`Cross`), for each episode where the rule gives it its own, or a single
        one (α fixed, or `Independent`, whatever the noise is). L is the window, or T if tiled.

        Raises `BadValue` unless the noise holds whole groups.
        """
        self.check_call(problem, params, noise)
        with differentiating():
            policy = problem.bind(ordinary(params)).frozen
            return self._weights(problem, policy, ordinary(noise))

    def fitted(self, problem: Problem, params: Params, noise: Noise) -> AGPO:
        """AGPO with α from all episodes of `noise`, a pilot, fixed from then on: its call weights
        say what it estimates.

        Raises `BadValue` for fewer than 4 episodes, or a rule with an α for every episode.
        """
        pilot = replace(self, source=Same(max(noise.count, LEAST)))
        if self._rule is None or self._rule.own:
            raise BadValue(f"fitted needs one α for all episodes, got {got(self.alpha)}")
        found = pilot.weights(problem, params, noise).alpha[0]
        return replace(self, alpha=tuple(found.tolist()))

    def _weights(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> StepWeights:
        return step_weights(
            self._alpha(problem, policy, noise), self._window(problem), self.threshold
        )

    def _alpha(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Float[Tensor, "B L"]:
        rule, group = self._rule, self.group
        if rule is None:
            fixed = self._fixed(problem)
            return _numbers(*fixed, dtype=torch.float64, device=problem.device)[None]
        length = self._length(problem)
        if isinstance(self.source, Independent):
            pilot = self.source.draw(problem, 1)
            return rule(action_gradients(problem, policy, pilot, length))[None]
        found = action_gradients(problem, policy, noise, length)
        grouped = [part.unflatten(0, (-1, group)) for part in found]
        blocks: list[Tensor] = []
        for ranges in self.source.origins(group):
            seen = (torch.cat([part[:, a:b] for a, b in ranges], dim=1) for part in grouped)
            blocks.append(rule(ActionGradients(*seen)))
        return torch.stack(blocks, dim=1).flatten(0, -2)

    def first_pass(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Shares:
        weights = self._weights(problem, policy, noise)
        size = self._window(problem)
        alpha, call = weights.alpha, weights.call
        reward = alpha * call
        value = (1 - alpha) * call
        if self._rule is not None and self._rule.discards:
            value = torch.zeros_like(value)
        # a segment ends with its window, or where the next call has no weight any more
        follows = F.pad(call[..., 1:], (0, 1))
        last = torch.arange(1, call.shape[-1] + 1, device=call.device) % size == 0
        tail = torch.where(last | (follows == 0), reward, 0.0)
        scale = 1 / size if self.average else 1.0
        rows = noise.count // len(call)
        shares = (scale * part for part in (reward, value, tail))
        return Shares(*(part.to(problem.dtype).repeat_interleave(rows, 0) for part in shares))

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, given: Shares
    ) -> Float[Tensor, "*batch"]:
        window, length = self._window(problem), self._length(problem)
        path, result = windows(problem, policy, noise, window, self.starts)
        total = (given.reward * result.value).sum(-1)
        within = _cut_at_starts(path, result, window)
        times = slice(0, length)
        q = problem.require_q("AGPO")
        values = q(views(problem, *within, times), path.action)
        total = total + (given.value * while_alive(within[1], values, times)).sum(-1)
        times = slice(1, min(length + 1, problem.horizon))
        if times.start == times.stop:
            return total
        tails = tail_values(problem, policy, path, result, noise, times, "q")
        return total + (given.tail[..., : tails.shape[-1]] * tails).sum(-1)


def action_gradients(
    problem: Problem, policy: BoundPolicy, noise: Noise, length: int
) -> ActionGradients:
    """One-step SG and QG at the action node of every step, in one batched pass each; float64.

    Episodes run on as they are, and every step is differentiated by itself: states and survival are
    cut there. γ counts from t. `policy` is frozen; whatever comes after its action is Q's.
    """
    recorder = Recorder("action")
    with torch.enable_grad():
        path = rollout(problem, policy, noise, length=length, cut_every=1, relay=recorder)
        result = evaluate(problem, path, cut_every=1)
        total = result.value.sum(-1)
        times = slice(1, min(length + 1, problem.horizon))
        if times.start < times.stop:
            tails = tail_values(problem, policy, path, result, noise, times, "q")
            total = total + tails.sum(-1)
        sg = torch.zeros_like(path.action)
        if total.requires_grad:
            sg = recorder.messages(total)["action"]

        still, known, times = path.detach(), result.detach(), slice(0, length)
        action = still.action.requires_grad_()
        q = problem.require_q("AGPO")(views(problem, still, known, times), action)
        qg = torch.zeros_like(sg)
        if q.requires_grad:
            (qg,) = torch.autograd.grad(while_alive(known, q, times).sum(), action)
    discount = known.discount[..., times, None].double()
    return ActionGradients(
        sg.double() / discount, qg.double() / discount, known.alive[..., times] > 0
    )


def _cut_at_starts(path: Trajectory, result: Outcome, window: int) -> tuple[Trajectory, Outcome]:
    """The path and its outcome as steps begin: at a window's start all is constant."""
    start = torch.arange(result.alive.shape[-1], device=result.alive.device) % window == 0
    alive = torch.where(start, result.alive.detach(), result.alive)
    events = torch.where(start[:, None], result.events.detach(), result.events)
    state = torch.cat([path.before, path.state[..., -1:, :]], dim=-2)
    memory = torch.cat([path.memory_before, path.memory[..., -1:, :]], dim=-2)
    return path._replace(state=state, memory=memory), result._replace(alive=alive, events=events)


@shared
def _numbers(*values: float, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
