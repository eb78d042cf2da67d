"""How large an action may be."""

from __future__ import annotations

import math

from gradlab.problems.problem import Problem
from gradlab.simulators.base import Clamping


def action_bound(problem: Problem) -> float:
    """Largest size of an action's numbers: 1 of a policy that squashes, that at which the simulator
    clamps, or ∞.
    """
    if problem.policy.head.squash:
        return 1.0
    return problem.simulator.bound if isinstance(problem.simulator, Clamping) else math.inf
