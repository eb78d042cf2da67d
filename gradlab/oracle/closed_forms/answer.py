"""What is known about a known-answer problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.problems.critic import Critic, View


class Answer(NamedTuple):
    """Exact numbers, float64 on the CPU; gradients are keyed by parameter, one row per call.

    `per_call` holds g_k = ∂J/∂θ_k, the truth. The other two say what an estimator that follows
    derivatives through a step function misses, in expectation; both equal `per_call` on a smooth
    problem, and both are empty where they are not known (relaxed events).
    """

    value: Float[Tensor, ""]  # J
    per_call: dict[str, Float[Tensor, "T *param"]]
    seen_by_fog: dict[str, Float[Tensor, "T *param"]]  # E[FOG], split by call
    seen_by_q: dict[str, Float[Tensor, "T *param"]]  # E[QG] with the exact critic, by call
    critic: Critic | None  # exact Q and V; None where the view does not hold all of the state

    @property
    def gradient(self) -> dict[str, Tensor]:
        """∇J = Σ_k g_k."""
        return total(self.per_call)


def total(
    per_call: dict[str, Float[Tensor, "T *param"]], weights: Float[Tensor, " T"] | None = None
) -> dict[str, Float[Tensor, "*param"]]:
    """Σ_k w_k g_k: what an estimator with call weights w aims at; w = 1 by default."""
    if weights is None:
        return {name: rows.sum(0) for name, rows in per_call.items()}
    return {
        name: (weights.to(rows).reshape(-1, *[1] * (rows.ndim - 1)) * rows).sum(0)
        for name, rows in per_call.items()
    }


def exact_critic(
    horizon: int, q: Callable[[View, Tensor], Tensor], v: Callable[[View], Tensor]
) -> Critic:
    """A critic from formulas for t < T in float64: 0 at T, and the dtype of the view's state."""

    def inside(view: View) -> View:
        return view._replace(
            state=view.state.double(), step=view.step.clamp(max=horizon - 1).long()
        )

    def ended(view: View, value: Tensor) -> Tensor:
        over = view.step >= horizon
        return torch.where(over, torch.zeros_like(value), value).to(view.state.dtype)

    return Critic(
        q=lambda view, action: ended(view, q(inside(view), action.double())),
        v=lambda view: ended(view, v(inside(view))),
        name="exact",
    )
