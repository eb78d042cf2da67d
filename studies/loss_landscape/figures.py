"""The figures of `loss_landscape`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import scipy  # its parts are imported when they are used

from gradlab.study import file_name
from studies.loss_landscape.arrows import TRUTH
from studies.loss_landscape.config import RETURN
from studies.loss_landscape.rows import ESTIMATORS, NAMES

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

UNITS = {
    "plain": "lengths of θ",
    "filter": "lengths of each filter",
    "pca": "extents of the training path",
}
# the looks of the project: SG is FOG, Q is what QG differentiates, SG+PG is the registered mixture
LOOKS = {
    RETURN: "return_surface", "sg": "fog", "fog": "fog", "q": "qg", "qg": "qg", "pg": "pg",
    "sg_pg": "inverse_variance", "sg_qg": "inverse_variance_qg_fog",
}  # fmt: skip


SLOPE = "#707070"  # colour of the slope itself
MAIN = ("fog", "qg", "sg_qg")  # of the main figure, which has at most six panels
POLICIES = 2


def plot(rows: Table, path: Path) -> None:
    """Arrows of SG, QG and their mixture around the first policies at `path`.

    `path`_arrows has every estimator and policy, `path`_return and `path`_steps_TASK-LABEL the
    surfaces in three dimensions, `path`_cuts the cuts and `path`_roughness the roughness.
    """
    policies = [policy for _, policy in policies_of(rows)]
    found = [name for name in ESTIMATORS if (rows["estimator"] == name).any()]
    names = [name for name in MAIN if name in found] or found[: len(MAIN)]
    plot_arrows(policies[:POLICIES], names, path)
    if (len(policies), len(found)) != (len(policies[:POLICIES]), len(names)):
        plot_arrows(policies, found, path.with_name(f"{path.name}_arrows"))
    plot_return(rows, path.with_name(f"{path.name}_return"))
    for (task, label), policy in policies_of(rows):
        if (policy["kind"].eq("surface") & policy["step"].notna()).any():
            plot_steps(policy, path.with_name(f"{path.name}_steps_{file_name(task)}-{label}"))
    plot_cuts(rows, path.with_name(f"{path.name}_cuts"))
    plot_roughness(rows, path.with_name(f"{path.name}_roughness"))


def policies_of(rows: Table) -> Iterator[tuple[Any, Table]]:
    """Rows of one policy after the other."""
    yield from rows.groupby(["task", "label"], sort=False)


def title_of(row: Row) -> str:
    """Task and policy of a row."""
    return f"{row['task']}, {row['policy']}"


def _square(surface: Table, column: str = "value") -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of one side and the values [a, b]."""
    table = surface.pivot(index="a", columns="b", values=column)
    return table.index.to_numpy(dtype=float), table.to_numpy(dtype=float)


def _axis_label(row: Row, which: str) -> str:
    return f"{which} direction [{UNITS[row['directions']]}]"


def plot_arrows(policies: list[Table], names: list[str], path: Path) -> None:
    """The return in grey, its slope (thick grey arrows) and each estimator's
    mean, a row per policy.
    """
    from gradlab.study import figures

    names = names or [""]
    with figures.style():
        title = "Do the estimators' expected gradients point up the slope of the return?"
        figure, axes = figures.panels(len(policies), len(names), title, width=2.9, height=3.1)
        for row, (line, policy) in enumerate(zip(axes, policies, strict=True)):
            first = policy.iloc[0]
            surface = policy[(policy["kind"] == "surface") & (policy["objective"] == RETURN)]
            arrows = policy[policy["kind"] == "arrow"]
            for k, (axis, name) in enumerate(zip(line, names, strict=True)):
                filled = _contours(axis, surface)
                _draw_arrows(axis, arrows, name)
                radius = float(surface["a"].max())
                axis.set(xlim=(-radius, radius), ylim=(-radius, radius), aspect="equal")
                axis.set_xticks([-radius, 0, radius])
                axis.set_yticks([-radius, 0, radius])
                axis.set_title(ESTIMATORS.get(name, ""), color=_colour(name))
                axis.grid(False)
                if row + 1 == len(policies):
                    axis.set_xlabel(f"first direction\n[{UNITS[first['directions']]}]")
                if k == 0:
                    axis.set_ylabel(f"{title_of(first)}\n{_axis_label(first, 'second')}")
                else:
                    axis.set_yticklabels([])
                if k + 1 == len(names):
                    figure.colorbar(filled, ax=list(line), label="return J [reward]")
        figures.letters(axes)
        figures.note(
            figure,
            "Grey levels: the return. Thick grey arrows: its slope, by differences. Thin arrows: the "
            "estimator's expected gradient. Crosses: 95 % of a tip. Pale: not told from zero. Without a cross: "
            "longer than drawn.",
        )
        figures.save(figure, path)


