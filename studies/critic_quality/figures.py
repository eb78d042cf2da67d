"""The figure of `critic_quality`: bias over the critic's cosine, and what the 0-step term does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import grouped, read
from studies.critic_quality.rows import HARMS, HELPS, Judged, Single, judged, threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAREST = 1e-4  # distance from 1 at which the axis of cosines ends
NEAR_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999)
FAR_TICKS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)


def plot(table: pd.DataFrame, path: Path) -> None:
    """A column per task: relative biases at the shortest window, then the 0-step term's effect.

    One point per critic. Below 0 the 0-step term helps; points are filled where that is proven, and
    a band says where the effect changes its sign.
    """
    from gradlab.study import figures

    singles = grouped(read(Single, table, kind="single"), lambda one: one.task)
    pairs = grouped(judged(table), lambda one: one.pair.task)
    with figures.style():
        figure, axes = figures.panels(
            2,
            len(singles),
            "How good must a critic be for the 0-step term to lower the bias?",
            height=2.9,
        )
        for column, (task, rows) in enumerate(singles.items()):
            _biases(axes[0, column], rows)
            _effects(axes[1, column], pairs[task])
            shortest = min(row.window for row in rows)
            axes[0, column].set_title(f"{task}, n = {shortest} of {rows[0].horizon}")
        axes[0, 0].set_ylabel("relative bias [1]")
        axes[1, 0].set_ylabel("squared bias, ABPT − N-step [‖∇J‖²]")
        figures.letters(axes)
        figures.note(
            figure,
            "A point per critic, with 95 % intervals both ways. Top: at the shortest window. Bottom: filled where the effect is "
            "told (Holm), below 0 the 0-step term helps; linear within the grey, logarithmic beyond; a coloured band is where "
            "the effect changes its sign.",
        )
        figures.legend(figure, axes)
        figures.save(figure, path)


def _biases(axes: Axes, rows: Sequence[Single]) -> None:
    from gradlab.study import figures

    shortest = min(row.window for row in rows)
    shown = [row for row in rows if row.window == shortest]
    for name, mine in grouped(shown, lambda row: row.estimator).items():
        colour, marker = figures.look(name)
        _points(
            axes, [row.cosine_of_critic for row in mine], [row.relative_bias for row in mine],
            colour, marker, label={"qg": "QG", "nstep": "N-step", "abpt": "ABPT", "agpo": "AGPO"}.get(
                name, name
            ),
        )  # fmt: skip
    axes.set_yscale("log")
    _axis(axes, [row.cosine_of_critic for row in shown])


def _effects(axes: Axes, found: Sequence[Judged]) -> None:
    from gradlab.study import figures

    windows = grouped(found, lambda one: one.pair.window)
    values = []
    for (window, case), name in zip(sorted(windows.items()), _names(len(windows)), strict=True):
        colour, marker = figures.look(name)
        for proven in (True, False):
            mine = [one.pair for one in case if (one.bias in (HELPS, HARMS)) == proven]
            values += [one.relative_difference.estimate for one in mine]
            _points(
                axes, [one.cosine_of_critic for one in mine],
                [one.relative_difference for one in mine], colour, marker,
                label=_label(window, case[0].pair.horizon) if proven else None,
                filled=proven,
            )  # fmt: skip
        edge = threshold(case)
        if edge.kind in ("from", "to"):
            low, high = (1 - min(x, 1 - NEAREST) for x in (edge.at.low, edge.at.high))
            axes.axvspan(low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0.0, color="#555555", linewidth=0.8)
    figures.signed_log(axes, [*values, -1e-3], floor=1e-2)
    _axis(axes, [one.pair.cosine_of_critic for one in found])
    axes.set_xlabel("cosine of the critic's action gradient [1]")


def _names(count: int) -> list[str]:
    """Looks for windows, from short to long: those of estimators that the panel does not show."""
    return [["abpt", "fog", "pg", "split", "zero_step"][k % 5] for k in range(count)]


def _points(
    axes: Axes,
    x: Sequence[Interval],
    y: Sequence[Interval],
    colour: str,
    marker: str,
    label: str | None,
    filled: bool = True,
) -> None:
    """Points with both intervals; x is drawn by its distance from 1."""
    if not x:
        return
    middle, low, high = np.array(y, dtype=float).T
    # a debiased estimate can lie outside its interval, and then stands at the nearer end
    middle = np.clip(middle, low, high)
    at, left, right = (
        np.maximum(1 - np.array(end, dtype=float), NEAREST) for end in np.transpose(x)
    )
    axes.errorbar(
        at, middle, yerr=np.stack([middle - low, high - middle]),
        xerr=np.stack([at - right, left - at]), color=colour, marker=marker, linestyle="none",
        label=label, elinewidth=0.7, markersize=4.0,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def _label(window: int, horizon: int) -> str:
    share = "" if window == horizon else f"{window / horizon:.2g} "
    return f"ABPT − N-step, n = {share}T"


def _axis(axes: Axes, shown: Sequence[Interval]) -> None:
    """Cosines from left to right, with room near 1 where some are there."""
    near = max(one.estimate for one in shown) > 0.9
    axes.set_xscale("log" if near else "linear")
    least = min(one.low for one in shown)
    left = 1.3 * (1 - least) if near else 1.05 - least
    axes.set_xlim(left, NEAREST / 1.5 if near else 0.0)
    ticks = [t for t in (NEAR_TICKS if near else FAR_TICKS) if 1 - t < left]
    axes.set_xticks([1 - tick for tick in ticks], [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.minorticks_off()
