"""The long form and the figure of `ablation`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.ablation.answer import claims
from studies.shared.curves import words
from studies.shared.curves.figures import draw
from studies.shared.curves.rows import by_task, curves


def summarise(table: pd.DataFrame) -> str:
    """Claims, arms, what it took to learn, and all pairs."""
    return words.summarise(table, claims(table))


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per task, a line per variant."""
    draw(path, "Return of ABPT without its parts", by_task(curves(table)))
