"""The rows of `original_engines`, and what its words and figure read out of them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import read


@dataclass(frozen=True)
class Estimate:
    """One estimator against a large sample of the other, on other episodes."""

    simulator: str
    horizon: int
    estimator: str
    count: int
    nonfinite: int  # samples left out
    relative_bias: Interval
    cosine: Interval
    relative_norm: Interval
    variance: Interval  # of one sample
    spread_samples: float  # that the error of the variance rests on
    truth: str
    truth_relative_stderr: float
    status: str


@dataclass(frozen=True)
class Test:
    """The jump test of the return."""

    simulator: str
    horizon: int
    pairs: int
    share: Interval  # of the variance that no pathwise gradient sees [1]
    p_value: float
    level: float

    @property
    def found(self) -> bool:
        return self.p_value <= self.level


@dataclass(frozen=True)
class Setting:
    """All of one simulator at one horizon."""

    fog: Estimate
    pg: Estimate
    test: Test

    @staticmethod
    def all(table: pd.DataFrame) -> list[Setting]:
        """In the order of the table."""
        estimates = {
            (one.simulator, one.horizon, one.estimator): one
            for one in read(Estimate, table, kind="estimate")
        }
        tests = read(Test, table, kind="jump")
        return [
            Setting(
                estimates[test.simulator, test.horizon, "fog"],
                estimates[test.simulator, test.horizon, "pg"],
                test,
            )
            for test in tests
        ]
