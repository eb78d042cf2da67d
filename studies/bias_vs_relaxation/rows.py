"""The rows of `bias_vs_relaxation`, and what its words and figures read out of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from gradlab.statistics import Interval, holm
from gradlab.study.tables import UNKNOWN, grouped, read
from studies.bias_vs_relaxation.config import BATCH

HARD = 0.0  # the width that stands for no relaxation
LEVEL = 0.05  # of the verdicts, after Holm's correction over the table
BLIND = 0.95  # relative bias from which an estimate is as far from ∇J as no gradient at all

NAMES = {
    "pg": "PG",
    "fog": "FOG",
    "qg": "QG",
    "nstep": "N-step alone",
    "abpt": "0-step + N-step",
    "split": "Split",
    "relaxed_fog": "RelaxedFOG",
}
CRITICS = {
    "none": "untrained critic",
    "short": "briefly fitted critic",
    "full": "fully fitted critic",
    "explored": "critic fitted on explored actions",
    "exact": "exact critic",
}
_BEST = ("exact", "full", "explored", "short", "none")  # critics, the best first


@dataclass(frozen=True)
class Estimate:
    """One estimator of one policy against one truth, all parameters together."""

    task: str
    stage: int  # success rate that the policy was trained to [%]
    success_rate: float
    critic_fit: str  # or -
    horizon: int  # [steps]
    estimator: str
    form: str  # published, tiled or -
    window: int | None  # [steps]
    width: float | None  # of the estimator's own relaxation [margin scale]
    truth_width: float  # of the relaxation whose gradient is the truth; HARD for none
    cosine: Interval
    relative_norm: Interval
    relative_bias: Interval
    relative_bias_target: Interval  # from what the estimator aims at by its call weights
    left_after_scaling: Interval
    critic_quality_start: float | None  # share of the return's variance at t = 0
    critic_ceiling_start: float  # the most that any critic could explain
    critic_ceiling_start_stderr: float
    label: str = ""
    count: int = 0
    nonfinite: int = 0
    status: str = "ok"
    truth: str = ""
    truth_norm: float = math.nan  # ‖∇J‖
    truth_relative_stderr: float = math.nan
    variance: Interval = UNKNOWN
    mse: Interval = UNKNOWN  # at the batch
    relative_bias_odd: Interval = UNKNOWN  # on the odd blocks
    mse_even: float = math.nan  # on the even blocks, by which a width is chosen
    mse_odd: float = math.nan  # on the odd ones, by which it is reported
    mse_equal_cost: float = math.nan  # in the time of a batch of FOG

    @property
    def policy(self) -> str:
        """The policy in words, by its success rate."""
        return f"{self.success_rate:.0%} policy"

    @property
    def name(self) -> str:
        """The estimator in words."""
        return NAMES.get(self.estimator, self.estimator)

    @property
    def relative_mse(self) -> Interval:
        """MSE over ‖∇J‖²."""
        return Interval(*(end / self.truth_norm**2 for end in self.mse))

    @property
    def relative_mse_odd(self) -> float:
        """The same on the half that chooses no width."""
        return self.mse_odd / self.truth_norm**2

    @property
    def relative_mse_cost(self) -> float:
        """The same in the time of a batch of FOG."""
        return self.mse_equal_cost / self.truth_norm**2

    @property
    def spread(self) -> Interval:
        """Standard deviation of a batch's mean over ‖∇J‖."""
        ends = (end / BATCH / self.truth_norm**2 for end in self.variance)
        return Interval(*(math.sqrt(end) if end >= 0 else math.nan for end in ends))


