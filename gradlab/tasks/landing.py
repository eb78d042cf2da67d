"""Landing: come down over a mark, slowly."""

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

HEIGHT = 0.2  # at which a landing counts; also the scale of its margin [m]
OFFSET = 0.3  # horizontal, per axis; also the scale of its margin [m]
SPEED = 0.3  # also the scale of its margin [m/s]


@dataclass(frozen=True)
class Landing(Memoryless):
    """Reward: descent and centring, at most 0.1 each per step; bonuses for landing and crashing.

    With height z, h = clip(z, 0.05, 1), x = −v_z/h (1 at the wanted rate of descent) and horizontal
    distance d to the mark,

        descent = ½(1.2^min(x, 5 − 4x) − 1),      centring = ½(1.2^(1 − d/(2h)) − 1).

    Success: z <= 0.2 m, both horizontal offsets < 0.3 m, speed <= 0.3 m/s; its margin is the
    minimum of the four, each over its own threshold. Success and collision both end the episode.
    The collision box begins 0.1 m above the ground, below the height at which a landing counts.
    Source: VisFly@8b49f94 envs/LandingEnv.py; its episodes have 256 steps. Observation: 13 numbers,
    relative to a point 2.5 m above the mark, as there.

    `detach_normalisers=True` treats h as a constant in both terms, as the source does.

    Non-smooth places: the events; h at z = 0.05 and 1 m (a kink; beyond, h is constant); descent at
    x = 1; the norms at 0 (gradient 0 there), which is where every spawn velocity is; the margins
    where the least one changes and at zero offset.

    Raises `UnknownName` for an unknown part in `detached`, `BadValue` for a negative half-range.
    """

    mark: tuple[float, float] = (2.0, 0.0)  # where to land [m]
    spawn_mean: Point = (2.0, 0.0, 2.5)  # [m]
    spawn_half_range: Point = (1.0, 1.0, 1.0)  # uniform on both sides of the mean [m]
    detach_normalisers: bool = False
    detached: tuple[str, ...] = ()  # parts of the state without gradient in rewards and margins
    default_horizon: int = 64  # [steps]

    def __post_init__(self) -> None:
        flight.check_detached(self.detached)
        flight.check_spawn(self.spawn_half_range)

    @property
    def name(self) -> str:
        return "landing"

    @property
    def observation_dim(self) -> int:
        return 13

    @property
    def initial_dim(self) -> int:
        return 3

    @property
    def events(self) -> tuple[Event, ...]:
        return (
            Event("success", bonus=20.0, terminates=True),
            Event("collision", bonus=-0.1, terminates=True),
        )

    def with_detached(self, *parts: str) -> Landing:
        """A copy whose rewards and margins pass no gradient on to these parts of the state."""
        return replace(self, detached=parts)

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
        """[((mark, 2.5 m) − p)/10, q, v/10, ω/10]."""
        return flight.observation(state, constant((*self.mark, 2.5), state))

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Descent and centring of the state after each step."""
        now = flight.flight(transition.after, self.detached)
        normaliser = now.position[..., 2].clamp(0.05, 1.0)
        if self.detach_normalisers:
            normaliser = normaliser.detach()
        rate = -now.velocity[..., 2] / normaliser
        distance = flight.length(self._offset(now))
        return {
            "descent": 0.5 * (1.2 ** torch.minimum(rate, 5 - 4 * rate) - 1),
            "centring": 0.5 * (1.2 ** (1 - distance / (2 * normaliser)) - 1),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 2"]:
        """Success and collision."""
        now = flight.flight(transition.after, self.detached)
        x, y = self._offset(now).abs().unbind(-1)
        success = flight.conjunction(
            1 - now.position[..., 2] / HEIGHT,
            1 - x / OFFSET,
            1 - y / OFFSET,
            1 - flight.length(now.velocity) / SPEED,
        )
        return torch.stack((success, flight.collision_margin(now.position)), dim=-1)

    def _offset(self, now: flight.Flight) -> Float[Tensor, "*batch 2"]:
        """Horizontal position relative to the mark [m]."""
        return now.position[..., :2] - constant(self.mark, now.position)
