"""The rows of `mixture_ratio`, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from gradlab.statistics import Interval
from gradlab.study.tables import grouped, read
from studies.mixture_ratio.alphas import READINGS
from studies.mixture_ratio.cells import ALL, student
from studies.mixture_ratio.training import METHODS
from studies.shared.many import longer

ABOUT_ONE = 0.9  # above it α is "about 1"
LITTLE = 0.1  # below it SG has next to nothing
PUBLISHED = next(iter(READINGS))


@dataclass(frozen=True)
class Alpha:
    """α over groups, of one step or of everything."""

    method: str  # training, or preset/contact of a rollout
    stage: int  # updates; −1 of a rollout
    mixture: str  # sg+qg, sg+pg, aobg
    variant: str  # reading, or window
    window: int
    step: int  # −1: over all of them
    value: Interval
    groups: int
    size: int
    horizon: int
    gamma: float | None = None

    @property
    def policy(self) -> str:
        """In words."""
        return self.method if self.stage < 0 else f"{self.method} after {self.stage} updates"

    @property
    def trained(self) -> bool:
        """Whether it belongs to one of the two trainings."""
        return self.method in METHODS


@dataclass(frozen=True)
class OfGroup:
    """α of one group of episodes; groups of all stages have the same noise."""

    method: str
    stage: int
    mixture: str
    variant: str
    group: int
    alpha: float


@dataclass(frozen=True)
class Policy:
    """How good a policy and its critic are."""

    method: str
    stage: int
    horizon: int
    speed: float  # while alive [m/s]
    survival: float
    std: float
    critic_start: float  # share of the return's variance at t = 0 that Q explains
    critic_start_stderr: float
    critic_ceiling: float


@dataclass(frozen=True)
class Change:
    """α at the last stage less that at the first, group by group."""

    method: str
    mixture: str
    variant: str
    value: Interval

    @property
    def said(self) -> str:
        if self.value.low > 0:
            return "rises"
        return "falls" if self.value.high < 0 else "is not seen to change"


def whole(table: pd.DataFrame, mixture: str) -> list[Alpha]:
    """α over all steps."""
    found = read(Alpha, table, kind="alpha", mixture=mixture)
    return [one for one in found if one.step == ALL]


def by_step(table: pd.DataFrame, mixture: str) -> list[Alpha]:
    """α of single steps."""
    found = read(Alpha, table, kind="alpha", mixture=mixture)
    return [one for one in found if one.step != ALL]


def policies(table: pd.DataFrame) -> list[Policy]:
    return read(Policy, table, kind="policy")


def changes(table: pd.DataFrame, mixture: str) -> list[Change]:
    """Over each training, for every variant that was measured at two stages or more."""
    found = [one for one in read(OfGroup, table, kind="group", mixture=mixture) if one.stage >= 0]
    result: list[Change] = []
    for (method, variant), mine in grouped(found, lambda one: (one.method, one.variant)).items():
        stages = grouped(mine, lambda one: one.stage)
        first, last = (
            torch.tensor([one.alpha for one in sorted(stages[k], key=lambda one: one.group)])
            for k in (min(stages), max(stages))
        )
        if len(stages) > 1:
            result.append(Change(method, mixture, variant, student(last - first)))
    return result


def share(found: Sequence[Alpha], test: Callable[[Interval], bool]) -> tuple[int, int]:
    """Of how many a test is true, and of how many in all; of intervals that hold for all of them at
    once (Bonferroni)."""
    tested = [test(at_once(one, len(found))) for one in found]
    return sum(tested), len(tested)


def at_once(one: Alpha, many: int) -> Interval:
    """The interval of one of so many."""
    middle, low, high = one.value
    half = max(middle - low, high - middle)  # the side that is not cut at 0 or 1
    half *= longer(many, one.groups - 1)
    return Interval(middle, max(middle - half, 0.0), min(middle + half, 1.0))


def about_one(found: Sequence[Alpha]) -> str:
    """Is α about 1?

    Fixed before the run: "holds" if every interval is above 0.9, "does not hold" if every one is
    below, "depends on the policy and the window" if there are both, else it cannot be told. The
    intervals are those of all cases at once.
    """
    above, total = share(found, lambda value: value.low > ABOUT_ONE)
    below, _ = share(found, lambda value: value.high < ABOUT_ONE)
    if above == total:
        return "holds"
    if below == total:
        return "does not hold"
    return "depends on the policy and the window" if above and below else "cannot be told"


def between(found: Sequence[Alpha]) -> str:
    """Is α in between, so that both gradients count? By the same ladder, from 0.1 to 0.9."""
    inside, total = share(found, lambda v: LITTLE < v.low and v.high < ABOUT_ONE)
    outside, _ = share(found, lambda v: v.high < LITTLE or v.low > ABOUT_ONE)
    if inside == total:
        return "holds"
    if outside == total:
        return "does not hold"
    return "depends on the policy" if inside and outside else "cannot be told"
