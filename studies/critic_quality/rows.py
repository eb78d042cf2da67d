"""The rows of `critic_quality`, and where the 0-step term begins to help."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from gradlab.statistics import Interval, holm
from gradlab.study.tables import grouped, read

LEVEL = 0.05  # of all comparisons of ABPT with N-step together, by Holm [1]
UNDER = 0.5  # a critic is under-fitted where the whole interval of its cosine is below this [1]
HELPS, HARMS, UNSURE = "helps", "harms", "cannot be told"


@dataclass(frozen=True)
class Single:
    """One estimator with one critic."""

    task: str
    factor: str
    level: str
    cosine_of_critic: Interval
    window: int
    horizon: int
    estimator: str
    relative_bias: Interval
    cosine: Interval
    relative_norm: Interval
    truth: str
    truth_relative_stderr: float
    count: int
    nonfinite: int


@dataclass(frozen=True)
class Pair:
    """ABPT less N-step with one critic: what the 0-step term does."""

    task: str
    factor: str
    level: str
    cosine_of_critic: Interval  # of ∇_a Q̂ with the truth
    length_of_critic: Interval  # of ∇_a Q̂ over that of the truth
    pairs: int
    window: int
    horizon: int
    relative_difference: Interval  # of squared biases, over ‖∇J‖²; below 0 the term helps
    p_value: float

    @property
    def critic(self) -> str:
        return f"{self.factor} {self.level}".strip()

    @property
    def under_fitted(self) -> bool:
        return self.cosine_of_critic.high < UNDER


@dataclass(frozen=True)
class Judged:
    """A pair with its p-value corrected over all pairs of the table, and the two cosines."""

    pair: Pair
    corrected: float
    nstep: Interval  # cosine of N-step's expectation with ∇J
    abpt: Interval  # and of ABPT's

    @property
    def bias(self) -> str:
        """Whether the 0-step term lowers the bias, raises it, or neither can be told."""
        difference = self.pair.relative_difference.estimate
        if not self.corrected <= LEVEL or not math.isfinite(difference) or difference == 0:
            return UNSURE
        return HELPS if difference < 0 else HARMS

    @property
    def direction(self) -> str:
        """Whether it turns the gradient towards ∇J or away: both 95 % intervals must be apart."""
        if self.abpt.low > self.nstep.high:
            return HELPS
        return HARMS if self.abpt.high < self.nstep.low else UNSURE


Verdict = Callable[[Judged], str]


def by_bias(one: Judged) -> str:
    return one.bias


def by_direction(one: Judged) -> str:
    return one.direction


@dataclass(frozen=True)
class Threshold:
    """Of one task and window, from which cosine on the 0-step term helps.

    `kind` is "from" (it harms below `at` and helps above), "to" (the other way round), "helps" or
    "harms" (at all cosines tried at which it does anything), "mixed" (not a matter of the cosine
    alone), or "unknown".
    """

    task: str
    window: int
    horizon: int
    kind: str
    at: Interval  # cosine of the critic; of "helps" and "harms" the range at which it was proven
    helps: list[Judged]
    harms: list[Judged]
    total: int


def judged(table: pd.DataFrame) -> list[Judged]:
    """All pairs, in the order of the table."""
    pairs = read(Pair, table, kind="pair")
    corrected = holm([pair.p_value for pair in pairs])
    cosines = {
        (row.task, row.factor, row.level, row.window, row.estimator): row.cosine
        for row in read(Single, table, kind="single")
    }

    def of(pair: Pair, name: str) -> Interval:
        return cosines[pair.task, pair.factor, pair.level, pair.window, name]

    return [
        Judged(pair, p, of(pair, "nstep"), of(pair, "abpt"))
        for pair, p in zip(pairs, corrected, strict=True)
    ]


def thresholds(found: Sequence[Judged], verdict: Verdict = by_bias) -> list[Threshold]:
    """One for each task and window."""
    cases = grouped(found, lambda one: (one.pair.task, one.pair.window))
    return [threshold(case, verdict) for case in cases.values()]


def threshold(case: Sequence[Judged], verdict: Verdict = by_bias) -> Threshold:
    """The rule, fixed beforehand: the effect changes sign at one cosine, and once.

    It lies between the critics that are proven to harm and those that are proven to help; its
    interval reaches to the far end of the interval of the last critic on either side. Where one
    that harms is surely beyond one that helps, and another surely before it, the rule fails.
    """
    helps = [one for one in case if verdict(one) == HELPS]
    harms = [one for one in case if verdict(one) == HARMS]
    pair = case[0].pair
    kind, at = _crossing(helps, harms)
    return Threshold(pair.task, pair.window, pair.horizon, kind, at, helps, harms, len(case))


def _crossing(helps: Sequence[Judged], harms: Sequence[Judged]) -> tuple[str, Interval]:
    known = _cosines([*helps, *harms])
    if not known:
        return "unknown", Interval(math.nan, math.nan, math.nan)
    if not helps or not harms:
        middle = [one.estimate for one in known]
        every = Interval(sum(middle) / len(middle), min(middle), max(middle))
        return ("helps" if helps else "harms"), every
    sides = {"from": (harms, helps), "to": (helps, harms)}
    fitting = [kind for kind, (below, above) in sides.items() if _possible(below, above)]
    if len(fitting) == 2:  # the intervals allow both orders: the estimates must be in one
        fitting = [kind for kind in fitting if _apart(*sides[kind])]
    if len(fitting) != 1:
        return "mixed", Interval(math.nan, math.nan, math.nan)
    return fitting[0], _between(*sides[fitting[0]])


def _between(below: Sequence[Judged], above: Sequence[Judged]) -> Interval:
    """From the last critic below to the first one above."""
    low, high = (_cosines(side) for side in (below, above))
    last, first = max(one.estimate for one in low), min(one.estimate for one in high)
    ends = max(one.low for one in low), min(one.high for one in high)
    return Interval(min(max(0.5 * (last + first), ends[0]), ends[1]), *ends)


def _possible(below: Sequence[Judged], above: Sequence[Judged]) -> bool:
    """Whether no critic of one side is surely beyond one of the other."""
    return max(c.low for c in _cosines(below)) < min(c.high for c in _cosines(above))


def _apart(below: Sequence[Judged], above: Sequence[Judged]) -> bool:
    return max(c.estimate for c in _cosines(below)) <= min(c.estimate for c in _cosines(above))


def _cosines(side: Sequence[Judged]) -> list[Interval]:
    return [one.pair.cosine_of_critic for one in side]


def claim(found: Sequence[Judged]) -> str:
    """ "“An under-fitted critic makes the 0-step return harmful”: holds, does not hold, depends on
    the task and the window, or cannot be told at this budget."""
    under = [one.bias for one in found if one.pair.under_fitted]
    helps, harms = under.count(HELPS), under.count(HARMS)
    if helps and harms:
        return "depends on the task and the window"
    if harms:
        return "holds"
    return "does not hold" if helps else "cannot be told at this budget"
