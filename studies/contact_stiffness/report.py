"""The long form of what `contact_stiffness` found."""

from __future__ import annotations

import math

import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.study import text
from gradlab.study.tables import grouped
from studies.contact_stiffness.problems import PEGS, PERIOD, SPEED, bounce_rate, bounce_time
from studies.contact_stiffness.rows import NAMES, PRODUCTS, Estimate, Growth, Rows

BOUNCES = 4  # in the longest horizon, before growth per step can be compared with growth per bounce
MISFIT = 3.0  # χ² per degree of freedom above which a law is said not to hold
POLICIES = {PEGS: "throws with std 1 cm around 1 cm off the line of centres"}
RANDOM = "a seeded random policy (nothing is learnt: it falls)"
SHOWN = 0.2  # relative bias that a setting is asked whether it could have shown [1]
LEGEND = (
    "Rates are those of ln variance over the horizon T or over ln stiffness, with 95 % intervals from the errors of the "
    "variances themselves. They are widened where a law misfits; the misfit is χ² per degree of freedom, about 1 where "
    "the law holds. The errors of heavy-tailed variances are too small. Contact is harder the smaller its width, and "
    "stiffness is load/width. Every estimator is judged by a truth from other episodes than its own."
)


def summarise(table: pd.DataFrame) -> str:
    """The answer in words: growth with the horizon, crossing, Jacobians,
    stiffness, bias, checks.
    """
    parts = [LEGEND]
    for task, rows in Rows.by_task(table).items():
        parts.append(f"{task}, {POLICIES.get(task, RANDOM)}.")
        parts += [_growth(width, one) for width, one in rows.by_width()]
        parts += filter(None, (_stiffness(rows), _bias(rows), _critics(rows)))
        parts += [_check_of_toy(rows)] if task == PEGS else []
    return "\n\n".join([*parts, *text.lost("Samples", table)])


def _growth(width: float, rows: Rows) -> str:
    """One width: how fast variances grow with T, where they cross, and what the Jacobians say."""
    said = "; ".join(f"{NAMES[name]}'s variance {_laws(rows.laws(name))}" for name in ("fog", "pg"))
    return f"Width {text.millimetres(width)}: {said}. {_crossing(rows)} {_jacobians(rows)}"


def _laws(fits: dict[str, Growth]) -> str:
    """The law that fits better, and the other beside it; or that no growth is seen."""
    power, exponential = fits["power"], fits["exponential"]
    if not math.isfinite(power.rate.estimate):
        return f"is positive at only {power.points} horizons: no rate"
    if all(law.rate.low <= 0 <= law.rate.high for law in (power, exponential)):
        return (
            f"is not seen to change with T: as a power of T its exponent is {power.rate}, as an "
            f"exponential its rate is {exponential.rate} per step"
        )
    texts = {
        "power": f"T^{power.rate} (misfit {power.misfit:.1f})",
        "exponential": f"e^(T·{exponential.rate}) (misfit {exponential.misfit:.1f})",
    }
    better, other = (
        (exponential, power) if exponential.misfit < power.misfit else (power, exponential)
    )
    how = "grows as" if better.rate.estimate > 0 else "falls as"
    if not better.misfit <= MISFIT:
        how = "follows neither law; nearest is"
    return f"{how} {texts[better.law]} rather than {texts[other.law]}"


def _crossing(rows: Rows) -> str:
    (row,) = rows.crossings
    at, low, high = row.crossing
    last = f"FOG/PG is {row.last_ratio} at the longest horizon"
    if math.isnan(at):
        return f"Where FOG crosses PG cannot be told; {last}."
    if math.isinf(at) and math.isinf(low):
        return f"FOG stays below PG; {last}."
    if math.isinf(at):
        return f"FOG is not seen to pass PG, but may have from T = {text.short(low)}; {last}."
    if at <= min(one.horizon for one in rows.of("fog")):
        return f"FOG is above PG from the first horizon; {last}."
    late = "beyond" if math.isinf(high) else text.short(high)
    return (
        f"FOG's variance passes PG's at T = {text.short(at)} [{text.short(low)}, {late}]; {last}."
    )


def _jacobians(rows: Rows) -> str:
    (row,) = rows.jacobians
    fits = rows.laws("fog")
    said = "; of ".join(f"{what} {_explained(fits[law])}" for law, what in PRODUCTS.items())
    return (
        f"Step Jacobians: ln norm of one {row.step_norm}, of the product {row.typical} per step, mean square of the "
        f"product {row.square} per step. FOG's variance against the mean square of {said}."
    )


