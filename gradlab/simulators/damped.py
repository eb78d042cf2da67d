"""Bodies in a plane with viscous damping, pushed by bounded forces, one explicit step at a time.

Source: arXiv 2606.21525 and yuecideng/analytic_policy_gradients@d2d04f7 (envs/point_mass*_env.py,
envs/push_t_env.py). The order of a step is theirs: damping, force, pose, and the workspace last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import check_positive
from gradlab.foundation.tensors import constant
from gradlab.simulators.base import Deterministic, Simulator


@dataclass(frozen=True)
class DampedMass(Deterministic):
    """v ← v (1 − c dt) + dt F a/m, then p ← p + dt v, clamped to ±`limit` on every axis.

    State [p, v], `dims` numbers each. Non-smooth where the position is at the limit: there its
    derivative is 0 and the velocity stays what it is.
    Raises `BadValue` for a mass, a step or a limit that is not positive.
    """

    dims: int = 2
    dt: float = 1 / 60  # [s]
    mass: float = 1.0  # [kg]
    force: float = 5.0  # of an action of 1, on each axis [N]
    damping: float = 5.0  # c [1/s]
    limit: float | None = 1.0  # half width of the workspace; None: it has no end [m]

    def __post_init__(self) -> None:
        check_positive(self, "dims", "dt", "mass")
        if self.limit is not None:
            check_positive(self, "limit")

    @property
    def state_dim(self) -> int:
        return 2 * self.dims

    @property
    def action_dim(self) -> int:
        return self.dims

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch ns"]:
        """One step of `dt`."""
        position, velocity = state.split(self.dims, dim=-1)
        velocity = velocity * (1 - self.damping * self.dt)
        velocity = velocity + (self.force / self.mass * self.dt) * action
        position = position + self.dt * velocity
        if self.limit is not None:
            position = position.clamp(-self.limit, self.limit)
        return torch.cat([position, velocity], dim=-1)


@dataclass(frozen=True)
class DampedBlock(Deterministic):
    """A rigid body in a plane under a force and a torque of its own: nothing pushes it.

    State [x, y, θ, v_x, v_y, ω]; velocities are damped, then pushed, then the pose follows, the
    position clamped to ±`limit` and the angle brought to [−π, π), with a derivative of 1 where it
    jumps. Full torque changes ω by 17.1 rad/s in a step: very stiff, as in the source.
    Non-smooth at the limit, and an observer of θ sees the jump by 2π.
    Raises `BadValue` for a mass, an inertia, a step or a limit that is not positive.
    """

    dt: float = 1 / 60  # [s]
    mass: float = 0.1  # [kg]
    # of the source; exact for the uniform T about its centre of mass: 1.93e-4
    inertia: float = 1.95e-4  # [kg m²]
    force: float = 5.0  # of an action of 1, on each axis [N]
    torque: float = 0.2  # of an action of 1 [N m]
    damping: float = 5.0  # of the velocity [1/s]
    spin_damping: float = 3.0  # of the angular velocity [1/s]
    limit: float = 0.25  # half width of the workspace [m]

    def __post_init__(self) -> None:
        check_positive(self, "dt", "mass", "inertia", "limit")

    @property
    def state_dim(self) -> int:
        return 6

    @property
    def action_dim(self) -> int:
        return 3

    def step(
        self,
        state: Float[Tensor, "*batch 6"],
        action: Float[Tensor, "*batch 3"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch 6"]:
        """One step of `dt`."""
        pose, velocity = state.split(3, dim=-1)
        keep = tuple(1 - c * self.dt for c in (self.damping, self.damping, self.spin_damping))
        push = self.force / self.mass * self.dt
        gain = (push, push, self.torque / self.inertia * self.dt)
        velocity = velocity * constant(keep, state) + action * constant(gain, state)
        pose = pose + self.dt * velocity
        position = pose[..., :2].clamp(-self.limit, self.limit)
        return torch.cat([position, wrapped(pose[..., 2:]), velocity], dim=-1)


@dataclass(frozen=True)
class HeldAction:
    """A simulator whose actions are clamped to ±`bound`, and whose state ends with the last one.

    State [state of `inner`, action that was taken last]; it is 0 at first. So a task can price how
    fast actions change, with its gradient. Non-smooth at the bound, beyond which an action has no
    derivative. Raises `BadValue` for a bound that is not positive.
    """

    inner: Simulator
    bound: float = 1.0  # [1]

    def __post_init__(self) -> None:
        check_positive(self, "bound")

    @property
    def state_dim(self) -> int:
        return self.inner.state_dim + self.inner.action_dim

    @property
    def action_dim(self) -> int:
        return self.inner.action_dim

    @property
    def noise_dim(self) -> int:
        return self.inner.noise_dim

    def start(self, coordinates: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch ns"]:
        """The inner start, and an action of 0."""
        inner = self.inner.start(coordinates)
        return torch.cat([inner, inner.new_zeros((*inner.shape[:-1], self.action_dim))], dim=-1)

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch nw"],
    ) -> Float[Tensor, "*batch ns"]:
        """The inner step under the clamped action."""
        action = action.clamp(-self.bound, self.bound)
        inner = self.inner.step(state[..., : self.inner.state_dim], action, noise)
        return torch.cat([inner, action], dim=-1)


def wrapped(angle: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same angle in [−π, π); its derivative is 1 everywhere [rad]."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
