"""Helpers for tests of the known-answer problems."""

from __future__ import annotations

import itertools

import numpy as np
import torch

import gradlab
from gradlab.oracle.closed_forms.linear_gaussian import LinearGaussian
from gradlab.problems import known_answers
from gradlab.problems.critic import View
from gradlab.problems.problem import Problem

VARIANTS = [
    *((name, {}) for name in known_answers.PRESETS),
    ("heaviside", {"dim": 3}),
    ("gate", {"process_std": 0.1}),
    ("terminal_gate", {"process_std": 0.3}),
]


def build(name: str, **options: object) -> tuple[Problem, dict[str, torch.Tensor]]:
    """A known-answer problem in float64 and its skewed policy."""
    problem = gradlab.make(name, dtype=torch.float64, **options)
    return problem, problem.reference


def view(problem: Problem, state: torch.Tensor, step: int, passed: float = 0.0) -> View:
    """A view of the states at one step."""
    steps = torch.full(state.shape[:-1], float(step), dtype=state.dtype)
    obs = problem.task.observe(state, state[..., :0], steps)
    return View(state, obs, torch.full((*state.shape[:-1], 1), passed, dtype=state.dtype), steps)


def signs(count: int) -> torch.Tensor:
    """All ±1 vectors: Gauss-Hermite with two nodes per axis, exact up to degree 3 in each."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=count)), dtype=torch.float64)


def finite_difference(function, calls: LinearGaussian, h: float = 1e-5) -> LinearGaussian:
    """Central differences of function(calls) in every entry of every call."""
    parts = []
    for i, part in enumerate(calls):
        out = torch.zeros_like(part)
        for index in np.ndindex(*part.shape):
            values = []
            for sign in (1, -1):
                moved = part.clone()
                moved[index] += sign * h
                values.append(function(calls._replace(**{calls._fields[i]: moved})))
            out[index] = (values[0] - values[1]) / (2 * h)
        parts.append(out)
    return LinearGaussian(*parts)


def assert_close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    """Largest difference against the largest entry (at least 1)."""
    error = float((a - b).abs().max())
    scale = max(1.0, float(torch.as_tensor(b).abs().max()))
    assert error <= tolerance * scale, f"differs by {error:.2e}, allowed {tolerance * scale:.2e}"
