"""The rows of `horizon`, and what is concluded from them by rules fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import UNKNOWN, grouped, read


@dataclass(frozen=True)
class Single:
    """One estimator over tiled windows, against ∇J."""

    task: str
    critic: str
    window: int
    horizon: int
    estimator: str
    relative_bias: Interval
    variance: Interval
    cosine: Interval
    mse: Interval
    truth_norm: float
    truth: str
    truth_relative_stderr: float
    count: int
    nonfinite: int
    environment_steps: float
    processor_seconds: float = math.nan
    status: str = "ok"

    @property
    def relative_mse(self) -> Interval:
        """MSE of a batch of 64 over ‖∇J‖²; the error of ‖∇J‖ is not in it."""
        return Interval(*(x / self.truth_norm**2 for x in self.mse))

    @property
    def relative_variance(self) -> Interval:
        """Variance of a sample over ‖∇J‖²."""
        return Interval(*(x / self.truth_norm**2 for x in self.variance))


@dataclass(frozen=True)
class Bound:
    """AGPO, or N-step alone, as Theorem 4.2 has it, and its bounds."""

    task: str
    critic: str
    window: int
    horizon: int
    estimator: str
    l_q: float
    l_theta: float
    variance: Interval
    variance_bound: float
    typical_bound: float  # with root-mean-square slopes: no bound
    variance_share: Interval  # variance over its bound [1]
    looked_at: float | None  # Σ β_{i−1}: policy calls that AGPO counts [1]
    bias: Interval = UNKNOWN
    bias_bound_action: float = math.nan
    bias_bound_total: float = math.nan
    bias_share_action: Interval = UNKNOWN
    bias_share_total: Interval = UNKNOWN


@dataclass(frozen=True)
class Verdict:
    """Of one bound over many settings: whether it holds, and by how much it is loose."""

    word: str
    settings: int
    loosest: float  # bound over what was measured
    tightest: float
    most: Interval = UNKNOWN  # the largest share of the bound that was measured
    broken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, shares: Iterable[tuple[str, Interval]]) -> Verdict:
        """Holds where every whole interval of measured/bound is below 1, does not hold where one is
        above 1; else it cannot be told. Settings without a number do not count."""
        known = [(name, share) for name, share in shares if not math.isnan(share.estimate)]
        broken = [name for name, share in known if share.low > 1]
        word = "cannot be told at this budget"
        if broken:
            word = "does not hold"
        elif known and all(share.high < 1 for _, share in known):
            word = "holds"
        looseness = [1 / share.estimate for _, share in known if share.estimate > 0]
        ends = (max(looseness), min(looseness)) if looseness else (math.nan, math.nan)
        most = max((share for _, share in known), key=lambda share: share.estimate, default=UNKNOWN)
        return cls(word, len(known), *ends, most, broken)


def setting(row: Single | Bound) -> str:
    """Task, critic and window."""
    return f"{row.task}, {row.critic} critic, h = {row.window}"


def verdicts(bounds: Sequence[Bound]) -> dict[str, Verdict]:
    """Of the variance, and of the bias by both readings of its ε."""
    mine = [row for row in bounds if row.estimator == "agpo"]
    return {
        "variance": Verdict.of((setting(row), row.variance_share) for row in mine),
        "action": Verdict.of((setting(row), row.bias_share_action) for row in mine),
        "total": Verdict.of((setting(row), row.bias_share_total) for row in mine),
    }


def exponent(rows: Sequence[Bound]) -> Interval:
    """Power of h by which the variance changes from the shortest to the longest window; −1 is that
    of the bound. Both intervals are used at their far ends, so that it is too wide."""
    first, last = min(rows, key=lambda r: r.window), max(rows, key=lambda r: r.window)
    if first.window == last.window:
        return UNKNOWN
    (v, v_low, v_high), (w, w_low, w_high) = first.variance, last.variance
    ends = (v, w), (v_high, w_low), (v_low, w_high)
    longer = math.log(last.window / first.window)
    return Interval(
        *(_log(after / before) / longer if before > 0 else math.nan for before, after in ends)
    )


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


@dataclass(frozen=True)
class Sweep:
    """One estimator with one critic over all windows, from short to long."""

    task: str
    critic: str
    estimator: str
    rows: list[Single]

    @classmethod
    def of(cls, singles: Iterable[Single]) -> list[Sweep]:
        """In the order of the table."""
        groups = grouped(singles, lambda row: (row.task, row.critic, row.estimator))
        return [cls(*key, sorted(rows, key=lambda r: r.window)) for key, rows in groups.items()]

    @property
    def best(self) -> list[int]:
        """The windows among which the least MSE(64) is: those whose interval reaches below the
        upper end of the least one's."""
        least = min(self.rows, key=lambda row: row.mse.estimate)
        return [row.window for row in self.rows if row.mse.low <= least.mse.high]

    @property
    def bias(self) -> str:
        """What the longest window does to the bias of the shortest: lowers it, raises it, or the
        intervals overlap."""
        return _change(self.rows[0].relative_bias, self.rows[-1].relative_bias)

    @property
    def variance(self) -> str:
        """Likewise to the variance."""
        return _change(self.rows[0].variance, self.rows[-1].variance)


LOWERS, RAISES, SAME = "lowers", "raises", "cannot be told apart"


def _change(before: Interval, after: Interval) -> str:
    if after.high < before.low:
        return LOWERS
    return RAISES if after.low > before.high else SAME


def bounds_of(table: pd.DataFrame) -> list[Bound]:
    return read(Bound, table, kind="bound")


def singles_of(table: pd.DataFrame) -> list[Single]:
    return read(Single, table, kind="single")
