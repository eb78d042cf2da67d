"""What an oracle is: anything that knows a gradient, and how well it knows it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from gradlab.problems.problem import Problem
from gradlab.statistics.truth import OracleGradient

Params = dict[str, Tensor]
ORACLE_SEED = 7_340_033  # far from the small seeds that users choose


@runtime_checkable
class Oracle(Protocol):
    """Anything that knows the gradient of a problem and how well it knows it."""

    def __call__(self, problem: Problem, params: Params) -> OracleGradient: ...
