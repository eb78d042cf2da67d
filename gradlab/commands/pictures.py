"""The figure of a comparison: direction first, then bias, then the error of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from gradlab.statistics.intervals import Interval
from gradlab.statistics.report import Report
from gradlab.statistics.truth import OracleGradient
from gradlab.study import figures

ROW = 0.32  # [in] of an estimator
LABELS = 3  # of an axis of less than a decade


def drawn(reports: Mapping[str, Report], problem: str, truth: OracleGradient, title: str) -> Figure:
    """One panel per quantity, one row per estimator, with intervals as lines."""
    batch = next(iter(reports.values())).batch
    quantities = {
        "direction: cosine of the expected\ngradient with the true one [1]": {
            name: report.overall.cosine for name, report in reports.items()
        },
        "bias of the expected gradient\n[length of the true one]": {
            name: report.overall.relative_bias for name, report in reports.items()
        },
        f"mean squared error of {batch} episodes\n[squared length of the true one]": {
            name: report.over_truth("mse") for name, report in reports.items()
        },
    }
    with figures.style():
        figure, axes = figures.panels(1, 3, title, height=1.2 + ROW * len(reports))
        for place, (label, values) in zip(axes[0], quantities.items(), strict=True):
            _rows(place, values)
            place.set_xlabel(label)
        axes[0, 0].axvline(1.0, color="#555555", linewidth=0.8, zorder=0.5)
        axes[0, 1].axvline(0.0, color="#555555", linewidth=0.8, zorder=0.5)
        if all(value.low > 0 for value in quantities[list(quantities)[2]].values()):
            axes[0, 2].set_xscale("log")
            _few_labels(axes[0, 2])
        for place in axes[0, 1:]:
            place.set_yticklabels([])
        figures.letters(axes)
        known = truth.relative_stderr
        figures.note(
            figure,
            f"{problem}; 95 % intervals; truth: {truth.name}, "
            + (f"known to {known:.1%}: all rows share its error" if known > 0 else "exact"),
        )
    return figure


def _few_labels(axes: Axes) -> None:
    """At most three labels on a log axis of less than a decade, where every minor tick has one."""
    low, high = axes.get_xlim()
    if high >= 10 * low:
        return
    places = MaxNLocator(nbins=2).tick_values(low, high)
    inside = [place for place in places if low <= place <= high][:LABELS]
    axes.set_xticks(inside, [f"{place:.4g}" for place in inside])
    axes.xaxis.set_minor_locator(NullLocator())


def _rows(axes: Axes, values: Mapping[str, Interval]) -> None:
    """An interval per estimator, the first at the top; what is not known is not drawn."""
    for place, (name, value) in enumerate(values.items()):
        colour, marker = figures.look(name)
        if math.isfinite(value.low) and math.isfinite(value.high):
            axes.plot([value.low, value.high], [place, place], color=colour)
            inside = min(max(value.estimate, value.low), value.high)
            axes.plot([inside], [place], color=colour, marker=marker)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
