"""The figure of `original_engines`: bias, variances and jumps, a row for every setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.statistics import Interval
from studies.original_engines.answer import name
from studies.original_engines.rows import Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = -1.0  # where shares below are drawn
MOST = 1.5  # where relative biases above are drawn


def plot(table: pd.DataFrame, path: Path) -> None:
    """Relative bias of FOG, variances of FOG and PG, unseen share; bars are 95 % intervals."""
    from gradlab.study import figures

    settings = Setting.all(table)
    with figures.style():
        height = max(figures.PANEL_HEIGHT, 0.25 * len(settings) + 0.8)
        figure, axes = figures.panels(
            1, 3, "The ant's simulation gradient by engine", width=3.4, height=height
        )
        bias, variance, share = axes[0]
        biases = [Interval(*(min(MOST, e) for e in one.fog.relative_bias)) for one in settings]
        _points(bias, biases, "fog", "FOG")
        bias.set_xlim(-0.05, MOST + 0.05)
        bias.set_xticks([0.0, 0.5, 1.0, MOST], ["0", "0.5", "1", f"≥ {MOST}"])
        bias.set_xlabel("relative bias, ‖E ĝ − ∇J‖/‖∇J‖ [1]")
        bias.set_yticks(range(len(settings)), [name(one) for one in settings])
        _points(variance, [one.fog.variance for one in settings], "fog", "FOG")
        _points(variance, [one.pg.variance for one in settings], "pg", "PG")
        variance.set_xscale("log")
        variance.set_xlabel("variance of a sample [reward²]")
        _points(share, [_from(LEAST, one.test.share) for one in settings], "fog", "FOG")
        share.axvline(0.0, color="#555555", linewidth=0.8)
        share.set_xlim(LEAST - 0.05, 1.05)
        share.set_xticks([LEAST, -0.5, 0.0, 0.5, 1.0], ["≤ −1", "−0.5", "0", "0.5", "1"])
        share.set_xlabel("unseen share of the variance [1]")
        for panel in axes[0]:
            panel.set_ylim(len(settings) - 0.5, -0.5)
        for panel in (variance, share):
            panel.set_yticks(range(len(settings)), [""] * len(settings))
        figures.letters(axes)
        figures.legend(figure, axes)
        figures.save(figure, path)


def _from(least: float, interval: Interval) -> Interval:
    return Interval(*(max(least, end) for end in interval))


def _points(axes: Axes, intervals: Sequence[Interval], look: str, label: str) -> None:
    """One row each; a debiased estimate can lie outside its interval: it stands at its end."""
    from gradlab.study import figures

    middle, low, high = np.array([tuple(one) for one in intervals], dtype=float).T
    middle = np.clip(middle, low, high)
    colour, marker = figures.look(look)
    axes.errorbar(
        middle, range(len(middle)), xerr=np.stack([middle - low, high - middle]), color=colour,
        marker=marker, linestyle="none", label=label,
    )  # fmt: skip
