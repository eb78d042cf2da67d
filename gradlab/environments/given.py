"""What environments are given: problems, modes and seeds, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.problems import registry
from gradlab.problems.bounds import action_bound
from gradlab.problems.problem import Problem

RENDER_MODES = ["rgb_array"]


def problem_of(problem: str | Problem, options: dict[str, Any], steps: int | None) -> Problem:
    """The problem with its episode length as horizon."""
    if isinstance(problem, str):
        problem = registry.make(problem, **options)
    elif options:
        raise BadValue(
            f"options ({', '.join(options)}) belong to a problem given by name; "
            "here use gradlab.make(name, ...) or problem.replace(...)"
        )
    if not problem.hard:
        raise BadValue(
            f"{problem.name} is relaxed, and environments have hard events; "
            "use the problem as gradlab.make returns it"
        )
    if steps is None:
        return problem
    if steps < 1:
        raise BadValue(f"expected max_episode_steps of at least 1, got {steps}")
    return problem.replace(horizon=steps)


def spaces_of(problem: Problem) -> tuple[Box, Box]:
    """Of one observation and one action."""
    bound = action_bound(problem)
    return (
        Box(-np.inf, np.inf, (problem.task.observation_dim,), np.float32),
        Box(-bound, bound, (problem.simulator.action_dim,), np.float32),
    )


def autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    known = [m.value for m in AutoresetMode]
    if mode not in known:
        raise UnknownName("autoreset_mode", mode, known)
    return AutoresetMode(mode)


def checked_render_mode(mode: str | None) -> str | None:
    if mode is not None and mode not in RENDER_MODES:
        raise UnknownName("render_mode", mode, RENDER_MODES)
    return mode


def seeds_of(seed: int | Sequence[int | None] | None, count: int) -> list[int | None]:
    """One seed per environment: seed, seed + 1, ... of a number, or those of a list."""
    if seed is None:
        return [None] * count
    if isinstance(seed, (int, np.integer)):
        seeds: list[int | None] = [int(seed) + i for i in range(count)]
    else:
        seeds = [None if s is None else int(s) for s in seed]
    if len(seeds) != count or any(s is not None and s < 0 for s in seeds):
        raise BadValue(
            f"seed should be None, an int >= 0 or a list of {count} of them, got {seed!r}"
        )
    return seeds
