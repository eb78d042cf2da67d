"""The figure of `contact_stiffness`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from studies.contact_stiffness.rows import NAMES, PRODUCTS

Table: TypeAlias = Any  # pandas' own types get lost at the first column

DASHES = ("-", "--", "-.", ":", (0, (1, 4)), (0, (6, 4)))


TASKS = 2  # in the main figure, which has at most six panels


def plot(rows: Table, path: Path) -> None:
    """Variance over T and over stiffness, and bias over stiffness,
    of the first two tasks at `path`.

    `path`_jacobians has FOG's variance beside products of Jacobians, `path`_more the other tasks.
    """
    groups = list(rows.groupby("task", sort=False))
    plot_tasks(groups[:TASKS], path)
    if len(groups) > TASKS:
        plot_tasks(groups[TASKS:], path.with_name(f"{path.name}_more"))
    plot_jacobians(groups, path.with_name(f"{path.name}_jacobians"))


def plot_tasks(groups: list[tuple[Any, Table]], path: Path) -> None:
    """A row of three panels per task."""
    from gradlab.study import figures

    with figures.style():
        title = "Does contact that hardens spoil first-order gradients (FOG) more than zeroth-order ones (PG)?"
        figure, axes = figures.panels(len(groups), 3, title, width=4.1, height=3.2)
        for line, (task, mine) in zip(axes, groups, strict=True):
            _over_horizon(line[0], mine)
            _over_width(line[1], mine, "variance")
            _over_width(line[2], mine, "relative_bias")
            line[0].set_ylabel(f"{task}\nvariance tr Σ [return²]")
        figures.letters(axes)
        for axis in axes[:, :2].flat:
            figures.label_lines(axis)
        figures.note(
            figure,
            "Bands and bars: 95 % intervals. Contact is harder the smaller its width. The right panels have the middle ones' colours.",
        )
        figures.save(figure, path)


def plot_jacobians(groups: list[tuple[Any, Table]], path: Path) -> None:
    """FOG's variance and mean squares of Jacobian products, a panel per task."""
    from gradlab.study import figures

    with figures.style():
        title = "Do the Jacobians of the dynamics explain how FOG's variance grows?"
        figure, axes = figures.panels(1, len(groups), title, width=4.4, height=3.6)
        for axis, (task, mine) in zip(axes[0], groups, strict=True):
            _products(axis, mine)
            axis.set_title(str(task))
        figures.letters(axes)
        figures.save(figure, path)


def by_width(rows: Table) -> Iterator[tuple[float, Table]]:
    """The rows of each width, from smooth to hard."""
    found = rows[rows["width"].notna()]
    for width in sorted(set(found["width"]), reverse=True):
        yield width, found[found["width"] == width]


def _over_horizon(axis: Any, rows: Table) -> None:
    """FOG's and PG's variance over T, a dash pattern per width."""
    from gradlab.study import figures

    table = rows[rows["kind"] == "estimator"]
    for k, (width, one) in enumerate(by_width(table)):
        for name in ("fog", "pg"):
            mine = one[(one["estimator"] == name) & (one["variance"] > 0)]
            figures.line(
                axis, mine["horizon"], mine["variance"], mine["variance_low"], mine["variance_high"],
                name=name, label=NAMES[name] if k == 0 else "_", dashes=_dashes(k),
            )  # fmt: skip
        axis.plot([], [], color="#555555", linestyle=_dashes(k), label=f"{width * 1e3:g} mm")
    _horizons(axis, table["horizon"])
    axis.set_yscale("log")
    axis.set_title("How variance grows with T")
    # the dashes alone: estimators are named at their lines
    dashes = [item for item in axis.get_lines() if len(item.get_xdata()) == 0]
    axis.legend(handles=dashes, title="width of contact", fontsize=8, title_fontsize=8)


