"""Quadratic regulation of a linear system: every gradient of it is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.errors import BadShape
from gradlab.foundation.tensors import Matrix, Vector, constant
from gradlab.tasks.base import Memoryless, Transition


@dataclass(frozen=True)
class Regulation(Memoryless):
    """r = −(s' − goal)ᵀ Q (s' − goal) − aᵀ R a, with s' the state after the step.

    Observation: the state. Initial state: start_mean + L ξ with ξ standard normal. Smooth
    everywhere; no events.
    """

    state_cost: Matrix  # Q, symmetric [1/units²]
    action_cost: Matrix  # R, symmetric [1/units²]
    goal: Vector  # [units of the state]
    start_mean: Vector  # [units of the state]
    start_factor: Matrix  # L, square [units of the state]
    default_horizon: int = 8  # [steps]

    def __post_init__(self) -> None:
        n = len(self.goal)
        sizes = len(self.state_cost), len(self.start_mean), len(self.start_factor)
        if sizes != (n, n, n):
            raise BadShape(
                f"goal has {n} components, but state_cost, start_mean, start_factor have {sizes} "
                "rows; give all of them the state's length"
            )

    @property
    def name(self) -> str:
        return "lq"

    @property
    def observation_dim(self) -> int:
        return len(self.goal)

    @property
    def initial_dim(self) -> int:
        return len(self.start_factor[0])

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Standard normal numbers ξ."""
        return torch.randn(n, self.initial_dim, generator=generator, dtype=torch.float64)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch ns"], Float[Tensor, "*batch 0"]]:
        """start_mean + L ξ."""
        state = constant(self.start_mean, noise) + noise @ constant(self.start_factor, noise).T
        return state, noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch ns"]:
        """The state itself."""
        return state

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Terms `state` and `action`, both at most zero for positive semidefinite costs."""
        action, after = transition.action, transition.after
        error = after - constant(self.goal, after)
        return {
            "state": -((error @ constant(self.state_cost, after)) * error).sum(-1),
            "action": -((action @ constant(self.action_cost, action)) * action).sum(-1),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 0"]:
        """No events."""
        return transition.after[..., :0]
