"""Costs of the contact toys: inputs chosen one by one, and a ball that is to end at a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Vector, constant
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.lq import Regulation


@dataclass(frozen=True)
class OpenLoop(Memoryless):
    """A regulation task under inputs that do not look at the state.

    Observation: the time step as a unit vector of `default_horizon` numbers, so that the weights of
    a linear policy are the inputs of all steps; or with `clock=False` the number 1, for one input
    that all steps share. Smooth; no events.
    """

    dense: Regulation
    label: str  # the task's name
    clock: bool = True

    @property
    def name(self) -> str:
        return self.label

    @property
    def observation_dim(self) -> int:
        return self.default_horizon if self.clock else 1

    @property
    def initial_dim(self) -> int:
        return self.dense.initial_dim

    @property
    def default_horizon(self) -> int:
        return self.dense.default_horizon

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """As the regulation task draws it."""
        return self.dense.draw_initial(n, generator)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch ns"], Float[Tensor, "*batch 0"]]:
        """As the regulation task starts."""
        return self.dense.initial(noise)

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """The unit vector of the step, or the number 1."""
        if not self.clock:
            return torch.ones_like(state[..., :1])
        steps = constant(tuple(map(float, range(self.default_horizon))), state)
        now = (step[..., None] == steps).to(state)
        return now.expand(*state.shape[:-1], self.default_horizon)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """The regulation task's terms."""
        return self.dense.terms(transition)

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 0"]:
        """No events."""
        return transition.after[..., :0]


@dataclass(frozen=True)
class Rally(Memoryless):
    """Hit a ball so that it ends at a place: state (x, y, vx, vy) and (x, y, angle) of a paddle.

    r = −action_cost ‖a‖² in every step, and −(s' − goal)ᵀ diag(end_cost) (s' − goal) in the last.
    Observation: the state. The ball starts above the paddle and flies towards it, with velocity
    −`approach` times its position and noise; `start` says how far apart the starts are. The
    horizon of the problem must be `default_horizon`: with a shorter one nothing is ever paid for
    the ball. Smooth; no events.
    """

    start: Literal["wide", "narrow"] = "wide"
    end_cost: Vector = (100.0, 100.0, 10.0, 10.0, 0.0, 0.0, 0.0)  # [1/units²]
    action_cost: float = 0.001  # [1/units²]
    goal: Vector = (0.0, 2.5, 0.0, 0.0, 0.0, 0.0, 0.0)  # [units of the state]
    approach: float = 0.2  # [1/s]
    default_horizon: int = 200  # [steps]

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise BadValue(f"start must be wide or narrow, got {self.start!r}")

    @property
    def name(self) -> str:
        return "tennis"

    @property
    def observation_dim(self) -> int:
        return 7

    @property
    def initial_dim(self) -> int:
        return 7

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 7"]:
        """Standard normal numbers; the first is uniform on (−1, 1) where starts are wide."""
        drawn = torch.randn(n, 7, generator=generator, dtype=torch.float64)
        if self.start == "wide":
            uniform = torch.rand(n, 1, generator=generator, dtype=torch.float64)
            drawn = torch.cat([2 * uniform - 1, drawn[:, 1:]], -1)
        return drawn

    def initial(
        self, noise: Float[Tensor, "*batch 7"]
    ) -> tuple[Float[Tensor, "*batch 7"], Float[Tensor, "*batch 0"]]:
        """Mean and spread of `STARTS`; the ball flies towards the origin."""
        mean, spread = (constant(numbers, noise) for numbers in STARTS[self.start])
        at = mean + spread * noise
        place, drift, paddle = at[..., :2], at[..., 2:4], at[..., 4:]
        return torch.cat([place, drift - self.approach * place, paddle], -1), noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch 7"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 7"]:
        """The state itself."""
        return state

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Terms `end`, 0 before the last step, and `action`."""
        action, after = transition.action, transition.after
        error = (after - constant(self.goal, after)).square() * constant(self.end_cost, after)
        last = transition.step == self.default_horizon - 1
        return {
            "end": -torch.where(last, error.sum(-1), 0.0),
            "action": -self.action_cost * action.square().sum(-1),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 0"]:
        """No events."""
        return transition.after[..., :0]


# mean and spread of (x, y) of the ball, of what is added to its velocity, of the paddle
STARTS: dict[str, tuple[Vector, Vector]] = {
    "wide": ((0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0), (2.0, 0.2, 0.03, 0.03, 0.5, 0.05, 0.05)),
    "narrow": ((1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0), (0.2, 0.1, 0.01, 0.01, 0.1, 0.1, 0.1)),
}
