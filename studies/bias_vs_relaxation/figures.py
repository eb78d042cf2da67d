"""The figures of `bias_vs_relaxation`: direction and bias against ever sharper
truths, and supplements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import grouped
from studies.bias_vs_relaxation.rows import (
    CRITICS,
    HARD,
    NAMES,
    Estimate,
    best_critic,
    by_policy,
    estimates,
    fields_of,
    form_of,
    levels,
    middle_window,
    shown_windows,
)

COLUMNS = 3  # policies in the main figure: two panels each


def plot(table: pd.DataFrame, path: Path) -> None:
    """The main figure at `path`; every policy at `path`_policies, the estimator's own width at
    `path`_widths."""
    groups = by_policy(estimates(table, "A"))
    plot_truths(groups[:COLUMNS], path)
    if len(groups) > COLUMNS:
        plot_truths(groups, path.with_name(f"{path.name}_policies"))
    plot_widths(by_policy(estimates(table, "B")), path.with_name(f"{path.name}_widths"))


def plot_truths(groups: list[list[Estimate]], path: Path) -> None:
    """Cosine and relative bias against the width of the truth's relaxation, best critic each."""
    from gradlab.study import figures

    with figures.style():
        figure, axes = figures.panels(2, max(1, len(groups)), _title(groups), width=4.4)
        for column, group in enumerate(groups):
            top, bottom = axes[:, column]
            top.set_title(f"{group[0].task}, {group[0].policy}")
            for name, curve in _curves(group):
                x, label = _positions(row.truth_width for row in curve), curve[0].name
                for axis, quantity in ((top, "cosine"), (bottom, "relative_bias")):
                    figures.line(axis, x, *fields_of(curve, quantity), name=name, label=label)
            for axis in (top, bottom):
                _width_axis(axis, sorted({row.truth_width for row in group}), "width of the truth")
            top.set_ylim(-1.05, 1.05)
            bottom.axhline(1.0, color="#555555", linewidth=0.8, linestyle=":", label="no gradient")
            # linear where biases are below that of no gradient at all, logarithmic above
            bottom.set_yscale("symlog", linthresh=1.0, linscale=1.0)
            bottom.set_yticks([0, 0.5, 1, 2, 5, 10, 20], ["0", "0.5", "1", "2", "5", "10", "20"])
            bottom.set_ylim(*_bias_limits(group))
        axes[0, 0].set_ylabel("cosine of E ĝ and ∇J [1]")
        axes[1, 0].set_ylabel("relative bias\n‖E ĝ − ∇J‖ / ‖∇J‖ [1]")
        figures.letters(axes)
        for axis in axes.flat:
            figures.label_lines(axis)
        figures.save(figure, path)


def _title(groups: list[list[Estimate]]) -> str:
    shown = [group for group in groups if middle_window(group) is not None]
    question = "Which gradients that see the hard task point along ∇J, and how far off are they?"
    if not shown:
        return question
    windows = [f"{middle_window(group)}" for group in shown]
    fits = {row.critic_fit for group in shown for row in best_critic(group)}
    critics = {CRITICS[fit] for fit in fits if fit in CRITICS}
    said = windows[0] if len(set(windows)) == 1 else ", ".join(windows)
    form = form_of(shown[0])
    return f"{question}\n{form} windows of n = {said}; {', '.join(sorted(critics))}"


def _curves(group: list[Estimate]) -> Iterator[tuple[str, list[Estimate]]]:
    """FOG, N-step and ABPT at the middle window with the best critic, and estimators that the study
    does not run by itself; all there are where it has none of these."""
    chosen = best_critic(group)
    shown = [row for row in chosen if row.window is None] + shown_windows(chosen)
    curves = grouped(shown, lambda row: row.estimator)
    others = [name for name in curves if name not in NAMES]
    names = [name for name in ("fog", "nstep", "abpt", *others) if name in curves]
    for name in names or curves:
        yield name, curves[name]


def _bias_limits(group: list[Estimate]) -> tuple[float, float]:
    """From a little below zero to above every end that is drawn."""
    drawn = [row.relative_bias for _, curve in _curves(group) for row in curve]
    low = min((bias.estimate for bias in drawn if bias.estimate < math.inf), default=0.0)
    high = max([1.1, *(bias.high for bias in drawn if bias.high < math.inf)])
    return min(-0.1, 1.1 * low), 1.15 * high


def plot_widths(groups: list[list[Estimate]], path: Path) -> None:
    """Estimates of the hard gradient: bias, spread and error against the estimator's own width."""
    from gradlab.study import figures

    with figures.style():
        title = "Which width, and which estimator, has the least error at a batch of 100?"
        figure, axes = figures.panels(len(QUANTITIES), len(groups), title, width=4.4)
        for column, group in enumerate(groups):
            axes[0, column].set_title(f"{group[0].task}, {group[0].policy}")
            sweeps = grouped((r for r in group if r.width is not None), lambda row: row.estimator)
            widths = sorted({row.width for row in group if row.width is not None})
            for axis, quantity in zip(axes[:, column], QUANTITIES, strict=True):
                for name, sweep in sweeps.items():
                    x = [row.width or 0.0 for row in sweep]
                    band = _band(sweep, quantity)
                    figures.line(axis, x, *band, name=name, label=NAMES.get(name, name))
                for row in levels(group):
                    band = (ends and ends[0] for ends in _band([row], quantity))
                    figures.level(axis, *band, name=row.estimator, label=row.name)
                if widths:
                    _width_axis(axis, widths, "estimator's width")
                    axis.set_xlim(min(widths) / 1.3, max(widths) * 1.3)
                figures.signed_log(axis, _band(group, quantity)[0])
        for axis, label in zip(axes[:, 0], LABELS, strict=True):
            axis.set_ylabel(label)
        figures.letters(axes)
        for axis in axes.flat:
            figures.label_lines(axis)
        figures.save(figure, path)


def _band(rows: list[Estimate], name: str) -> tuple[Any, Any, Any]:
    """Values and ends of a quantity; no ends for one without an interval."""
    if isinstance(getattr(rows[0], name), Interval):
        return fields_of(rows, name)
    return [getattr(row, name) for row in rows], None, None


QUANTITIES = ("relative_bias", "spread", "relative_mse", "relative_mse_cost")
LABELS = (
    "relative bias [1]",
    "spread of a batch of 100,\n√(tr Σ/100) / ‖∇J‖ [1]",
    "MSE(100) / ‖∇J‖² [1]",
    "MSE / ‖∇J‖² in the\ntime of 100 FOG [1]",
)


def _positions(widths: Iterable[float]) -> list[float]:
    """Where a width is drawn: the hard limit a factor 2.5 left of the least positive one."""
    widths = list(widths)
    least = min((w for w in widths if w > 0), default=1.0)
    return [w if w > 0 else least / 2.5 for w in widths]


def _width_axis(axis: Any, widths: list[float], label: str) -> None:
    positions = _positions(widths)
    axis.set_xscale("log")
    axis.set_xticks(positions, ["hard" if w == HARD else f"{w:g}" for w in widths])
    axis.minorticks_off()
    axis.set_xlabel(f"{label} [margin scale]")
