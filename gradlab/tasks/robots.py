"""Generic tasks of any robot: reach a pose, track a path, stand, run.

A state is [q, q̇] of an articulated simulator. The body that a task is about is a `place`: a
function from q to rotation and position, [3, 4], of a body or a site. `gradlab.robot` builds these
tasks from a model; what they have to know of it are plain numbers here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.arguments import check_positive, number
from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Vector, constant
from gradlab.tasks.base import Memoryless, Transition
from gradlab.tasks.locomotion import draw, perturbed
from gradlab.tasks.targets import Kept, length, success

Place = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Posed:
    """What the four tasks share.

    Start: `start` and `start_velocity` plus uniform noise of these half-ranges, then quaternions
    are normalised. All see q without its first `unseen` numbers (where a free robot is on the
    floor) and q̇. Raises `BadValue` for numbers that are not finite.
    """

    start: Vector  # q
    nv: int
    dt: float  # control period [s]
    place: Place  # of the body that the task is about
    unseen: int = 0  # leading positions that are not observed
    quaternions: tuple[int, ...] = ()  # where the quaternions of free joints begin in q
    start_velocity: Vector = ()  # q̇; (): at rest
    position_noise: float = 0.02  # [m, rad, 1]
    velocity_noise: float = 0.02  # [m/s, rad/s]
    control_cost: float = 1e-3  # of ‖a‖² per step

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not isinstance(field.default, float):
                continue
            value = getattr(self, field.name)
            if value is not None and not math.isfinite(number(field.name, value)):
                raise BadValue(
                    f"{field.name} should be finite, got {value}; try {field.name}={field.default:g}"
                )

    @property
    def base_dim(self) -> int:
        """Numbers of q and q̇ that are observed."""
        return len(self.start) - self.unseen + self.nv

    @property
    def initial_dim(self) -> int:
        return len(self.start) + self.nv

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Uniform in [−1, 1)."""
        return draw(n, len(self.start), self.nv, False, generator)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch nm"]]:
        """[q, q̇] around the start, and an empty memory."""
        state, memory = perturbed(noise, self.start, self.position_noise, self.velocity_noise)
        if self.start_velocity:
            state = state + constant((*(0.0,) * len(self.start), *self.start_velocity), like=state)
        return self._normalised(state), memory

    def _normalised(self, state: Tensor) -> Tensor:
        for at in self.quaternions:
            turn = state[..., at : at + 4]
            unit = turn / torch.linalg.vector_norm(turn, dim=-1, keepdim=True)
            state = torch.cat((state[..., :at], unit, state[..., at + 4 :]), dim=-1)
        return state

    def _seen(self, state: Tensor) -> Tensor:
        return state[..., self.unseen : len(self.start) + self.nv]

    def _pose(self, state: Tensor) -> Tensor:
        return self.place(state[..., : len(self.start)])

    def _effort(self, transition: Transition) -> Tensor:
        return -self.control_cost * transition.action.square().sum(-1)


