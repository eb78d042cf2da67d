"""What `loss_landscape` makes of its rows: five kinds of figures and the answer in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from gradlab.statistics import format_interval, holm

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

RETURN = "return"
DIFFERENCE = "difference"
LEVEL = 0.05  # of the verdicts, after Holm's correction over the table
APART = 0.01  # share of arrows that noise alone may set apart (Bonferroni over two coordinates)

NAMES = {RETURN: "return J", "sg": "SG", "q": "Q alone", "sg_pg": "SG+PG", "sg_qg": "SG+QG"}
ESTIMATORS = {"fog": "SG (FOG)", "pg": "PG", "qg": "QG", "sg_pg": "SG+PG", "sg_qg": "SG+QG"}
# the looks of the project: SG is FOG, Q is what QG differentiates, SG+PG is the registered mixture
LOOKS = {
    RETURN: "return_surface", "sg": "fog", "fog": "fog", "q": "qg", "qg": "qg", "pg": "pg",
    "sg_pg": "inverse_variance", "sg_qg": "inverse_variance_qg_fog",
}  # fmt: skip
UNITS = {
    "plain": "lengths of θ",
    "filter": "lengths of each filter",
    "pca": "extents of the training path",
}


# ------------------------------------------------------------------------------------- summary


def summarise(rows: Table) -> str:
    """What was drawn, how rough it is, whether mixtures are smoother than SG, and the arrows."""
    paragraphs = [LEGEND]
    pairs = rows[rows["kind"] == "pair"].copy()
    if len(pairs):
        for name in ("", "share_"):
            pairs[f"{name}p_holm"] = holm(pairs[f"{name}p_value"].tolist())
    for _, policy in _policies(rows):
        paragraphs.append(_describe(policy))
        paragraphs.append(_table(policy))
        mine = pairs[pairs.index.isin(policy.index)]
        paragraphs += [text for text in (_verdicts(mine), _arrows(policy)) if text]
    lost = rows.loc[rows["nonfinite"].fillna(0) > 0]
    if len(lost):
        paragraphs.append(
            f"Values that are not finite were left out of {len(lost)} rows (column nonfinite): "
            "what is said of those is biased."
        )
    return "\n\n".join(paragraphs)


LEGEND = (
    "Roughness is the share of a surface's variance over the grid that a quadratic through four "
    "neighbouring points does not explain, of the expected surface (Monte-Carlo noise taken off; "
    "negative: none is seen), with 95 % intervals from independent episodes; 0 for a quadratic, 1 for "
    "points that have nothing in common. `seen` has the noise of these episodes left in. SG, SG+PG and SG+QG "
    "are read as the one-step objectives of AGPO at steps t of the episode, states and noise held fixed."
)


def _policies(rows: Table) -> Iterator[tuple[Any, Table]]:
    yield from rows.groupby(["task", "label"], sort=False)


def _describe(policy: Table) -> str:
    first = policy.iloc[0]
    surface = policy[(policy["kind"] == "surface") & (policy["objective"] == RETURN)]
    text = (
        f"{_title(first)}; critic explains {first['critic_quality']:.0%} of the returns; directions "
        f"{first['directions']}"
    )
    if not len(surface):
        return text + "."
    centre = surface.iloc[len(surface) // 2]
    return (
        f"{text}. Return {centre['value']:.4g} ± {centre['stderr']:.2g} in the centre, between "
        f"{surface['value'].min():.4g} and {surface['value'].max():.4g} on {len(surface)} points; standard "
        f"error of a change from the centre {surface['change_stderr'].median():.2g} (median)."
    )


def _title(row: Row) -> str:
    return f"{row['task']}, {row['policy']}"


def _table(policy: Table) -> str:
    """Roughness of every surface, a column per scale."""
    rough = policy[policy["kind"] == "roughness"]
    scales = sorted(set(rough["scale"]))
    lines = [["surface", "t", *(f"share at {s:.3g}" for s in scales), "seen", "spread"]]
    for (step, name, alpha), group in rough.groupby(
        ["step", "objective", "alpha"], sort=False, dropna=False
    ):
        ordered = group.sort_values("scale")
        first = ordered.iloc[0]
        when = "" if math.isnan(step) else f"{step:.0f}"
        # where no episode is alive any more there is nothing to be rough
        flat = first["spread"] == 0
        shares = ["flat" if flat else _interval(row, "share") for _, row in ordered.iterrows()]
        lines.append(
            [
                _name(name, alpha),
                when,
                *shares,
                _short(first["share_seen"]),
                _short(first["spread"]),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _name(objective: str, alpha: str) -> str:
    where = {"centre": ", α of the centre", "point": ", α at each point"}.get(alpha, "")
    return f"{NAMES[objective]}{where}"


def _verdicts(pairs: Table) -> str:
    """In how many steps of the simulation is each objective smoother than SG, at the finest scale?"""
    if not len(pairs):
        return ""
    fine = pairs[pairs["stride"] == pairs["stride"].min()]
    parts = []
    for (name, alpha), group in fine.groupby(["objective", "alpha"], sort=False):
        said = [f"{_counts(group, column)} {what}" for column, what in COMPARED.items()]
        parts.append(f"{_name(name, alpha)}: {'; '.join(said)}.")
    return (
        f"Against SG on the same episodes, at the finest scale, of {fine['step'].nunique()} steps of the "
        f"simulation (p < {LEVEL} after Holm's correction over the table; elsewhere it cannot be told):\n"
        + "\n".join(parts)
    )


COMPARED = {
    "": "in the variance off quadratics",
    "share_": "in its share of the surface's variance",
}


def _counts(group: Table, column: str) -> str:
    sure = group[group[f"{column}p_holm"] <= LEVEL][f"{column}difference"]
    return f"smoother at {int((sure < 0).sum())}, rougher at {int((sure > 0).sum())}"


def _arrows(policy: Table) -> str:
    """How many arrows differ from the slope of J, and how far each estimator is turned away."""
    arrows = policy[policy["kind"] == "arrow"]
    truth = arrows[arrows["estimator"] == DIFFERENCE].set_index(["a", "b"])
    parts = []
    for name, group in arrows[arrows["estimator"] != DIFFERENCE].groupby("estimator", sort=False):
        mine = group.set_index(["a", "b"])
        if not len(truth):
            continue
        both = mine.join(truth.add_suffix("_true"))
        z = [
            (both[f"slope_{x}"] - both[f"slope_{x}_true"]).abs()
            / np.hypot(both[f"stderr_{x}"], both[f"stderr_{x}_true"])
            for x in "ab"
        ]
        bound = stats.t.isf(APART / 4, both["freedom"])
        apart = int(((z[0] > bound) | (z[1] > bound)).sum())
        parts.append(f"{ESTIMATORS[name]} {apart}")
    if not parts:
        return ""
    return (
        f"Of {len(truth)} arrows, how many are further from the slope of J (central differences) than noise "
        f"explains (1 % would be by chance): {', '.join(parts)}. QG and its mixture read the critic of the "
        "policy in the centre, which knows less of the policies around it."
    )


def _interval(row: Row, name: str) -> str:
    return format_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _short(value: float) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.2g}"


# ------------------------------------------------------------------------------------- figures


def plot(rows: Table, path: Path) -> None:
    """Contours with arrows at `path`; `path`_return and `path`_steps_TASK-LABEL (3-D), `path`_cuts
    and `path`_roughness beside it."""
    plot_arrows(rows, path)
    plot_return(rows, path.with_name(f"{path.name}_return"))
    for (task, label), policy in _policies(rows):
        if (policy["kind"].eq("surface") & policy["step"].notna()).any():
            plot_steps(policy, path.with_name(f"{path.name}_steps_{task}-{label}"))
    plot_cuts(rows, path.with_name(f"{path.name}_cuts"))
    plot_roughness(rows, path.with_name(f"{path.name}_roughness"))


def _square(surface: Table, column: str = "value") -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of one side and the values [a, b]."""
    table = surface.pivot(index="a", columns="b", values=column)
    return table.index.to_numpy(dtype=float), table.to_numpy(dtype=float)


