"""The figure of `learning_curves`: return by steps, gradient steps and time, task by task."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.shared.curves import figures
from studies.shared.curves.rows import by_task, curves


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per task, a row per way to count."""
    title = "Who learns faster, by what is spent?"
    figures.draw(path, title, by_task(curves(table)), tuple(figures.AXES))
