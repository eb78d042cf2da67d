"""The figures of `empirical_bias`: expectations along coordinates, ascents, and the benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.study.tables import grouped
from studies.empirical_bias.methods import label
from studies.empirical_bias.rows import Run, Score, Sweep, scores
from studies.empirical_bias.toys import TOYS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# in the palette of the estimators, and how the second of two relatives is drawn
LOOKS = {
    "aobg": ("alpha_order", "-"),
    "aobg_strict": ("alpha_order", ":"),
    "ddcg": ("switch", "-"),
    "jump": ("switch", ":"),
    "ivw": ("inverse_variance", "-"),
    "ivwh": ("action_mixture", "-"),
    "best": ("best_linear", "-"),
    "best_unbiased": ("best_linear", ":"),
}
SHORT = {"best_unbiased": "BestLinear (unbiased)", "jump": "Switch (jump)"}


def plot(table: pd.DataFrame, path: Path) -> None:
    """Expectations; beside them ascents (`path`_ascents) and the benchmark (`path`_benchmark)."""
    if sweeps := Sweep.all(table):
        plot_sweeps(sweeps, path)
    if runs := [run for run in Run.all(table) if TOYS[run.toy].exact]:
        plot_ascents(runs, path.with_name(f"{path.name}_ascents"))
    if found := scores(table):
        plot_benchmark(found, path.with_name(f"{path.name}_benchmark"))


def _named(name: str) -> str:
    return SHORT.get(name, label(name))


def plot_sweeps(sweeps: Sequence[Sweep], path: Path) -> None:
    """What each method expects along the coordinate of each toy, and the exact derivative."""
    from gradlab.study import figures

    columns = min(3, len(sweeps))
    rows = -(-len(sweeps) // columns)
    with figures.style():
        title = (
            "What estimators expect along a coordinate (bands: 95 % intervals), and the derivative "
            "of the return (thick grey). Linear within the grey band around 0, logarithmic beyond"
        )
        figure, axes = figures.panels(rows, columns, title)
        for panel, sweep in zip(axes.flat, sweeps, strict=False):
            _sweep(panel, sweep)
        for panel in axes[:, 0]:
            panel.set_ylabel("derivative/largest one [1]")
        for panel in list(axes.flat)[len(sweeps) :]:
            panel.set_axis_off()
        figures.letters(axes.flat[: len(sweeps)])
        figures.legend(figure, axes)
        figures.save(figure, path)


def _sweep(axes: Axes, sweep: Sweep) -> None:
    from matplotlib.ticker import NullLocator

    from gradlab.study import figures

    places = sorted({point.coordinate for point in sweep.points})
    truths = {point.coordinate: point.truth for point in sweep.points}
    x = np.arange(len(places))
    axes.plot(
        x, [truths[place] / sweep.scale for place in places], color="#bbbbbb", linewidth=6, label="derivative",
        solid_capstyle="round", zorder=1,
    )  # fmt: skip
    for name, points in sweep.methods.items():
        family, dashes = LOOKS.get(name, (name, "-"))
        where = [places.index(point.coordinate) for point in points]
        middle, low, high = np.array([tuple(point.expectation) for point in points]).T / sweep.scale
        figures.line(axes, where, middle, low, high, name=family, label=_named(name), dashes=dashes)
    axes.set_yscale("symlog", linthresh=1.0, linscale=1.0)
    ticks = [sign * 10.0**k for sign in (-1, 1) for k in range(6)]
    low, high = axes.get_ylim()
    shown = sorted([0.0, *(tick for tick in ticks if low <= tick <= high)])
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.axhspan(-1.0, 1.0, color="#888888", alpha=0.12, linewidth=0)
    axes.set_ylim(low, high)
    turned = 45 if len(places) > 6 else 0  # the labels of nine places would touch
    axes.set_xticks(x, [f"{place:g}" for place in places], fontsize="small", rotation=turned)
    axes.set_xlabel(TOYS[sweep.toy].coordinate)
    axes.set_title(sweep.toy, fontsize="small")


def plot_ascents(runs: Sequence[Run], path: Path) -> None:
    """The coordinate over updates by toy; published ends as crosses at the right."""
    from gradlab.study import figures

    toys = grouped(runs, lambda run: run.toy)
    with figures.style():
        title = (
            "Ascents from the published starts: means over runs, bands their least and largest. Crosses: "
            "published ends, one run each. Dashed: where the expected gradient vanishes, dotted: where FOG's does"
        )
        figure, axes = figures.panels(1, len(toys), title, width=4.4)
        for panel, (toy, group) in zip(axes.flat, toys.items(), strict=True):
            _ascents(panel, toy, group)
        figures.letters(axes)
        figures.legend(figure, axes)
        figures.save(figure, path)


def _ascents(axes: Axes, toy: str, group: Sequence[Run]) -> None:
    from gradlab.study import figures

    for run in group:
        family, dashes = LOOKS.get(run.method, (run.method, "-"))
        updates = sorted({look.update for look in run.looks})
        by = [[lo.coordinate for lo in run.looks if lo.update == update] for update in updates]
        middle, low, high = (np.array([f(values) for values in by]) for f in (np.mean, min, max))
        figures.line(
            axes, updates, middle, low, high, name=family, label=_named(run.method), dashes=dashes
        )
        if run.published is not None:
            colour, _ = figures.look(family)
            axes.plot(
                1.03 * run.updates, run.published, marker="x", color=colour, markersize=8,
                markeredgewidth=2, linestyle="none",
            )  # fmt: skip
        if run.flow is not None:
            axes.axhline(
                run.flow.zero, color="#555555", linewidth=0.8,
                linestyle="--" if run.method == "pg" else ":",
            )  # fmt: skip
    axes.set_xlabel("update [1]")
    axes.set_ylabel(TOYS[toy].coordinate)
    axes.set_title(toy, fontsize="small")


def plot_benchmark(found: Sequence[Score], path: Path) -> None:
    """MSE of an update by rule and by where weights come from, a panel per problem."""
    from gradlab.study import figures

    size = found[0].batch
    groups = grouped([s for s in found if s.batch == size], lambda score: score.problem)
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    with figures.style():
        title = f"Relative MSE of an update with N = {size}, by where weights come from"
        figure, axes = figures.panels(rows, columns, title)
        for panel, (problem, group) in zip(axes.flat, groups.items(), strict=False):
            _scores(panel, problem, group)
        for panel in list(axes.flat)[len(groups) :]:
            panel.set_axis_off()
        figures.letters(axes.flat[: len(groups)])
        figures.legend(figure, axes)
        figures.save(figure, path)


SOURCES = {"": ("parts", "o", "#000000"), "same": ("same batch", "s", "#0072B2"),
           "cross": ("other half", "^", "#E69F00"), "pilot": ("another batch", "D", "#009E73")}  # fmt: skip


def _scores(axes: Axes, problem: str, group: Sequence[Score]) -> None:
    from matplotlib.ticker import NullFormatter

    shown = [s for s in group if s.baseline != "apart"]
    rules = list(dict.fromkeys(score.rule for score in shown))
    for k, (source, (said, marker, colour)) in enumerate(SOURCES.items()):
        mine = [score for score in shown if score.source == source]
        if not mine:
            continue
        ends = np.array([tuple(score.mse) for score in mine])
        y = [rules.index(score.rule) + 0.2 * (k - 2) * (source != "") for score in mine]
        reach = np.stack([ends[:, 0] - np.clip(ends[:, 1], 1e-6, None), ends[:, 2] - ends[:, 0]])
        axes.errorbar(
            ends[:, 0], y, xerr=reach, marker=marker, color=colour, linestyle="none", label=said,
            markersize=4, linewidth=1.2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    if high < 10 * low or math.ceil(math.log10(low)) > math.floor(math.log10(high)):
        axes.set_xlim(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)))
    axes.set_yticks(range(len(rules)), [_named(rule) for rule in rules])
    axes.set_ylim(len(rules) - 0.4, -0.6)
    axes.set_xlabel("E‖ĝ − ∇J‖²/‖∇J‖² [1]")
    axes.set_title(problem, fontsize="small")
