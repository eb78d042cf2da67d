"""The figure of `estimator_in_training`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from studies.estimator_in_training.rows import PREDICTORS, Seen, student

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradlab.study.figures import Look


def plot(table: pd.DataFrame, path: Path) -> None:
    """Rank correlations and gain against error; a column per task of learning curves, and of ranks
    by error and by return.
    """
    from gradlab.study import figures

    seen = Seen.of(table)
    with figures.style():
        figure, axes = figures.panels(
            2,
            1 + len(seen.tasks),
            "Does the error of a training's gradient say what the next updates gain?",
            width=3.8,
            height=3.2,
        )
        _correlations(axes[0, 0], seen)
        _scatter(axes[1, 0], seen)
        for column, task in zip(axes.T[1:], seen.tasks, strict=True):
            _curves(column[0], seen, task)
            _ranks(column[1], seen, task)
        figures.letters(axes)
        figures.legend(figure, axes[0, 1:], columns=8)
        figures.note(
            figure,
            "Intervals and bands: 95 % over seeds. The lower left panel has a point for each state of "
            "each task. Ranks are over algorithms, 1 for the least error and for the most return.",
        )
        figures.save(figure, path)


def _correlations(axes: Axes, seen: Seen) -> None:
    """One row per predictor: all tasks, then each."""
    names = list(PREDICTORS)
    places = [*[(None, 0.0, True)], *((t, 0.18 * (i + 1), False) for i, t in enumerate(seen.tasks))]
    for task, shift, filled in places:
        ends = np.array([tuple(seen.correlation(name, task)) for name in names])
        ends = np.clip(ends, -1.0, 1.0)
        reach = np.abs(ends[:, 1:].T - ends[:, 0])
        axes.errorbar(
            ends[:, 0], np.arange(len(names)) + shift, xerr=reach, marker="o",
            color="#000000" if filled else "#888888", linestyle="none", markersize=5 if filled else 3,
        )  # fmt: skip
    axes.axvline(0.0, color="#555555", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.3, -0.5)
    axes.set_xlim(-1.05, 1.05)
    each = ", ".join(seen.tasks)
    axes.set_xlabel(f"rank correlation with the gain [1]\n(black: all; grey, downwards: {each})")


def _scatter(axes: Axes, seen: Seen) -> None:
    """Gain against the error at the state before it."""
    for name in seen.algorithms:
        colour, marker = look_of(name)
        some = [s for s in seen.precise if s.algorithm == name]
        axes.plot(
            [s.mse("whole") for s in some], [s.gain for s in some], color=colour, marker=marker,
            linestyle="none", markersize=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.axhline(0.0, color="#555555", linewidth=0.8)
    axes.set_xlabel("squared error to the return [1]")
    axes.set_ylabel("gain, next updates [reward]")


def _ranks(axes: Axes, seen: Seen, task: str) -> None:
    """Mean ranks by return against those by error, on one task."""
    errors = seen.mean_ranks(seen.errors(), task, least=True)
    learnt = seen.mean_ranks(seen.learnt(), task, least=False)
    for name in seen.algorithms:
        colour, marker = look_of(name)
        x, y = errors[name], learnt[name]
        axes.errorbar(
            x.estimate, y.estimate, xerr=[[x.estimate - x.low], [x.high - x.estimate]],
            yerr=[[y.estimate - y.low], [y.high - y.estimate]], color=colour, marker=marker,
            elinewidth=0.8,
        )  # fmt: skip
    most = len(seen.algorithms)
    axes.plot([1, most], [1, most], color="#999999", linestyle=":")
    axes.set_xlim(0.5, most + 0.5)
    axes.set_ylim(0.5, most + 0.5)
    axes.set_xlabel(f"mean rank by error on {task} [1]")
    axes.set_ylabel("mean rank by return [1]")


def _curves(axes: Axes, seen: Seen, task: str) -> None:
    """Mean return of one task over the updates."""
    from gradlab.study import figures

    for name in seen.algorithms:
        rows = [r for r in seen.returns if (r.task, r.algorithm) == (task, name)]
        updates = sorted({row.updates for row in rows})
        ends = [student(r.value for r in rows if r.updates == at) for at in updates]
        low, high = ([end[k] for end in ends] for k in (1, 2))
        figures.line(
            axes, updates, [end.estimate for end in ends], low, high, name=name, drawn=look_of(name)
        )
    axes.set_xlabel("updates [1]")
    axes.set_ylabel(f"return on {task} [reward]")


def look_of(algorithm: str) -> Look:
    """How an algorithm is drawn, as in all studies of trainings."""
    from studies.shared import looks  # brings matplotlib

    return looks.look_of(algorithm)
