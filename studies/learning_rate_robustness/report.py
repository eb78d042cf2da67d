"""The long form and the figure of `learning_rate_robustness`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradlab.study.tables import grouped
from studies.learning_rate_robustness.answer import claims
from studies.shared.curves import words
from studies.shared.curves.figures import draw
from studies.shared.curves.rows import curves


def summarise(table: pd.DataFrame) -> str:
    """Claims, arms, what it took to learn, and all pairs."""
    return words.summarise(table, claims(table))


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per algorithm, a line per rate."""
    panels = grouped(curves(table).values(), lambda curve: curve.arm.algorithm)
    draw(path, "Return by learning rate", panels)
