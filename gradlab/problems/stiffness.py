"""What a simulator with contact can say of itself, for lengths that depend on it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Stiff(Protocol):
    """A simulator with contact, which knows how stiff it is."""

    def stiffness(
        self, state: Float[Tensor, "*batch ns"], action: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """AHAC's c_t: the norm of contact forces over accelerations of at least 1."""
        ...
