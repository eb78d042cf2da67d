"""What trainings' gradients were worth, by arm and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.study.tables import grouped, read
from studies.shared.curves.arms import Arm


@dataclass(frozen=True)
class Worth:
    """The gradient of one training at one of its evaluations, if it was measured there."""

    task: str
    algorithm: str
    variant: str
    seed: int
    point: int
    bias: float | None  # relative to the gradient of whole episodes [1]
    cosine: float | None
    variance: float | None  # of an episode, over the squared norm of that gradient [1]
    window: float | None  # mean length of windows [steps]

    @property
    def arm(self) -> Arm:
        return Arm(self.task, self.algorithm, self.variant)


def worths(table: pd.DataFrame) -> Mapping[Arm, dict[int, list[Worth]]]:
    """By arm and point, what was measured."""
    rows = [row for row in read(Worth, table) if row.bias is not None]
    by_arm = grouped(rows, lambda row: row.arm)
    return {arm: grouped(found, lambda row: row.point) for arm, found in by_arm.items()}


def spread(rows: list[Worth], name: str) -> str:
    """The median over seeds, with the least and the largest."""
    values: NDArray = np.array([getattr(row, name) for row in rows], dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    middle, low, high = (float(x) for x in (np.median(values), values.min(), values.max()))
    return f"{middle:.2g} ({low:.2g} to {high:.2g})"


def middle(rows: list[Worth], name: str) -> float:
    """The median over seeds."""
    values = [float(getattr(row, name)) for row in rows]
    return float(np.nanmedian(values)) if values else math.nan
