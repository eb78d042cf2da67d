"""Go to a point, or to a pose in a plane: three tasks with a goal of each episode's own.

Source: arXiv 2606.21525 and yuecideng/analytic_policy_gradients@d2d04f7. The goal (and what is in
the way) is the memory: constants of the episode. States end with the action taken last, as
`simulators.damped.HeldAction` has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.arguments import check_positive
from gradlab.tasks.base import Transition

CANDIDATES = 16  # places that are drawn for an obstacle; the first that is fit is taken
CLEAR = 0.25  # of an obstacle's centre from the goal, at least [m]


class Kept:
    """A base class for tasks whose memory is drawn once and stays as it is."""

    def advance(self, transition: Transition) -> Float[Tensor, "*batch nm"]:
        """The memory as it is."""
        return transition.memory


def success(terminates: bool) -> tuple[Event, ...]:
    """The one event of these tasks: it pays nothing, and it may end the episode."""
    return (Event("success", terminates=terminates),)


def length(vector: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Euclidean norm, with gradient 0 at 0."""
    return torch.linalg.vector_norm(vector, dim=-1)


def change(transition: Transition, count: int) -> Float[Tensor, "*batch"]:
    """‖Δa‖² of the actions that were taken, the first one's being ‖a‖² [1]."""
    return (transition.after[..., -count:] - transition.before[..., -count:]).square().sum(-1)


