"""The contact toys of many steps, as builders for `gradlab.make`; nothing about them is in closed
form. `problem.reference` is where their optimisation starts in the paper.

Source: Suh et al. 2022 (arXiv 2202.00817); constants of hjsuh94/alpha_gradient@5e2ef6f. Costs are
turned into rewards by a change of sign, and the cost of the first state, which nothing moves, is
left out.
"""

from __future__ import annotations

from typing import Literal

from gradlab.policies.gaussian import LinearPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.base import Simulator
from gradlab.simulators.toys import Dragging, Paddle, Pushing
from gradlab.tasks.lq import Regulation
from gradlab.tasks.steering import OpenLoop, Rally

COSTS = (0.1, 10.0, 0.1, 0.1)  # of (x1, x2, v1, v2)


def pushing(
    horizon: int = 200,
    stiffness: float = 1000.0,
    kept: float = 0.99,
    sharpness: float = 0.0,
    std: float = 0.1,
    clock: bool = True,
) -> Problem:
    """Push a mass to x = 2 m by a spring that only pushes; inputs of all steps, 0.1 N at first.

    The stiff one of two published settings: `stiffness` [N/m] 1000 with `kept` 0.99; the soft one
    is 10, 0.998 and 400 steps.
    """
    simulator = Pushing(stiffness=stiffness, kept=kept, sharpness=sharpness)
    start, goal = (0.0, 1.0, 0.0, 0.0), (1.0, 2.0, 0.0, 0.0)
    return _open_loop("pushing", simulator, start, goal, horizon, std, clock, first=0.1)


def friction(horizon: int = 400, std: float = 0.1, clock: bool = True) -> Problem:
    """Drag a mass to x = 2 m by friction, which ends at once where the masses are 0.1 m apart;
    inputs of all steps, 0 at first.
    """
    start, goal = (0.0, 0.0, 0.0, 0.0), (2.0, 2.0, 0.0, 0.0)
    return _open_loop("friction", Dragging(), start, goal, horizon, std, clock, first=0.0)


def tennis(
    horizon: int = 200,
    start: Literal["wide", "narrow"] = "wide",
    impact: bool = True,
    std: float = 0.01,
) -> Problem:
    """Hit a ball with a paddle so that it ends at (0, 2.5) m; a linear policy, zeros at first."""
    task = Rally(start=start, default_horizon=horizon)
    policy = LinearPolicy(7, 3, std=std, bias=False)
    zeros = {"layers.0.weight": ((0.0,) * 7,) * 3}
    simulator = Paddle(impact=impact)
    return Problem("tennis", simulator, task, policy, horizon, 1.0, skewed=tuple(zeros.items()))


def _open_loop(
    name: str,
    simulator: Simulator,
    start: tuple[float, ...],
    goal: tuple[float, ...],
    horizon: int,
    std: float,
    clock: bool,
    first: float,
) -> Problem:
    diagonal = tuple(tuple(cost * (i == j) for j in range(4)) for i, cost in enumerate(COSTS))
    nothing_random: tuple[tuple[float, ...], ...] = ((),) * 4
    dense = Regulation(diagonal, ((1.0,),), goal, start, nothing_random, horizon)
    task = OpenLoop(dense, name, clock)
    policy = LinearPolicy(task.observation_dim, 1, std=std, bias=False)
    inputs = {"layers.0.weight": ((first,) * task.observation_dim,)}
    return Problem(name, simulator, task, policy, horizon, 1.0, skewed=tuple(inputs.items()))


BUILDERS = {"pushing": pushing, "friction": friction, "tennis": tennis}
