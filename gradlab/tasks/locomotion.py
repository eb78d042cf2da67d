"""Running forward as gymnasium and Brax reward it.

States are [q, q̇, ...] of an articulated simulator, MuJoCo's coordinates: a free root starts with
its position and quaternion (w, x, y, z), a planar one with x, z and pitch. Whatever follows q̇ is
seen by no reward here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.tensors import constant
from gradlab.tasks.base import Memoryless, Transition

Range = tuple[float, float]

HEIGHT_SCALE = (
    0.2  # of the margins of heights, here and in dFlex's tasks; the sources have none [m]
)


@dataclass(frozen=True)
class Locomotion(Memoryless):
    """Run forward, cheaply, without falling; one class for all runners of gymnasium v5 and Brax.

    Reward of a step, x the position that `track` gives (or the root's):

        forward   forward_weight·(x_after − x_before)/dt
        control   −control_cost·Σ (control_scale·a)²
        healthy   `healthy_reward` per step: with `healthy_event` only while healthy after the step
                  (gymnasium), else in every step until the episode ends (Brax)

    Being outside `height`, `pitch` or `bound` ends the episode. It is one event: its margin is the
    largest over all bounds, each by how much it is exceeded over its scale: `height_scale`; the
    bound itself for `pitch` and `bound`. Relaxed, the healthy reward of a step is
    healthy_reward·(1 − Step(M_t)), M_t the running maximum, so that it falls as survival does.

    Reset: `start` plus uniform noise of half-range `position_noise` on every entry of q, then
    quaternions are normalised (the sources show the first observation before that, and normalise
    when they step); velocities are uniform or, with `normal_velocities`, normal with that scale.

    Observation: q without its first `hidden` entries and q̇, clipped to ±`clip` if there is one.

    Left out, against the sources: contact forces and their cost (gymnasium's ant and humanoid), and
    the humanoid's inertias, velocities and actuator forces, in observation and reward. x is that of
    the state after the step; gymnasium reads the ant's and the humanoid's as of the last integrator
    stage. gymnasium also ends an ant's episode when a number is not finite; here that is an error
    to see.

    Non-smooth places: the event, and where its largest bound changes; the clipping of velocities
    (gradient 0 beyond). Source: gymnasium 1.4 envs/mujoco/*_v5.py; google/brax@0b96d05 brax/envs.
    """

    name: str
    start: tuple[float, ...]  # q at reset
    nv: int
    dt: float  # control period [s]
    hidden: int = 1  # leading positions that are not observed
    forward_weight: float = 1.0  # [s/m]
    control_cost: float = 1e-3
    control_scale: float = 1.0  # control per unit of action
    healthy_reward: float = 0.0
    healthy_event: bool = True
    height: Range | None = None  # [m]
    pitch: float | None = None  # either way [rad]
    bound: float | None = None  # on every entry of q and q̇ but x and height
    height_scale: float = HEIGHT_SCALE  # [m]
    clip: float | None = None  # [m/s, rad/s]
    position_noise: float = 0.1  # [m, rad, 1]
    velocity_noise: float = 0.1  # [m/s, rad/s]
    normal_velocities: bool = True
    track: Callable[[Tensor], Tensor] | None = None  # from q to the position whose x counts
    default_horizon: int = 32  # [steps]

    @property
    def free(self) -> bool:
        """Whether the root is free, with a quaternion, and not planar."""
        return len(self.start) > self.nv

    @property
    def observation_dim(self) -> int:
        return len(self.start) - self.hidden + self.nv

    @property
    def initial_dim(self) -> int:
        return len(self.start) + self.nv

    @property
    def events(self) -> tuple[Event, ...]:
        """The end of health, if there are bounds to it."""
        if self.height is None and self.pitch is None and self.bound is None:
            return ()
        survival = self.healthy_reward if self.healthy_event else 0.0
        return (Event("unhealthy", survival=survival, terminates=True),)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Uniform in [−1, 1) for q; the same or standard normal for q̇."""
        return draw(n, len(self.start), self.nv, self.normal_velocities, generator)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch 0"]]:
        """[q, q̇] around the start."""
        spread, memory = perturbed(noise, self.start, self.position_noise, self.velocity_noise)
        if self.free:
            place, quaternion, rest = spread.tensor_split((3, 7), dim=-1)
            unit = quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
            spread = torch.cat((place, unit, rest), dim=-1)
        return spread, memory

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[q without its first entries, q̇]."""
        qpos, qvel = self._parts(state)
        if self.clip is not None:
            qvel = qvel.clamp(-self.clip, self.clip)
        return torch.cat((qpos[..., self.hidden :], qvel), dim=-1)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """forward, control and, where it is no event, healthy."""
        moved = self._x(transition.after) - self._x(transition.before)
        terms = {
            "forward": self.forward_weight / self.dt * moved,
            "control": -self.control_cost
            * (self.control_scale * transition.action).square().sum(-1),
        }
        if self.healthy_reward and not self.healthy_event:
            terms["healthy"] = torch.full_like(moved, self.healthy_reward)
        return terms

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T E"]:
        """By how much the worst bound is exceeded, over its scale [1]."""
        if not self.events:
            return transition.after[..., :0]
        qpos, qvel = self._parts(transition.after)
        outside = []
        if self.height is not None:
            z = qpos[..., 2 if self.free else 1]
            outside += [
                side / self.height_scale
                for bound, side in zip(
                    self.height, (self.height[0] - z, z - self.height[1]), strict=True
                )
                if abs(bound) != float("inf")
            ]
        if self.pitch is not None:
            outside.append(qpos[..., 2].abs() / self.pitch - 1)
        if self.bound is not None:
            rest = torch.cat((qpos[..., 2:], qvel), dim=-1)
            outside.append(rest.abs().amax(-1) / self.bound - 1)
        return torch.stack(outside, dim=-1).amax(-1, keepdim=True)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        nq = len(self.start)
        return state[..., :nq], state[..., nq : nq + self.nv]

    def _x(self, state: Tensor) -> Tensor:
        """[m]."""
        qpos = state[..., : len(self.start)]
        return qpos[..., 0] if self.track is None else self.track(qpos)[..., 0]


def draw(
    n: int, nq: int, nv: int, normal: bool, generator: torch.Generator
) -> Float[Tensor, "n nq_plus_nv"]:
    """Uniform in [−1, 1) for q and, unless `normal`, for q̇; float64 on the CPU."""
    size = (n, nq + nv)
    uniform = 2 * torch.rand(*size, generator=generator, dtype=torch.float64) - 1
    if not normal:
        return uniform
    normals = torch.randn(n, nv, generator=generator, dtype=torch.float64)
    return torch.cat((uniform[:, :nq], normals), dim=-1)


def perturbed(
    noise: Float[Tensor, "*batch ni"], start: tuple[float, ...], position: float, velocity: float
) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch 0"]]:
    """[start + position·noise, velocity·noise] and an empty memory."""
    nv = noise.shape[-1] - len(start)
    rest = constant((*start, *(0.0,) * nv), noise)
    scale = constant((*(position,) * len(start), *(velocity,) * nv), noise)
    return rest + scale * noise, noise[..., :0]
