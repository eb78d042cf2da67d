"""Tracking: follow a point that runs around a circle."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import constant
from gradlab.tasks import flight
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.flight import Point

PREVIEW = 10  # target points in the observation
PREVIEW_INTERVAL = 0.1  # between them [s]


@dataclass(frozen=True)
class Tracking(Memoryless):
    """Reward: `flight.flight_terms` towards the moving target, at most 0.1 per step.

    At time t the target is c + r(cos, sin, 0)(π t); the observation (40 numbers) holds it and its
    next nine positions, 0.1 s apart. Step t is rewarded by the target at time (t+1)·dt, that of the
    state it reached. A collision with the flight box ends the episode.
    Source: VisFly@8b49f94 envs/TrackingEnv.py; its episodes have 256 steps.

    Non-smooth places: the event; the norms at 0 (gradient 0 there), which is where every spawn
    attitude, velocity and body rate is; the collision margin where the nearest face changes.

    Raises `UnknownName` for an unknown part in `detached`, `BadValue` for a negative half-range or
    a dt that is not positive.
    """

    centre: Point = (3.0, 0.0, 2.0)  # [m]
    radius: float = 1.5  # [m]
    angular_rate: float = math.pi  # of the target [rad/s]
    dt: float = 0.02  # control period, as the simulator's [s]
    spawn_mean: Point = (4.5, 0.0, 2.0)  # [m]
    spawn_half_range: Point = (0.2, 0.2, 0.2)  # uniform on both sides of the mean [m]
    detached: tuple[str, ...] = ()  # parts of the state without gradient in rewards and margins
    default_horizon: int = 64  # [steps]

    def __post_init__(self) -> None:
        flight.check_detached(self.detached)
        flight.check_spawn(self.spawn_half_range)
        if not self.dt > 0:
            raise BadValue(f"Tracking: expected dt > 0 s, got {self.dt}; try the simulator's dt")

    @property
    def name(self) -> str:
        return "tracking"

    @property
    def observation_dim(self) -> int:
        return 3 * PREVIEW + 10

    @property
    def initial_dim(self) -> int:
        return 3

    @property
    def events(self) -> tuple[Event, ...]:
        return (Event("collision", terminates=True),)

    def with_detached(self, *parts: str) -> Tracking:
        """A copy whose rewards and margins pass no gradient on to these parts of the state."""
        return replace(self, detached=parts)

    def target(self, time: Float[Tensor, "*times"], ahead: int = 1) -> Float[Tensor, "*times n"]:
        """Flat positions [m] of the target at `time` [s] and at the next `ahead` − 1 previews."""
        delays = constant(tuple(PREVIEW_INTERVAL * i for i in range(ahead)), time)
        angle = self.angular_rate * (time.unsqueeze(-1) + delays)
        circle = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), dim=-1)
        return (constant(self.centre, time) + self.radius * circle).flatten(-2)

    def goal(self, step: Float[Tensor, "*times"]) -> Float[Tensor, "*times 3"]:
        """Where the drone should be after so many steps [m]."""
        return self.target(step * self.dt)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Uniform numbers in [−1, 1)."""
        return flight.uniform(n, 3, generator)

    def initial(
        self, noise: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 13"], Float[Tensor, "*batch 0"]]:
        """Level and at rest, near where the target starts."""
        return flight.spawn(noise, self.spawn_mean, self.spawn_half_range), noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 40"]:
        """[(target_i − p)/10 for i = 0..9, q, v/10, ω/10]."""
        time = step.to(state.dtype) * self.dt
        return flight.observation(state, self.target(time, PREVIEW))

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """`flight.flight_terms` of the state after each step, the target at the same time."""
        now = flight.flight(transition.after, self.detached)
        step = transition.step.to(transition.after.dtype) + 1
        return flight.flight_terms(now, self.goal(step))

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """Collision."""
        now = flight.flight(transition.after, self.detached)
        return flight.collision_margin(now.position).unsqueeze(-1)

    def ending_margins(self, transition: Transition) -> Float[Tensor, "*batch 1"]:
        """Collision."""
        return flight.collision_margin(transition.after[..., :3]).unsqueeze(-1)
