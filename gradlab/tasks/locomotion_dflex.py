"""Running forward as dFlex rewards it (NVlabs/DiffRL@a4c0dd1, envs/*.py), in a world whose z is up.

dFlex's world has y up. The physics is the same; quaternions here are (w, x, y, z) from the body to
our world, and vectors have our axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.tensors import constant
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.locomotion import HEIGHT_SCALE, draw, perturbed

TILT = 3.141592653589793 / 24  # largest angle of a start's rotation [rad]
AXIS_FLOOR = 1e-6  # keeps the random axis of a start from dividing by zero


@dataclass(frozen=True)
class Uprightness:
    """A height term that punishes coming within a tolerance of the fall: with
    e = clip(h − h_fall − tolerance, −1, cap) it is −200 e² below zero and weight·e above. Kinks:
    e = 0 and both clips."""

    tolerance: float  # [m]
    cap: float  # [m]
    weight: float

    def __call__(self, height: Tensor, fall: float) -> Tensor:
        e = (height - (fall + self.tolerance)).clamp(-1.0, self.cap)
        return torch.where(e < 0, -200 * e.square(), self.weight * e)


@dataclass(frozen=True)
class FreeRunner(Memoryless):
    """dFlex's ant and humanoid: a free root, a target far ahead, the last action observed.

    Reward: forward velocity of the root [m/s] + 0.1·up + heading + height + control, where up is
    the z component of the body's z axis, heading the component of its x axis towards the target,
    height is h − h_fall (ant) or an `Uprightness`, control −control_cost·Σa². Falling below `fall`
    ends the episode; the margin is (fall − h)/height_scale.

    Observation: height, quaternion, velocity, angular velocity (world), joint angles, 0.1·joint
    velocities, up, heading, last action. The simulator must keep the action (`keep_action=True`).

    Reset: ±0.1 m, a rotation of up to ±π/24 about a random axis, ±0.2 rad on joints, ±0.25 on
    velocities, all uniform. dFlex draws the twist about the world's origin; here the velocity of
    the root is drawn.

    Non-smooth places: the event; actions are clipped to ±1 before they are observed or punished, as
    in the source; the kinks of `Uprightness`.
    """

    name: str
    start: tuple[float, ...]  # q at reset
    dt: float  # control period [s]; rewards are velocities and do not use it
    fall: float  # [m]
    upright: Uprightness | None = None
    control_cost: float = 0.0
    target: float = 1e4  # x of the target [m]
    height_scale: float = HEIGHT_SCALE  # [m]
    position_noise: float = 0.1  # [m]
    tilt_noise: float = TILT  # [rad]
    joint_noise: float = 0.2  # [rad]
    velocity_noise: float = 0.25  # [m/s, rad/s]
    default_horizon: int = 32  # [steps]

    @property
    def joints(self) -> int:
        """Hinges, each with a motor."""
        return len(self.start) - 7

    @property
    def observation_dim(self) -> int:
        return 13 + 3 * self.joints

    @property
    def initial_dim(self) -> int:
        """Position, angle, axis, joints, velocities."""
        return 3 + 4 + self.joints + 6 + self.joints

    @property
    def events(self) -> tuple[Event, ...]:
        return (Event("fall", terminates=True),)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Uniform numbers in [−1, 1)."""
        return draw(n, self.initial_dim, 0, False, generator)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch 0"]]:
        """[q, q̇] around the start, the quaternion of unit length."""
        place, angle, axis, joints, speed = noise.split((3, 1, 3, self.joints, 6 + self.joints), -1)
        length = torch.linalg.vector_norm(axis, dim=-1, keepdim=True).clamp(min=AXIS_FLOOR)
        half = 0.5 * self.tilt_noise * angle
        turn = torch.cat((half.cos(), half.sin() * axis / length), dim=-1)
        rest = constant(self.start, noise)
        coordinates = (
            rest[:3] + self.position_noise * place,
            turn,
            rest[7:] + self.joint_noise * joints,
            self.velocity_noise * speed,
        )
        return torch.cat(coordinates, dim=-1), noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[h, quaternion, v, ω, joints, 0.1·joint velocities, up, heading, last action]."""
        nq = len(self.start)
        qpos, qvel, action = state.split((nq, nq - 1, self.joints), dim=-1)
        quaternion = qpos[..., 3:7]
        parts = (
            qpos[..., 2:3],
            quaternion,
            qvel[..., :3],
            _turned(quaternion, qvel[..., 3:6]),
            qpos[..., 7:],
            0.1 * qvel[..., 6:],
            self._up(qpos).unsqueeze(-1),
            self._heading(qpos).unsqueeze(-1),
            action.clamp(-1.0, 1.0),
        )
        return torch.cat(parts, dim=-1)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """forward, up, heading, height and control."""
        after = transition.after
        height = after[..., 2]
        upright = self.upright
        return {
            "forward": after[..., len(self.start)],
            "up": 0.1 * self._up(after),
            "heading": self._heading(after),
            "height": height - self.fall if upright is None else upright(height, self.fall),
            "control": -self.control_cost * transition.action.clamp(-1.0, 1.0).square().sum(-1),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """(fall − h)/height_scale."""
        return (self.fall - transition.after[..., 2:3]) / self.height_scale

    def _up(self, qpos: Tensor) -> Tensor:
        """z component of the body's z axis [1]."""
        return 1 - 2 * (qpos[..., 4].square() + qpos[..., 5].square())

    def _heading(self, qpos: Tensor) -> Tensor:
        """Component of the body's x axis towards the target, horizontally [1]."""
        w, x, y, z = qpos[..., 3:7].unbind(-1)
        ahead, aside = self.target - qpos[..., 0], -qpos[..., 1]
        axis_x, axis_y = 1 - 2 * (y.square() + z.square()), 2 * (x * y + w * z)
        return (axis_x * ahead + axis_y * aside) / (ahead.square() + aside.square()).sqrt()


