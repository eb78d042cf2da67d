"""The figure of `estimator_in_training`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from studies.estimator_in_training.rows import PREDICTORS, Seen, student

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# an algorithm in the colour of its estimator, as in learning curves; others by their own names
LOOKS = {"bptt": "fog", "shac": "nstep"}


def look(algorithm: str) -> str:
    """The name by which an algorithm gets its colour."""
    return LOOKS.get(algorithm, algorithm)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Rank correlations; gain against error; ranks by error and by return; learning curves."""
    from gradlab.study import figures

    seen = Seen.of(table)
    with figures.style():
        figure, axes = figures.panels(
            2,
            2,
            "Does the error of a training's gradient say what the next updates gain?",
            width=4.2,
            height=3.2,
        )
        _correlations(axes[0, 0], seen)
        _scatter(axes[0, 1], seen)
        _ranks(axes[1, 0], seen)
        _curves(axes[1, 1], seen)
        figures.letters(axes)
        figures.legend(figure, axes[:, 1], columns=6)
        figures.note(
            figure,
            "Intervals and bands: 95 % over seeds. b, c: every point is one state, or the mean rank of "
            "one algorithm on one task; open markers are other tasks than the first.",
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
    axes.set_xlabel("rank correlation with the gain [1]\n(black: all tasks; grey: each)")


def _scatter(axes: Axes, seen: Seen) -> None:
    """Gain against the error at the state before it."""
    from gradlab.study import figures

    for name in seen.algorithms:
        colour, marker = figures.look(look(name))
        for k, task in enumerate(seen.tasks):
            some = [s for s in seen.precise if (s.algorithm, s.task) == (name, task)]
            axes.plot(
                [s.mse("whole") for s in some], [s.gain for s in some], color=colour, marker=marker,
                linestyle="none", fillstyle="none" if k else "full", label=None if k else name,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.axhline(0.0, color="#555555", linewidth=0.8)
    axes.set_xlabel("squared error to the return [1]")
    axes.set_ylabel("gain, next updates [reward]")


def _ranks(axes: Axes, seen: Seen) -> None:
    """Mean ranks by return against those by error."""
    from gradlab.study import figures

    for k, task in enumerate(seen.tasks):
        errors = seen.mean_ranks(seen.errors(), task, least=True)
        learnt = seen.mean_ranks(seen.learnt(), task, least=False)
        for name in seen.algorithms:
            colour, marker = figures.look(look(name))
            x, y = errors[name], learnt[name]
            axes.errorbar(
                x.estimate, y.estimate, xerr=[[x.estimate - x.low], [x.high - x.estimate]],
                yerr=[[y.estimate - y.low], [y.high - y.estimate]], color=colour, marker=marker,
                fillstyle="none" if k else "full", elinewidth=0.8,
            )  # fmt: skip
    most = len(seen.algorithms)
    axes.plot([1, most], [1, most], color="#999999", linestyle=":")
    axes.set_xlim(0.5, most + 0.5)
    axes.set_ylim(0.5, most + 0.5)
    axes.set_xlabel("mean rank by error [1], 1: the least")
    axes.set_ylabel("mean rank by return [1]")


def _curves(axes: Axes, seen: Seen) -> None:
    """Mean return of the first task over the updates."""
    from gradlab.study import figures

    task = seen.tasks[0]
    for name in seen.algorithms:
        rows = [r for r in seen.returns if (r.task, r.algorithm) == (task, name)]
        updates = sorted({row.updates for row in rows})
        ends = [student(r.value for r in rows if r.updates == at) for at in updates]
        low, high = ([end[k] for end in ends] for k in (1, 2))
        figures.line(
            axes, updates, [end.estimate for end in ends], low, high, name=look(name), label=name
        )
    axes.set_xlabel("updates [1]")
    axes.set_ylabel(f"return on {task} [reward]")
