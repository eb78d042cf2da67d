"""The one-step "simulator" of static problems: the action becomes the state."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gradlab.simulators.base import Deterministic


@dataclass(frozen=True)
class Static(Deterministic):
    """s' = a. With a constant observation, a is the decision x + w of stochastic programming.

    The policy's mean is x, its noise is w, and a task rewards f(s') = f(x + w): the smoothed
    objective F(x) = E f(x + w) of randomised smoothing.
    """

    dim: int = 1

    @property
    def state_dim(self) -> int:
        return self.dim

    @property
    def action_dim(self) -> int:
        return self.dim

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch nw"],
    ) -> Float[Tensor, "*batch ns"]:
        """The decision itself."""
        return action
