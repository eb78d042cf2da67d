"""Truncated backpropagation through time: whole episodes, with gradients that stop at seams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, SurrogateEstimator, check_window
from estimators.value import tail_values, windows
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import shared
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem


@dataclass(frozen=True)
class TruncatedBPTT(SurrogateEstimator):
    """FOG in windows of n steps: Σ_w ∇[Σ_{k<n} γ^k r_{w+k} + γ^n tail], w = 0, n, 2n, ..., summed.

    The state is cut where a window begins. `tail="none"`: what comes after a window is a constant
    to it, and so is the return that was sampled there ("Monte-Carlo bootstrap" of the source, which
    detaches it). `tail="v"`: V of the critic at the window's last state, with its gradient.
    `weighted=False` leaves out γ^w, with which a window counts in ∇J, as the source does.
    `window=None` is the whole horizon: FOG.

    Estimates: ∇J with an exact critic and weights; without a critic ∇J but for what an action does
    after its window. Call weights 1, or γ^{−w} without weights.
    Requires: a V critic for `tail="v"`, if n < T.
    Unbiased when: as FOG, if in addition weights are on and n = T or V is exact and smooth.
    Cost: T environment steps, one backward pass.
    Reference: arXiv 2606.21525 (segmented backpropagation); truncated BPTT, Williams and Peng 1990.
    """

    window: int | None = None
    tail: Literal["none", "v"] = "none"
    weighted: bool = True

    @property
    def label(self) -> str:
        length = "T" if self.window is None else str(self.window)
        parts = [length, *([] if self.tail == "none" else [self.tail])]
        return f"TruncatedBPTT({', '.join([*parts, *([] if self.weighted else ['unweighted'])])})"

    def check(self, problem: Problem) -> None:
        if self.tail not in ("none", "v"):
            raise BadValue(f"TruncatedBPTT tail must be 'none' or 'v', got {self.tail!r}")
        window = self._window(problem)
        check_window(window, problem, "TruncatedBPTT")
        if self.tail == "v" and window < problem.horizon:
            problem.require_v(f"TruncatedBPTT(window={window}) on horizon {problem.horizon}")

    def _window(self, problem: Problem) -> int:
        return problem.horizon if self.window is None else self.window

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        window, horizon = self._window(problem), problem.horizon
        path, result = windows(problem, policy, noise, window, "tiled")
        scale = self.call_weights(problem)
        total = (scale * result.value).sum(-1)
        if self.tail == "none" or window >= horizon:
            return total
        ends = slice(window, horizon, window)
        tails = tail_values(problem, policy, path, result, noise, ends, "v")
        return total + (scale[: horizon - window : window] * tails).sum(-1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        key = problem.horizon, self._window(problem), problem.discount if not self.weighted else 1.0
        return _weights(*key, dtype=problem.dtype, device=problem.device)

    def cost(self, problem: Problem) -> Cost:
        return Cost(problem.horizon, 1, runs=frozenset({problem.horizon}))


@shared
def _weights(
    horizon: int, window: int, discount: float, *, dtype: torch.dtype, device: torch.device | str
) -> Float[Tensor, " T"]:
    """γ^{−w} of the window that begins at w, for each of its steps."""
    begin = torch.arange(horizon, dtype=torch.float64, device="cpu") // window * window
    return (discount**-begin).to(dtype=dtype, device=device)
