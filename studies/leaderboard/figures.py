"""The figure of `leaderboard`: critical differences of ranks, and beside them gains and errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gradlab.statistics import Interval
from studies.leaderboard.rows import Board, Entry, boards

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 3  # boards in the main figure
LINE = 0.19  # [in] of one estimator
GROUP = 0.28  # ranks between two bars of what cannot be told apart


def plot(table: pd.DataFrame, path: Path) -> None:
    """The first boards at `path`; all of them at `path`_all where there are more."""
    found = boards(table)
    plot_boards(found[:SHOWN], path)
    if len(found) > SHOWN:
        plot_boards(found, path.with_name(f"{path.name}_all"))


def plot_boards(found: Sequence[Board], path: Path) -> None:
    """A row per board, one line per estimator, the best on top: ranks, gains and errors."""
    from gradlab.study import figures

    with figures.style():
        lines = max((len(board.entries) for board in found), default=1)
        title = "Which estimator at equal cost? By the gain of one step, and by the error of the gradient"
        figure, axes = figures.panels(
            max(1, len(found)), 3, title, width=3.7, height=LINE * lines + 1.1
        )
        for row, board in zip(axes, found, strict=False):
            ranks, gains, errors = row
            _ranks(ranks, board)
            _intervals(gains, board, lambda entry: entry.share)
            gains.axvline(0.0, color="#555555", linewidth=0.8)
            gains.axvline(1.0, color="#555555", linewidth=0.8, linestyle=":")
            gains.set_xlabel("gain of a step, of that along ∇J [1]")
            _intervals(errors, board, lambda entry: entry.relative_mse)
            errors.set_xscale("log")
            errors.set_xlabel("MSE / ‖∇J‖² [1]")
            ranks.set_title(f"{board.task}, {board.policy}, {board.budget}", loc="right")
        figures.letters(axes)
        figures.note(
            figure,
            "Left: mean rank by the gain of a step, 1 is best; bars join estimators that cannot be told apart, neither by the "
            "critical difference of ranks (on top) nor by signed ranks. Middle and right: 95 % intervals; dotted: a step along the true gradient. "
            "Hollow: needs a critic.",
        )
        figures.save(figure, path)


def _ranks(axes: Axes, board: Board) -> None:
    from gradlab.study import figures

    ranks = board.ranks.mean_ranks
    for place, (entry, rank) in enumerate(zip(board.entries, ranks, strict=True)):
        colour, marker = figures.look(entry.name)
        axes.plot(
            [rank], [place], color=colour, marker=marker, markerfacecolor=_fill(entry, colour)
        )
    right = max(ranks, default=1.0)
    for k, group in enumerate(board.ranks.groups()):
        x = right + 1.0 + 3 * GROUP * k
        axes.plot([x, x], [group[0] - 0.3, group[-1] + 0.3], color="#777777", linewidth=2.5)
    best = min(ranks, default=1.0)
    reach = board.ranks.critical_difference
    axes.plot([best, best + reach], [-1.0, -1.0], color="black", marker="|", linewidth=1.2)
    axes.annotate(
        "critical difference", (best + reach, -1.0), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=figures.LABEL_SIZE,
    )  # fmt: skip
    _names(axes, board)
    axes.set_xlabel("mean rank by the gain of a step [1]")


def _names(axes: Axes, board: Board) -> None:
    """The estimators at the left, each in its colour."""
    from gradlab.study import figures

    names = [entry.name for entry in board.entries]
    axes.set_yticks(range(len(names)), names, fontsize=figures.LABEL_SIZE)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(figures.look(name).colour)
    axes.set_ylim(len(names) - 0.4, -1.7)


def _intervals(axes: Axes, board: Board, value: Callable[[Entry], Interval]) -> None:
    """One interval per line, in the order of the ranks."""
    from gradlab.study import figures

    for place, entry in enumerate(board.entries):
        colour, marker = figures.look(entry.name)
        middle, low, high = value(entry)
        if not math.isfinite(middle):
            continue
        # a debiased estimate can lie outside its interval
        axes.plot([low, min(high, 1e6)], [place, place], color=colour, linewidth=1.4)
        axes.plot(
            [middle], [place], color=colour, marker=marker, markerfacecolor=_fill(entry, colour)
        )
    axes.set_yticks([])
    axes.set_ylim(len(board.entries) - 0.4, -1.7)


def _fill(entry: Entry, colour: str) -> str:
    return "white" if entry.judged.needs_critic else colour