@dataclass(frozen=True)
class PlanarRunner(Memoryless):
    """dFlex's hopper and half-cheetah: a root that moves in x, z and pitch.

    Reward: forward velocity of the root [m/s] − control_cost·Σa², and for the hopper an
    `Uprightness` of its height coordinate h and 1 − (pitch/(π/6))². Falling below `fall` ends the
    episode, if there is one; the margin is (fall − h)/height_scale. Observation: q without x, and
    q̇.

    Reset: uniform on every entry of q and q̇. Non-smooth places: the event; actions are clipped to
    ±1 before they are punished; the kinks of `Uprightness`.
    """

    name: str
    start: tuple[float, ...]  # q at reset
    dt: float  # control period [s]; rewards are velocities and do not use it
    fall: float | None = None  # height coordinate [m]
    upright: Uprightness | None = None
    level: float | None = None  # pitch at which the term for it is 0 [rad]
    control_cost: float = 0.1
    height_scale: float = HEIGHT_SCALE  # [m]
    position_noise: float = 0.05  # [m, rad]
    velocity_noise: float = 0.05  # [m/s, rad/s]
    default_horizon: int = 32  # [steps]

    @property
    def observation_dim(self) -> int:
        return 2 * len(self.start) - 1

    @property
    def initial_dim(self) -> int:
        return 2 * len(self.start)

    @property
    def events(self) -> tuple[Event, ...]:
        """A fall, if there is one."""
        return () if self.fall is None else (Event("fall", terminates=True),)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Uniform numbers in [−1, 1)."""
        return draw(n, self.initial_dim, 0, False, generator)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch 0"]]:
        """[q, q̇] around the start."""
        return perturbed(noise, self.start, self.position_noise, self.velocity_noise)

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[q without x, q̇]."""
        return state[..., 1 : 2 * len(self.start)]

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """forward, control and, if they are wanted, height and level."""
        after = transition.after
        terms = {
            "forward": after[..., len(self.start)],
            "control": -self.control_cost * transition.action.clamp(-1.0, 1.0).square().sum(-1),
        }
        if self.upright is not None and self.fall is not None:
            terms["height"] = self.upright(after[..., 1], self.fall)
        if self.level is not None:
            terms["level"] = 1 - (after[..., 2] / self.level).square()
        return terms

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T E"]:
        """(fall − h)/height_scale, if there is a fall."""
        if self.fall is None:
            return transition.after[..., :0]
        return (self.fall - transition.after[..., 1:2]) / self.height_scale


def _turned(quaternion: Tensor, vector: Tensor) -> Tensor:
    """From body to world axes."""
    w, u = quaternion[..., :1], quaternion[..., 1:]
    across = 2 * torch.linalg.cross(u, vector, dim=-1)
    return vector + w * across + torch.linalg.cross(u, across, dim=-1)