def _colour(name: str) -> str:
    from gradlab.study import figures

    return figures.look(LOOKS.get(name, name)).colour if name else "#000000"


def _contours(axis: Any, surface: Table) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    side, values = _square(surface)
    axis.contour(side, side, values.T, levels=10, colors="#a0a0a0", linewidths=0.5)
    # light greys only, so that arrows of any colour stand out
    greys = LinearSegmentedColormap.from_list("light greys", ["#c0c0c0", "#ffffff"])
    return axis.contourf(side, side, values.T, levels=10, cmap=greys, zorder=0)


def _draw_arrows(axis: Any, arrows: Table, name: str) -> None:
    """Arrows of one estimator over those of the differences, on the scale of the latter."""
    from gradlab.study import figures

    truth = arrows[arrows["estimator"] == TRUTH]
    if not len(truth):
        return
    count = int(truth["a"].nunique())
    # arrows stand in the middle of their squares
    spacing = 2 * float(truth["a"].abs().max()) / (count - 1) if count > 1 else 0.1
    longest = float(np.hypot(truth["slope_a"], truth["slope_b"]).max())
    scale = 0.8 * spacing / longest if longest > 0 else 1.0
    _arrow_set(axis, truth, scale, spacing, SLOPE, 0.016)
    mine = arrows[arrows["estimator"] == name]
    if len(mine):
        _arrow_set(axis, mine, scale, spacing, figures.look(LOOKS.get(name, name)).colour, 0.009)


def _arrow_set(
    axis: Any, arrows: Table, scale: float, spacing: float, colour: str, width: float
) -> None:
    """Arrows no longer than one spacing; pale where neither coordinate is told from zero."""
    parts = ("slope", "slope_stderr", "slope_freedom", "truncation")
    columns = arrows[["a", "b", *(f"{part}_{end}" for part in parts for end in "ab")]]
    for a, b, *numbers in columns.itertuples(index=False):
        slope, stderr, freedom, truncation = np.array(numbers).reshape(4, 2)
        error = scipy.stats.t.ppf(0.975, np.maximum(freedom, 1.0)) * stderr
        if colour == SLOPE:
            error = error + truncation
        slope, error = scale * slope, scale * error
        if not np.isfinite(slope).all():
            continue
        length = float(np.hypot(*slope))
        shrink = min(1.0, spacing / length) if length > 0 else 1.0
        tip = slope * shrink
        opacity = 1.0 if (np.abs(slope) > error).any() else 0.3
        axis.quiver(
            a, b, *tip, angles="xy", scale_units="xy", scale=1, color=colour, width=width,
            alpha=opacity, zorder=3,
        )  # fmt: skip
        if shrink == 1.0:
            axis.errorbar(
                a + tip[0], b + tip[1], xerr=error[0], yerr=error[1], fmt="none", ecolor=colour,
                elinewidth=0.8, alpha=0.8 * opacity, zorder=4,
            )  # fmt: skip


def plot_return(rows: Table, path: Path) -> None:
    """The return as a surface in three dimensions, a panel per policy."""
    from gradlab.study import figures

    policies = list(policies_of(rows))
    with figures.style():
        title = "What does the return look like around a policy?"
        figure, axes = _solid_panels(1, len(policies), title)
        for axis, (_, policy) in zip(axes[0], policies, strict=True):
            surface = policy[(policy["kind"] == "surface") & (policy["objective"] == RETURN)]
            _solid(axis, surface, "value")
            axis.set_title(f"{title_of(policy.iloc[0])}\nreturn J [reward]")
        _letters(axes)
        figures.save(figure, path)


