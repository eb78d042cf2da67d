"""The rows of `contact_stiffness` that its words read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import grouped, read

NAMES = {
    "fog": "FOG",
    "pg": "PG",
    "qg": "QG",
    "nstep": "N-step (tiled)",
    "inverse_variance": "inverse variance (FOG, PG)",
}
PRODUCTS = {"product": "the product P_T", "summed": "its sum over pairs of steps"}


@dataclass(frozen=True)
class Estimate:
    """One estimator at one width and horizon against its truth."""

    task: str
    width: float  # of contact [m]
    horizon: int  # [steps]
    estimator: str
    truth: str
    truth_relative_stderr: float
    cosine: Interval
    relative_norm: Interval
    relative_bias: Interval
    variance: Interval  # [return²]
    variance_exact: float = math.nan  # by quadrature [return²]
    quadrature_change: float = math.nan  # of the gradient, when panels are halved [1]
    critic_quality: float | None = None  # share of the returns' variance
    critic_start: float = math.nan  # at t = 0
    critic_start_stderr: float = math.nan
    critic_ceiling: float = math.nan
    critic_ceiling_stderr: float = math.nan

    @property
    def size(self) -> str:
        """The relative bias, or what it is below where its interval starts at 0."""
        low, high = self.relative_bias.low, self.relative_bias.high
        return f"{self.relative_bias}" if low > 0 else f"below {high:.2g}"


@dataclass(frozen=True)
class Growth:
    """A law fitted to variances: over the horizon, over Jacobians, or over stiffness."""

    task: str
    estimator: str
    law: str  # power, exponential, product, summed, stiffness
    rate: Interval
    misfit: float  # χ² per degree of freedom
    points: int
    width: float | None = None  # [m]
    horizon: int | None = None  # [steps]
    spread: float = math.nan  # of what it is fitted against, in e-folds


@dataclass(frozen=True)
class Crossing:
    """Where FOG's variance rises above PG's at one width."""

    task: str
    width: float  # [m]
    crossing: Interval  # [steps]
    last_ratio: Interval  # FOG/PG at the longest horizon


@dataclass(frozen=True)
class Jacobian:
    """Growth of step Jacobians and of their product at one width."""

    task: str
    width: float  # [m]
    step_norm: Interval  # ln of one step's norm
    typical: Interval  # ln of the product's norm, per step
    square: Interval  # ln of the product's mean square, per step


@dataclass(frozen=True)
class Rows:
    """Everything that was measured of one task, or of one of its widths."""

    estimates: list[Estimate]
    growths: list[Growth]
    crossings: list[Crossing]
    jacobians: list[Jacobian]

    @classmethod
    def by_task(cls, table: pd.DataFrame) -> dict[str, Rows]:
        """The rows of each task, in the order of the table."""
        return {
            str(task): cls(
                read(Estimate, rows, kind="estimator"),
                read(Growth, rows, kind="growth"),
                read(Crossing, rows, kind="crossing"),
                read(Jacobian, rows, kind="jacobian"),
            )
            for task, rows in table.groupby("task", sort=False)
        }

    def by_width(self) -> Iterator[tuple[float, Rows]]:
        """The rows of each width, from smooth to hard."""
        parts = [grouped(rows, lambda row: row.width) for rows in vars(self).values()]
        widths = {width for part in parts for width in part if width is not None}
        for width in sorted(widths, reverse=True):
            yield width, Rows(*(part.get(width, []) for part in parts))

    def of(self, estimator: str) -> list[Estimate]:
        """The rows of one estimator."""
        return [one for one in self.estimates if one.estimator == estimator]

    def laws(self, estimator: str) -> dict[str, Growth]:
        """The fits of one estimator at one width, by law."""
        return {fit.law: fit for fit in self.growths if fit.estimator == estimator}
