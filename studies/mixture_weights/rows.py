"""The rows of `mixture_weights`, the verdicts on them, and what its words and figures read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.pairs import holm
from gradlab.study.tables import grouped, read

LEVEL = 0.05  # of every family of tests, shared by all of its rows
SMALL = 0.01  # a shift within this counts as none [of the truth's length]
NAMES = {"ivw": "inverse variance", "median": "medians", "best_linear": "BestLinear"}


@dataclass(frozen=True)
class Error:
    """One way of weighing, against the truth."""

    task: str
    pair: str
    size: int  # N
    unbiased: bool  # are the parts?
    known: bool  # is there a truth, or the cross-fitted mixture in its place?
    horizon: int
    rule: str
    level: str
    source: str
    along: Interval  # ⟨E ĝ − g*, g*⟩/‖g*‖²
    mse: Interval  # of a mean of N samples, in ‖g*‖²
    relative_bias: Interval
    variance: Interval  # of the mean of a group of N, in ‖g*‖²; groups in pairs
    replicates: int
    episodes: int
    truth: str
    truth_relative_stderr: float
    nonfinite: int
    status: str


@dataclass(frozen=True)
class Contrast:
    """Two ways of weighing on the same episodes; p-values are for the whole family once they come
    out of `contrasts`.
    """

    task: str
    pair: str
    size: int
    unbiased: bool
    rule: str
    level: str
    contrast: str  # shift; same/cross, pilot/cross, level, rule: ratios of mean square errors
    value: Interval
    p_value: float

    @property
    def setting(self) -> str:
        """Task and parts in words."""
        return f"{self.task} ({spelled(self.pair)})"

    @property
    def shift(self) -> str:
        """What a shift says: biased, none, or unclear."""
        if self.p_value < LEVEL:
            return "biased"
        return "none" if self.small else "unclear"

    @property
    def small(self) -> bool:
        """Whether a shift is within 1 %, seen or not."""
        return -SMALL < self.value.low and self.value.high < SMALL

    @property
    def side(self) -> str:
        """What a ratio says of what is above the line: better, worse, or unclear."""
        if not self.p_value < LEVEL:
            return "unclear"
        return "better" if self.value.estimate < 1 else "worse"


def spelled(pair: str) -> str:
    """ "FOG + PG" """
    names = {"fog": "FOG", "pg": "PG", "qg": "QG", "split": "Split"}
    return " + ".join(names.get(name, name) for name in pair.split("+"))


def errors(table: pd.DataFrame) -> list[Error]:
    return read(Error, table, kind="error")


def contrasts(table: pd.DataFrame, *names: str, first: bool = False) -> list[Contrast]:
    """The contrasts of these names, p-values corrected over all of them (Holm); if asked for, those
    of the first rule at the first level alone: what the question is about.
    """
    found = [one for one in read(Contrast, table, kind="contrast") if one.contrast in names]
    if first:
        main = first_of(table)
        found = [one for one in found if (one.rule, one.level) == main]
    adjusted = holm([one.p_value for one in found])
    return [replace(one, p_value=p) for one, p in zip(found, adjusted, strict=True)]


def first_of(table: pd.DataFrame) -> tuple[str, str]:
    """The first rule and the first level."""
    first = errors(table)[0]
    return first.rule, first.level


def shift_verdict(found: Sequence[Contrast]) -> str:
    """Do weights from the same samples bias mixtures of unbiased parts?

    Fixed before the run: "holds" if every setting and N is biased, "depends on ..." if some are,
    "does not hold" if none is and all intervals are within 1 %, else it cannot be told.
    """
    kinds = {one.shift for one in found}
    if "biased" in kinds:
        return "holds" if kinds == {"biased"} else "depends on N and on the parts"
    return "does not hold" if kinds == {"none"} else "cannot be told at this budget"


def by_setting(found: Iterable[Contrast]) -> dict[str, list[Contrast]]:
    """By task and parts, N ascending."""
    return {
        name: sorted(mine, key=lambda one: one.size)
        for name, mine in grouped(found, lambda one: one.setting).items()
    }
