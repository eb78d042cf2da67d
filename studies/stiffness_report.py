"""What `contact_stiffness` makes of its rows: the figure and the answer in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gradlab.statistics import format_interval
from studies.stiffness_problems import PEGS, PERIOD, SPEED, bounce_rate, bounce_time

# a pandas table and one row of it; pandas' own types get lost at the first column
Table: TypeAlias = Any
Row: TypeAlias = Any

NAMES = {
    "fog": "FOG",
    "pg": "PG",
    "qg": "QG",
    "nstep": "N-step (tiled)",
    "inverse_variance": "inverse variance (FOG, PG)",
}
BOUNCES = 4  # in the longest horizon, before growth per step can be compared with growth per bounce
MISFIT = 3.0  # χ² per degree of freedom above which a law is said not to hold
DASHES = ("-", "--", "-.", ":", (0, (1, 4)), (0, (6, 4)))
POLICIES = {PEGS: "throws with std 1 cm around 1 cm off the line of centres"}
RANDOM = "a seeded random policy (nothing is learnt: it falls)"

LEGEND = (
    "Rates are of ln variance, with 95 % intervals from the variances' own errors (widened where the law "
    "misfits: χ² per degree of freedom in brackets); the errors of heavy-tailed variances are too small. "
    "Relative bias is ‖E ĝ − ∇J‖/‖∇J‖ with its sign, against the truth that is named: never the estimator's own "
    "episodes. Contact is harder the smaller the width; stiffness is load/width."
)


# ------------------------------------------------------------------------------------- summary


def summarise(rows: Table) -> str:
    """The answer in words: growth with the horizon, crossing, Jacobians, stiffness, bias, checks."""
    parts = [LEGEND]
    for task, mine in rows.groupby("task", sort=False):
        parts.append(f"{task}, {POLICIES.get(task, RANDOM)}.")
        parts += [_growth(one) for _, one in _by_width(mine)]
        parts += [text for text in (_stiffness(mine), _bias(mine), _critics(mine)) if text]
        if task == PEGS:
            parts.append(_check_of_toy(mine))
    lost = rows.loc[rows["nonfinite"].fillna(0) > 0]
    if len(lost):
        parts.append(
            f"Samples that are not finite were left out of {len(lost)} rows (column nonfinite): what is "
            "said of those is biased."
        )
    return "\n\n".join(parts)


def _by_width(rows: Table) -> Iterator[tuple[float, Table]]:
    found = rows[rows["width"].notna()]
    for width in sorted(set(found["width"]), reverse=True):
        yield width, found[found["width"] == width]


def _growth(rows: Table) -> str:
    """One width: how fast variances grow with T, where they cross, and what the Jacobians say."""
    width = rows.iloc[0]["width"]
    said = [f"{NAMES[name]}'s variance {_laws(rows, name)}" for name in ("fog", "pg")]
    return f"Width {width * 1e3:g} mm: {'; '.join(said)}. {_crossing(rows)} {_jacobians(rows)}"


def _laws(rows: Table, name: str) -> str:
    """The law that fits better, and the other beside it."""
    fits = rows[(rows["kind"] == "growth") & (rows["estimator"] == name)].set_index("law")
    power, exponential = fits.loc["power"], fits.loc["exponential"]
    if not math.isfinite(power["rate"]):
        return f"is positive at only {int(power['points'])} horizons: no rate"
    as_power = f"T^{_interval(power, 'rate')} ({power['misfit']:.1f})"
    as_exponential = f"e^(T·{_interval(exponential, 'rate')}) ({exponential['misfit']:.1f})"
    better, other = (as_power, as_exponential)
    if exponential["misfit"] < power["misfit"]:
        better, other = other, better
    least = min(power["misfit"], exponential["misfit"])
    how = "grows as" if least <= MISFIT else "follows neither law; nearest is"
    return f"{how} {better} rather than {other}"


def _crossing(rows: Table) -> str:
    row = rows[rows["kind"] == "crossing"].iloc[0]
    last = f"FOG/PG is {_interval(row, 'last_ratio')} at the longest horizon"
    if math.isnan(row["crossing"]):
        return f"Where FOG crosses PG cannot be told; {last}."
    early = _short(row["crossing_low"])
    if math.isinf(row["crossing"]):
        if math.isinf(row["crossing_low"]):
            return f"FOG stays below PG; {last}."
        return f"FOG is not seen to pass PG, but may have from T = {early}; {last}."
    late = "beyond" if math.isinf(row["crossing_high"]) else _short(row["crossing_high"])
    if row["crossing"] <= rows.loc[rows["kind"] == "product", "horizon"].min():
        return f"FOG is above PG from the first horizon; {last}."
    where = f"T = {_short(row['crossing'])} [{early}, {late}]"
    return f"FOG's variance passes PG's at {where}; {last}."


def _jacobians(rows: Table) -> str:
    row = rows[rows["kind"] == "jacobian"].iloc[0]
    text = (
        f"Step Jacobians: ln norm of one {_interval(row, 'step_norm')}, of the product "
        f"{_interval(row, 'typical')} per step, mean square of the product "
        f"{_interval(row, 'square')} per step."
    )
    fits = rows[rows["kind"] == "growth"].set_index("law")
    said = [f"{what} {_explained(fits.loc[law])}" for law, what in PRODUCTS.items()]
    return f"{text} FOG's variance against the mean square of {'; of '.join(said)}."


PRODUCTS = {"product": "the product P_T", "summed": "its sum over pairs of steps"}


def _explained(fit: Row) -> str:
    """In words, whether the variance goes as a mean square: with which power."""
    if not math.isfinite(fit["rate"]):
        return "cannot be placed"
    if fit["spread"] < 1:
        return f"has nothing to go with (that changes by a factor e^{fit['spread']:.2f} in all)"
    power = f"{_interval(fit, 'rate')} (χ² {fit['misfit']:.1f})"
    if not fit["misfit"] <= MISFIT:
        return f"goes as no power of it; nearest is {power}"
    low, high = fit["rate_low"], fit["rate_high"]
    verdict = "in step" if low <= 1 <= high else "faster" if low > 1 else "more slowly"
    return f"goes as its power {power}, {verdict}"


def _stiffness(rows: Table) -> str:
    fits = rows[(rows["kind"] == "growth") & (rows["law"] == "stiffness")]
    fits = fits[fits["rate"].notna()]
    if not len(fits):
        return ""
    said = [
        f"T = {int(horizon)} "
        + ", ".join(f"{NAMES[r['estimator']]} {_interval(r, 'rate')}" for _, r in group.iterrows())
        for horizon, group in fits.groupby("horizon")
    ]
    return f"Power of the stiffness that variances go with: {'; '.join(said)}."


def _bias(rows: Table) -> str:
    """Which estimators are seen to be biased, at which widths."""
    table = rows[rows["kind"] == "estimator"]
    lines = []
    for name, label in NAMES.items():
        mine = table[table["estimator"] == name].sort_values(["horizon", "width"], ascending=False)
        if not len(mine):
            continue
        seen = mine[mine["relative_bias_low"] > 0]
        longest = mine[mine["horizon"] == mine["horizon"].max()]
        said = ", ".join(f"{r['width'] * 1e3:g} mm {_size(r)}" for _, r in longest.iterrows())
        lines.append(
            f"{label}: seen in {len(seen)} of {len(mine)}; at T = {int(longest.iloc[0]['horizon'])} "
            f"{said}"
        )
    worst = table["truth_relative_stderr"].max()
    truths = ", ".join(dict.fromkeys(table["truth"]))
    return (
        "Relative bias (seen: its 95 % interval excludes 0, which 2.5 % do by chance):\n"
        + "\n".join(lines)
        + f"\nTruths: {truths}, relative standard error up to {_short(worst)}."
    )


def _size(row: Row) -> str:
    """The relative bias with its interval, or what it is below where the interval starts at 0."""
    if row["relative_bias_low"] > 0:
        return _interval(row, "relative_bias")
    return f"below {_short(row['relative_bias_high'])}"


def _critics(rows: Table) -> str:
    quality = rows["critic_quality"].dropna()
    if not len(quality):
        return ""
    low, high = (f"{end:.0%}" for end in (quality.min(), quality.max()))
    return (
        f"QG and N-step read fitted critics, which explain {low if low == high else f'between {low} and {high}'} of "
        "the returns' variance on episodes they have not seen; with exact ones they would have no bias."
    )


def _check_of_toy(rows: Table) -> str:
    """How the measured numbers compare with what is known."""
    table = rows[(rows["kind"] == "estimator") & rows["variance_exact"].notna()]
    inside = (table["variance_low"] <= table["variance_exact"]) & (
        table["variance_exact"] <= table["variance_high"]
    )
    sharp = rows[rows["kind"] == "jacobian"].sort_values("width")
    rates = ", ".join(
        f"{row['width'] * 1e3:g} mm {_interval(row, 'typical')}" for _, row in sharp.iterrows()
    )
    text = (
        f"Against the known answer: {int(inside.sum())} of {len(table)} intervals of the variance hold the "
        f"variance by quadrature (95 % should), which changes by at most "
        f"{_short(table['quadrature_change'].max())} of the gradient when its panels are halved."
    )
    if table["horizon"].max() * PERIOD < BOUNCES * bounce_time():
        return text
    rigid = bounce_rate() * PERIOD / bounce_time()
    return (
        f"{text} A rigid ball at {SPEED:g} m/s on the line of centres has ln growth {rigid:.3g} per step while it stays "
        f"between the pegs; measured over the longest horizon, escape included: {rates}."
    )


def _interval(row: Row, name: str) -> str:
    return format_interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _short(value: float) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.2g}"


# ------------------------------------------------------------------------------------- figure


def plot(rows: Table, path: Path) -> None:
    """A row of panels per task: variance over T, over stiffness, bias over stiffness, Jacobians."""
    from gradlab.study import figures

    groups = list(rows.groupby("task", sort=False))
    with figures.style():
        figure, axes = figures.panels(len(groups), 4, "From smooth to hard contact")
        figure.set_size_inches(14.5, 3.3 * len(groups) + 1.1)
        for line, (task, mine) in zip(axes, groups, strict=True):
            _over_horizon(line[0], mine)
            _over_width(line[1], mine, "variance")
            _over_width(line[2], mine, "relative_bias")
            _products(line[3], mine)
            line[0].set_ylabel(f"{task}\nvariance tr Σ [return²]")
        figures.legend(figure, [*axes[:, 1], *axes[:, 2]], columns=5)
        figures.save(figure, path)


def _over_horizon(axis: Any, rows: Table) -> None:
    """FOG's and PG's variance over T, a dash pattern per width."""
    from gradlab.study import figures

    table = rows[rows["kind"] == "estimator"]
    for k, (width, one) in enumerate(_by_width(table)):
        for name in ("fog", "pg"):
            mine = one[(one["estimator"] == name) & (one["variance"] > 0)]
            figures.line(
                axis, mine["horizon"], mine["variance"], mine["variance_low"], mine["variance_high"],
                name=name, label="_", dashes=_dashes(k),
            )  # fmt: skip
        axis.plot([], [], color="#555555", linestyle=_dashes(k), label=f"{width * 1e3:g} mm")
    _horizons(axis, table["horizon"])
    axis.set_yscale("log")
    axis.set_title("variance over the horizon")
    axis.legend(title="width of contact", fontsize=8, title_fontsize=8)


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
    axis.set_xlabel("width of contact [mm] (harder to the right)")
    if column == "variance":
        axis.set_yscale("log")
        axis.set_title(f"variance at T = {horizon}")
        axis.set_ylabel("variance tr Σ [return²]")
    else:
        figures.signed_log(axis, table[column].dropna())
        axis.set_ylim(bottom=0.0)
        axis.set_title(f"relative bias at T = {horizon}")
        axis.set_ylabel("relative bias [1] (bars: 95 %)")


LOOKS = {"product": ("#555555", "x"), "summed": ("#AAAAAA", "1")}  # not those of an estimator


def _bars(axis: Any, x: Any, y: Any, low: Any, high: Any, look: Any) -> None:
    """Points with bars."""
    axis.vlines(x, low, high, color=look.colour, linewidth=1.2)
    axis.plot(x, y, color=look.colour, marker=look.marker, linestyle="")


LEGEND_ROOM = 1.3  # height of a panel over that of its lines [1]
DODGE = 1.09  # between two estimators at one width [1]


def _products(axis: Any, rows: Table) -> None:
    """E‖P_T‖² of the step Jacobians and FOG's variance, both over their values at the first horizon."""
    from gradlab.study import figures

    fog = rows[
        (rows["kind"] == "estimator") & (rows["estimator"] == "fog") & (rows["variance"] > 0)
    ]
    for k, (width, one) in enumerate(_by_width(rows[rows["kind"] == "product"])):
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
    axis.set_title("growth and the Jacobian product")
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