def _axis_label(row: Row, which: str) -> str:
    return f"{which} direction [{UNITS[row['directions']]}]"


def plot_arrows(rows: Table, path: Path) -> None:
    """The return in grey, its slope (thick grey arrows) and each estimator's mean, per policy."""
    from gradlab.study import figures

    policies = list(_policies(rows))
    names = [n for n in ESTIMATORS if (rows["estimator"] == n).any()] or [""]
    with figures.style():
        title = (
            "Return around a policy, and expected gradients on the plane\n"
            "thick grey: slope of the return by central differences; crosses: 95 % of a tip;\n"
            "pale: not told from zero; without a cross: cut short"
        )
        figure, axes = figures.panels(len(policies), len(names), title)
        figure.set_size_inches(2.5 * len(names) + 1.2, 2.8 * len(policies) + 1.0)
        for row, (_, policy) in enumerate(policies):
            line, first = axes[row], policy.iloc[0]
            surface = policy[(policy["kind"] == "surface") & (policy["objective"] == RETURN)]
            arrows = policy[policy["kind"] == "arrow"]
            for k, (axis, name) in enumerate(zip(line, names, strict=True)):
                filled = _contours(axis, surface)
                _draw_arrows(axis, arrows, name)
                radius = float(surface["a"].max())
                axis.set(xlim=(-radius, radius), ylim=(-radius, radius), aspect="equal")
                axis.set_xticks([-radius, 0, radius])
                axis.set_yticks([-radius, 0, radius])
                axis.set_title(ESTIMATORS.get(name, ""))
                axis.grid(False)
                if row + 1 == len(policies):
                    axis.set_xlabel(f"first direction\n[{UNITS[first['directions']]}]")
                if k == 0:
                    axis.set_ylabel(f"{_title(first)}\n{_axis_label(first, 'second')}")
                else:
                    axis.set_yticklabels([])
                if k + 1 == len(names):
                    figure.colorbar(filled, ax=list(line), label="return J [reward]")
        figures.save(figure, path)


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

    truth = arrows[arrows["estimator"] == DIFFERENCE]
    if not len(truth):
        return
    count = truth["a"].nunique()
    # arrows stand in the middle of their squares
    spacing = 2 * float(truth["a"].abs().max()) / (count - 1) if count > 1 else 0.1
    longest = float(np.hypot(truth["slope_a"], truth["slope_b"]).max())
    scale = 0.8 * spacing / longest if longest > 0 else 1.0
    _arrow_set(axis, truth, scale, spacing, "#707070", 0.016)
    mine = arrows[arrows["estimator"] == name]
    if len(mine):
        _arrow_set(axis, mine, scale, spacing, figures.look(LOOKS[name]).colour, 0.009)


