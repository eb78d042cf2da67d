"""The figure of `mixture_weights`: shift and error by source over N, error by level and rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.study.tables import grouped
from studies.mixture_weights.rows import (
    NAMES,
    Contrast,
    by_setting,
    contrasts,
    first_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# the palette of the estimators, used here for settings
PALETTE = ("abpt", "nstep", "fog", "qg", "split", "pg", "agpo", "inverse_variance", "zero_step")


def plot(table: pd.DataFrame, path: Path) -> None:
    """Shift and ratio of errors over N; levels and rules at the middle N."""
    from gradlab.study import figures

    shifts = contrasts(table, "shift", first=True)
    same = contrasts(table, "same/cross", first=True)
    choices = contrasts(table, "level"), contrasts(table, "rule")
    looks: dict[str, str] = dict(zip(by_setting(shifts), PALETTE * len(shifts), strict=False))
    with figures.style():
        figure, axes = figures.panels(
            2,
            2,
            "What do weights from the same samples do, and what do levels and rules?",
            width=4.6,
        )
        _over_size(axes[0, 0], shifts, looks, scale=100.0)
        axes[0, 0].axhline(0.0, color="#555555", linewidth=0.8)
        axes[0, 0].set_ylabel("same − pilot along ∇J [%]")
        _over_size(axes[0, 1], same, looks)
        axes[0, 1].set_ylabel("MSE, same over cross [1]")
        size = _middle(shifts)
        for panel, found, of in zip(axes[1], choices, ("level", "rule"), strict=True):
            _over_names(panel, [one for one in found if one.size == size], looks, of)
            panel.set_xlabel(f"{of} of the weights (N = {size})")
        rule, level = first_of(table)
        axes[1, 0].set_ylabel(f"MSE over level {level} [1]")
        axes[1, 1].set_ylabel(f"MSE over {NAMES[rule]} [1]")
        for panel in (axes[0, 1], *axes[1]):
            panel.axhline(1.0, color="#555555", linewidth=0.8)
        figures.letters(axes)
        figures.legend(figure, axes, columns=3)
        figures.save(figure, path)


def _middle(found: Sequence[Contrast]) -> int:
    """The second of the N that were run, or the only one."""
    sizes = sorted({one.size for one in found})
    return sizes[min(1, len(sizes) - 1)]


def _ends(found: Sequence[Contrast], scale: float = 1.0) -> np.ndarray:
    return scale * np.array([tuple(one.value) for one in found], dtype=float).T


def _over_size(
    axes: Axes, found: Sequence[Contrast], looks: dict[str, str], scale: float = 1.0
) -> None:
    from gradlab.study import figures

    for setting, mine in by_setting(found).items():
        middle, low, high = _ends(mine, scale)
        sizes = [one.size for one in mine]
        figures.line(axes, sizes, middle, low, high, name=looks[setting], label=setting)
    sizes = sorted({one.size for one in found})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("samples N behind gradient and weights [1]")


def _over_names(axes: Axes, found: Sequence[Contrast], looks: dict[str, str], of: str) -> None:
    """Ratios by level or rule, settings beside each other."""
    from gradlab.study import figures

    names = list(dict.fromkeys(getattr(one, of) for one in found))
    settings = grouped(found, lambda one: one.setting)
    for k, (setting, mine) in enumerate(settings.items()):
        middle, low, high = _ends(mine)
        offset = 0.6 * ((k + 0.5) / len(settings) - 0.5)
        x = [names.index(getattr(one, of)) + offset for one in mine]
        colour, marker = figures.look(looks[setting])
        axes.errorbar(
            x, middle, yerr=np.stack([middle - low, high - middle]), color=colour, marker=marker,
            linestyle="none", label=setting,
        )  # fmt: skip
    axes.set_yscale("log")
    _ticks(axes)
    axes.set_xticks(range(len(names)), [f"{NAMES.get(name, name)}" for name in names])


def _ticks(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis that spans up to three powers of ten."""
    low, high = axes.get_ylim()
    if high > 1000 * low:
        return
    steps = (0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10, 20, 50)
    shown = [step for step in steps if low <= step <= high]
    if high > 4 * low:  # they would touch
        shown = [step for step in shown if step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)]
    axes.set_yticks(shown, [f"{step:g}" for step in shown])
    axes.minorticks_off()
