"""Hovering: fly to a point and stay there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.tensors import constant
from gradlab.tasks import flight
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.flight import Point

SUCCESS_DISTANCE = 0.25  # also the scale of its margin [m]
SUCCESS_SPEED = 0.3  # also the scale of its margin; as for landing [m/s]


@dataclass(frozen=True)
class Hovering(Memoryless):
    """Reward: `flight.flight_terms` towards `target`, at most 0.1 per step.
    Observation: 13 numbers.

    Source: VisFly@8b49f94 envs/HoverEnv.py; its episodes have 256 steps. A collision with the
    flight box ends the episode. `success_event=True` adds a one-time bonus, not in the source, at
    the first step after which the drone is within 0.25 m of the target and slower than 0.3 m/s (the
    margin is the minimum of both, each over its own threshold); the bonus equals that of landing
    and racing.

    Non-smooth places: the events; the norms at 0 (gradient 0 there), which is where every spawn
    attitude, velocity and body rate is; the collision margin where the nearest face changes.

    Raises `UnknownName` for an unknown part in `detached`, `BadValue` for a negative half-range.
    """

    target: Point = (1.0, 0.0, 1.5)  # [m]
    spawn_mean: Point = (1.0, 0.0, 1.5)  # [m]
    spawn_half_range: Point = (2.0, 2.0, 1.0)  # uniform on both sides of the mean [m]
    success_event: bool = False
    success_bonus: float = 20.0  # [1]
    detached: tuple[str, ...] = ()  # parts of the state without gradient in rewards and margins
    default_horizon: int = 64  # [steps]

    def __post_init__(self) -> None:
        flight.check_detached(self.detached)
        flight.check_spawn(self.spawn_half_range)

    @property
    def name(self) -> str:
        return "hovering"

    @property
    def observation_dim(self) -> int:
        return 13

    @property
    def initial_dim(self) -> int:
        return 3

    @property
    def events(self) -> tuple[Event, ...]:
        """Success first, if there is one, then collision."""
        collision = Event("collision", terminates=True)
        if not self.success_event:
            return (collision,)
        return (Event("success", bonus=self.success_bonus), collision)

    def with_detached(self, *parts: str) -> Hovering:
        """A copy whose rewards and margins pass no gradient on to these parts of the state."""
        return replace(self, detached=parts)

    def goal(self, step: Float[Tensor, "*times"]) -> Float[Tensor, "*times 3"]:
        """Where the drone should be after so many steps [m]: the target."""
        return constant(self.target, step).expand(*step.shape, 3)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Uniform numbers in [−1, 1)."""
        return flight.uniform(n, 3, generator)

    def initial(
        self, noise: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 13"], Float[Tensor, "*batch 0"]]:
        """Level and at rest, somewhere in the spawn box."""
        return flight.spawn(noise, self.spawn_mean, self.spawn_half_range), noise[..., :0]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 13"]:
        """[(target − p)/10, q, v/10, ω/10]."""
        return flight.observation(state, constant(self.target, state))

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """`flight.flight_terms` of the state after each step."""
        now = flight.flight(transition.after, self.detached)
        return flight.flight_terms(now, constant(self.target, transition.after))

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T E"]:
        """One column per entry of `events`."""
        now = flight.flight(transition.after, self.detached)
        collision = flight.collision_margin(now.position)
        if not self.success_event:
            return collision.unsqueeze(-1)
        distance = flight.length(now.position - constant(self.target, transition.after))
        success = flight.conjunction(
            1 - distance / SUCCESS_DISTANCE, 1 - flight.length(now.velocity) / SUCCESS_SPEED
        )
        return torch.stack((success, collision), dim=-1)

    def ending_margins(self, transition: Transition) -> Float[Tensor, "*batch 1"]:
        """Collision."""
        return flight.collision_margin(transition.after[..., :3]).unsqueeze(-1)
