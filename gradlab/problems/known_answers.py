"""Presets of the known-answer problems: which simulator, task and policy belong together.

A problem is one function here, decorated with `known_answer`: its name is that of the problem, its
parameters are the options of `gradlab.make`. Formulas belong to tasks (`oracle.closed_forms`),
so that a problem on a task that is solved already needs nothing else.

Each builder's defaults are skewed on purpose (off-centre means, coupled components, a policy away
from its optimum), because on a symmetric problem errors of sign cancel. `problem.reference` is such
a policy; `gradlab.oracle.closed_forms.solve` gives the exact answer there or anywhere else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from gradlab.foundation.errors import UnknownName
from gradlab.foundation.tensors import Matrix, Vector
from gradlab.policies.gaussian import GaussianPolicy, LinearPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.base import Simulator
from gradlab.simulators.point_mass import PointMass, planar_point_mass
from gradlab.simulators.static import Static
from gradlab.tasks.base import Task
from gradlab.tasks.gate import Gate, TerminalGate
from gradlab.tasks.lq import Regulation
from gradlab.tasks.smoothing import Heaviside, Quadratic, SoftHeaviside
from gradlab.tasks.static import Decision, Landscape
from gradlab.tasks.toys import BallWithWall, MomentumTransfer


class Preset(NamedTuple):
    """Everything a problem needs except its dtype and device."""

    simulator: Simulator
    task: Task
    policy: GaussianPolicy
    horizon: int  # [steps]
    discount: float
    params: dict[str, Vector | Matrix]  # a skewed policy, by parameter name

    def problem(self, name: str) -> Problem:
        """In float32, as every problem unless another dtype is asked for."""
        parts = self.simulator, self.task, self.policy, self.horizon, self.discount
        return Problem(name, *parts, skewed=tuple(self.params.items()))


PRESETS: dict[str, Callable[..., Preset]] = {}
BUILDERS: dict[str, Callable[..., Problem]] = {}  # for `gradlab.make`


def known_answer(builder: Callable[..., Preset]) -> Callable[..., Preset]:
    """Makes the problem of a preset known by the name of its function."""
    name = builder.__name__

    @functools.wraps(builder)  # and so its options
    def build(**options: Any) -> Problem:
        return builder(**options).problem(name)

    PRESETS[name], BUILDERS[name] = builder, build
    return builder


@known_answer
def lq(horizon: int = 5, process_std: Vector = (0.0, 0.0, 0.03, 0.05)) -> Preset:
    """Planar point mass [x, y, vx, vy] brought to a goal; smooth, all answers exact.

    Costs and policy are such that even plain PG has a usable signal: its variance along the
    gradient is about 6 squared gradients, so that 1 % is reached with a few million episodes.
    """
    task = Regulation(
        state_cost=(
            (0.10, 0.03, 0.01, 0.0),
            (0.03, 0.06, 0.0, 0.005),
            (0.01, 0.0, 0.6, 0.12),
            (0.0, 0.005, 0.12, 0.42),
        ),
        action_cost=((0.02, 0.006), (0.006, 0.01)),
        goal=(0.0, -0.3, 0.3, -0.3),
        start_mean=(-0.4, 0.2, 0.1, -0.2),
        start_factor=(
            (0.2, 0.0, 0.0, 0.0),
            (0.1, 0.15, 0.0, 0.0),
            (0.0, 0.05, 0.1, 0.0),
            (-0.05, 0.0, 0.1, 0.2),
        ),
        default_horizon=horizon,
    )
    params = {
        "layers.0.weight": ((-0.2, 0.1, -0.15, 0.05), (0.05, -0.15, 0.1, -0.2)),
        "layers.0.bias": (-0.6, -0.3),
        "log_std": (math.log(0.5), math.log(0.4)),
    }
    policy = LinearPolicy(4, 2, std="global")
    return Preset(planar_point_mass(process_std=process_std), task, policy, horizon, 0.95, params)


@known_answer
def quadratic() -> Preset:
    """Two-dimensional quadratic decision."""
    return _decision(Quadratic(), mean=(0.2, 0.3), std=(0.3, 0.5))


@known_answer
def heaviside(dim: int = 1, bonus: float = 1.0) -> Preset:
    """Gaussian-smoothed indicator of the positive orthant; std 0.2, or 2/√dim as in the sweep."""
    std = 0.2 if dim == 1 else 2 / math.sqrt(dim)
    mean = tuple((-0.5 if i % 2 == 0 else 0.8) * std for i in range(dim))
    return _decision(Heaviside(dim=dim, bonus=bonus), mean, (std,) * dim)


@known_answer
def soft_heaviside(width: float = 0.1) -> Preset:
    """Steep ramp: continuous, yet most first-order samples are zero."""
    return _decision(SoftHeaviside(width=width), mean=(-0.06,), std=(0.1,))


@known_answer
def ball_with_wall() -> Preset:
    """Ball thrown at a wall, aimed just too low; launch angle [rad]."""
    return _decision(BallWithWall(), mean=(0.62,), std=(0.1,))


@known_answer
def momentum_transfer(std: float = 0.1) -> Preset:
    """Hit a pivot close to where one misses it; point of impact [rad]."""
    return _decision(MomentumTransfer(), mean=(0.70,), std=(std,))


@known_answer
def gate(horizon: int = 6, process_std: float = 0.0, bonus: float = 2.0) -> Preset:
    """A velocity-controlled point [m] that earns a bonus at its first passage of a gate.

    With `process_std > 0` [m] the exact Q is continuous in the action and QG becomes unbiased.
    """
    dense = Regulation(
        state_cost=((0.3,),),
        action_cost=((0.02,),),
        goal=(0.4,),
        start_mean=(-1.0,),
        start_factor=((0.25,),),
        default_horizon=horizon,
    )
    simulator = PointMass(((1.0,),), ((0.3,),), (process_std,) if process_std > 0 else ())
    params = {
        "layers.0.weight": ((-0.5,),),
        "layers.0.bias": (0.25,),
        "log_std": (math.log(0.9),),
    }
    policy = LinearPolicy(1, 1, std="global")
    task = Gate(dense, gate=0.1, bonus=bonus)
    return Preset(simulator, task, policy, horizon, 0.95, params)


@known_answer
def terminal_gate(horizon: int = 4, process_std: float = 0.0) -> Preset:
    """Beyond the gate after the last step; exact-critic QG sees (T−1)/T of the gradient."""
    simulator = PointMass(((1.0,),), ((1.0,),), (process_std,) if process_std > 0 else ())
    params = {"layers.0.weight": ((0.6 / horizon,),), "log_std": (math.log(0.5),)}
    policy = LinearPolicy(1, 1, std="global", bias=False)
    task = TerminalGate(default_horizon=horizon)
    return Preset(simulator, task, policy, horizon, 1.0, params)


def preset(name: str, **options: object) -> Preset:
    """The preset of a name, with its builder's options; raises `UnknownName`."""
    if name not in PRESETS:
        raise UnknownName("known-answer problem", name, PRESETS)
    return PRESETS[name](**options)


def _decision(landscape: Landscape, mean: Vector, std: Vector) -> Preset:
    params = {
        "layers.0.weight": tuple((m,) for m in mean),
        "log_std": tuple(math.log(s) for s in std),
    }
    dim = landscape.dim
    policy = LinearPolicy(1, dim, std="global", bias=False)
    return Preset(Static(dim), Decision(landscape), policy, 1, 1.0, params)
