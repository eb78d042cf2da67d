"""The rows of `leaderboard`, and the boards that its words and figures read out of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

import estimators
from gradlab.statistics import Interval
from gradlab.statistics.comparing import mean_square_error
from gradlab.study.tables import UNKNOWN, grouped, read
from studies.leaderboard.ranks import Ranking, across, mean_interval, ranking, share_interval

ALIKE = 0.9  # of the best's gain: who surely gains as much is as good, told from it or not [1]
REFERENCES = ("fog", "pg")  # whose time is what equal times are equal to, the first that is there


@dataclass(frozen=True)
class Judged:
    """The error of an estimator's mean at one budget."""

    task: str
    stage: int
    known: bool
    currency: str  # of the budget: steps or seconds
    amount: float
    estimator: str
    label: str
    samples: int  # that the budget buys
    group: int
    needs_critic: bool
    environment_steps: float  # of one sample
    squared_bias: Interval
    variance: Interval  # of one sample
    mse: Interval  # of the mean of all samples
    cosine_batch: Interval  # of that mean with ∇J
    truth_norm: float
    truth_relative_stderr: float
    heavy_tails: bool
    nonfinite: int
    status: str


@dataclass(frozen=True)
class Stepped:
    """The objective after one step."""

    task: str
    stage: int
    currency: str
    amount: float
    estimator: str
    repeat: int
    length: float  # of the unit
    value: float
    squared_error: float  # of the gradient, the truth's own error in it


@dataclass(frozen=True)
class Started:
    """The objective before a step (of length 0), or after one along the truth."""

    task: str
    stage: int
    repeat: int
    length: float
    value: float
    unit: float  # the length that counts as 1
    truth: str
    truth_relative_stderr: float


@dataclass(frozen=True)
class LeftOut:
    """Who does not take part, and why."""

    task: str
    stage: int
    currency: str
    amount: float
    estimator: str
    reason: str


@dataclass(frozen=True)
class Timed:
    """What a clock says of an estimator."""

    task: str
    stage: int
    estimator: str
    seconds_fixed: float  # of a call
    seconds_per_sample: float  # in it


@dataclass(frozen=True)
class Entry:
    """One estimator on a board."""

    judged: Judged
    errors: np.ndarray  # [repeats]: squared distance of the gradient to the truth
    gains: np.ndarray  # [repeats]: of a step of the length that the other half chose
    shared: np.ndarray  # [repeats]: of a step of one unit, the same for all
    lengths: tuple[float, float]  # that even and odd repeats got [unit]
    gain: Interval  # mean of `gains` [objective]
    share: Interval  # of what a step along the true gradient gains [1]
    shared_share: Interval  # the same of `shared`
    seconds: float  # for all samples [s]
    timed_mse: Interval  # in the time of the board's reference; NaN where not one group fits
    timed_samples: float

    @property
    def name(self) -> str:
        return self.judged.estimator

    @property
    def relative_mse(self) -> Interval:
        """Over ‖∇J‖², whose own error is not in it."""
        return over(self.judged.mse, self.judged.truth_norm)

    @property
    def relative_timed_mse(self) -> Interval:
        return over(self.timed_mse, self.judged.truth_norm)


def over(squared: Interval, norm: float) -> Interval:
    """A squared size over ‖∇J‖²; unknown where noise hides that."""
    return Interval(*(end / norm**2 for end in squared)) if norm > 0 else UNKNOWN