def plot_steps(policy: Table, path: Path) -> None:
    """SG, SG+PG and SG+QG at each step of the simulation, as Figure 3 of AGPO."""
    from gradlab.study import figures

    surfaces = policy[(policy["kind"] == "surface") & policy["step"].notna()]
    steps = sorted(set(surfaces["step"]))
    alpha = next((a for a in surfaces["alpha"] if a != "-"), "-")
    first = policy.iloc[0]
    names = [n for n in ("sg", "sg_pg", "sg_qg") if (surfaces["objective"] == n).any()]
    with figures.style():
        title = (
            "Are the one-step objectives of mixtures smoother than that of SG?\n"
            f"Change from the centre [reward]; {title_of(first)}"
        )
        shape = (len(names), len(steps)) if len(steps) > 1 else (1, len(names))
        figure, axes = _solid_panels(*shape, title)
        panels = iter(axes.flat)
        for name in names:
            for step in steps:
                shown = surfaces[surfaces["step"] == step]
                shown = shown[shown["objective"].isin(names) & shown["alpha"].isin(("-", alpha))]
                # objectives share their height: the same unit, so that roughness can be compared by
                # eye
                limits = (float(shown["change"].min()), float(shown["change"].max()))
                mine = shown[shown["objective"] == name]
                axis = next(panels)
                _solid(axis, mine, "change", limits)
                where = "" if name == "sg" else f", α = {_alpha(mine)}"
                axis.set_title(f"{NAMES[name]}{where}\nstep t = {step:.0f}", color=_colour(name))
        _letters(axes)
        figures.save(figure, path)


def _letters(axes: np.ndarray) -> None:
    """Panel letters of 3-D panels, whose titles have one place only."""
    for index, axis in enumerate(axes.flat):
        axis.text2D(0.0, 1.05, chr(ord("a") + index), transform=axis.transAxes, weight="bold")


def _alpha(surface: Table) -> str:
    low, high = surface["weight"].min(), surface["weight"].max()
    return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


def _solid_panels(rows: int, columns: int, title: str) -> tuple[Any, np.ndarray]:
    from matplotlib.figure import Figure
    from mpl_toolkits import mplot3d  # noqa: F401  (registers the projection)

    from gradlab.study import figures

    figure = Figure(figsize=(3.4 * columns, 1.0))
    title = figures.fitted(figure, title)
    head = 0.75 + 0.2 * len(title.split("\n"))
    height = 3.1 * rows + head
    figure.set_figheight(height)
    axes = figure.subplots(
        rows, columns, squeeze=False, subplot_kw={"projection": "3d"},
        # a fixed frame: the constrained layout does not know how large a 3-D panel's labels are
        gridspec_kw={
            "left": 0.02, "right": 0.95, "bottom": 0.15 / rows, "top": 1 - head / height,
            "wspace": 0.12, "hspace": 0.2,
        },
    )  # fmt: skip
    figure.suptitle(title, y=1 - 0.1 / height)
    return figure, axes


def _solid(
    axis: Any, surface: Table, column: str, limits: tuple[float, float] | None = None
) -> None:
    side, values = _square(surface, column)
    a, b = np.meshgrid(side, side, indexing="ij")
    low, high = limits or (None, None)
    # drawn as an image inside the SVG: thousands of polygons otherwise
    axis.plot_surface(
        a, b, values, cmap="cividis", vmin=low, vmax=high, rcount=len(side), ccount=len(side),
        linewidth=0, antialiased=False, rasterized=True,
    )  # fmt: skip
    if limits and limits[0] < limits[1]:
        axis.set_zlim(*limits)
    unit = UNITS[surface.iloc[0]["directions"]]
    axis.set_xlabel(f"first [{unit}]", fontsize=7, labelpad=-4)
    axis.set_ylabel(f"second [{unit}]", fontsize=7, labelpad=-4)
    axis.tick_params(labelsize=7, pad=-2)
    axis.tick_params(axis="z", pad=1)
    axis.locator_params(nbins=4)
    axis.set_box_aspect(None, zoom=0.88)
    axis.view_init(elev=32, azim=-58)