def _explained(fit: Growth) -> str:
    """In words, whether the variance goes as a mean square: with which power."""
    if not math.isfinite(fit.rate.estimate):
        return "cannot be placed"
    if fit.spread < 1:
        return f"has nothing to go with (that changes by a factor e^{fit.spread:.2f} in all)"
    power = f"{fit.rate} (χ² {fit.misfit:.1f})"
    if not fit.misfit <= MISFIT:
        return f"goes as no power of it; nearest is {power}"
    verdict = text.verdict(fit.rate, 1.0, "faster", "more slowly", "in step")
    return f"goes as its power {power}, {verdict}"


def _stiffness(rows: Rows) -> str:
    fits = [f for f in rows.growths if f.law == "stiffness" and not math.isnan(f.rate.estimate)]
    groups = grouped(fits, lambda fit: fit.horizon or 0)
    said = [
        f"T = {horizon} "
        + ", ".join(f"{NAMES[fit.estimator]} {fit.rate}" for fit in groups[horizon])
        for horizon in sorted(groups)
    ]
    return f"Power of the stiffness that variances go with: {'; '.join(said)}." if said else ""


def _bias(rows: Rows) -> str:
    """Direction, then length, at the longest horizon, and in how many settings a bias is seen."""
    lines = [_bias_line(label, mine) for name, label in NAMES.items() if (mine := rows.of(name))]
    errors = (one.truth_relative_stderr for one in rows.estimates)
    worst = max((error for error in errors if not math.isnan(error)), default=math.nan)
    truths = ", ".join(dict.fromkeys(one.truth for one in rows.estimates))
    return (
        "Expected gradients against the truth: direction is their cosine, length the ratio of their norms, and both "
        "together the relative bias (seen: its 95 % interval excludes 0, which 2.5 % do by chance).\n"
        + "\n".join(lines)
        + f"\nThe truths are {truths}; their relative standard error is up to {text.short(worst)}."
    )


def _bias_line(label: str, mine: list[Estimate]) -> str:
    biases = [one.relative_bias for one in mine]
    seen = sum(bias.low > 0 for bias in biases)
    could = sum(bias.high - bias.low < SHOWN for bias in biases)
    last = max(one.horizon for one in mine)
    longest = sorted((e for e in mine if e.horizon == last), key=lambda one: -one.width)
    said = "; ".join(
        f"at {text.millimetres(one.width)} direction {text.cosine(one.cosine)}, length {one.relative_norm}, both "
        f"together {one.size}"
        for one in longest
    )
    return (
        f"{label}: a bias is seen in {seen} of {len(mine)} settings; {could} are precise enough to show one of "
        f"{SHOWN:.0%}. At T = {last}: {said}."
    )


def _critics(rows: Rows) -> str:
    critics = grouped(
        (one for one in rows.estimates if one.critic_quality is not None),
        lambda one: (one.width, one.horizon),
    )
    if not critics:
        return ""
    fitted = [same[0] for same in critics.values()]
    each = "; ".join(
        f"{text.millimetres(one.width)}, T = {one.horizon}: {Quality.in_words(vars(one))}"
        for one in fitted
    )
    share = text.percent_range(one.critic_quality or 0.0 for one in fitted)
    return (
        f"QG and N-step read fitted critics, which explain {share} of the variance of returns on episodes that they "
        f"have not seen. Their ceilings are known at the start ({each}). With exact critics QG and N-step would have "
        "no bias here."
    )


def _check_of_toy(rows: Rows) -> str:
    """How the measured numbers compare with what is known."""
    known = [one for one in rows.estimates if not math.isnan(one.variance_exact)]
    inside = sum(one.variance.low <= one.variance_exact <= one.variance.high for one in known)
    said = (
        f"Against the known answer: {inside} of {len(known)} intervals of the variance hold the variance by "
        f"quadrature (95 % should), which changes by at most "
        f"{text.short(max((one.quadrature_change for one in known), default=math.nan))} of the gradient when its "
        "panels are halved."
    )
    if max((one.horizon for one in known), default=0) * PERIOD < BOUNCES * bounce_time():
        return said
    sharp = sorted(rows.jacobians, key=lambda jacobian: jacobian.width)
    rates = ", ".join(f"{text.millimetres(one.width)} {one.typical}" for one in sharp)
    rigid = bounce_rate() * PERIOD / bounce_time()
    return (
        f"{said} A rigid ball at {SPEED:g} m/s on the line of centres has ln growth {rigid:.3g} per step while it stays "
        f"between the pegs; measured over the longest horizon, escape included: {rates}."
    )
