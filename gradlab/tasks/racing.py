"""Racing: fly through one gate, or around a course of four."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.tensors import Matrix, constant
from gradlab.tasks import flight
from gradlab.tasks.base import Transition
from gradlab.tasks.flight import Flight, Point

# Gates, flown in this order and around again, and the spawn box before each [m].
GATES: tuple[Point, ...] = ((4.0, 4.0, 1.0), (8.0, 0.0, 2.0), (5.0, -4.0, 1.0), (1.0, -1.0, 1.0))
SPAWNS: tuple[Point, ...] = ((2.0, 2.0, 1.0), (6.0, 2.0, 1.5), (6.0, -2.0, 1.5), (2.0, 0.0, 1.0))
NEXT_TWO = tuple((*a, *b) for a, b in zip(GATES, (*GATES[1:], GATES[0]), strict=True))
GATE_RADIUS = 0.3  # a gate is passed within this distance; also the scale of its margin [m]
TOP_SPEED = 15.0  # beyond which approaching faster earns nothing more [m/s]


@dataclass(frozen=True)
class Racing:
    """Dense reward towards the next gate and a bonus for passing it. Observation: 16 numbers.

    `gates=1` (default): one gate, passed once, rewarded as the target before and after; no memory
    and no switch. `gates=4`: the course; passing a gate makes the next one the target. The memory
    is the index of the gate to pass. The step that passes a gate is rewarded towards the new one,
    while the observation changes with the next step, as in the source.
    A collision with the flight box ends the episode.

    `reward="position"`: `flight.flight_terms` towards the gate, at most 0.1 per step, and 20 per
    pass. `reward="velocity"` (ABPT appendix D.2): with the speed of approach u and the velocity v⊥
    across the line to the gate at distance d, 0.02 min(u, 15) − 0.02 ‖v⊥‖/(d + 1) − 0.001 ‖ω‖ and 5
    per pass.

    `first_gate=None` is gate 0 with one gate, and with four the gate that belongs to the quadrant
    around (4, 0) where the drone spawns. `vendor_quirks=True` sends every spawn with x > 4 m to
    gate 1, a slip of the source. `spawn_means=()` is the box before the gate, or all four with
    equal chances.
    Source: VisFly@8b49f94 envs/RacingEnv.py; its episodes have 512 steps.

    Non-smooth places: the events; with four gates the *switch*, at which observation and dense
    reward jump, whatever is done to the bonus; the norms at 0 (gradient 0 there), which is where
    every spawn attitude, velocity and body rate is; the speed of approach at 15 m/s and its
    direction at the gate's centre; the collision margin where the nearest face changes.

    Raises `BadValue` for a number of gates other than 1 and 4, a first gate that does not exist or
    a negative half-range, `UnknownName` for an unknown reward or part in `detached`.
    """

    gates: int = 1
    reward: Literal["position", "velocity"] = "position"
    first_gate: int | None = None
    spawn_means: tuple[Point, ...] = ()  # [m]
    spawn_half_range: Point = (0.2, 0.2, 0.2)  # uniform on both sides of a mean [m]
    vendor_quirks: bool = False
    detached: tuple[str, ...] = ()  # parts of the state without gradient in rewards and margins
    default_horizon: int = 64  # [steps]

    def __post_init__(self) -> None:
        flight.check_detached(self.detached)
        flight.check_spawn(self.spawn_half_range)
        if self.reward not in ("position", "velocity"):
            raise UnknownName("reward", self.reward, ("position", "velocity"))
        if self.gates not in (1, len(GATES)):
            raise BadValue(f"Racing: expected gates 1 or 4, got {self.gates}; try gates=1")
        if self.first_gate is not None and self.first_gate not in range(len(GATES)):
            raise BadValue(
                f"Racing: expected first_gate 0..3 or None, got {self.first_gate}; try None"
            )

    @property
    def name(self) -> str:
        return "racing"

    @property
    def observation_dim(self) -> int:
        return 16

    @property
    def initial_dim(self) -> int:
        """Three offsets, and the choice of a box where there are several."""
        return 3 if len(self._boxes) == 1 else 4

    @property
    def memory_dim(self) -> int:
        return 0 if self.gates == 1 else 1

    @property
    def events(self) -> tuple[Event, ...]:
        bonus = 20.0 if self.reward == "position" else 5.0
        return (
            Event("passed", bonus=bonus, switches=self.gates > 1),
            Event("collision", terminates=True),
        )

    @property
    def _boxes(self) -> tuple[Point, ...]:
        if self.spawn_means:
            return self.spawn_means
        return SPAWNS if self.gates > 1 else (SPAWNS[self.first_gate or 0],)

    def with_detached(self, *parts: str) -> Racing:
        """A copy whose rewards and margins pass no gradient on to these parts of the state."""
        return replace(self, detached=parts)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Uniform numbers in [−1, 1)."""
        return flight.uniform(n, self.initial_dim, generator)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch 13"], Float[Tensor, "*batch nm"]]:
        """Level and at rest in one of the boxes; the memory is the first gate."""
        boxes = self._boxes
        if len(boxes) == 1:
            mean = constant(boxes[0], noise)
        else:
            # rounded to float32 the largest number in [−1, 1) is 1
            index = ((noise[..., 3] + 1) / 2 * len(boxes)).floor().clamp(max=len(boxes) - 1)
            mean = _row(boxes, index, noise)
        position = mean + constant(self.spawn_half_range, noise) * noise[..., :3]
        return flight.at_rest(position), self._first(position)

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch nm"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 16"]:
        """[(gate − p)/10 of the gate to pass and the one after it, q, v/10, ω/10]."""
        if self.gates == 1:
            return flight.observation(state, constant(NEXT_TWO[self.first_gate or 0], state))
        return flight.observation(state, _row(NEXT_TWO, memory[..., 0], state))

    def advance(self, transition: Transition) -> Float[Tensor, "*batch nm"]:
        """The index of the gate to pass next: a hard switch, without gradient."""
        memory = transition.memory
        if self.gates == 1:
            return memory
        margin = self._gate_margin(flight.flight(transition.after.detach()), memory)
        return self._next(memory, margin)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """The dense reward of the state after each step, towards the gate that is then next."""
        memory = transition.memory
        now = flight.flight(transition.after, self.detached)
        if self.gates > 1:
            memory = self._next(memory, self._gate_margin(now, memory))
        gate = self._gate(now, memory)
        return flight.flight_terms(now, gate) if self.reward == "position" else _chase(now, gate)

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 2"]:
        """Passing the gate that `memory` names, and collision."""
        now = flight.flight(transition.after, self.detached)
        margins = (self._gate_margin(now, transition.memory), flight.collision_margin(now.position))
        return torch.stack(margins, dim=-1)

    def ending_margins(self, transition: Transition) -> Float[Tensor, "*batch 1"]:
        """Collision."""
        return flight.collision_margin(transition.after[..., :3]).unsqueeze(-1)

    def _first(self, position: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch nm"]:
        """Index of the first gate, as a float; nothing with one gate."""
        if self.gates == 1:
            return position[..., :0]
        if self.first_gate is not None:
            return torch.full_like(position[..., :1], float(self.first_gate))
        x, y, _ = position.detach().split(1, dim=-1)
        far = torch.where((y > 0) | self.vendor_quirks, 1.0, 2.0)
        near = torch.where(y > 0, 0.0, 3.0)
        return torch.where(x > 4, far, near).to(position.dtype)

    def _gate(self, now: Flight, memory: Float[Tensor, "*batch nm"]) -> Float[Tensor, "*gate 3"]:
        """Centre of the gate to pass [m]."""
        if self.gates == 1:
            return constant(GATES[self.first_gate or 0], now.position)
        return _row(GATES, memory[..., 0], now.position)

    def _gate_margin(
        self, now: Flight, memory: Float[Tensor, "*batch nm"]
    ) -> Float[Tensor, "*batch"]:
        """1 at the centre of the gate to pass, 0 at its rim."""
        return 1 - flight.length(now.position - self._gate(now, memory)) / GATE_RADIUS

    def _next(
        self, memory: Float[Tensor, "*batch 1"], margin: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch 1"]:
        """The gate index after a step with this margin."""
        passed = margin.detach().unsqueeze(-1) > 0
        return torch.where(passed, torch.remainder(memory + 1, len(GATES)), memory)


def _row(
    table: Matrix, index: Float[Tensor, "*batch"], like: Tensor
) -> Float[Tensor, "*batch columns"]:
    """Rows of a table of numbers; plain indexing by a number per sample fails under `vmap`."""
    return torch.nn.functional.embedding(index.long(), constant(table, like))


def _chase(now: Flight, gate: Float[Tensor, "*gate 3"]) -> dict[str, Float[Tensor, "*batch"]]:
    """The velocity-shaped reward; at the very centre of a gate the direction is taken as zero."""
    ahead = gate - now.position
    distance = flight.length(ahead)
    # d is replaced before the division, not after it, so that no gradient is NaN
    direction = ahead / torch.where(distance > 0, distance, 1.0).unsqueeze(-1)
    approach = (now.velocity * direction).sum(-1)
    across = now.velocity - approach.unsqueeze(-1) * direction
    return {
        "approach": 0.02 * approach.clamp(max=TOP_SPEED),
        "across": -0.02 * flight.length(across) / (distance + 1),
        "rates": -0.001 * flight.length(now.rates),
    }
