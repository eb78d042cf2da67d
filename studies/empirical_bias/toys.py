"""The toys, each with its coordinate, what the paper did with it, and where that ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import gradlab
from gradlab.foundation.errors import UnknownName
from gradlab.foundation.placement import device, here
from gradlab.oracle import closed_forms
from gradlab.policies.gaussian import LinearPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.static import Static
from gradlab.tasks import BallWithWall, Decision, Heaviside, MomentumTransfer, SoftHeaviside

WEIGHT = "layers.0.weight"
MEAN = -0.05  # of the decision where the width of a ramp is the coordinate; not in the paper [1]

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Toy:
    """One problem of the paper; rewards are its costs with the sign changed."""

    name: str
    coordinate: str  # with its unit
    grid: tuple[float, ...]  # of the coordinate
    batch: int  # N of an update
    gamma: float  # of AoBG [gradient]
    bound: float  # L of AoBG [gradient]
    step: float  # length of an update over the gradient
    iterations: int  # updates; 0: nothing is optimised
    start: float | None = None  # of the coordinate where it is what is optimised
    ends: tuple[tuple[str, float], ...] = ()  # published, of one run each, by method
    difference: float = 0.0  # h of the truth's differences [coordinate]
    decay: float = 0.0  # the step falls like iteration^-decay

    @property
    def exact(self) -> bool:
        """One decision: expectations are integrals over one normal number."""
        return self.difference == 0

    def problem(self, coordinate: float) -> Problem:
        """The problem whose expectations are looked at, at this coordinate; float64."""
        if self.name in ("ball_with_wall", "momentum_transfer"):
            landscape = BallWithWall() if self.name == "ball_with_wall" else MomentumTransfer()
            return _decision(self.name, landscape, 0.1 if self.name == "ball_with_wall" else 0.02)
        if self.name == "heaviside":
            ramp = SoftHeaviside(width=coordinate) if coordinate > 0 else Heaviside(bonus=2.0)
            return _decision(self.name, ramp, 0.1)
        if self.name == "tennis":
            return gradlab.make(self.name, dtype=torch.float64)
        return gradlab.make(self.name, dtype=torch.float64, clock=False)

    def params(self, coordinate: float) -> Params:
        """The policy at this coordinate."""
        if self.name == "heaviside":
            coordinate = MEAN
        return {WEIGHT: coordinate * self.direction}

    @property
    def direction(self) -> Tensor:
        """Along which the coordinate moves the policy's weights."""
        if self.name != "tennis":
            return torch.ones(1, 1, dtype=torch.float64, device=device())
        along = torch.zeros(3, 7, dtype=torch.float64, device=device())
        along[0, 0], along[0, 4] = 1.0, -1.0  # the paddle goes to where the ball is
        return along

    def optimised(self) -> tuple[Problem, Params]:
        """What is optimised, and the published start."""
        if self.start is not None:
            return self.problem(self.start), self.params(self.start)
        problem = gradlab.make(self.name, dtype=torch.float64)
        return problem, problem.reference


def _decision(
    name: str, landscape: BallWithWall | MomentumTransfer | Heaviside | SoftHeaviside, std: float
) -> Problem:
    """With a fixed std, and the critic that knows the value without noise, the paper's baseline."""
    policy = LinearPolicy(1, 1, std=std, bias=False)
    problem = Problem(
        name, Static(), Decision(landscape), policy, 1, 1.0, dtype=torch.float64, **here()
    )
    # Q of one decision is the landscape, whatever the policy is
    any_mean = {WEIGHT: torch.zeros(1, 1, dtype=torch.float64, device=device())}
    return problem.replace(critic=closed_forms.solve(problem, any_mean).critic)


TOYS = {
    toy.name: toy
    for toy in (
        Toy(
            "ball_with_wall", "launch angle [rad]",
            (0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.86, 1.0),
            batch=50, gamma=0.01, bound=1.0, step=0.1, iterations=1000, start=0.1,
            ends=(("pg", 0.8331), ("fog", 0.4952), ("aobg", 0.8346)),
        ),
        Toy(
            "momentum_transfer", "point of impact [rad]",
            (0.1, 0.3, 0.5, 0.7, 0.74, 0.76, 0.785, 0.82, 0.86),
            batch=50, gamma=0.2, bound=1.0, step=0.01, iterations=500, start=0.1,
            ends=(("pg", 0.7394), ("fog", 0.8434), ("aobg", 0.7577)),
        ),
        Toy(
            "heaviside", "width of the ramp, 0: a jump [1]",
            (0.0, 0.01, 0.03, 0.1, 0.2, 0.4),
            batch=50, gamma=0.2, bound=10.0, step=0.0, iterations=0,
        ),
        Toy(
            "pushing", "force at all steps [N]", (0.0, 0.1, 0.3, 1.0),
            batch=10, gamma=1e8, bound=100.0, step=1e-3, iterations=500, difference=0.004,
        ),
        Toy(
            "friction", "force at all steps [N]", (0.1, 0.2, 0.5, 1.0),
            batch=10, gamma=2e4, bound=100.0, step=1e-4, iterations=100, difference=0.004,
        ),
        Toy(
            "tennis", "gain of following the ball [1/s]", (0.0, 0.5),
            batch=1000, gamma=1000.0, bound=1000.0, step=1e-6, iterations=200, difference=0.02,
            decay=0.1,
        ),
    )
}  # fmt: skip


def toy_of(name: str) -> Toy:
    """The toy of a name; raises `UnknownName`."""
    if name not in TOYS:
        raise UnknownName("toy", name, TOYS)
    return TOYS[name]
