"""The rows of `parameter_residual`, and what they say over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used

from gradlab.statistics import Interval
from gradlab.study.tables import read
from studies.parameter_residual.config import ALL
from studies.parameter_residual.trainings import NONE
from studies.shared.many import longer


@dataclass(frozen=True)
class Gap:
    """One training against a reference, after so many updates."""

    number: int  # of the seed
    updates: int
    method: str
    part: str
    other: bool
    reference: str  # full or own
    distance: float  # ‖θ − θ_ref‖
    moved: float  # ‖θ_ref − θ_0‖
    relative: float  # the first over the second [1]
    actions: float  # root mean square difference of mean actions [range of an action]
    earned: float = field(metadata={"column": "return"})  # undiscounted, of mean actions [reward]
    reference_return: float  # [reward]
    gain: float  # return less that of the reference, on the same episodes [reward]


@dataclass(frozen=True)
class Angle:
    """A gradient against the one with nothing detached, at states of the full training."""

    number: int
    updates: int
    method: str
    part: str
    reference: str
    cosine: Interval
    length: Interval  # over that of the reference [1]
    truth_relative_stderr: float


@dataclass(frozen=True)
class Judged:
    """A critic's action gradient against the true one."""

    number: int
    updates: int
    method: str
    part: str
    cosine: Interval
    length: Interval


@dataclass(frozen=True)
class Found:
    """All rows of a run."""

    gaps: list[Gap]
    angles: list[Angle]
    critics: list[Judged]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Found:
        return cls(
            read(Gap, table, kind="distances"),
            read(Angle, table, kind="gradients"),
            read(Judged, table, kind="critics"),
        )

    @property
    def parts(self) -> list[str]:
        """Those that were detached; all of them last."""
        names = dict.fromkeys(gap.part for gap in self.gaps if gap.part != NONE)
        return sorted(names, key=lambda name: name == ALL)

    @property
    def updates(self) -> list[int]:
        """Checkpoints."""
        return sorted({gap.updates for gap in self.gaps})

    @property
    def seeds(self) -> int:
        return len({gap.number for gap in self.gaps})

    def of_arm(
        self,
        method: str,
        part: str,
        reference: str = "full",
        *,
        other: bool = False,
        updates: int | None = None,
    ) -> list[Gap]:
        """One training of every seed, in the order of seeds; by default at the end."""
        updates = self.updates[-1] if updates is None else updates
        wanted = (method, part, reference, other, updates)
        rows = (g for g in self.gaps if _key(g) == wanted)
        return sorted(rows, key=lambda gap: gap.number)

    def ratio(
        self,
        of: str,
        part: str,
        reference: str = "full",
        *,
        many: int = 1,
    ) -> Interval:
        """How far trainings with the 0-step return end from the reference, over how far those
        without do: the geometric mean over seeds, paired, for `many` such intervals at once.
        """
        with_it = self.of_arm("abpt", part, reference)
        return paired_ratio(with_it, self.of_arm("nstep", part), of, many)

    def beyond_chance(self, of: str, part: str, *, many: int = 1) -> Interval:
        """The same of trainings without the 0-step return over those with other random numbers."""
        chance = self.of_arm("nstep", NONE, other=True)
        return paired_ratio(self.of_arm("nstep", part), chance, of, many)

    def gain(self, part: str, *, many: int = 1) -> Interval:
        """What the 0-step return adds to the return where this part is detached [reward]."""
        pairs = zip(self.of_arm("abpt", part), self.of_arm("nstep", part), strict=True)
        return over_seeds([one.earned - other.earned for one, other in pairs], many)

    def over_seeds(self, gaps: Iterable[Gap], of: str) -> Interval:
        """The mean of a column."""
        return over_seeds([getattr(gap, of) for gap in gaps])

    def angle(
        self, of: str, method: str, part: str, updates: int, reference: str = "full"
    ) -> Interval:
        """Mean over seeds of a gradient's cosine with the full one, or of its relative length."""
        wanted = (method, part, updates, reference)
        chosen = (a for a in self.angles if (a.method, a.part, a.updates, a.reference) == wanted)
        mean = over_seeds([getattr(angle, of).estimate for angle in chosen])
        return _within(mean) if of == "cosine" else mean

    def critic(self, method: str, part: str) -> Interval:
        """Mean over seeds of the cosine of a critic's action gradient with the true one."""
        chosen = (one for one in self.critics if (one.method, one.part) == (method, part))
        return _within(over_seeds([one.cosine.estimate for one in chosen]))


def _key(gap: Gap) -> tuple[Any, ...]:
    return gap.method, gap.part, gap.reference, gap.other, gap.updates


def _within(cosine: Interval) -> Interval:
    """Ends beyond −1 and 1, which Student's law does not know of, moved there."""
    return Interval(*(min(max(end, -1.0), 1.0) for end in cosine))


def over_seeds(values: Sequence[float], many: int = 1) -> Interval:
    """The mean with Student's interval, at 95 % for `many` intervals at once; NaN for ends of
    fewer than two."""
    given = np.asarray(values, dtype=float)
    count = len(given)
    if count < 2:
        return Interval(float(given.mean()) if count else math.nan, math.nan, math.nan)
    error = float(given.std(ddof=1)) / math.sqrt(count)
    reach = error * float(scipy.stats.t.ppf(0.975, count - 1)) * longer(many, count - 1)
    mean = float(given.mean())
    return Interval(mean, mean - reach, mean + reach)


def paired_ratio(top: Sequence[Gap], bottom: Sequence[Gap], of: str, many: int = 1) -> Interval:
    """Geometric mean over seeds of a column's ratio, both trainings of the same seed."""
    value: Callable[[Gap], float] = lambda gap: max(getattr(gap, of), 1e-12)
    logs = [math.log(value(a) / value(b)) for a, b in zip(top, bottom, strict=True)]
    return Interval(*(math.exp(end) for end in over_seeds(logs, many)))
