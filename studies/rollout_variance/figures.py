"""The figures of `rollout_variance`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Table: TypeAlias = Any  # pandas' own types get lost at the first column

NAMES = {"pg": "PG", "pg_q": "PG (Q)", "pg_return": "PG (return)", "qg": "QG", "sg": "SG"}
# the looks of the project: SG is first-order, so FOG's
LOOKS = {"pg": "pg", "pg_q": "pg_q", "pg_return": "pg_return", "qg": "qg", "sg": "fog"}
DASHES = {"pg_q": ":", "pg_return": "--"}
MAIN = 6  # panels of the main figure


def plot(rows: Table, path: Path) -> None:
    """Variances along the rollout, a panel per setting, at `path`.

    Beside it: `path`_more with the settings that have no room there, `path`_states with the
    variances over states (one action each), `path`_contact with SG's at contact, and `path`_ascent
    with two ascents per setting.
    """
    settings = list(rows.groupby("setting", sort=False))
    title = "How noisy are PG, SG and QG along a rollout of the ant?"
    draw(settings[:MAIN], title, ROLLOUT, _rollout_panel, path)
    if len(settings) > MAIN:
        draw(settings[MAIN:], title, ROLLOUT, _rollout_panel, path.with_name(f"{path.name}_more"))
    title = "How noisy are they over the start states, with one action each?"
    draw(settings, title, STATES, _states_panel, path.with_name(f"{path.name}_states"))
    title = "Is SG's variance large where contacts change?"
    draw(settings, title, CONTACT, _contact_panel, path.with_name(f"{path.name}_contact"))
    if (rows["kind"] == "path").any():
        plot_ascents(settings, path.with_name(f"{path.name}_ascent"))


ROLLOUT = (
    "Medians over states with 95 % bars; bands: from the 5 % to the 95 % quantile of the states."
)
STATES = "Bars: 95 % jackknife intervals."
CONTACT = "Grey vertical line: above it lie the top 5 % of the variances."


def draw(settings: list[Any], title: str, note: str, panel: Any, path: Path) -> None:
    """A panel per setting."""
    from gradlab.study import figures

    columns = min(3, len(settings))
    with figures.style():
        figure, axes = figures.panels(
            math.ceil(len(settings) / columns), columns, title, width=4.0, height=3.0
        )
        for axis in axes.flat[len(settings) :]:
            axis.set_visible(False)
        for axis, (name, mine) in zip(axes.flat, settings, strict=False):
            panel(axis, mine)
            axis.set_title(str(name))
        figures.letters(axes.flat[: len(settings)])
        for axis in axes.flat[: len(settings)]:
            if panel is not _contact_panel:
                figures.label_lines(axis)
        figures.note(figure, note)
        figures.save(figure, path)


def plot_ascents(settings: list[Any], path: Path) -> None:
    """Ascents from a state of low and from one of high variance, a row per setting."""
    from gradlab.study import figures

    with figures.style():
        title = "Is ascent by SG more erratic from a state of high variance?"
        figure, axes = figures.panels(len(settings), 2, title, width=4.0)
        for line, (name, mine) in zip(axes, settings, strict=True):
            for axis, end in zip(line, ("low", "high"), strict=True):
                _path_panel(axis, mine, end)
            line[0].set_ylabel(f"{name}\nchange of r + γQ [reward]")
        figures.letters(axes)
        figures.note(figure, "Thin: each random policy. Thick: their median, with a 90 % band.")
        figures.save(figure, path)


def _states_panel(axis: Any, mine: Table) -> None:
    """The variance over states of one sample each."""
    steps = mine[(mine["kind"] == "step") & (mine["across"] > 0)]
    for estimator, label in NAMES.items():
        curve = steps[steps["estimator"] == estimator].sort_values("step")
        if len(curve):
            _curve(axis, curve, "across", estimator, label)
    axis.set(yscale="log", ylabel="variance [reward²]")
    axis.set_xlabel("step of the rollout [control periods]")


def _curve(axis: Any, curve: Table, column: str, estimator: str, label: str) -> None:
    """A line with the interval of every point, in the look of an estimator."""
    from gradlab.study import figures

    look = figures.look(LOOKS[estimator])
    low = (curve[column] - curve[f"{column}_low"]).clip(lower=0).fillna(0)
    high = (curve[f"{column}_high"] - curve[column]).clip(lower=0).fillna(0)
    drawn = axis.errorbar(
        curve["step"], curve[column], np.stack([low, high]), color=look.colour,
        marker=look.marker, markersize=3, linewidth=1.1, elinewidth=0.7,
        linestyle=DASHES.get(estimator, "-"), label=label,
    )  # fmt: skip
    drawn.lines[0].set_label(label)  # the name at the line is that of its data


def _rollout_panel(axis: Any, mine: Table) -> None:
    """Medians over states with bands from the 5 % to the 95 % quantile,
    and the interval of the median.
    """
    from gradlab.study import figures

    steps = mine[(mine["kind"] == "step") & (mine["value"] > 0)]
    for estimator, label in NAMES.items():
        curve = steps[steps["estimator"] == estimator].sort_values("step")
        if not len(curve):
            continue
        colour = figures.look(LOOKS[estimator]).colour
        axis.fill_between(
            curve["step"], curve["q05"], curve["q95"], color=colour, alpha=0.13, linewidth=0
        )
        _curve(axis, curve, "value", estimator, label)
    axis.set_yscale("log")
    axis.set_ylabel("variance [reward²]")
    axis.set_xlabel("step of the rollout [control periods]")


def _contact_panel(axis: Any, mine: Table) -> None:
    """Distribution of SG's variance with and without a change of contact."""
    from matplotlib.ticker import NullFormatter

    from gradlab.study import figures

    states = mine[(mine["kind"] == "state") & (mine["estimator"] == "sg") & (mine["value"] > 0)]
    colour = figures.look("fog").colour
    looks = {False: ("--", "#777777", "none"), True: ("-", colour, "some")}
    for flag, (dashes, shade, word) in looks.items():
        values = np.sort(states.loc[states["changes"].astype(bool) == flag, "value"].to_numpy())
        if len(values):
            above = 1 - np.arange(len(values)) / len(values)
            axis.step(
                values,
                above,
                where="post",
                color=shade,
                linestyle=dashes,
                label=f"{word} ({len(values)})",
            )
    if len(states):
        cut = float(states["value"].quantile(0.95))
        axis.axvline(cut, color="#aaaaaa", linewidth=0.8)
    axis.set(xscale="log", yscale="log", ylabel="share above [1]")
    axis.set_xlabel("variance of SG [reward²]")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend(title="lands or lifts off", fontsize=7, title_fontsize=7, loc="lower left")


def _path_panel(axis: Any, mine: Table, end: str) -> None:
    """Change of r + γQ along the ascents from one state: each seed, the median and a 90 % band."""
    from gradlab.study import figures

    paths = mine[(mine["kind"] == "path") & (mine["end"] == end)]
    if not len(paths):
        axis.set_visible(False)
        return
    table = paths.pivot(index="update", columns="ascent_seed", values="value")
    change = table - table.iloc[0]
    colour = figures.look("fog").colour
    axis.plot(change.index, change.to_numpy(), color=colour, linewidth=0.5, alpha=0.5)
    low, middle, high = (change.quantile(q, axis=1) for q in (0.05, 0.5, 0.95))
    axis.fill_between(change.index, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(change.index, middle, color=colour, linewidth=1.8)
    first = paths.iloc[0]
    axis.set_title(f"{end} variance {first['variance']:.1e}, step {first['step']:.0f}")
    axis.set_xlabel("updates by SG")