def _arrow_set(
    axis: Any, arrows: Table, scale: float, spacing: float, colour: str, width: float
) -> None:
    """Arrows no longer than one spacing; pale where neither coordinate is told from zero."""
    columns = arrows[["a", "b", "freedom", "slope_a", "slope_b", "stderr_a", "stderr_b"]]
    for a, b, freedom, *numbers in columns.itertuples(index=False):
        reach = stats.t.ppf(0.975, freedom)
        slope, error = scale * np.array(numbers[:2]), reach * scale * np.array(numbers[2:])
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

    policies = list(_policies(rows))
    with figures.style():
        title = "The return over the whole episode [reward]"
        figure, axes = _solid_panels(1, len(policies), title)
        for axis, (_, policy) in zip(axes[0], policies, strict=True):
            surface = policy[(policy["kind"] == "surface") & (policy["objective"] == RETURN)]
            _solid(axis, surface, "value")
            axis.set_title(_title(policy.iloc[0]))
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
        title = f"One-step objectives, change from the centre [reward]\n{_title(first)}"
        figure, axes = _solid_panels(len(names), len(steps), title)
        for column, step in enumerate(steps):
            here = surfaces[surfaces["step"] == step]
            shown = here[here["objective"].isin(names) & here["alpha"].isin(("-", alpha))]
            # rows share their height: the same unit, so that roughness can be compared by eye
            limits = (float(shown["change"].min()), float(shown["change"].max()))
            for line, name in enumerate(names):
                mine = shown[shown["objective"] == name]
                axis = axes[line, column]
                _solid(axis, mine, "change", limits)
                where = "" if name == "sg" else f", α = {_alpha(mine)}"
                axis.set_title(f"{NAMES[name]}{where}\nstep t = {step:.0f}")
        figures.save(figure, path)


def _alpha(surface: Table) -> str:
    low, high = surface["weight"].min(), surface["weight"].max()
    return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


def _solid_panels(rows: int, columns: int, title: str) -> tuple[Any, np.ndarray]:
    from matplotlib.figure import Figure
    from mpl_toolkits import mplot3d  # noqa: F401  (registers the projection)

    height = 3.1 * rows + 0.9
    figure = Figure(figsize=(3.4 * columns, height))
    axes = figure.subplots(
        rows, columns, squeeze=False, subplot_kw={"projection": "3d"},
        # a fixed frame: the constrained layout does not know how large a 3-D panel's labels are
        gridspec_kw={
            "left": 0.02, "right": 0.95, "bottom": 0.15 / rows, "top": 1 - 1.15 / height,
            "wspace": 0.12, "hspace": 0.2,
        },
    )  # fmt: skip
    figure.suptitle(title, y=1 - 0.15 / height)
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
    policies = list(_policies(cuts))
    columns = max(1 + len(set(policy["step"].dropna())) for _, policy in policies)
    with figures.style():
        title = "Cuts along the first direction: change from the centre, same episodes, 95 % bands"
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
                axis.set_title(f"{_title(first)}\n{what}")
                axis.set_xlabel(_axis_label(first, "first"))
            line[0].set_ylabel("change from the centre [reward]")
        figures.legend(figure, axes, columns=5)
        figures.save(figure, path)


def _band(axis: Any, curve: Table, name: str) -> None:
    from gradlab.study import figures

    colour = figures.look(LOOKS[name]).colour
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
    policies = list(_policies(rough))
    columns = max(1 + len(set(policy["step"].dropna())) for _, policy in policies)
    with figures.style():
        title = (
            "Roughness of the expected surface: share of its variance off local quadratics, 95 %\n"
            "open: α computed at each point"
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
                axis.set_title(f"{_title(policy.iloc[0])}\n{what}")
                axis.set_xlabel(f"scale [{UNITS[policy.iloc[0]['directions']]}]")
            line[0].set_ylabel("roughness, share of variance [1]")
        figures.legend(figure, axes, columns=4)
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
        colour, marker = figures.look(LOOKS[name])
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
