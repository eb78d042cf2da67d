"""Exact relaxed truths: a relaxed one-time event is a mixture of hard ones.

Step(M) = ∫ Step'(u) 1[M > u] du for any step that rises from 0 to 1, and the running maximum of a
margin exceeds u exactly when the hard event with its threshold raised by u·scale has happened.
Bonuses telescope, so for a task whose only event is not terminating

    J_width = ∫ Step'(u) J_hard(threshold + u·scale) du

and the same holds for every gradient, at every horizon and discount. The integral is taken by the
trapezoid rule after a substitution that makes the integrand analytic and exponentially small at
both ends, which converges geometrically.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.events import Arctan, Sigmoid, Step
from gradlab.foundation.errors import BadValue
from gradlab.oracle.closed_forms.answer import Answer
from gradlab.tasks.base import Task
from gradlab.tasks.gate import Gate, TerminalGate
from gradlab.tasks.smoothing import Heaviside
from gradlab.tasks.static import Decision

Thresholded = Gate | TerminalGate | Decision  # tasks of one event that never terminates
Solver = Callable[[Task], Answer]  # of a task with a hard event
WIDEST = 10.0  # width [margin scale]: a wider step is a straight line over every margin that occurs
RANGE = 24.0  # of the substituted variable: the mass beyond is 4e-11


def shifts(step: Step, v: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Margins u(v) and the density Step'(u) du/dv, for v from −∞ to ∞."""
    if isinstance(step, Sigmoid | Arctan) and step.width > WIDEST:
        raise BadValue(
            f"exact relaxed values are for widths of at most {WIDEST:g} margin scales, got "
            f"{step.width:g}; try 1"
        )
    if isinstance(step, Sigmoid):  # u = width·v is logistic
        return step.width * v, torch.sigmoid(v) * torch.sigmoid(-v)
    if isinstance(step, Arctan):  # u = width·sinh v is Cauchy
        return step.width * torch.sinh(v), 1 / (math.pi * torch.cosh(v))
    raise BadValue(
        f"exact relaxed values are known for sigmoid and arctan steps, got {type(step).__name__}; "
        "try problem.relaxed(width)"
    )


def shifted(task: Thresholded, margin: float) -> Thresholded:
    """The task whose event needs `margin` more (in units of its scale)."""
    if not isinstance(task, Decision):
        return replace(task, gate=task.gate + margin * task.scale)
    step = cast(Heaviside, task.landscape)  # the only landscape with an event
    raised = replace(step, threshold=step.threshold + margin * step.scale)
    return replace(task, landscape=raised)


def mix(task: Thresholded, step: Step, solve: Solver, tolerance: float = 1e-8) -> Answer:
    """J and every g_k of the relaxed problem, to a relative tolerance; no critic.

    The spacing is halved, adding the midpoints, until the answer no longer changes; convergence
    is geometric, so the accepted answer is far closer than the last change.
    """
    spacing = 1.0
    half = math.ceil(RANGE / spacing)
    v = spacing * torch.arange(-half, half + 1, dtype=torch.float64)
    current = _sum(task, step, solve, v, spacing)
    for _ in range(7):
        middle = v[:-1] + spacing / 2
        extra = _sum(task, step, solve, middle, spacing)
        finer = _average(current, extra)
        if _close(finer, current, tolerance):
            return finer
        v = torch.cat([v, middle]).sort().values
        spacing, current = spacing / 2, finer
    raise BadValue(
        f"the relaxed value of {task.name} did not converge to {tolerance}; try a smaller width"
    )


def _sum(task: Thresholded, step: Step, solve: Solver, v: Tensor, spacing: float) -> Answer:
    """Σ spacing·density·(answer of the shifted hard task)."""
    margins, density = shifts(step, v)
    weights = spacing * density
    answers = [solve(shifted(task, margin)) for margin in margins.tolist()]
    value = weights @ torch.stack([answer.value for answer in answers])
    per_call = {
        name: torch.tensordot(weights, torch.stack([a.per_call[name] for a in answers]), dims=1)
        for name in answers[0].per_call
    }
    return Answer(value, per_call, {}, {}, None)


def _average(a: Answer, b: Answer) -> Answer:
    """The trapezoid sum at half the spacing, from the old nodes and the midpoints."""
    per_call = {name: 0.5 * (rows + b.per_call[name]) for name, rows in a.per_call.items()}
    return Answer(0.5 * (a.value + b.value), per_call, {}, {}, None)


def _close(a: Answer, b: Answer, tolerance: float) -> bool:
    largest = max(float(rows.abs().max()) for rows in a.per_call.values())
    error = max(float((a.per_call[k] - b.per_call[k]).abs().max()) for k in a.per_call)
    return error <= tolerance * largest