@dataclass(frozen=True)
class Pair:
    """0-step + N-step minus N-step alone, on the same episodes."""

    task: str
    stage: int
    critic_fit: str
    form: str
    window: int
    truth_width: float
    relative_difference: Interval  # of squared relative biases
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """0-step + N-step beside N-step alone against the hard gradient."""

    abpt: Estimate
    nstep: Estimate
    difference: Interval  # of squared relative biases
    p_holm: float

    @property
    def whole(self) -> bool:
        """Is the window the whole episode?"""
        return self.abpt.window == self.abpt.horizon

    @property
    def direction(self) -> str:
        """What the 0-step return does to it, where the two cosines' intervals do not overlap."""
        return _apart(self.abpt.cosine, self.nstep.cosine, "nearer", "farther")

    @property
    def length(self) -> str:
        """The same of the two lengths."""
        return _apart(self.abpt.relative_norm, self.nstep.relative_norm, "longer", "shorter")

    @property
    def bias(self) -> str:
        """The same of the relative bias, by the paired test."""
        if not self.p_holm <= LEVEL:
            return "unclear"
        return "falls" if self.difference.estimate < 0 else "rises"

    @property
    def blind(self) -> bool:
        """Are both as far from ∇J as no gradient at all?"""
        return all(one.relative_bias.low >= BLIND for one in (self.abpt, self.nstep))


def _apart(one: Interval, other: Interval, more: str, less: str) -> str:
    return more if one.low > other.high else less if one.high < other.low else "unclear"


def estimates(table: pd.DataFrame, experiment: str) -> list[Estimate]:
    """The rows of single estimators in experiment A or B, all parameters together."""
    return read(Estimate, table, kind="single", experiment=experiment, part="all")


def pairs(table: pd.DataFrame) -> list[Pair]:
    """The paired differences, all parameters together."""
    return read(Pair, table, kind="pair", part="all")


def comparisons(singles: Iterable[Estimate], paired: Iterable[Pair]) -> list[Comparison]:
    """One per pair against the hard truth, with p-values corrected over all of them."""
    hard = [pair for pair in paired if pair.truth_width == HARD]
    known = {(one.estimator, *_key(one)): one for one in singles if one.truth_width == HARD}
    return [
        Comparison(
            known["abpt", *_key(pair)], known["nstep", *_key(pair)], pair.relative_difference, p
        )
        for pair, p in zip(hard, holm([pair.p_value for pair in hard]), strict=True)
    ]


def _key(row: Estimate | Pair) -> tuple[object, ...]:
    return row.task, row.stage, row.critic_fit, row.form, row.window


def by_policy(rows: Iterable[Estimate]) -> list[list[Estimate]]:
    """The rows of each policy, in the order of the table."""
    return list(grouped(rows, lambda row: (row.task, row.stage)).values())


def best_critic(rows: Sequence[Estimate]) -> list[Estimate]:
    """Of each policy the rows of its best critic, and those that need none."""
    fits = {
        policy: min(
            (row.critic_fit for row in mine if row.critic_fit in _BEST),
            key=_BEST.index,
            default="-",
        )
        for policy, mine in grouped(rows, lambda row: (row.task, row.stage)).items()
    }
    return [row for row in rows if row.critic_fit in ("-", fits[row.task, row.stage])]


def middle_window(rows: Iterable[Estimate]) -> int | None:
    """The window that figures show: the middle one, the shorter of two."""
    windows = sorted({row.window for row in rows if row.window is not None})
    return windows[(len(windows) - 1) // 2] if windows else None


def form_of(rows: Iterable[Estimate]) -> str:
    """The form to show: the published one where it was run."""
    return "published" if any(row.form == "published" for row in rows) else "tiled"


def shown_windows(rows: Sequence[Estimate]) -> list[Estimate]:
    """The rows at the middle window, in the form to show."""
    window, form = middle_window(rows), form_of(rows)
    return [
        row for row in rows if row.window is not None and (row.window, row.form) == (window, form)
    ]


def levels(rows: Iterable[Estimate]) -> list[Estimate]:
    """One row per estimator without a width: its best critic,
    N-step and ABPT at the middle window.
    """
    fixed = best_critic([row for row in rows if row.width is None])
    shown = shown_windows(fixed)
    return [row for row in fixed if row.window is None or row in shown]


def best_width(sweep: Iterable[Estimate]) -> Estimate | None:
    """The row of least MSE on the even blocks; report what it has on the odd ones."""
    known = [row for row in sweep if not math.isnan(row.mse_even)]
    return min(known, key=lambda row: row.mse_even, default=None)


def fields_of(rows: Iterable[Estimate], name: str) -> tuple[list[float], list[float], list[float]]:
    """Estimates and ends of an interval of all rows."""
    middle, low, high = zip(*(getattr(row, name) for row in rows), strict=True)
    return list(middle), list(low), list(high)
