"""The long form and the figure of `reward_robustness`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradlab.study.tables import grouped
from studies.reward_robustness.answer import claims
from studies.shared.curves import words
from studies.shared.curves.figures import draw
from studies.shared.curves.rows import curves


def summarise(table: pd.DataFrame) -> str:
    """Claims, arms, what it took to learn, and all pairs."""
    return words.summarise(table, claims(table))


def plot(table: pd.DataFrame, path: Path) -> None:
    """Gates per episode against steps and time, a column per reward."""
    panels = grouped(curves(table).values(), lambda curve: f"reward by {curve.arm.variant}")
    across = ("environment steps", "processor time [s]")
    draw(path, "Gates passed, by what racing rewards", panels, across, goal=True)
