"""Landscapes of randomised smoothing: quadratic, Heaviside and soft Heaviside.

Source: Suh et al. 2022 (arXiv 2202.00817), the examples on which first- and zeroth-order gradients
are compared; sizes as in hjsuh94/alpha_gradient@5e2ef6f.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Matrix, Vector, constant


@dataclass(frozen=True)
class Quadratic:
    """f(x) = −½ (x − target)ᵀ H (x − target). Smooth everywhere."""

    curvature: Matrix = ((2.0, 0.6), (0.6, 0.5))  # H, symmetric
    target: Vector = (0.7, -0.4)

    @property
    def name(self) -> str:
        return "quadratic"

    @property
    def dim(self) -> int:
        return len(self.target)

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def reward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """f(x)."""
        error = x - constant(self.target, x)
        return -0.5 * ((error @ constant(self.curvature, x)) * error).sum(-1)

    def margins(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 0"]:
        """No events."""
        return x[..., :0]

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """None."""
        return ()


@dataclass(frozen=True)
class Heaviside:
    """f(x) = bonus·1[all components of x > threshold]: an event, so first-order gradients are 0.

    The margin is the smallest x_i − threshold, divided by `scale`. Non-smooth: the jump at the
    threshold, and for dim > 1 (once relaxed) the edges where two components tie.
    """

    dim: int = 1
    bonus: float = 1.0  # [1]
    threshold: float = 0.0
    scale: float = 1.0  # of the margin

    @property
    def name(self) -> str:
        return "heaviside"

    @property
    def events(self) -> tuple[Event, ...]:
        return (Event("positive", bonus=self.bonus),)

    def reward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Zero: all of f is the event."""
        return torch.zeros_like(x[..., 0])

    def margins(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 1"]:
        """The smallest component above the threshold."""
        return ((x - self.threshold) / self.scale).amin(dim=-1, keepdim=True)

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """The jump."""
        return (self.threshold,) if low < self.threshold < high else ()


@dataclass(frozen=True)
class SoftHeaviside:
    """f(x) = −1 for x < −width/2, +1 for x > width/2, linear between: a dense term, no event.

    Continuous, so first-order gradients are unbiased, and steep, so most of them are zero and the
    rest are 2/width. Non-smooth: the two kinks.
    """

    width: float = 0.1

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise BadValue(f"width must be positive, got {self.width}; use Heaviside for a jump")

    @property
    def name(self) -> str:
        return "soft_heaviside"

    @property
    def dim(self) -> int:
        return 1

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def reward(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        """f(x), with gradient exactly 0 beyond the ramp."""
        ramp = 2 * x[..., 0] / self.width
        return torch.where(ramp.abs() < 1, ramp, torch.sign(ramp).detach())

    def margins(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 0"]:
        """No events."""
        return x[..., :0]

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """The two kinks."""
        return tuple(b for b in (-self.width / 2, self.width / 2) if low < b < high)
