"""The figure of `segments`: what is reached, bias and variance, by the window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from studies.segments.config import Variant
from studies.segments.rows import Worth, middle, worths
from studies.shared.curves.rows import Curve, by_task, curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {"constant": "fog", "critic": "nstep"}
MARKERS = {"growth": "D", "jump": "*"}
ROWS = ("return after training", "relative bias", "variance of an episode / ‖truth‖²")
NOTE = (
    "Return: interquartile mean over seeds with bootstrap intervals at 95 %. Bias and variance: median over seeds, least and "
    "largest; against whole episodes, at each training's last policy. Dotted: whole episodes. "
    "By a rule: at the mean length of windows it chose at the end."
)


def plot(table: pd.DataFrame, path: Path) -> None:
    """A row per task; windows without weights alone."""
    from gradlab.study import figures

    tasks, known = by_task(curves(table)), worths(table)
    with figures.style():
        figure, axes = figures.panels(len(tasks), len(ROWS), "Windows of backpropagation")
        grid = np.asarray(axes).reshape(len(tasks), len(ROWS))
        for place, (task, found) in enumerate(tasks.items()):
            for shown, title in enumerate(ROWS):
                panel: Axes = grid[place, shown]
                for tail in LOOKS:
                    _line(panel, shown, tail, found, known)
                _whole(panel, shown, found, known)
                _rules(panel, shown, found, known)
                panel.set_title(task)
                panel.set_xlabel("window [steps]")
                panel.set_ylabel(title)
                if shown == 1:
                    panel.set_yscale("symlog", linthresh=0.1)
                elif shown == 2:
                    panel.set_yscale("log")
        figures.note(figure, NOTE)
        figures.legend(figure, axes, columns=3)
        figures.save(figure, path)


def _line(panel: Axes, shown: int, tail: str, found: list[Curve], known: Any) -> None:
    from gradlab.study import figures

    points = []
    for curve in found:
        variant = Variant.of(curve.arm.variant)
        if variant.length is None or variant.tail != tail or variant.weighted:
            continue
        points.append((variant.length, *_three(shown, curve, known)))
    if points:
        x, y, low, high = np.array(sorted(points)).T
        figures.line(panel, x, y, low, high, name=LOOKS[tail], label=f"{tail} after a window")


def _whole(panel: Axes, shown: int, found: list[Curve], known: Any) -> None:
    for curve in found:
        if Variant.of(curve.arm.variant) == Variant(None):
            panel.axhline(_three(shown, curve, known)[0], linestyle=":", color="0.4")


def _rules(panel: Axes, shown: int, found: list[Curve], known: Any) -> None:
    """Windows that a rule chose, at their mean length."""
    from gradlab.study import figures

    for curve in found:
        variant = Variant.of(curve.arm.variant)
        if not variant.adaptive:
            continue
        measured = known[curve.arm]
        x = middle(measured[max(measured)], "window")
        y, low, high = (np.array([value]) for value in _three(shown, curve, known))
        rule = str(variant.window).split()[0]
        panel.errorbar(
            [x], y, [y - low, high - y],
            fmt=MARKERS[rule], mfc="none", color=figures.look(LOOKS[variant.tail]).colour,
            label=f"by {rule}, {variant.tail}",
        )  # fmt: skip


def _three(shown: int, curve: Curve, known: Any) -> tuple[float, float, float]:
    """What a panel shows of an arm, with its ends."""
    if shown == 0:
        return tuple(curve.band[-1])  # pyright: ignore[reportReturnType]
    measured = known[curve.arm]
    rows: list[Worth] = measured[max(measured)]
    name = ("bias", "variance")[shown - 1]
    values = [float(getattr(one, name)) for one in rows]
    return middle(rows, name), min(values), max(values)