def plot_cuts(rows: Table, path: Path) -> None:
    """Changes from the centre along the first direction, with 95 % bands at each point."""
    from gradlab.study import figures

    cuts = rows[rows["kind"] == "cut"]
    policies = list(policies_of(cuts))
    columns = max(1 + len(set(policy["step"].dropna())) for _, policy in policies)
    with figures.style():
        title = "How do the objectives change along one direction?"
        figure, axes = figures.panels(len(policies), columns, title)
        for line, (_, policy) in zip(axes, policies, strict=True):
            first = policy.iloc[0]
            alpha = next((a for a in policy["alpha"] if a != "-"), "-")
            shown = policy[policy["alpha"].isin(("-", alpha))]
            groups = list(shown.groupby("step", sort=True, dropna=False))
            groups.sort(key=lambda group: -1 if math.isnan(group[0]) else group[0])
            for axis in line[len(groups) :]:
                axis.set_visible(False)
            for axis, (step, group) in zip(line, groups, strict=False):
                for name, curve in group.groupby("objective", sort=False):
                    _band(axis, curve, str(name))
                what = "return" if math.isnan(step) else f"one step, t = {step:.0f}"
                axis.set_title(f"{title_of(first)}\n{what}")
                axis.set_xlabel(_axis_label(first, "first"))
            line[0].set_ylabel("change from the centre [reward]")
        figures.letters([axis for axis in axes.flat if axis.get_visible()])
        figures.legend(figure, axes, columns=5)
        figures.save(figure, path)


def _band(axis: Any, curve: Table, name: str) -> None:
    from gradlab.study import figures

    colour = figures.look(LOOKS.get(name, name)).colour
    dashes = {"sg_pg": "--", "sg_qg": "-.", "q": ":"}.get(name, "-")
    axis.fill_between(
        curve["a"], curve["change_low"], curve["change_high"], color=colour, alpha=0.18, linewidth=0
    )
    axis.plot(
        curve["a"], curve["change"], color=colour, linewidth=1.2, linestyle=dashes,
        label=NAMES[name],
    )  # fmt: skip


def plot_roughness(rows: Table, path: Path) -> None:
    """Share of roughness against the scale, with 95 % intervals; a panel per policy and step."""
    from gradlab.study import figures

    rough = rows[rows["kind"] == "roughness"]
    policies = list(policies_of(rough))
    columns = max(1 + len(set(policy["step"].dropna())) for _, policy in policies)
    with figures.style():
        title = (
            "How rough is each objective, and at which scale?\n"
            "Share off local quadratics, 95 %; open: α anew at each point"
        )
        figure, axes = figures.panels(len(policies), columns, title)
        for line, (_, policy) in zip(axes, policies, strict=True):
            groups = list(policy.groupby("step", sort=True, dropna=False))
            groups.sort(key=lambda group: -1 if math.isnan(group[0]) else group[0])
            for axis in line[len(groups) :]:
                axis.set_visible(False)
            for axis, (step, group) in zip(line, groups, strict=False):
                _scales(axis, group)
                what = "return" if math.isnan(step) else f"one step, t = {step:.0f}"
                axis.set_title(f"{title_of(policy.iloc[0])}\n{what}")
                axis.set_xlabel(f"scale [{UNITS[policy.iloc[0]['directions']]}]")
            line[0].set_ylabel("roughness, share of variance [1]")
        figures.letters([axis for axis in axes.flat if axis.get_visible()])
        figures.legend(figure, axes, columns=5)
        figures.save(figure, path)


def _scales(axis: Any, group: Table) -> None:
    """Curves beside each other, so that their intervals do not lie on top of each other."""
    from gradlab.study import figures

    if not (group["spread"] > 0).any():
        axis.text(0.5, 0.5, "flat", transform=axis.transAxes, ha="center")
        axis.set(xticks=[], yticks=[])
        return
    curves = list(group.groupby(["objective", "alpha"], sort=False))
    for k, ((name, alpha), curve) in enumerate(curves):
        colour, marker = figures.look(LOOKS.get(name, str(name)))
        x = curve["scale"] * 1.025 ** (k - (len(curves) - 1) / 2)
        y = curve["share"].to_numpy(dtype=float)
        low, high = (curve[f"share_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        reach = np.stack([np.maximum(y - low, 0.0), np.maximum(high - y, 0.0)])
        reach = np.where(np.isfinite(reach), reach, 0.0)
        axis.errorbar(
            x, y, reach, color=colour, marker=marker, capsize=2, linewidth=1.0,
            fillstyle="none" if alpha == "point" else "full",
            linestyle="--" if alpha == "point" else "-", label=NAMES[name] if alpha != "point" else None,
        )  # fmt: skip
    axis.set_xscale("log")
    scales = sorted(set(group["scale"]))
    axis.set_xticks(scales, [f"{s:.2g}" for s in scales])
    axis.minorticks_off()
    axis.set_xlim(scales[0] / 1.3, scales[-1] * 1.3)
    figures.signed_log(axis, group["share"])