@dataclass(frozen=True)
class Board:
    """All estimators of one case at one budget."""

    task: str
    stage: int
    known: bool
    currency: str
    amount: float
    level: float  # of its rankings: the study's, shared by all boards
    entries: list[Entry]  # by mean rank of the gain, the best first
    ranks: Ranking  # of `entries`, in their order, by gain
    error_ranks: Ranking  # by squared error
    left_out: list[LeftOut]
    truth: str
    truth_relative_stderr: float
    truth_gain: Interval  # of a step along the true gradient [objective]
    reference: str  # whose time the equal times are

    @property
    def policy(self) -> str:
        """In words."""
        if self.known:
            return "its own policy"
        return f"{self.stage} % policy" if self.stage else "untrained policy"

    @property
    def case(self) -> str:
        """Task and policy, short."""
        if self.known:
            return self.task
        return f"{self.task} {self.stage}%" if self.stage else f"{self.task} untrained"

    @property
    def budget(self) -> str:
        return budget_of(self.currency, self.amount)

    def by_gain(self) -> list[Entry]:
        """Those that are as good as the best by the gain of a step, by their ranks.

        Not told from the best by rank, or with 95 % confidence above `ALIKE` of its gain.
        """
        return as_good(self.entries, self.ranks)

    def by_error(self) -> list[Entry]:
        """Those that cannot be told from the best by the squared error of their gradients, the best
        first; all where the truth is known worse than the best gradient."""
        if not self.truth_precise:
            return self.entries
        return [self.entries[i] for i in self.error_ranks.as_good()]

    @property
    def truth_precise(self) -> bool:
        """Whether the truth's squared error is below the least MSE."""
        least = min((entry.relative_mse.estimate for entry in self.entries), default=math.nan)
        return self.truth_relative_stderr**2 <= least

    @cached_property
    def told(self) -> bool:
        """Whether ranks by gain tell the best from anybody."""
        return len(self.ranks.as_good()) < len(self.entries)

    @cached_property
    def error_told(self) -> bool:
        """Whether the error tells the best from anybody."""
        return len(self.by_error()) < len(self.entries)

    def without_critic(self) -> list[Entry]:
        """Of those that need no critic: the best by gain and all that are as good."""
        free = [entry for entry in self.entries if not entry.judged.needs_critic]
        return as_good(free, ranking(_columns(entry.gains for entry in free), self.level))

    def taken(self) -> Entry:
        """Whom to take.

        Of those that are as good as the best by gain: those that need no critic, if there are any;
        of these those with nearly the gain of the best of them (`ALIKE`); of these those whose
        interval of the MSE reaches down to the least; and of these the simplest, by the order in
        which estimators are registered: what mixtures are made of comes before them.
        """
        rest = self.by_gain()
        rest = [entry for entry in rest if not entry.judged.needs_critic] or rest
        most = max(entry.gain.estimate for entry in rest)
        rest = [entry for entry in rest if entry.gain.estimate >= min(ALIKE * most, most)]
        least = min(entry.judged.mse.estimate for entry in rest)
        rest = [entry for entry in rest if entry.judged.mse.low <= least] or rest
        known = estimators.names()
        order = {name: place for place, name in enumerate(known)}
        return min(rest, key=lambda entry: order.get(entry.name, len(known)))


def as_good(entries: Sequence[Entry], ranks: Ranking) -> list[Entry]:
    """Those that are as good as the best of them by gain, as `Board.by_gain`."""
    if not entries:
        return []
    untold, best = ranks.as_good(), entries[ranks.best]
    order = np.argsort(ranks.mean_ranks, kind="stable")
    return [
        entries[i]
        for i in order
        if i in untold or share_interval(entries[i].gains, best.gains).low > ALIKE
    ]


def _columns(values: Iterable[np.ndarray]) -> np.ndarray:
    """[repeats, k] from k arrays; of none an empty one."""
    columns = list(values)
    return np.stack(columns, axis=1) if columns else np.zeros((1, 0))


def boards(table: pd.DataFrame) -> list[Board]:
    """A board per case and budget, in the order of the table."""
    judged = grouped(read(Judged, table, kind="error"), _of)
    steps = grouped(read(Stepped, table, kind="step"), _of)
    left = grouped(read(LeftOut, table, kind="left_out"), _of)
    if not judged:
        return []
    starts = grouped(read(Started, table, kind="start"), lambda row: (row.task, row.stage))
    times = grouped(read(Timed, table, kind="time"), lambda row: (row.task, row.stage))
    level = float(table["level"].iloc[0]) / len(judged)
    return [
        _board(level, found, steps[key], left.get(key, []), starts[key[:2]], times[key[:2]])
        for key, found in judged.items()
    ]


