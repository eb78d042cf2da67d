"""What a training spends until its return is at a threshold, and how many times more PPO does.

The rules, fixed before any run. A training crosses where its evaluated return first is at the
threshold, linear between evaluations. Of an arm it is the number that more than half of its seeds
spend at most (∞ if half of them or more do not cross). The ratio is PPO's number over APG's, with
the percentile interval of a bootstrap by seeds within arms at 95 %. Where PPO's number is ∞, all
that it had is in its place, and the ratio is a lower bound; where APG's is, the ratio is 0. That is
the interval's lower end; of its upper end a ratio is ∞ where PPO's number is, and where APG's is,
all that APG had is in its place. (Upper ends were the lower bounds' until the first run was read.)

On one task APG needs *fewer* where the interval lies above 1, and not where it lies below; where
neither crosses it cannot be told. The claim "fewer" holds if it does on every task with a published
threshold, and does not hold if it does not on one of them. The claim "3.9 to 15.9 times" holds if
on all of these the interval meets that range, and does not hold if on one it lies beside it (a
lower bound: above it). Else it cannot be told. The same is said of a threshold of ours, nine tenths
of the way from before any training to the best arm's end on the task, on all tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics import Interval
from studies.shared.curves.claims import FAILS, HOLDS, UNKNOWN
from studies.shared.curves.figures import AXES
from studies.shared.curves.rows import Curve, learnt

THRESHOLDS = {"point_mass_navigate": -10.0, "push_t": -1.0, "franka_reach": 0.5}
PUBLISHED = {
    "point_mass_1d": 6.7, "point_mass_navigate": 9.2, "push_t": 3.9, "franka_reach": 15.9,
}  # fmt: skip
RANGE = (3.9, 15.9)
RESAMPLES = 4_000


class Ratio(NamedTuple):
    """PPO's spending over APG's, on one task and by one way to count."""

    task: str
    unit: str  # a key of `figures.AXES`
    threshold: float
    published: bool  # the threshold is
    ours: float  # that of APG
    theirs: float  # that of PPO, or all that it had
    ratio: Interval
    censored: bool  # PPO did not cross: a lower bound

    @property
    def fewer(self) -> str:
        """Whether APG needs fewer."""
        return HOLDS if self.ratio.low > 1 else FAILS if self.ratio.high < 1 else UNKNOWN

    @property
    def within(self) -> str:
        """Whether the interval meets the published range."""
        low, high = RANGE
        if self.ratio.low > high or self.ratio.high < low:
            return FAILS
        return UNKNOWN if self.censored or math.isinf(self.ours) else HOLDS


def thresholds_of(task: str, known: list[Curve]) -> list[tuple[float, bool]]:
    """That of the paper, if it has one, and that of `rows.learnt`; and which is the paper's."""
    found = [(THRESHOLDS[task], True)] if task in THRESHOLDS else []
    return [*found, (learnt(known), False)]


def ratio(ours: Curve, theirs: Curve, count: str, threshold: float, published: bool) -> Ratio:
    """On one task; `count` is a key of `figures.AXES`."""
    cost = AXES[count]
    spent = [curve.first(threshold, cost(curve)) for curve in (ours, theirs)]
    ours_had, theirs_had = (float(np.median(cost(curve)[:, -1])) for curve in (ours, theirs))
    generator = np.random.default_rng(0)
    mine, other = (
        _middle(values[generator.integers(len(values), size=(RESAMPLES, len(values)))])
        for values in spent
    )
    ends = zip(_over(mine, other, ours_had, theirs_had), (0.025, 0.975), strict=True)
    low, high = (float(np.quantile(found, q, method="nearest")) for found, q in ends)
    one, other = (_middle(values[None]) for values in spent)
    middle = float(_over(one, other, ours_had, theirs_had)[0][0])
    one, other = float(one[0]), float(other[0])
    censored = math.isinf(other)
    return Ratio(
        ours.arm.task, count, threshold, published, one, theirs_had if censored else other,
        Interval(middle, low, high), censored,
    )  # fmt: skip


def ratios(tasks: Mapping[str, list[Curve]], count: str) -> list[Ratio]:
    """Of every task on which both were trained, by every threshold."""
    found = []
    for task, known in tasks.items():
        by_name = {curve.arm.algorithm: curve for curve in known}
        if {"apg", "ppo"} <= by_name.keys():
            both = by_name["apg"], by_name["ppo"]
            found += [ratio(*both, count, *at) for at in thresholds_of(task, known)]
    return found


def verdict(each: list[str]) -> str:
    """Of a claim on all tasks, from what is told on each."""
    if FAILS in each:
        return FAILS
    return HOLDS if each and set(each) == {HOLDS} else UNKNOWN


def _middle(values: NDArray) -> NDArray:
    """Along the last axis: what more than half of them are at most."""
    return np.sort(values, axis=-1)[..., values.shape[-1] // 2]


def _over(
    ours: NDArray, theirs: NDArray, ours_had: float, theirs_had: float
) -> tuple[NDArray, NDArray]:
    """The least and the most that the ratio can be, PPO's number over APG's.

    They differ where one did not cross: it spends more than all that it had. A crossing before any
    training costs nothing; it counts as one step.
    """
    least = np.maximum(np.where(np.isinf(theirs), theirs_had, theirs), 1.0) / np.maximum(ours, 1.0)
    known = np.where(np.isinf(ours), ours_had, ours)
    return least, np.maximum(theirs, 1.0) / np.maximum(known, 1.0)
