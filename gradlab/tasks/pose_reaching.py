"""Bring the hand of an arm to a pose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Event
from gradlab.foundation.arguments import check_positive
from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Vector
from gradlab.tasks.base import Transition
from gradlab.tasks.targets import Kept, change, length, success

LOW, HIGH = (0.05, -0.45, 0.2), (0.7, 0.45, 0.95)  # of goals [m]
TILT = math.pi / 3  # of goals from straight down, at most [rad]


@runtime_checkable
class Arm(Protocol):
    """What the task has to know of an arm: `simulators.arm.SerialArm` is one."""

    @property
    def joints(self) -> int: ...

    @property
    def lower(self) -> Vector: ...

    @property
    def upper(self) -> Vector: ...

    @property
    def home(self) -> Vector: ...

    def pose(self, joints: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch 7"]:
        """Position [m] and quaternion (w, x, y, z) of the hand."""
        ...


@dataclass(frozen=True)
class PoseReaching(Kept):
    """Hold the hand at a goal pose.

        r = −0.2 d + 0.1 exp(−d²/0.02) − 0.1 ρ + 0.1 exp(−ρ²/0.18) − 10⁻⁴‖Δa‖²

    with distance d [m] and ρ = min(‖q − q_g‖, ‖q + q_g‖) of the unit quaternions, the same for
    either sign. The last exponential is said to be in the code at d2d04f7, and is not in the paper
    (`turning_bonus=False`). Success: d and ρ below `success_distance` and `success_turn`, the
    margins over these and the lesser of the two; 0.01 m and 0.3 in the released code, 0.005 m and
    0.1 in the paper. It ends the episode, as in the released code. `squared_turn=True` puts ρ² in
    the place of ρ everywhere, as the report of the public repository and its code at 3bbebf2 and
    0cc29e1 have it, all without the last exponential.

    Start: `start="home"`, the home times a number in 0.5 to 1.5 for every joint, within the limits
    (the code of April 2026), or "joints", uniform within them. Goal: `goal="box"`, positions
    uniform in a box and up to 60° from straight down, turned about level axes alone (the paper's
    words; formulas of the code of April 2026), or "joints", the pose of such joints. Which of them
    the published numbers are of cannot be told from what was read.

    Observation: joints, hand, goal, last action (28 numbers for 7 joints); quaternions are
    (w, x, y, z), in the source (x, y, z, w). `detach_hand=True` makes the hand a constant for the
    policy, as in the released code. Non-smooth: the event; ρ where both signs are as near, at half
    a turn; norms at 0 (gradient 0). Raises `BadValue` for a start or a goal that is not named here,
    or a threshold that is not positive.
    """

    arm: Arm
    turning_bonus: bool = True
    success_distance: float = 0.01  # [m]
    success_turn: float = 0.3  # of ρ [1]
    terminates: bool = True
    start: Literal["home", "joints"] = "home"
    goal: Literal["box", "joints"] = "box"
    detach_hand: bool = False
    velocities: bool = (
        False  # of the joints are observed, where the state has them after the joints
    )
    squared_turn: bool = False  # ρ² in the place of ρ
    default_horizon: int = 30  # [steps]

    memory_dim = 7
    name = "franka_reach"

    def __post_init__(self) -> None:
        check_positive(self, "success_distance", "success_turn", hint="try 0.05")
        for name, known in {"start": ("home", "joints"), "goal": ("box", "joints")}.items():
            if getattr(self, name) not in known:
                raise BadValue(f"{name} should be one of {known}, got {getattr(self, name)!r}")

    @property
    def observation_dim(self) -> int:
        return (2 + self.velocities) * self.arm.joints + 14

    @property
    def initial_dim(self) -> int:
        """Joints and the goal."""
        return self.arm.joints + 7

    @property
    def events(self) -> tuple[Event, ...]:
        return success(self.terminates)

    def draw_initial(self, n: int, generator: torch.Generator) -> Float[Tensor, "n ni"]:
        """Joints [rad], position [m] and quaternion of the goal."""
        shares = torch.rand(n, self.arm.joints, generator=generator, dtype=torch.float64)
        drawn = torch.rand(n, max(5, self.arm.joints), generator=generator, dtype=torch.float64)
        low, high, home = (
            torch.tensor(values, dtype=torch.float64)
            for values in (self.arm.lower, self.arm.upper, self.arm.home)
        )
        joints = low + shares * (high - low)
        if self.start == "home":
            joints = torch.clamp(home * (0.5 + shares), low, high)
        if self.goal == "joints":
            goal = self.arm.pose(low + drawn[:, : self.arm.joints] * (high - low))
        else:
            goal = _in_the_box(drawn)
        return torch.cat([joints, goal], dim=-1)

    def initial(
        self, noise: Float[Tensor, "*batch ni"]
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch 7"]]:
        """Joints; the goal is remembered."""
        return noise[..., :-7], noise[..., -7:]

    def observe(
        self,
        state: Float[Tensor, "*batch ns"],
        memory: Float[Tensor, "*batch 7"],
        step: Float[Tensor, "..."],
    ) -> Float[Tensor, "*batch no"]:
        """[joints, hand, goal, last action]."""
        joints = state[..., : self.arm.joints]
        hand = self.arm.pose(joints)
        hand = hand.detach() if self.detach_hand else hand
        parts = [joints, hand, memory, state[..., -self.arm.joints :]]
        if self.velocities:
            parts.insert(1, state[..., self.arm.joints : 2 * self.arm.joints])
        return torch.cat(parts, dim=-1)

    def terms(self, transition: Transition) -> dict[str, Float[Tensor, "*batch T"]]:
        """Terms `tracking`, `fine`, `turning`, `rate` and, with the bonus, `turning_fine`."""
        distance, turn = self._gaps(transition)
        terms = {
            "tracking": -0.2 * distance,
            "fine": 0.1 * torch.exp(-distance.square() / 0.02),
            "turning": -0.1 * turn,
            "rate": -1e-4 * change(transition, self.arm.joints),
        }
        if self.turning_bonus:
            terms["turning_fine"] = 0.1 * torch.exp(-turn.square() / 0.18)
        return terms

    def margins(self, transition: Transition) -> Float[Tensor, "*batch T 1"]:
        """The lesser of 1 − d and 1 − ρ, each over what counts."""
        distance, turn = self._gaps(transition)
        near = 1 - distance / self.success_distance
        return torch.minimum(near, 1 - turn / self.success_turn)[..., None]

    def _gaps(self, transition: Transition) -> tuple[Tensor, Tensor]:
        """d [m] and ρ [1], or ρ²."""
        hand = self.arm.pose(transition.after[..., : self.arm.joints])
        goal = transition.memory
        turn = turn_between(hand[..., 3:], goal[..., 3:])
        turn = turn.square() if self.squared_turn else turn
        return length(hand[..., :3] - goal[..., :3]), turn


def turn_between(
    one: Float[Tensor, "*batch 4"], other: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """min(‖q₁ − q₂‖, ‖q₁ + q₂‖) of unit quaternions: 0 to √2, with gradient 0 at 0."""
    same = (one * other).sum(-1, keepdim=True).detach() >= 0
    return length(one - torch.where(same, other, -other))


def _in_the_box(drawn: Float[Tensor, "n k"]) -> Float[Tensor, "n 7"]:
    """Goals of numbers in [0, 1): a position, a direction of tilt and its size, uniform on the cap.

    Straight down is half a turn about x; the tilt is about a level axis.
    """
    low, high = (torch.tensor(values, dtype=torch.float64) for values in (LOW, HIGH))
    position = low + drawn[:, :3] * (high - low)
    way = 2 * math.pi * drawn[:, 3]
    half = 0.5 * torch.acos(1 - drawn[:, 4] * (1 - math.cos(TILT)))
    c, s = torch.cos(half), torch.sin(half)
    # (c, s cos, s sin, 0) ⊗ (0, 1, 0, 0)
    quaternion = (-s * torch.cos(way), c, torch.zeros_like(c), -s * torch.sin(way))
    return torch.cat([position, torch.stack(quaternion, dim=-1)], dim=-1)