def empty(table: pd.DataFrame) -> list[LeftOut]:
    """One of those who are left out of every setting in which nobody takes part."""
    judged = {_of(row) for row in read(Judged, table, kind="error")}
    left = grouped(read(LeftOut, table, kind="left_out"), _of)
    return [rows[0] for key, rows in left.items() if key not in judged]


def budget_of(currency: str, amount: float) -> str:
    """In words: "4,800 steps", "0.05 s"."""
    return f"{amount:,.0f} steps" if currency == "steps" else f"{amount:g} s"


def _of(row: Judged | Stepped | LeftOut) -> tuple[str, int, str, float]:
    return row.task, row.stage, row.currency, row.amount


def _board(
    level: float,
    judged: Sequence[Judged],
    steps: Sequence[Stepped],
    left: list[LeftOut],
    starts: Sequence[Started],
    times: Sequence[Timed],
) -> Board:
    begun = _values(starts)
    before, along = begun[:, :1], begun[:, 1:]
    lengths = sorted({row.length for row in starts})[1:]
    truth = across(along - before)[0]
    by_name = grouped(steps, lambda row: row.estimator)
    clock = {row.estimator: row for row in times}
    names = [row.estimator for row in judged]
    reference = next((name for name in (*REFERENCES, *names) if name in names), "")
    allowed = next((_seconds(r, clock) for r in judged if r.estimator == reference), math.nan)
    entries = [
        _entry(row, by_name[row.estimator], before, truth, lengths, clock, allowed)
        for row in judged
    ]
    ranks = ranking(_columns(entry.gains for entry in entries), level)
    entries = [entries[i] for i in np.argsort(ranks.mean_ranks, kind="stable")]
    gains, errors = (
        ranking(_columns(value(entry) for entry in entries), level)
        for value in (lambda entry: entry.gains, lambda entry: -entry.errors)
    )
    one, start = judged[0], starts[0]
    return Board(
        one.task, one.stage, one.known, one.currency, one.amount, level, entries, gains, errors, left,
        start.truth, start.truth_relative_stderr, mean_interval(truth), reference,
    )  # fmt: skip


def _entry(
    judged: Judged,
    steps: Sequence[Stepped],
    before: np.ndarray,
    truth: np.ndarray,
    lengths: Sequence[float],
    clock: Mapping[str, Timed],
    allowed: float,
) -> Entry:
    """Of one estimator; the objective before its steps is [repeats, 1]."""
    gains = _values(steps) - before
    own, places = across(gains)
    errors = {row.repeat: row.squared_error for row in steps}
    shared = gains[:, int(np.argmin(np.abs(np.asarray(lengths) - 1.0)))]
    timed = clock[judged.estimator]
    samples = (allowed - timed.seconds_fixed) / timed.seconds_per_sample
    fits = samples >= judged.group
    error = mean_square_error(judged.variance, judged.squared_bias, samples) if fits else UNKNOWN
    return Entry(
        judged, np.array([errors[repeat] for repeat in sorted(errors)]), own, shared, (lengths[places[0]], lengths[places[1]]), mean_interval(own),
        share_interval(own, truth), share_interval(shared, truth), _seconds(judged, clock),
        error, samples,
    )  # fmt: skip


def _seconds(judged: Judged, clock: Mapping[str, Timed]) -> float:
    timed = clock[judged.estimator]
    return timed.seconds_fixed + judged.samples * timed.seconds_per_sample


def _values(rows: Iterable[Stepped] | Iterable[Started]) -> np.ndarray:
    """The objective as [repeats, lengths], both in ascending order."""
    ordered = sorted(rows, key=lambda row: (row.repeat, row.length))
    lengths = len({row.length for row in ordered})
    return np.array([row.value for row in ordered]).reshape(-1, lengths)