@dataclass(frozen=True)
class Reach(Kept, Posed):
    """Bring a body to a goal pose, and hold it there.

        r = −d + exp(−(d/fine)²) − turning·s − control_cost ‖a‖²

    with the distance d [m] and s = sin(θ/2) of the angle θ between body and goal. The goal is where
    the body would be with q uniform between `low` and `high`, which `gradlab.robot` sets around the
    start for joints with actuators: it can be reached unless something is in the way, or others
    move. The event `success`, d < `success_distance`, pays nothing.

    Observation: [q, q̇, place, goal], both a position, with its rotation matrix if turns count.
    Non-smooth: the event; d and s at 0 (gradient 0). Raises `BadValue` for lengths that are not
    positive.
    """

    low: Vector = ()  # of goals' q
    high: Vector = ()
    fine: float = 0.1  # [m]
    turning: float = 0.0  # [1]; 0: only the position counts
    success_distance: float = 0.02  # [m]
    terminates: bool = False
    default_horizon: int = 50  # [steps]

    name = "reach"

    def __post_init__(self) -> None:
        Posed.__post_init__(self)
        check_positive(self, "fine", "success_distance", hint="try 0.05")

    @property
    def memory_dim(self) -> int:
        """Of the goal: 3, or 12 with its rotation."""
        return 12 if self.turning else 3

    @property
    def observation_dim(self) -> int:
        return self.base_dim + 2 * self.memory_dim

    @property
    def initial_dim(self) -> int:
        return len(self.start) + self.nv + self.memory_dim

    @property
    def events(self) -> tuple[Event, ...]:
        return success(self.terminates)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """The start's numbers in [−1, 1), then the goal [m, 1]."""
        around = draw(n, len(self.start), self.nv, False, generator)
        share = torch.rand(n, len(self.start), generator=generator, dtype=torch.float64)
        low, high = (torch.tensor(x, dtype=torch.float64) for x in (self.low, self.high))
        goal = self._flat(self.place(self._normalised(low + share * (high - low))))
        return torch.cat((around, goal), dim=-1)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch nc"], Float[Tensor, "*batch nm"]]:
        """[q, q̇] around the start; the goal is remembered."""
        count = self.memory_dim
        state, _ = Posed.initial(self, noise[..., :-count])
        return state, noise[..., -count:]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch nm"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[q, q̇, place, goal]."""
        return torch.cat((self._seen(state), self._flat(self._pose(state)), memory), dim=-1)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """distance, fine, control and, if turns count, turning."""
        here, goal = self._flat(self._pose(transition.after)), transition.memory
        distance = length(here[..., :3] - goal[..., :3])
        terms = {
            "distance": -distance,
            "fine": torch.exp(-(distance / self.fine).square()),
            "control": self._effort(transition),
        }
        if self.turning:  # ‖R − R'‖² = 8 sin²(θ/2)
            gap = length(here[..., 3:] - goal[..., 3:]) / math.sqrt(8)
            terms["turning"] = -self.turning * gap
        return terms

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """1 − d over the distance that counts."""
        here = self._pose(transition.after)[..., 3]
        distance = length(here - transition.memory[..., :3])
        return (1 - distance / self.success_distance)[..., None]

    def _flat(self, pose: Tensor) -> Tensor:
        position, rotation = pose[..., 3], pose[..., :3].flatten(-2)
        return torch.cat((position, rotation), dim=-1) if self.turning else position


