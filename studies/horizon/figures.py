"""The figure of `horizon`: bias, variance and MSE by window, and the theorem's bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import grouped
from studies.horizon.rows import Bound, Single, Sweep, bounds_of, singles_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {"nstep": "N-step", "abpt": "ABPT", "agpo": "AGPO"}
READ: dict[str, Callable[[Single], Interval]] = {
    "relative bias [1]": lambda row: row.relative_bias,
    "variance [‖∇J‖²]": lambda row: row.relative_variance,
    "MSE(64) [‖∇J‖²]": lambda row: row.relative_mse,
}


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per task and critic: bias, variance and MSE of tiled windows, then the theorem's
    gradient, one window from the start divided by h, and its bound.

    Bands are 95 % intervals. A bias whose estimate lies outside its own stands at the nearer end.
    """
    from gradlab.study import figures

    singles = grouped(singles_of(table), lambda row: (row.task, row.critic))
    bounds = grouped(bounds_of(table), lambda row: (row.task, row.critic))
    with figures.style():
        figure, axes = figures.panels(
            4,
            len(singles),
            "What a longer window does, and AGPO's bound of the variance",
            width=2.7,
            height=2.1,
        )
        for column, (case, rows) in enumerate(singles.items()):
            axes[0, column].set_title(f"{case[0]}, {case[1]} critic", fontsize="medium")
            for row, (label, of) in enumerate(READ.items()):
                _curves(axes[row, column], rows, of)
                axes[row, 0].set_ylabel(label)
            _bound(axes[3, column], bounds[case])
            axes[3, column].set_xlabel("window h [steps]")
        axes[3, 0].set_ylabel("variance of eq. 4 [reward²]")
        figures.note(
            figure,
            "Bands are 95 % intervals. A bias that noise hides has a band down to 0 and, where its estimate is below all that "
            "is shown, no line. Bottom: one window from the start, divided by h.",
        )
        figures.legend(figure, axes)
        figures.save(figure, path)


def _curves(axes: Axes, rows: Sequence[Single], of: Callable[[Single], Interval]) -> None:
    from gradlab.study import figures

    for sweep in Sweep.of(rows):
        windows = [row.window for row in sweep.rows]
        middle, low, high = np.array([of(row) for row in sweep.rows], dtype=float).T
        middle = np.clip(middle, low, high)
        label = LABELS.get(sweep.estimator, sweep.estimator)
        figures.line(axes, windows, middle, low, high, name=sweep.estimator, label=label)
    axes.set_yscale("log")
    _windows(axes, rows)


def _bound(axes: Axes, rows: Sequence[Bound]) -> None:
    from gradlab.study import figures

    for name, mine in grouped(rows, lambda row: row.estimator).items():
        windows = [row.window for row in mine]
        middle, low, high = np.array([row.variance for row in mine], dtype=float).T
        figures.line(axes, windows, middle, low, high, name=name, label=LABELS.get(name, name))
    mine = sorted((row for row in rows if row.estimator == "agpo"), key=lambda row: row.window)
    windows = [row.window for row in mine]
    for values, dashes, label in (
        ([row.variance_bound for row in mine], "--", "32 L_Q² L_θ²/h"),
        ([row.typical_bound for row in mine], ":", "the same with typical slopes"),
    ):
        axes.plot(windows, values, color="#555555", linestyle=dashes, label=label)
    axes.set_yscale("log")
    _windows(axes, rows)


def _windows(axes: Axes, rows: Sequence[Single] | Sequence[Bound]) -> None:
    windows = sorted({row.window for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(windows, [str(window) for window in windows])
    axes.minorticks_off()
