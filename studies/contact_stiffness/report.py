"""The long form of what `contact_stiffness` found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

from gradlab.critics.quality import Quality
from gradlab.statistics import format_interval
from studies.contact_stiffness.problems import PEGS, PERIOD, SPEED, bounce_rate, bounce_time

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
POLICIES = {PEGS: "throws with std 1 cm around 1 cm off the line of centres"}
RANDOM = "a seeded random policy (nothing is learnt: it falls)"

SHOWN = 0.2  # relative bias that a setting is asked whether it could have shown [1]
ENDS = ("", "_low", "_high")

LEGEND = (
    "Rates are those of ln variance over the horizon T or over ln stiffness, with 95 % intervals from the errors of the "
    "variances themselves. They are widened where a law misfits; the misfit is χ² per degree of freedom, about 1 where "
    "the law holds. The errors of heavy-tailed variances are too small. Contact is harder the smaller its width, and "
    "stiffness is load/width. Every estimator is judged by a truth from other episodes than its own."
)


# ------------------------------------------------------------------------------------- summary


def summarise(rows: Table) -> str:
    """The answer in words: growth with the horizon, crossing, Jacobians,
    stiffness, bias, checks.
    """
    parts = [LEGEND]
    for task, mine in rows.groupby("task", sort=False):
        parts.append(f"{task}, {POLICIES.get(task, RANDOM)}.")
        parts += [_growth(one) for _, one in by_width(mine)]
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


def by_width(rows: Table) -> Iterator[tuple[float, Table]]:
    found = rows[rows["width"].notna()]
    for width in sorted(set(found["width"]), reverse=True):
        yield width, found[found["width"] == width]


def _growth(rows: Table) -> str:
    """One width: how fast variances grow with T, where they cross, and what the Jacobians say."""
    width = rows.iloc[0]["width"]
    said = [f"{NAMES[name]}'s variance {_laws(rows, name)}" for name in ("fog", "pg")]
    return f"Width {width * 1e3:g} mm: {'; '.join(said)}. {_crossing(rows)} {_jacobians(rows)}"


def _laws(rows: Table, name: str) -> str:
    """The law that fits better, and the other beside it; or that no growth is seen."""
    fits = rows[(rows["kind"] == "growth") & (rows["estimator"] == name)].set_index("law")
    power, exponential = fits.loc["power"], fits.loc["exponential"]
    if not math.isfinite(power["rate"]):
        return f"is positive at only {int(power['points'])} horizons: no rate"
    if all(law["rate_low"] <= 0 <= law["rate_high"] for law in (power, exponential)):
        return (
            f"is not seen to change with T: as a power of T its exponent is {_interval(power, 'rate')}, as an "
            f"exponential its rate is {_interval(exponential, 'rate')} per step"
        )
    as_power = f"T^{_interval(power, 'rate')} (misfit {power['misfit']:.1f})"
    as_exponential = f"e^(T·{_interval(exponential, 'rate')}) (misfit {exponential['misfit']:.1f})"
    better, other, rate = as_power, as_exponential, power["rate"]
    if exponential["misfit"] < power["misfit"]:
        better, other, rate = as_exponential, as_power, exponential["rate"]
    least = min(power["misfit"], exponential["misfit"])
    known = "grows as" if rate > 0 else "falls as"
    how = known if least <= MISFIT else "follows neither law; nearest is"
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
    """Direction, then length, at the longest horizon, and in how many settings a bias is seen."""
    table = rows[rows["kind"] == "estimator"]
    lines = []
    for name, label in NAMES.items():
        mine = table[table["estimator"] == name].sort_values(["horizon", "width"], ascending=False)
        if not len(mine):
            continue
        seen = mine[mine["relative_bias_low"] > 0]
        could = mine["relative_bias_high"] - mine["relative_bias_low"] < SHOWN
        longest = mine[mine["horizon"] == mine["horizon"].max()]
        said = "; ".join(
            f"at {r['width'] * 1e3:g} mm direction {direction(r)}, length {length(r)}, both together {_size(r)}"
            for _, r in longest.iterrows()
        )
        lines.append(
            f"{label}: a bias is seen in {len(seen)} of {len(mine)} settings; {int(could.sum())} are precise enough to show "
            f"one of {SHOWN:.0%}. At T = {int(longest.iloc[0]['horizon'])}: {said}."
        )
    worst = table["truth_relative_stderr"].max()
    truths = ", ".join(dict.fromkeys(table["truth"]))
    return (
        "Expected gradients against the truth: direction is their cosine, length the ratio of their norms, and both "
        "together the relative bias (seen: its 95 % interval excludes 0, which 2.5 % do by chance).\n"
        + "\n".join(lines)
        + f"\nThe truths are {truths}; their relative standard error is up to {_short(worst)}."
    )


def direction(row: Row) -> str:
    """The cosine of the expected gradient with the truth."""
    return format_interval(*(row[f"cosine{end}"] for end in ENDS), within=(-1.0, 1.0))


def length(row: Row) -> str:
    """The length of the expected gradient over the truth's."""
    return format_interval(*(row[f"relative_norm{end}"] for end in ENDS))


def _size(row: Row) -> str:
    """The relative bias with its interval, or what it is below where the interval starts at 0."""
    if row["relative_bias_low"] > 0:
        return _interval(row, "relative_bias")
    return f"below {_short(row['relative_bias_high'])}"


def _critics(rows: Table) -> str:
    fitted = rows[rows["critic_quality"].notna()].drop_duplicates(["width", "horizon"])
    if not len(fitted):
        return ""
    low, high = (
        f"{end:.0%}" for end in (fitted["critic_quality"].min(), fitted["critic_quality"].max())
    )
    each = "; ".join(
        f"{row['width'] * 1e3:g} mm, T = {int(row['horizon'])}: {Quality.in_words(row)}"
        for _, row in fitted.iterrows()
    )
    return (
        f"QG and N-step read fitted critics, which explain {low if low == high else f'between {low} and {high}'} of "
        f"the variance of returns on episodes that they have not seen. Their ceilings are known at the start ({each}). "
        "With exact critics QG and N-step would have no bias here."
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
