"""Three contact toys of two bodies: pushing by a spring, dragging by friction, a ball and a paddle.

Source: Suh et al. 2022 (arXiv 2202.00817); constants of hjsuh94/alpha_gradient@5e2ef6f. Time steps
are semi-implicit, v' = v + h f/m and x' = x + h v', except for the ball's, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.simulators.base import Deterministic


@dataclass(frozen=True)
class Pushing(Deterministic):
    """Two masses on a line; the first is driven, and pushes the second by a one-sided spring.

    State (x1, x2, v1, v2), action the force on the first. The spring presses both apart while
    x2 − x1 < `length`. Continuous: the force has a kink where contact begins, none with
    `sharpness`, which takes softplus(κ z)/κ for max(z, 0). What the default spring does to a
    difference of states in a step is far from the identity: dt √(2 stiffness/mass) = 0.7.
    """

    mass: float = 0.1  # of each [kg]
    dt: float = 0.005  # [s]
    stiffness: float = 1000.0  # [N/m]
    kept: float = 0.99  # of a velocity in a step without force [1]
    length: float = 1.0  # of the spring at rest [m]
    sharpness: float = 0.0  # κ of the smooth force [1/m]; 0: the force itself

    @property
    def state_dim(self) -> int:
        return 4

    @property
    def action_dim(self) -> int:
        return 1

    def force(self, apart: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 1"]:
        """What presses the masses apart [N] at the distance x2 − x1 [m]."""
        depth = self.length - apart
        if self.sharpness > 0:
            return self.stiffness * F.softplus(self.sharpness * depth) / self.sharpness
        return self.stiffness * depth.clamp(min=0)

    def step(
        self,
        state: Float[Tensor, "*batch 4"],
        action: Float[Tensor, "*batch 1"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch 4"]:
        """One step."""
        place, speed = state[..., :2], state[..., 2:]
        force = self.force(place[..., 1:] - place[..., :1])
        speed = self.kept * speed + self.dt / self.mass * torch.cat([action - force, force], -1)
        return torch.cat([place + self.dt * speed, speed], -1)


@dataclass(frozen=True)
class Dragging(Deterministic):
    """Two masses on a line; the first is driven, and drags the second by friction while it is near.

    State (x1, x2, v1, v2), action the force on the first. Friction opposes the difference of
    velocities, in proportion up to `slip` and constant beyond. Non-smooth: it vanishes at once
    where |x2 − x1| = `width`, a jump of the force whose height depends on the state; kinks at
    `slip`.
    """

    mass: float = 0.1  # of each [kg]
    dt: float = 0.005  # [s]
    width: float = 0.1  # within which they touch [m]
    coefficient: float = 1.8  # of friction [N s/m]
    slip: float = 0.1  # difference of velocities beyond which friction is constant [m/s]

    @property
    def state_dim(self) -> int:
        return 4

    @property
    def action_dim(self) -> int:
        return 1

    def force(self, state: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 1"]:
        """What drags the second mass [N]."""
        place, speed = state[..., :2], state[..., 2:]
        slower = (speed[..., :1] - speed[..., 1:]).clamp(-self.slip, self.slip)
        near = (place[..., 1:] - place[..., :1]).abs() < self.width
        return torch.where(near, self.coefficient * slower, 0.0)

    def step(
        self,
        state: Float[Tensor, "*batch 4"],
        action: Float[Tensor, "*batch 1"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch 4"]:
        """One step."""
        place, speed, force = state[..., :2], state[..., 2:], self.force(state)
        speed = speed + self.dt / self.mass * torch.cat([action - force, force], -1)
        return torch.cat([place + self.dt * speed, speed], -1)


@dataclass(frozen=True)
class Paddle(Deterministic):
    """A ball in the plane without gravity, and a paddle that is moved and turned.

    State (x, y, vx, vy) of the ball and (x, y, angle) of the paddle; action the paddle's velocity
    (vx, vy, ω). The ball is reflected if its next position, seen from the paddle as it is and with
    the angle that it is about to have, lies in the rectangle of the paddle made larger by the
    ball's radius. The velocity across the paddle is then turned round (times `restitution`), else
    it is multiplied by `kept`, as that along it always is. The paddle's own velocity does not
    enter, and a paddle that hits does not move in this step.

    With `impact` the ball flies with its old velocity until the time of impact and with the new one
    for the rest of the step, which makes its place continuous in the time of the hit; without, it
    takes the whole step with its old velocity. Non-smooth: whether the ball hits or passes the
    paddle's end, and its velocity at the step in which it hits.
    """

    dt: float = 0.05  # [s]
    half_width: float = 0.8  # of the paddle, along [m]
    half_height: float = 0.05  # of the paddle, across [m]
    radius: float = 0.15  # of the ball [m]
    restitution: float = 1.0  # of the velocity across [1]
    kept: float = 0.999  # of a velocity in a step [1]
    impact: bool = True

    @property
    def state_dim(self) -> int:
        return 7

    @property
    def action_dim(self) -> int:
        return 3

    def step(
        self,
        state: Float[Tensor, "*batch 7"],
        action: Float[Tensor, "*batch 3"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch 7"]:
        """One step."""
        place, speed, paddle = state[..., :2], state[..., 2:4], state[..., 4:]
        moved = paddle + self.dt * action
        cos, sin = torch.cos(moved[..., 2:]), torch.sin(moved[..., 2:])
        along, across = torch.cat([cos, sin], -1), torch.cat([-sin, cos], -1)  # of the paddle
        seen = place - paddle[..., :2]
        fast_along, fast_across = (_dot(speed, axis) for axis in (along, across))
        now, ahead = _dot(seen, across), _dot(seen + self.dt * speed, across)
        reach = self.half_height + self.radius
        beside = _dot(seen + self.dt * speed, along).abs() <= self.half_width + self.radius
        hit = beside & (ahead.abs() <= reach)
        turned = torch.where(hit, -self.restitution * fast_across, self.kept * fast_across)
        after = self.kept * fast_along * along + turned * across
        first = torch.full_like(now, self.dt)  # time with the old velocity [s]
        if self.impact:
            share = (1 - (reach - ahead) / (now - ahead + 1e-5)).clamp(0, 1)
            first = torch.where(hit, self.dt * share, first)
        place = place + first * speed + (self.dt - first) * after
        return torch.cat([place, after, torch.where(hit, paddle, moved)], -1)


def _dot(a: Float[Tensor, "*batch 2"], b: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 1"]:
    return (a * b).sum(-1, keepdim=True)
