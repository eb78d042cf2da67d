"""The rows of `jumps`, and what its words and figures read out of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import scipy  # its parts are imported when they are used

from gradlab.statistics import Interval
from gradlab.statistics.jumps import LEAST, POWER
from gradlab.study.tables import grouped, read

BIASED = 0.05  # relative bias that the whole interval must lie above [1]


@dataclass(frozen=True)
class Trial:
    """The jump test of one objective by so many pairs of episodes."""

    case: str
    family: str  # known, flight or runner
    built: str  # by construction: smooth, jumps or open
    kind: str  # return or term
    objective: str
    pairs: int
    statistic: Interval  # D [objective²]
    share: Interval  # of the variance that no pathwise gradient sees [1]
    p_value: float
    level: float  # of this test, such that the study's is shared by all cases
    detectable: float  # share that these pairs find with 95 %
    skewness: float

    @property
    def found(self) -> bool:
        """Whether the test proves a jump at its level."""
        return self.p_value <= self.level

    @property
    def needed(self) -> Interval:
        """Pairs that find this D with a probability of 95 % at this level, by a normal law.

        The ends are those of D, at the spread that was seen; infinite where D is not positive.
        """
        d, low, high = self.statistic
        error = (high - d) / float(scipy.stats.t.ppf(0.975, self.pairs - 1))
        wanted = float(scipy.stats.norm.isf(self.level) + scipy.stats.norm.ppf(POWER))

        def pairs(value: float) -> float:
            if not value > 0:
                return math.inf
            return max(float(LEAST), self.pairs * (wanted * error / value) ** 2)

        return Interval(pairs(d), pairs(high), pairs(low))


@dataclass(frozen=True)
class Bias:
    """FOG against the gradient of the case's own objective."""

    case: str
    relative_bias: Interval
    truth: str
    truth_relative_stderr: float
    status: str


@dataclass(frozen=True)
class Seen:
    """Everything that was measured of one case."""

    name: str
    returns: list[Trial]  # from few pairs to many
    terms: list[Trial]
    bias: Bias | None  # none without a truth

    @classmethod
    def by_case(cls, table: pd.DataFrame) -> list[Seen]:
        """The cases in the order of the table."""
        returns = grouped(read(Trial, table, kind="return"), lambda test: test.case)
        terms = grouped(read(Trial, table, kind="term"), lambda test: test.case)
        biases = {bias.case: bias for bias in read(Bias, table, kind="bias")}
        return [
            cls(name, sorted(found, key=lambda t: t.pairs), terms.get(name, []), biases.get(name))
            for name, found in returns.items()
        ]

    @property
    def last(self) -> Trial:
        """The test of the return by the most pairs."""
        return self.returns[-1]

    @property
    def smooth(self) -> bool:
        return self.last.built == "smooth"

    @property
    def biased(self) -> bool:
        """Whether FOG is seen to be biased."""
        return self.bias is not None and self.bias.relative_bias.low > BIASED

    @property
    def first(self) -> int | None:
        """The least number of pairs, of those tried, from which on the return is always called."""
        called = None
        for test in reversed(self.returns):
            if not test.found:
                break
            called = test.pairs
        return called

    @property
    def found_terms(self) -> list[str]:
        return [test.objective for test in self.terms if test.found]
