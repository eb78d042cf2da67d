"""The figures of `apg_suite`: return, and success, by what is spent."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.shared.curves import figures
from studies.shared.curves.rows import by_task, curves


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per task, a row per way to count; how often the goal is reached beside it."""
    tasks = by_task(curves(table))
    across = tuple(figures.AXES)
    figures.draw(path, "Return of APG and PPO, by what is spent", tasks, across)
    known = {name: found for name, found in tasks.items() if found[0].goal is not None}
    if known:
        title = "Success of APG and PPO, by what is spent"
        figures.draw(path.with_name(f"{path.name}_success"), title, known, across, goal=True)
