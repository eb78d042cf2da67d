"""Who takes part, and how many samples a budget buys."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import estimators
from estimators.base import Estimator
from gradlab.foundation.errors import BadValue, Missing
from gradlab.problems.problem import Problem
from studies.shared.guests import is_guest

ALL = "all"
WINDOWED = ("nstep", "abpt", "agpo", "lambda_return")  # with half of the horizon
SETTINGS: dict[str, dict[str, Any]] = {"pg": {"baseline": "loo"}}  # nobody runs PG without one


def roster(asked: Iterable[str]) -> list[str]:
    """The names of all who take part, those of users last.

    Raises `UnknownName` or `Missing` for a name that leads to no estimator, `BadValue` for one that
    is named beside "all".
    """
    asked = list(asked)
    own = [name for name in asked if is_guest(name)]
    named = [name for name in asked if not is_guest(name)]
    if ALL in named and len(named) > 1:
        other = next(name for name in named if name != ALL)
        raise BadValue(f"expected {ALL} or names, got {ALL} and {other}; leave one out")
    for name in asked:
        if name != ALL:
            estimators.make(name)
    registered = estimators.names() if named in ([], [ALL]) else named
    return [*registered, *own]


def built(name: str, problem: Problem) -> Estimator:
    """The estimator as the study runs it: at its registered settings, PG with a leave-one-out
    baseline, windows of half the horizon."""
    options = SETTINGS.get(name, {})
    if name in WINDOWED:
        options = {"window": max(1, problem.horizon // 2)}
    return estimators.make(name, **options)


def reads_critic(estimator: Estimator, problem: Problem) -> bool:
    """Whether it lacks something on the problem without a critic."""
    try:
        estimator.check(problem.replace(critic=None))
    except Missing:
        return True
    except BadValue:  # wrong for this problem, with or without one
        return False
    return False


def bought(steps: float, estimator: Estimator, problem: Problem) -> int:
    """Samples that so many environment steps pay for, in whole groups; 0 if not one group."""
    return whole_groups(steps / estimator.cost(problem).environment_steps, estimator.group)


def whole_groups(samples: float, group: int) -> int:
    """The samples that make whole groups; 0 if not one group."""
    return max(0, math.floor(samples / group + 1e-9)) * group
