"""The figure of `jumps`: the unseen share of every case, and beside the bias of FOG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from studies.jumps.rows import Seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# the palette of the estimators, used here for what is known of a case
LOOKS = {"FOG is biased": "abpt", "smooth": "fog", "no truth": "pg", "bias unclear": "nstep"}
LEFT = -1.0  # where shares below are drawn
LETTER = 0.016  # width of a letter of a name, of that of a panel


def plot(table: pd.DataFrame, path: Path) -> None:
    """All cases, one below the other; then those with a truth against FOG's relative bias."""
    from gradlab.study import figures

    cases = Seen.by_case(table)
    known = [case for case in cases if case.bias is not None]
    with figures.style():
        height = max(figures.PANEL_HEIGHT, 0.22 * len(cases) + 0.8)
        figure, axes = figures.panels(
            1,
            2,
            "Which objectives have a part that no pathwise gradient sees, and is FOG biased there?",
            width=5.0,
            height=height,
        )
        _shares(axes[0, 0], cases)
        _against_bias(axes[0, 1], known)
        figures.letters(axes)
        figures.legend(figure, axes)
        figures.save(figure, path)


def _kind(case: Seen) -> str:
    if case.smooth:
        return "smooth"
    if case.bias is None:
        return "no truth"
    return "FOG is biased" if case.biased else "bias unclear"


def _by_kind(cases: Sequence[Seen]) -> dict[str, list[int]]:
    """Places of the cases of each kind."""
    return {
        kind: [k for k, case in enumerate(cases) if _kind(case) == kind]
        for kind in LOOKS
        if any(_kind(case) == kind for case in cases)
    }


def _bars(cases: Sequence[Seen]) -> tuple[np.ndarray, np.ndarray]:
    """Shares, and how far their intervals reach below and above; clipped at the left edge."""
    ends = np.array([tuple(case.last.share) for case in cases], dtype=float).reshape(-1, 3)
    middle, low, high = np.clip(ends, LEFT, 1.0).T
    return middle, np.stack([middle - low, high - middle])


def _shares(axes: Axes, cases: Sequence[Seen]) -> None:
    """One row per case."""
    from gradlab.study import figures

    middle, reach = _bars(cases)
    for kind, places in _by_kind(cases).items():
        colour, marker = figures.look(LOOKS[kind])
        axes.errorbar(
            middle[places], places, xerr=reach[:, places], color=colour, marker=marker,
            linestyle="none", label=kind,
        )  # fmt: skip
    axes.axvline(0.0, color="#555555", linewidth=0.8)
    axes.set_yticks(range(len(cases)), [case.name for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlim(LEFT - 0.05, 1.05)
    axes.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0], ["≤ −1", "−0.5", "0", "0.5", "1"])
    axes.set_xlabel("unseen share of the variance, D/(2 Var f) [1]")


def _against_bias(axes: Axes, cases: Sequence[Seen]) -> None:
    """Share against FOG's relative bias, names at the points."""
    from gradlab.study import figures

    middle, reach = _bars(cases)
    biases = [tuple(case.bias.relative_bias) for case in cases if case.bias is not None]
    ends = np.array(biases, dtype=float).reshape(-1, 3)
    # a debiased estimate can lie outside its interval, and then stands at the nearer end
    x = np.clip(ends[:, 0], ends[:, 1], ends[:, 2])
    across = np.stack([x - ends[:, 1], ends[:, 2] - x])
    for kind, places in _by_kind(cases).items():
        colour, marker = figures.look(LOOKS[kind])
        axes.errorbar(
            x[places], middle[places], xerr=across[:, places], yerr=reach[:, places],
            color=colour, marker=marker, linestyle="none", label=kind,
        )  # fmt: skip
    axes.axhline(0.0, color="#555555", linewidth=0.8)
    right = max([1.2, *(end for end in ends[:, 0] if math.isfinite(end))])
    axes.set_xlim(-0.05 * right, 1.45 * right)
    axes.set_ylim(LEFT - 0.05, 1.2)
    axes.set_xlabel("relative bias of FOG, ‖E ĝ − ∇J‖/‖∇J‖ [1]")
    axes.set_ylabel("unseen share [1]")
    _name_points(axes, x, middle, [case.name for case in cases])


def _name_points(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """A name right of each point, moved down from the one above where they would overlap."""
    from gradlab.study import figures

    height = axes.get_window_extent().height / axes.figure.dpi * 72 * 0.8  # [pt], with a margin
    gap = 1.2 * figures.LABEL_SIZE / height  # of the height of the axes between two names
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    placed: list[tuple[float, float, float]] = []  # left end, right end and height of a name
    for k in map(int, np.lexsort((x, -y))):
        across = (float(x[k]) - left) / (right - left)
        up = (float(y[k]) - bottom) / (top - bottom)
        begin, end, place = across + 0.03, across + 0.05 + LETTER * len(names[k]), up
        while any(begin < b and a < end and abs(place - u) < gap for a, b, u in placed):
            place -= gap
        placed.append((begin, end, place))
        axes.annotate(
            names[k],
            xy=(x[k], y[k]),
            xytext=(begin, place),
            textcoords="axes fraction",
            va="center",
            fontsize=figures.LABEL_SIZE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.7},
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5},
        )
