"""A gate on a line: a bonus for passing it, once, or for being beyond it at the end.

Both are hard events: their margins have a gradient only when relaxed. `Gate` adds the event to a
quadratic regulation task; `TerminalGate` has nothing but the event.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.lq import Regulation

NEVER = -1e6  # a margin so low that no relaxation of useful width sees it [scale]


@dataclass(frozen=True)
class Gate(Memoryless):
    """Regulation plus a bonus, paid once, at the first step after which s'[0] > gate.

    Non-smooth: the event. A start beyond the gate has not passed it before the first step is over.
    """

    dense: Regulation
    gate: float = 0.0  # position [m]
    bonus: float = 1.0  # [1]
    scale: float = 0.3  # of the margin [m]

    @property
    def name(self) -> str:
        return "gate"

    @property
    def observation_dim(self) -> int:
        return self.dense.observation_dim

    @property
    def initial_dim(self) -> int:
        return self.dense.initial_dim

    @property
    def default_horizon(self) -> int:
        return self.dense.default_horizon

    @property
    def events(self) -> tuple[Event, ...]:
        return (Event("passed", bonus=self.bonus),)

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
    ) -> Float[Tensor, "*batch ns"]:
        """The state; whether the gate has been passed is not observed."""
        return self.dense.observe(state, memory, step)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """The regulation task's terms."""
        return self.dense.terms(transition)

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """(s'[0] − gate)/scale."""
        return (transition.after[..., :1] - self.gate) / self.scale


@dataclass(frozen=True)
class TerminalGate(Memoryless):
    """A bonus when s'[0] > gate after the last step, and nothing else. Observation: the number 1.

    Every call contributes the same to the gradient, and an exact Q of the last call is a step in
    the action: the value-gradient estimator sees (T−1)/T of the truth. Non-smooth: the event.
    The horizon of the problem must be `default_horizon`: with a shorter one nothing ever happens.
    """

    default_horizon: int = 4  # T [steps]
    gate: float = 1.0  # position [m]
    bonus: float = 1.0  # [1]
    scale: float = 1.0  # of the margin [m]
    start_mean: float = 0.1  # [m]
    start_std: float = 0.2  # [m]

    @property
    def name(self) -> str:
        return "terminal_gate"

    @property
    def observation_dim(self) -> int:
        return 1

    @property
    def initial_dim(self) -> int:
        return 1

    @property
    def events(self) -> tuple[Event, ...]:
        return (Event("arrived", bonus=self.bonus),)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 1"]:
        """A standard normal number."""
        return torch.randn(n, 1, generator=generator, dtype=torch.float64)

    def initial(
        self, noise: Float[Tensor, "*batch 1"]
    ) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 0"]]:
        """start_mean + start_std·ξ."""
        return self.start_mean + self.start_std * noise, noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch 1"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 1"]:
        """The number 1."""
        return torch.ones_like(state[..., :1])

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """No dense reward."""
        return {}

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """(s'[0] − gate)/scale at the last step, `NEVER` before it."""
        last = (transition.step == self.default_horizon - 1)[..., None]
        return torch.where(last, (transition.after[..., :1] - self.gate) / self.scale, NEVER)
