"""The figures of `bias_vs_relaxation`: direction and bias against ever sharper
truths, and supplements.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from studies.bias_vs_relaxation.rows import (
    CRITICS,
    HARD,
    NAMES,
    Table,
    best_critic,
    form_of,
    levels,
    middle_window,
    overall,
    policies,
    policy_of,
    relative,
)

COLUMNS = 3  # policies in the main figure: two panels each


def plot(rows: Table, path: Path) -> None:
    """The main figure at `path`; every policy at `path`_policies, the estimator's own width at
    `path`_widths."""
    single = overall(rows, "single", "A")
    groups = list(policies(single))
    plot_truths(groups[:COLUMNS], path)
    if len(groups) > COLUMNS:
        plot_truths(groups, path.with_name(f"{path.name}_policies"))
    plot_widths(overall(rows, "single", "B"), path.with_name(f"{path.name}_widths"))


def plot_truths(groups: list[Table], path: Path) -> None:
    """Cosine and relative bias against the width of the truth's relaxation, best critic each."""
    from gradlab.study import figures

    with figures.style():
        figure, axes = figures.panels(2, max(1, len(groups)), _title(groups), width=4.4)
        for column, group in enumerate(groups):
            top, bottom = axes[:, column]
            top.set_title(f"{group.iloc[0]['task']}, {policy_of(group.iloc[0])}")
            for curve in _curves(group):
                x = _positions(curve["truth_width"])
                name = curve.iloc[0]["estimator"]
                for axis, quantity in ((top, "cosine"), (bottom, "relative_bias")):
                    band = curve[f"{quantity}_low"], curve[f"{quantity}_high"]
                    figures.line(
                        axis, x, curve[quantity], *band, name=name, label=NAMES.get(name, name)
                    )
            for axis in (top, bottom):
                _width_axis(axis, sorted(set(group["truth_width"])), "width of the truth")
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


def _title(groups: list[Table]) -> str:
    shown = [group for group in groups if group["window"].notna().any()]
    question = "Which gradients that see the hard task point along ∇J, and how far off are they?"
    if not shown:
        return question
    windows = [f"{middle_window(group):.0f}" for group in shown]
    critics = {
        CRITICS[fit]
        for group in shown
        for fit in best_critic(group)["critic_fit"]
        if fit in CRITICS
    }
    said = windows[0] if len(set(windows)) == 1 else ", ".join(windows)
    form = form_of(shown[0])
    return f"{question}\n{form} windows of n = {said}; {', '.join(sorted(critics))}"


def _curves(group: Table) -> Iterable[Table]:
    """FOG, and N-step and ABPT at the middle window with the best critic."""
    chosen = best_critic(group)
    shown = (chosen["window"] == middle_window(chosen)) & (chosen["form"] == form_of(chosen))
    chosen = chosen[(chosen["estimator"] == "fog") | shown]
    for name in ("fog", "nstep", "abpt"):
        if len(curve := chosen[chosen["estimator"] == name]):
            yield curve


def _bias_limits(group: Table) -> tuple[float, float]:
    """From a little below zero to above every end that is drawn."""
    drawn = [float(curve["relative_bias_high"].max()) for curve in _curves(group)]
    low = min((float(curve["relative_bias"].min()) for curve in _curves(group)), default=0.0)
    return min(-0.1, 1.1 * low), 1.15 * max([1.1, *(d for d in drawn if d < float("inf"))])


def plot_widths(practical: Table, path: Path) -> None:
    """Estimates of the hard gradient: bias, spread and error against the estimator's own width."""
    from gradlab.study import figures

    groups = list(policies(practical))
    with figures.style():
        title = "Which width, and which estimator, has the least error at a batch of 100?"
        figure, axes = figures.panels(len(QUANTITIES), len(groups), title, width=4.4)
        for column, group in enumerate(groups):
            axes[0, column].set_title(f"{group.iloc[0]['task']}, {policy_of(group.iloc[0])}")
            table = relative(group)
            for name, sweep in table[table["width"].notna()].groupby("estimator", sort=False):
                for axis, (y, low, high) in zip(axes[:, column], QUANTITIES, strict=True):
                    band = (sweep[low], sweep[high]) if low else (None, None)
                    label = NAMES.get(name, name)
                    figures.line(axis, sweep["width"], sweep[y], *band, name=name, label=label)
            for _, row in levels(table).iterrows():
                label = str(NAMES.get(row["estimator"], row["estimator"]))
                for axis, (y, low, high) in zip(axes[:, column], QUANTITIES, strict=True):
                    band = (row[low], row[high]) if low else (None, None)
                    figures.level(axis, row[y], *band, name=row["estimator"], label=label)
            widths = sorted(set(table["width"].dropna()))
            for axis, (y, _, _) in zip(axes[:, column], QUANTITIES, strict=True):
                if widths:
                    _width_axis(axis, widths, "estimator's width")
                    axis.set_xlim(min(widths) / 1.3, max(widths) * 1.3)
                figures.signed_log(axis, table[y])
        for axis, label in zip(axes[:, 0], LABELS, strict=True):
            axis.set_ylabel(label)
        figures.letters(axes)
        for axis in axes.flat:
            figures.label_lines(axis)
        figures.save(figure, path)


QUANTITIES = (
    ("relative_bias", "relative_bias_low", "relative_bias_high"),
    ("spread", "spread_low", "spread_high"),
    ("relative_mse", "relative_mse_low", "relative_mse_high"),
    ("relative_mse_cost", None, None),
)
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
