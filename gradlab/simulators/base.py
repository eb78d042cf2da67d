"""What a simulator is: a differentiable step of a flat state. It knows no reward."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Simulator(Protocol):
    """Dynamics with pre-drawn noise, for any leading batch shape;
    frozen dataclasses implement it.
    """

    @property
    def state_dim(self) -> int: ...

    @property
    def action_dim(self) -> int: ...

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers that one step consumes; 0 for deterministic dynamics."""
        ...

    def start(self, coordinates: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch ns"]:
        """The full state that belongs to a task's initial coordinates."""
        ...

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch nw"],
    ) -> Float[Tensor, "*batch ns"]:
        """The state one control period later."""
        ...


class Deterministic:
    """A base class for simulators without noise whose state is the task's initial coordinates."""

    @property
    def noise_dim(self) -> int:
        """0."""
        return 0

    def start(self, coordinates: Float[Tensor, "*batch ns"]) -> Float[Tensor, "*batch ns"]:
        """The coordinates as they are."""
        return coordinates


@runtime_checkable
class Timed(Protocol):
    """A simulator whose control period is a time."""

    @property
    def dt(self) -> float:
        """Control period [s]."""
        ...


@runtime_checkable
class Clamping(Protocol):
    """A simulator that clamps actions."""

    @property
    def bound(self) -> float:
        """To plus and minus this [1]."""
        ...
