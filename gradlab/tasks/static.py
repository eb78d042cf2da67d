"""One-step decision problems: a landscape f, seen through a policy with a constant observation.

F(μ) = E f(μ + std·ε) is the randomised-smoothing objective of the stochastic-programming papers;
`gradlab.simulators.Static` turns the action into the state at which f is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.tasks.base import Memoryless, Transition


@runtime_checkable
class Landscape(Protocol):
    """A reward of the decision x, with the places where it is not smooth."""

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def events(self) -> tuple[Event, ...]: ...

    def reward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The smooth or piecewise smooth part of f, as autograd sees it."""
        ...

    def margins(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch E"]:
        """Scaled margins of `events`."""
        ...

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """Where f has a kink or a jump between `low` and `high`; for d = 1."""
        ...


@dataclass(frozen=True)
class Decision(Memoryless):
    """Reward of one decision: r = f(s'), observation 1, nothing random but the policy."""

    landscape: Landscape
    default_horizon: int = 1  # [steps]

    @property
    def name(self) -> str:
        return self.landscape.name

    @property
    def observation_dim(self) -> int:
        return 1

    @property
    def initial_dim(self) -> int:
        return 0

    @property
    def events(self) -> tuple[Event, ...]:
        return self.landscape.events

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 0"]:
        """The initial state is not random."""
        return torch.zeros(n, 0, dtype=torch.float64)

    def initial(
        self, noise: Float[Tensor, "*batch 0"]
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch 0"]]:
        """The origin."""
        return noise.new_zeros((*noise.shape[:-1], self.landscape.dim)), noise

    def observe(
        self,
        state: Float[Tensor, "*batch d"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 1"]:
        """The number 1: the policy's weight is the decision."""
        return torch.ones_like(state[..., :1])

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """The single term `landscape`."""
        return {"landscape": self.landscape.reward(transition.after)}

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T E"]:
        """Margins of the landscape's events."""
        return self.landscape.margins(transition.after)
