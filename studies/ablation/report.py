"""The long form and the figures of `ablation`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradlab.study.tables import grouped
from studies.ablation.answer import claims
from studies.ablation.variants import FULL
from studies.shared.curves import figures, words
from studies.shared.curves.rows import Curve, curves


def summarise(table: pd.DataFrame) -> str:
    """Claims, arms, what it took to learn, and all pairs."""
    return words.summarise(table, claims(table))


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per task and algorithm: a line per variant, or where they are many what each of them
    reaches."""
    known = list(curves(table).values())
    several = len({curve.arm.algorithm for curve in known}) > 1
    panels = grouped(known, lambda curve: _heading(curve, several))
    if max(map(len, panels.values())) <= len(figures.VARIANTS):
        figures.draw(path, "Return of ABPT without its parts", panels)
    else:
        figures.ends(path, "What training reaches with one option changed", panels, FULL)


def _heading(curve: Curve, several: bool) -> str:
    return f"{curve.arm.task}, {curve.arm.algorithm}" if several else curve.arm.task