def uniform(n: int, half_ranges: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """[n, len(half_ranges)]: uniform on both sides of 0, float64 on the CPU."""
    drawn = torch.rand(n, len(half_ranges), generator=generator, dtype=torch.float64)
    return (2 * drawn - 1) * torch.tensor(half_ranges, dtype=torch.float64)


def angle_between(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """|angle| the short way round, in [0, π]: kinks at 0 and at π, no jump [rad]."""
    return (torch.remainder(angle + math.pi, 2 * math.pi) - math.pi).abs()


@dataclass(frozen=True)
class PointTarget(Kept):
    """A point on a line: r = −(p − p_g)². Observation: p, v, p_g.

    Start and goal are uniform in ±1 m, the velocity in ±0.25 m/s. Success: |p − p_g| below
    `success_distance`; the released code never asks, so that nothing ends here by default.
    `detach_observations=True` gives the policy constants, as the released code does.
    Smooth, but for the event. Raises `BadValue` for a distance that is not positive.
    """

    success_distance: float = 0.05  # [m]
    terminates: bool = False
    detach_observations: bool = False
    default_horizon: int = 200  # of the paper; the released code's default is 50 [steps]

    observation_dim = 3
    initial_dim = 3
    memory_dim = 1
    name = "point_mass_1d"

    def __post_init__(self) -> None:
        check_positive(self, "success_distance", hint="try 0.05")

    @property
    def events(self) -> tuple[Event, ...]:
        return success(self.terminates)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Position, velocity, goal [m, m/s, m]."""
        return uniform(n, (1.0, 0.25, 1.0), generator)

    def initial(
        self, noise: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch 1"]]:
        """Position and velocity; the goal."""
        return noise[..., :2], noise[..., 2:]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 1"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 3"]:
        """[p, v, p_g]."""
        seen = torch.cat([state[..., :2], memory], dim=-1)
        return seen.detach() if self.detach_observations else seen

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """One term, `tracking`."""
        return {"tracking": -(transition.after[..., 0] - transition.memory[..., 0]).square()}

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """1 − |p − p_g| over the distance that counts."""
        gap = (transition.after[..., 0] - transition.memory[..., 0]).abs()
        return (1 - gap / self.success_distance)[..., None]


@dataclass(frozen=True)
class Navigation(Kept):
    """A point in a plane with two round obstacles, which are felt in the reward alone.

        r = −d + ½ exp(−d²/(2·0.05²)) − 0.01‖v‖² − 0.001‖Δa‖² − 2 Σ_i max(0, r_i − d_i)²

    with distance d to the goal and d_i to the centre of obstacle i of radius r_i. Start, goal and
    centres are uniform in squares of half width 0.6, 0.7 and 0.8 m, centres at least 0.25 m from
    the goal (the first of 16 candidates; that none is fit has a probability below 10⁻¹⁷), radii
    uniform in 0.08 to 0.15 m. Observation: p, v, goal, last action, centres, radii (14 numbers).
    Success: d below `success_distance`; it ends the episode, as in the released code.

    Smooth but for the event, the norm at d = 0 (gradient 0), and second derivatives where an
    obstacle begins. Raises `BadValue` for a distance that is not positive.
    """

    success_distance: float = 0.03  # [m]
    terminates: bool = True
    detach_observations: bool = False  # live in the released code too
    default_horizon: int = 100  # [steps]

    observation_dim = 14
    initial_dim = 10
    memory_dim = 8  # goal, two centres, two radii [m]
    name = "point_mass_navigate"

    def __post_init__(self) -> None:
        check_positive(self, "success_distance", hint="try 0.05")

    @property
    def events(self) -> tuple[Event, ...]:
        return success(self.terminates)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 10"]:
        """Start, goal, two centres, two radii [m]."""
        ends = uniform(n, (0.6, 0.6, 0.7, 0.7), generator)
        many = uniform(n, (0.8,) * (4 * CANDIDATES), generator).view(n, 2, CANDIDATES, 2)
        fit = (many - ends[:, None, None, 2:]).norm(dim=-1) >= CLEAR
        first = fit.double().argmax(-1)[..., None, None].expand(n, 2, 1, 2)
        centres = many.gather(2, first).flatten(1)
        radii = 0.115 + uniform(n, (0.035, 0.035), generator)
        return torch.cat([ends, centres, radii], dim=-1)

    def initial(
        self, noise: Float[Tensor, "*batch 10"]
    ) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 8"]]:
        """At rest at the start; the rest is remembered."""
        start, memory = noise.split((2, 8), dim=-1)
        return torch.cat([start, torch.zeros_like(start)], dim=-1), memory

    def observe(
        self,
        state: Float[Tensor, "*batch 6"],
        memory: Float[Tensor, "*batch 8"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 14"]:
        """[p, v, goal, last action, centres, radii]."""
        seen = torch.cat([state[..., :4], memory[..., :2], state[..., 4:], memory[..., 2:]], dim=-1)
        return seen.detach() if self.detach_observations else seen

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Terms `tracking`, `fine`, `speed`, `rate` and `obstacles`."""
        after, memory = transition.after, transition.memory
        position, velocity = after[..., :2], after[..., 2:4]
        distance = length(position - memory[..., :2])
        centres = memory[..., 2:6].unflatten(-1, (2, 2))
        inside = (memory[..., 6:] - length(position[..., None, :] - centres)).clamp(min=0)
        return {
            "tracking": -distance,
            "fine": 0.5 * torch.exp(-distance.square() / (2 * 0.05**2)),
            "speed": -0.01 * velocity.square().sum(-1),
            "rate": -0.001 * change(transition, 2),
            "obstacles": -2.0 * inside.square().sum(-1),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """1 − d over the distance that counts."""
        distance = length(transition.after[..., :2] - transition.memory[..., :2])
        return (1 - distance / self.success_distance)[..., None]


@dataclass(frozen=True)
class BlockTarget(Kept):
    """Bring a block to a pose in a plane (push_t of arXiv 2606.21525, where nothing pushes).

        r = −d + ½ exp(−d²/(2·0.02²)) − ½|Δθ| − 0.001‖Δa‖²

    with |Δθ| the short way round. Start and goal are uniform: ±0.15 m and ±π. Observation: pose,
    goal, velocities (9 numbers), constants for the policy with `detach_observations=True`, as in
    the released code. Success: d below `success_distance` and |Δθ| below `success_angle`, margins
    over their thresholds and the lesser of the two; it ends the episode, as in the released code.

    Non-smooth: the event, kinks at Δθ = 0 and π, the norm at d = 0 (gradient 0), and the observed
    angle, which jumps by 2π. Raises `BadValue` for a threshold that is not positive.
    """

    success_distance: float = 0.01  # [m]
    success_angle: float = 0.1  # [rad]
    terminates: bool = True
    detach_observations: bool = False
    default_horizon: int = 100  # [steps]

    observation_dim = 9
    initial_dim = 6
    memory_dim = 3
    name = "push_t"

    def __post_init__(self) -> None:
        check_positive(self, "success_distance", "success_angle", hint="try 0.05")

    @property
    def events(self) -> tuple[Event, ...]:
        return success(self.terminates)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 6"]:
        """Pose and goal [m, m, rad]."""
        return uniform(n, (0.15, 0.15, math.pi) * 2, generator)

    def initial(
        self, noise: Float[Tensor, "*batch 6"]
    ) -> tuple[Float[Tensor, "*batch 6"], Float[Tensor, "*batch 3"]]:
        """At rest; the goal is remembered."""
        pose, goal = noise.split(3, dim=-1)
        return torch.cat([pose, torch.zeros_like(pose)], dim=-1), goal

    def observe(
        self,
        state: Float[Tensor, "*batch 9"],
        memory: Float[Tensor, "*batch 3"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch 9"]:
        """[pose, goal, velocities]."""
        seen = torch.cat([state[..., :3], memory, state[..., 3:6]], dim=-1)
        return seen.detach() if self.detach_observations else seen

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Terms `tracking`, `fine`, `turning` and `rate`."""
        distance, angle = self._gaps(transition)
        return {
            "tracking": -distance,
            "fine": 0.5 * torch.exp(-distance.square() / (2 * 0.02**2)),
            "turning": -0.5 * angle,
            "rate": -0.001 * change(transition, 3),
        }

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """The lesser of 1 − d and 1 − |Δθ|, each over what counts."""
        distance, angle = self._gaps(transition)
        near = 1 - distance / self.success_distance
        return torch.minimum(near, 1 - angle / self.success_angle)[..., None]

    def _gaps(self, transition: Transition) -> tuple[Tensor, Tensor]:
        """Distance [m] and angle [rad] to the goal."""
        gap = transition.after[..., :3] - transition.memory
        return length(gap[..., :2]), angle_between(gap[..., 2])