def _over_width(axis: Any, rows: Table, column: str) -> None:
    """All estimators over the width, smooth left and hard right, at the horizon that all have."""
    from gradlab.study import figures

    table = rows[rows["kind"] == "estimator"]
    counts = table.groupby("horizon")["estimator"].nunique()
    horizon = int(counts[counts == counts.max()].index.max())
    table = table[table["horizon"] == horizon]
    for k, (name, label) in enumerate(NAMES.items()):
        mine = table[table["estimator"] == name]
        if column == "variance":
            mine = mine[mine["variance"] > 0]
        if not len(mine):
            continue
        ends = mine[f"{column}_low"], mine[f"{column}_high"]
        if column == "variance":
            x = mine["width"] * 1e3
            figures.line(axis, x, mine[column], *ends, name=name, label=label)
        else:
            # side by side: intervals of several estimators cover each other
            x = mine["width"] * 1e3 * DODGE ** (2 - k)
            # a debiased square below 0 is a length that cannot be told from 0
            _bars(axis, x, mine[column].clip(lower=0.0), *ends, figures.look(name))
    ticks = sorted(set(table["width"] * 1e3))
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.set_xlabel("width of contact [mm]")
    if column == "variance":
        axis.set_yscale("log")
        axis.set_title(f"... and with stiffness, at T = {horizon}")
        axis.set_ylabel("variance tr Σ [return²]")
    else:
        figures.signed_log(axis, table[column].dropna())
        axis.set_ylim(bottom=0.0)
        axis.set_title(f"Is it biased, at T = {horizon}?")
        axis.set_ylabel("relative bias [1] (bars: 95 %)")


LOOKS = {"product": ("#555555", "x"), "summed": ("#AAAAAA", "1")}  # not those of an estimator


def _bars(axis: Any, x: Any, y: Any, low: Any, high: Any, look: Any) -> None:
    """Points with bars."""
    axis.vlines(x, low, high, color=look.colour, linewidth=1.2)
    axis.plot(x, y, color=look.colour, marker=look.marker, linestyle="")


LEGEND_ROOM = 1.3  # height of a panel over that of its lines [1]
DODGE = 1.09  # between two estimators at one width [1]


def _products(axis: Any, rows: Table) -> None:
    """E‖P_T‖² of the step Jacobians and FOG's variance,
    both over their values at the first horizon.
    """
    from gradlab.study import figures

    fog = rows[
        (rows["kind"] == "estimator") & (rows["estimator"] == "fog") & (rows["variance"] > 0)
    ]
    for k, (width, one) in enumerate(by_width(rows[rows["kind"] == "product"])):
        one = one.sort_values("horizon")
        mine = fog[fog["width"] == width].sort_values("horizon")
        for law, (colour, marker) in LOOKS.items():
            squares, low, high = (
                np.exp(np.clip(one[f"log_{law}{end}"] - one[f"log_{law}"].iloc[0], -700, 700))
                for end in ("", "_low", "_high")
            )
            axis.plot(one["horizon"], squares, color=colour, linestyle=_dashes(k), marker=marker)
            axis.fill_between(one["horizon"], low, high, color=colour, alpha=0.15, linewidth=0)
        if len(mine):
            figures.line(
                axis, mine["horizon"], mine["variance"] / mine["variance"].iloc[0],
                name="fog", label="_", dashes=_dashes(k),
            )  # fmt: skip
    for law, (colour, marker) in LOOKS.items():
        axis.plot([], [], color=colour, marker=marker, label=f"mean square of {PRODUCTS[law]}")
    axis.plot(
        [], [], color=figures.look("fog").colour, marker=figures.look("fog").marker,
        label="FOG's variance",
    )  # fmt: skip
    _horizons(axis, rows[rows["kind"] == "product"]["horizon"])
    axis.set_yscale("log")
    axis.set_ylabel("over the first horizon [1]")
    low, high = (math.log(end) for end in axis.get_ylim())
    axis.set_ylim(top=math.exp(low + LEGEND_ROOM * (high - low)))
    axis.legend(fontsize=8, loc="upper left")


def _horizons(axis: Any, horizons: Any) -> None:
    ticks = sorted(set(horizons))
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(int(t)) for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("horizon T [steps]")


def _dashes(k: int) -> Any:
    return DASHES[k % len(DASHES)]
