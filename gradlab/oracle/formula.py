"""Truths from formulas."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gradlab.oracle import closed_forms
from gradlab.oracle.base import Params
from gradlab.problems.problem import Problem
from gradlab.statistics.truth import OracleGradient


def _solve(problem: Problem, params: Params) -> Mapping[str, Tensor]:
    return closed_forms.solve(problem, params).gradient


@dataclass(frozen=True)
class ClosedForm:
    """A formula, exact up to rounding: `gradient(problem, params) -> {name: tensor}`.

    Without one, the formulas of the known-answer problems: `gradlab.oracle.closed_forms.solve`.
    """

    gradient: Callable[[Problem, Params], Mapping[str, Tensor]] = _solve
    name: str = "closed form"

    def __call__(self, problem: Problem, params: Params) -> OracleGradient:
        begin = time.perf_counter()
        mean = self.gradient(problem, params)
        return OracleGradient.exact(mean, self.name, time.perf_counter() - begin)
