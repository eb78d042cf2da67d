"""Truncated backpropagation through time: whole episodes, with gradients that stop at seams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from estimators.base import Cost, Params, TwoPassEstimator, check_window
from estimators.value import tail_values, windows
from estimators.window_rules import WindowRule, Windows
from gradlab.events import window_begins
from gradlab.foundation.errors import BadValue
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import shared
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout


class Seams(NamedTuple):
    """Where the state of every episode is cut; constants."""

    cut: Bool[Tensor, "*batch T"]


@dataclass(frozen=True)
class TruncatedBPTT(TwoPassEstimator):
    """FOG in windows of n steps: Σ_w ∇[Σ_{k<n} γ^k r_{w+k} + γ^n tail], w = 0, n, 2n, ..., summed.

    The state is cut where a window begins. `tail="none"`: what comes after a window is a constant
    to it, and so is the return that was sampled there ("Monte-Carlo bootstrap" of the source, which
    detaches it). `tail="v"`: V of the critic at the window's last state, with its gradient.
    `weighted=False` leaves out γ^w, with which a window counts in ∇J, as the source does.
    `window=None` is the whole horizon: FOG. A rule of `window_rules`, `JacobianGrowth` or
    `JumpWindow`, chooses windows from what the episodes show; `windows` says which.

    Estimates: ∇J with an exact critic and weights; without a critic ∇J but for what an action does
    after its window. Call weights 1, or γ^{−w} without weights; with a rule w is random, those
    declared are 1, and γ^{−w} is bias to them.
    Requires: a V critic for `tail="v"`, if n < T.
    Unbiased when: as FOG, if in addition weights are on and n = T or V is exact and smooth. The
    same holds for `JacobianGrowth`, whose cuts are stopping times, and for a `JumpWindow` of other
    episodes (`Cross`, `Independent`); one of `Same` knows of noise after its cuts.
    Cost: T environment steps, one backward pass; with a rule what it costs, on top.
    Reference: arXiv 2606.21525 (segmented backpropagation); truncated BPTT, Williams and Peng 1990.
    """

    window: int | WindowRule | None = None
    tail: Literal["none", "v"] = "none"
    weighted: bool = True

    @property
    def _rule(self) -> WindowRule | None:
        """What chooses windows; None if they are fixed."""
        chosen = self.window
        return None if chosen is None or isinstance(chosen, int) else chosen

    @property
    def group(self) -> int:
        return 1 if self._rule is None else self._rule.group

    @property
    def label(self) -> str:
        length = "T" if self.window is None else str(self.window)
        length = length if self._rule is None else self._rule.label
        parts = [length, *([] if self.tail == "none" else [self.tail])]
        return f"TruncatedBPTT({', '.join([*parts, *([] if self.weighted else ['unweighted'])])})"

    def check(self, problem: Problem) -> None:
        if self.tail not in ("none", "v"):
            raise BadValue(f"TruncatedBPTT tail must be 'none' or 'v', got {self.tail!r}")
        rule = self._rule
        if rule is not None and (isinstance(rule, type) or not isinstance(rule, WindowRule)):
            raise BadValue(
                f"TruncatedBPTT window must be a number of steps, None or a rule, got {rule!r}; "
                "try window=JacobianGrowth(limit=10.0)"
            )
        if rule is None:
            check_window(self._window(problem), problem, "TruncatedBPTT")
        else:
            rule.check(problem)
        if self.tail == "v" and (rule is not None or self._window(problem) < problem.horizon):
            problem.require_v(f"TruncatedBPTT(window={self.window}) on horizon {problem.horizon}")

    def _window(self, problem: Problem) -> int:
        """The fixed window, the whole horizon where a rule chooses."""
        return self.window if isinstance(self.window, int) else problem.horizon

    def windows(self, problem: Problem, params: Params, noise: Noise) -> Windows:
        """The windows that a call on these episodes has: a row for each block that is cut alike, a
        single one if they are fixed.

        Raises `BadValue` unless the noise holds whole groups.
        """
        self.check_call(problem, params, noise)
        rule = self._rule
        if rule is None:
            index = torch.arange(problem.horizon, device=problem.device)
            cut = (index > 0) & (index % self._window(problem) == 0)
            return Windows(cut[None], torch.zeros(1, 0, device=cut.device))
        with differentiating(), torch.no_grad():
            policy = problem.bind(ordinary(params)).frozen
            return rule.windows(problem, policy, ordinary(noise))

    def first_pass(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> tuple[Tensor, ...]:
        if self._rule is None:
            return ()
        cut = self._rule.windows(problem, policy, noise).cut
        return Seams(cut.repeat_interleave(noise.count // len(cut), 0))

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, given: Any = ()
    ) -> Float[Tensor, "*batch"]:
        if given:
            return self._along(problem, policy, noise, given.cut)
        window, horizon = self._window(problem), problem.horizon
        path, result = windows(problem, policy, noise, window, "tiled")
        scale = self._scale(problem, problem.device)
        total = (scale * result.value).sum(-1)
        if self.tail == "none" or window >= horizon:
            return total
        ends = slice(window, horizon, window)
        tails = tail_values(problem, policy, path, result, noise, ends, "v")
        return total + (scale[: horizon - window : window] * tails).sum(-1)

    def _along(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, cut: Bool[Tensor, "*batch T"]
    ) -> Float[Tensor, "*batch"]:
        """The surrogate in windows of each episode's own."""
        path = rollout(problem, policy, noise, cut_at=cut)
        result = evaluate(problem, path, cut_at=cut)
        scale = torch.ones_like(result.value)
        if not self.weighted:
            scale = problem.discount ** -window_begins(cut).to(scale)
        total = (scale * result.value).sum(-1)
        if self.tail == "none" or problem.horizon == 1:
            return total
        # of all states from s_1 on, those where a window ends count
        times = slice(1, problem.horizon)
        tails = tail_values(problem, policy, path, result, noise, times, "v")
        return total + torch.where(cut[..., 1:], scale[..., :-1] * tails, 0.0).sum(-1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return self._scale(problem, "cpu")  # as those of all others: they are compared and added

    def _scale(self, problem: Problem, device: torch.device | str) -> Float[Tensor, " T"]:
        fixed = self._rule is None and not self.weighted
        key = problem.horizon, self._window(problem), problem.discount if fixed else 1.0
        return _weights(*key, dtype=problem.dtype, device=device)

    def cost(self, problem: Problem) -> Cost:
        own = Cost(problem.horizon, 1, runs=frozenset({problem.horizon}))
        return own if self._rule is None else own + self._rule.cost(problem)


@shared
def _weights(
    horizon: int, window: int, discount: float, *, dtype: torch.dtype, device: torch.device | str
) -> Float[Tensor, " T"]:
    """γ^{−w} of the window that begins at w, for each of its steps."""
    begin = torch.arange(horizon, dtype=torch.float64, device="cpu") // window * window
    return (discount**-begin).to(dtype=dtype, device=device)
