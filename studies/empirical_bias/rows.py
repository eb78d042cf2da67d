"""The rows of `empirical_bias`, and what its words and figures read out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from gradlab.statistics import Interval
from gradlab.study.tables import grouped, read
from studies.empirical_bias.statistics import mean_interval, single_interval
from studies.empirical_bias.toys import TOYS
from studies.shared.many import longer

NOTABLE = 0.05  # of the largest derivative along the coordinate: a bias that counts [1]


@dataclass(frozen=True)
class Point:
    """What one method expects at one place of a toy's coordinate."""

    toy: str
    coordinate: float
    method: str
    batch: int
    batches: int
    nonfinite: int
    truth: float
    truth_reach: float
    expectation: Interval
    bias: Interval
    median: Interval  # of batches
    variance: Interval  # of an episode
    weight: Interval  # of first order


@dataclass(frozen=True)
class Sweep:
    """A toy along its coordinate."""

    toy: str
    points: list[Point]

    @classmethod
    def all(cls, table: pd.DataFrame) -> list[Sweep]:
        """Of every toy, in the order of the table."""
        by_toy = grouped(read(Point, table, kind="sweep"), lambda point: point.toy)
        return [
            cls(toy, sorted(points, key=lambda p: p.coordinate)) for toy, points in by_toy.items()
        ]

    @property
    def methods(self) -> dict[str, list[Point]]:
        return grouped(self.points, lambda point: point.method)

    @property
    def scale(self) -> float:
        """The largest derivative along the coordinate."""
        return max(abs(point.truth) for point in self.points)

    def biased(self, name: str) -> list[Point]:
        """Points where the whole bias is notable, all of the toy's intervals together at 95 %."""
        return [p for p in self.methods.get(name, []) if self.reach(p).low > NOTABLE * self.scale]

    def unbiased(self, name: str) -> bool:
        """Whether no point can have a notable bias."""
        points = self.methods.get(name, [])
        return bool(points) and all(self.reach(p).high < NOTABLE * self.scale for p in points)

    def reach(self, point: Point) -> Interval:
        """The size of a bias, its interval as long as many comparisons ask for (Bonferroni)."""
        known = point.batches - point.nonfinite
        estimate, _, high = point.bias
        if known < 2 or not math.isfinite(high):
            return Interval(abs(estimate), 0.0, math.inf)
        many = len(self.points)
        half = (high - estimate - point.truth_reach) * longer(many, known - 1)
        half += point.truth_reach * longer(many)
        return Interval(abs(estimate), max(0.0, abs(estimate) - half), abs(estimate) + half)


@dataclass(frozen=True)
class Look:
    """Where a run is."""

    toy: str
    method: str
    trial: int
    update: int
    last: bool
    coordinate: float
    objective: float
    weight: float
    nonfinite: int


@dataclass(frozen=True)
class Flow:
    """Where exact expectations lead."""

    toy: str
    method: str
    end: float
    zero: float
    best: float  # J at the best place
    single: Interval  # ends of single runs, many plain ones: their median and 95 % of them


@dataclass(frozen=True)
class Run:
    """All trials of one method on one toy."""

    toy: str
    method: str
    looks: list[Look]
    flow: Flow | None  # of FOG and PG on one decision
    best: float = math.nan  # the largest J, where it is known

    @classmethod
    def all(cls, table: pd.DataFrame) -> list[Run]:
        """Every toy and method, in the order of the table."""
        flows = {(f.toy, f.method): f for f in read(Flow, table, kind="flow")}
        by = grouped(read(Look, table, kind="ascent"), lambda look: (look.toy, look.method))
        best = {f.toy: f.best for f in flows.values()}
        return [
            cls(*key, looks, flows.get(key), best.get(key[0], math.nan))
            for key, looks in by.items()
        ]

    @property
    def lasts(self) -> list[Look]:
        return [look for look in self.looks if look.last]

    @property
    def updates(self) -> int:
        return max(look.update for look in self.looks)

    @property
    def end(self) -> Interval:
        """The coordinate at the end, over trials."""
        return _mean([look.coordinate for look in self.lasts])

    @property
    def objective(self) -> Interval:
        """J at the end, over trials."""
        return _mean([look.objective for look in self.lasts])

    @property
    def begin(self) -> float:
        """J at the start."""
        return next(look.objective for look in self.looks if look.update == 0)

    @property
    def gains(self) -> list[float]:
        """What each trial gained, by trial."""
        return [look.objective - self.begin for look in sorted(self.lasts, key=lambda x: x.trial)]

    @property
    def weight(self) -> float:
        """The mean weight of first order along the way; NaN for a part."""
        known = [look.weight for look in self.looks if math.isfinite(look.weight)]
        return sum(known) / len(known) if known else math.nan

    @property
    def published(self) -> float | None:
        """The published end, if there is one and as many updates were done."""
        toy = TOYS[self.toy]
        return dict(toy.ends).get(self.method) if self.updates == toy.iterations else None

    @property
    def single(self) -> Interval:
        """Where one more run would end, with 95 %: by many plain runs where there are, else by
        Student's law from these."""
        if self.flow is not None:
            return self.flow.single
        return single_interval(_finite([look.coordinate for look in self.lasts]))

    @property
    def agrees(self) -> bool | None:
        """Whether the published end may be that of a single run of ours; None where that cannot be
        said."""
        if self.published is None or not math.isfinite(self.single.high):
            return None
        return self.single.low <= self.published <= self.single.high


@dataclass(frozen=True)
class Score:
    """A variant of the benchmark on one problem."""

    problem: str
    variant: str
    rule: str
    source: str
    baseline: str
    batch: int
    batches: int
    relative_bias: Interval
    variance: Interval  # of an update, over the squared gradient
    mse: Interval  # the same
    over_pg: Interval  # MSE less that of PG
    needed: Interval  # batches that tell the two apart
    over_same: Interval  # MSE less that with weights from the same batch

    @property
    def biased(self) -> bool:
        """Whether the relative bias is seen to be above 10 %."""
        return self.relative_bias.low > 0.1


def told_apart(family: Sequence[Score]) -> Iterator[int]:
    """Of each, whether its MSE is below (−1) or above (1) that with weights from the same batch, or
    cannot be told from it (0), all of a family at once at 95 %."""
    for score in family:
        estimate, low, high = score.over_same
        wide = longer(len(family), score.batches - 1)
        below, above = (estimate + wide * (end - estimate) for end in (low, high))
        yield (below > 0) - (above < 0)


def scores(table: pd.DataFrame) -> list[Score]:
    """The benchmark, in the order of the table."""
    return read(Score, table, kind="benchmark")


def _mean(values: Sequence[float]) -> Interval:
    return mean_interval(_finite(values))


def _finite(values: Sequence[float]) -> torch.Tensor:
    known = [value for value in values if math.isfinite(value)]
    return torch.tensor(known or [math.nan], dtype=torch.float64)
