"""What a critic is: value functions of what an estimator can see at time t."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class View(NamedTuple):
    """What a critic may look at, at time t of an episode that is still alive."""

    state: Float[Tensor, "*batch ns"]
    obs: Float[Tensor, "*batch no"]
    events: Float[Tensor, "*batch E"]  # value of each event so far (1: it has happened)
    step: Float[Tensor, "*batch"]  # t [steps]


@dataclass(frozen=True)
class Critic:
    """Finite-horizon value functions: the expected return from t on,
    discounted from t, given alive.

    `q(view, action)` is Q_t(s, a) of the executed action; `v(view)` is V_t(s). Both return [*batch]
    and are differentiable in the view and the action. Parameters of the critic are constants.
    """

    q: Callable[[View, Tensor], Tensor] | None = None
    v: Callable[[View], Tensor] | None = None
    name: str = "critic"