@dataclass(frozen=True)
class Track(Memoryless, Posed):
    """Follow a figure of eight with a body.

        r = −(d/radius)² − control_cost ‖a‖²

    with the distance d [m] of the body from the path's point of that time: around `centre`, where
    the body starts, once in `period`, `radius` wide along the first of `axes` and half of it along
    the second. Observation: [q, q̇, where the path is in one and in two steps, from the body].
    Smooth. Raises `BadValue` for lengths that are not positive or axes outside 0 to 2.
    """

    centre: Vector = (0.0, 0.0, 0.0)  # [m]
    radius: float = 0.1  # [m]
    period: float = 2.0  # [s]
    axes: tuple[int, int] = (0, 2)  # x, y, z are 0, 1, 2
    default_horizon: int = 50  # [steps]

    name = "track"
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        Posed.__post_init__(self)
        check_positive(self, "radius", "period", hint="try 0.05")
        whole = isinstance(self.axes, tuple | list) and set(self.axes) <= {0, 1, 2}
        if not whole or len(self.axes) != 2:
            raise BadValue(f"axes should be two of 0, 1, 2 (x, y, z), got {self.axes}; try (0, 2)")

    @property
    def observation_dim(self) -> int:
        return self.base_dim + 6

    def goal(self, step: Float[Tensor, "*times"]) -> Float[Tensor, "*times 3"]:
        """The path's point after so many steps [m]."""
        phase = (2 * math.pi * self.dt / self.period) * step
        parts = (self.radius * phase.sin(), 0.5 * self.radius * (2 * phase).sin())
        first, second = (
            part.unsqueeze(-1) * constant(tuple(float(k == axis) for k in range(3)), like=part)
            for part, axis in zip(parts, self.axes, strict=True)
        )
        return constant(self.centre, like=step) + first + second

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[q, q̇, the path ahead from the body]."""
        here = self._pose(state)[..., 3]
        ahead = [self.goal(step + k) - here for k in (1, 2)]
        return torch.cat((self._seen(state), *ahead), dim=-1)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """tracking and control."""
        apart = self._pose(transition.after)[..., 3] - self.goal(transition.step + 1)
        return {
            "tracking": -apart.square().sum(-1) / self.radius**2,
            "control": self._effort(transition),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 0"]:
        """There are no events."""
        return transition.after[..., :0]


@dataclass(frozen=True)
class Stand(Memoryless, Posed):
    """Keep the posture of the start, and do not fall.

        r = 1 while up − posture_cost ‖q − start‖² − speed_cost ‖q̇‖² − control_cost ‖a‖²

    over the positions `posture` (those of hinges and slides) and all velocities, each as a mean.
    The event `fallen` ends the episode: the body is lower over the floor than `fall` times its
    height at the start, or leans by more than `lean`; its margin is the larger one, as shares of
    what is left at the start. Where `height` is None nothing can fall (an arm on its socket).

    Observation: [q, q̇]. Non-smooth: the event. Raises `BadValue` for shares outside 0 to 1.
    """

    posture: tuple[int, ...] = ()
    height: float | None = None  # of the body over the floor at the start [m]
    floor: float = 0.0  # [m]
    upright: Vector = (0.0, 0.0, 1.0)  # the body's own direction that is up at the start [1]
    fall: float = 0.6  # share of the height
    lean: float = 1.0  # [rad]
    posture_cost: float = 1.0  # [1/rad², 1/m²]
    speed_cost: float = 0.01  # [s²]
    alive: float = 1.0  # per step
    default_horizon: int = 50  # [steps]

    name = "stand"

    def __post_init__(self) -> None:
        Posed.__post_init__(self)
        if not 0 < self.fall < 1 or not 0 < self.lean < math.pi:
            raise BadValue(
                f"expected fall within (0, 1) and lean within (0, π), got {self.fall}, {self.lean}; "
                "try fall=0.6, lean=1.0"
            )

    @property
    def observation_dim(self) -> int:
        return self.base_dim

    @property
    def events(self) -> tuple[Event, ...]:
        """The fall, where there can be one."""
        if self.height is None:
            return ()
        return (Event("fallen", survival=self.alive, terminates=True),)

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 0"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[q, q̇]."""
        return self._seen(state)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """posture, still and control."""
        count = len(self.start)
        away = transition.after[..., :count] - constant(self.start, like=transition.after)
        mask = tuple(float(k in self.posture) / max(1, len(self.posture)) for k in range(count))
        speed = transition.after[..., count : count + self.nv]
        return {
            "posture": -self.posture_cost * away.square() @ constant(mask, like=away),
            "still": -self.speed_cost * speed.square().mean(-1),
            "control": self._effort(transition),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T E"]:
        """How far below the height or beyond the angle, over what is left at the start."""
        if self.height is None:
            return transition.after[..., :0]
        pose = self._pose(transition.after)
        low = (self.fall - (pose[..., 2, 3] - self.floor) / self.height) / (1 - self.fall)
        up = pose[..., 2, :3] @ constant(self.upright, like=pose)
        most = math.cos(self.lean)
        return torch.maximum(low, (most - up) / (1 - most))[..., None]


@dataclass(frozen=True)
class Run(Stand):
    """Move along x without falling: r = v_x + `alive` while up − control_cost ‖a‖².

    v_x is how far the body went in a step over `dt` times `forward_weight`; the fall is that of
    `Stand`, whose costs of posture and speed are 0 here. Raises what `Stand` does.
    """

    forward_weight: float = 1.0  # [s/m]
    posture_cost: float = 0.0
    speed_cost: float = 0.0

    name = "run"

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """forward and control, and the costs that are not 0."""
        moved = self._pose(transition.after)[..., 0, 3] - self._pose(transition.before)[..., 0, 3]
        costs = Stand.terms(self, transition)
        kept = [k for k in ("posture", "still") if getattr(self, _WEIGHT[k])]
        return {
            "forward": self.forward_weight / self.dt * moved,
            "control": costs["control"],
            **{name: costs[name] for name in kept},
        }


_WEIGHT = {"posture": "posture_cost", "still": "speed_cost"}
