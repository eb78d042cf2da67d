"""Two contact problems in one decision, whose reward jumps where first-order gradients are blind.

Source: Suh et al. 2022 (arXiv 2202.00817), ball with wall and momentum transfer; constants of
hjsuh94/alpha_gradient@5e2ef6f. Costs are turned into rewards by a change of sign. The jump's height
depends on the decision, so it is part of the dense reward and not an `Event`: pieces are selected
by `torch.where`, the derivative is that of the selected piece, and nothing relaxes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event


@dataclass(frozen=True)
class BallWithWall:
    """Throw a ball as far as possible over a wall: f(x) = (landing distance)², x the launch angle.

    The ball lands at its free range, unless it would pass the wall below its top: then it lands at
    the wall, and the derivative is exactly 0. Non-smooth: a jump where it just clears the wall (two
    angles in (0, π/2), found by a quadratic in tan x), a kink where the free range just reaches the
    wall, and the same angles plus multiples of π.
    """

    speed: float = 1.0  # at launch [m/s]
    distance: float = 0.06  # of the wall [m]
    height: float = 0.02  # of the wall [m]
    gravity: float = 9.81  # [m/s²]

    @property
    def name(self) -> str:
        return "ball_with_wall"

    @property
    def dim(self) -> int:
        return 1

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def landing(self, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Where the ball lands [m]; angle [rad]."""
        sin, cos = torch.sin(angle), torch.cos(angle)
        free = 2 * self.speed**2 * sin * cos / self.gravity
        # height over the wall times cos²: no division by cos, which vanishes at a vertical throw
        drop = self._drop
        below = self.distance * sin * cos - drop <= self.height * cos.square()
        hits = (free > self.distance) & below
        return torch.where(hits, torch.full_like(free, self.distance), free)

    def reward(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        """Squared landing distance [m²]."""
        return self.landing(x[..., 0]).square()

    def margins(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 0"]:
        """No events."""
        return x[..., :0]

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """Angles [rad] at which the ball reaches the wall or just clears it."""
        angles = []
        reach = self.gravity * self.distance / self.speed**2
        if reach < 1:
            angles += [0.5 * math.asin(reach), 0.5 * (math.pi - math.asin(reach))]
        drop = self._drop
        discriminant = self.distance**2 - 4 * drop * (drop + self.height)
        if discriminant > 0:
            for sign in (-1, 1):
                slope = (self.distance + sign * math.sqrt(discriminant)) / (2 * drop)
                angles.append(math.atan(slope))
        return _repeat(angles, low, high)

    @property
    def _drop(self) -> float:
        """Fall below the line of sight at the wall, times cos² [m]."""
        return 0.5 * self.gravity * self.distance**2 / self.speed**2


@dataclass(frozen=True)
class MomentumTransfer:
    """Hit a pivot off-centre: f(x) = sin²x while |x| <= cliff, else 0 (the ball misses).

    x [rad] stands for the point of impact: further out transfers more momentum, too far misses.
    Non-smooth: the jumps at ±cliff.
    """

    cliff: float = math.pi / 4  # [rad]

    @property
    def name(self) -> str:
        return "momentum_transfer"

    @property
    def dim(self) -> int:
        return 1

    @property
    def events(self) -> tuple[Event, ...]:
        return ()

    def reward(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        """f(x), with gradient exactly 0 beyond the cliff."""
        angle = x[..., 0]
        return torch.where(angle.abs() <= self.cliff, torch.sin(angle).square(), 0.0)

    def margins(self, x: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 0"]:
        """No events."""
        return x[..., :0]

    def breakpoints(self, low: float, high: float) -> tuple[float, ...]:
        """The two cliffs."""
        return tuple(b for b in (-self.cliff, self.cliff) if low < b < high)


def _repeat(angles: list[float], low: float, high: float) -> tuple[float, ...]:
    """The angles plus every multiple of π that falls inside (low, high), sorted."""
    turns = range(math.floor(low / math.pi) - 1, math.ceil(high / math.pi) + 1)
    every = [angle + turn * math.pi for angle in angles for turn in turns]
    return tuple(sorted(angle for angle in every if low < angle < high))
