"""Exact values, gradients and critics of the known-answer problems.

Read `answer.py` first (what is known), then `lq.py`, `smoothing.py` and `gate.py`.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import cast

from torch import Tensor

from gradlab.foundation.errors import Missing
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.oracle.closed_forms import gate, lq, relaxation, static, terminal_gate
from gradlab.oracle.closed_forms.answer import Answer, total
from gradlab.problems.problem import Problem
from gradlab.tasks.gate import Gate, TerminalGate
from gradlab.tasks.lq import Regulation
from gradlab.tasks.static import Decision

SOLUTIONS: dict[type, ModuleType] = {  # each has truth(problem, params), critic(problem, params)
    Regulation: lq,
    Gate: gate,
    TerminalGate: terminal_gate,
    Decision: static,
}

__all__ = ["SOLUTIONS", "Answer", "solve", "total"]


@differentiating()
def solve(problem: Problem, params: dict[str, Tensor]) -> Answer:
    """The answer of a known-answer problem, with its events as `problem.event_step` has them.

    The exact critic comes with it when the events are hard. Raises `Missing` where no exact
    solution is known, `BadValue` where the problem has been changed beyond what the formulas cover
    (another policy, dynamics or horizon).
    """
    problem.require_whole("a closed form")
    params = ordinary(params)
    solution = SOLUTIONS.get(type(problem.task))
    if solution is None:
        raise Missing(
            f"no exact solution is known for {problem.task.name}; "
            "try an oracle, or one of gradlab.problems.known_answers.PRESETS"
        )
    if problem.hard or not problem.task.events:
        answer = solution.truth(problem, params)
        return answer._replace(critic=solution.critic(problem, params))
    return relaxation.mix(
        cast(relaxation.Thresholded, problem.task),
        problem.event_step,
        lambda task: solution.truth(replace(problem, task=task), params),
    )
