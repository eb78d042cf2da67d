"""What `horizon` answers first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.horizon.rows import (
    LOWERS,
    RAISES,
    Bound,
    Single,
    Sweep,
    Verdict,
    bounds_of,
    exponent,
    singles_of,
    verdicts,
)

WIDE = 10.0  # a factor's ends further apart than this get two digits each [1]
QUESTION = (
    "What does a longer window do to bias, variance and MSE, and do the bounds of AGPO's Theorem 4.2 "
    "(variance at most 32 L_Q² L_θ²/h) hold, and how loosely?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The verdict on the variance's bound, the scaling, the bias's bound, then what windows do."""
    bounds, singles = bounds_of(table), singles_of(table)
    found = verdicts(bounds)
    sweeps = Sweep.of(singles)
    parts = [variance_sentence(found["variance"]), scaling(bounds), *bias_sentence(found)]
    return Answer(
        question=QUESTION,
        answer=" ".join([*parts, *windows_sentence(sweeps)]),
        rests_on=_rests_on(bounds, singles),
        would_change=(
            "An α of another rule, since by the published one AGPO counts few calls whatever h is; another critic, "
            "policy or stiffness. Larger constants than those visited only loosen the bounds; learning curves are "
            "not measured here."
        ),
        table=pd.DataFrame([line(sweep) for sweep in sweeps]),
    )


def variance_sentence(verdict: Verdict) -> str:
    """Whether 32 L_Q² L_θ²/h holds."""
    if not verdict.settings:
        return "No variance was measured."
    said = (
        f"Variance ≤ 32 L_Q² L_θ²/h {verdict.word} ({verdict.settings} settings): the variance is at "
        f"most {verdict.most} of the bound, which is {reach(verdict)} times as large."
    )
    return f"{said} Broken in {text.several(verdict.broken)}." if verdict.broken else said


def times(value: float) -> str:
    """A factor with one digit, a large one by its power of ten, rounded down."""
    if not math.isfinite(value):
        return "unknown"
    if value >= 1e4:
        return f"10^{math.floor(math.log10(value))}"
    return f"{float(f'{value:.1g}'):,.{0 if value >= 1 else 2}f}"


def reach(verdict: Verdict) -> str:
    """From the least to the largest factor between a bound and what it bounds."""
    return " to ".join(dict.fromkeys([times(verdict.tightest), times(verdict.loosest)]))


def scaling(bounds: Sequence[Bound]) -> str:
    """By which power of h the variances change."""
    groups = grouped(bounds, lambda row: (row.estimator, row.task, row.critic))
    said = {}
    for name, word in {"agpo": "AGPO's", "nstep": "N-step's"}.items():
        powers = [exponent(rows) for (mine, *_), rows in groups.items() if mine == name]
        known = [power for power in powers if not math.isnan(power.estimate)]
        if known:
            low, high = min(p.low for p in known), max(p.high for p in known)
            said[word] = f"{word} variance goes as h to the power {signed(low)} to {signed(high)}"
    # N-step is here for comparison: the theorem says nothing of it
    looked = [row.looked_at for row in bounds if row.looked_at is not None]
    if not said:
        return "One window says nothing about its length."
    return (
        f"Divided by h as in eq. 4, {' and '.join(said.values())} (the bound: −1), since AGPO counts "
        f"{min(looked):.1f} to {max(looked):.1f} policy calls, at any h."
    )


def signed(value: float) -> str:
    said = f"{value:.1f}"
    return "0.0" if said == "-0.0" else said.replace("-", "−")


def bias_sentence(found: dict[str, Verdict]) -> list[str]:
    """Whether ε S/h holds, by both readings."""
    action, total = found["action"], found["total"]
    if not action.settings:
        return []
    said = (
        f"The bias's bound {total.word} with ε through the states ({reach(total)} times the bias) "
        f"and {action.word} with ε by the action alone ({reach(action)} times)."
    )
    return [said]


def windows_sentence(sweeps: Sequence[Sweep]) -> list[str]:
    """What the longest window does to every estimator's relative bias, where it can be told."""
    said = []
    for estimator, mine in grouped(sweeps, lambda sweep: sweep.estimator).items():
        for change, word in {LOWERS: "falls", RAISES: "rises"}.items():
            moved = [sweep for sweep in mine if sweep.bias == change]
            if moved:
                last = [f"{sweep.rows[-1].relative_bias} on {name(sweep)}" for sweep in moved]
                said.append(f"that of {estimator} {word} to {text.listed(last)}")
    if not said:
        return []
    return [f"Relative bias from the shortest window to the longest: {'; '.join(said)}."]


def name(sweep: Sweep) -> str:
    """Task and critic."""
    return f"{sweep.task} ({sweep.critic})"


def line(sweep: Sweep) -> dict[str, str]:
    """One estimator with one critic of the table."""
    first, last = sweep.rows[0], sweep.rows[-1]
    return {
        "task (critic)": name(sweep),
        "estimator": sweep.estimator,
        "h": f"{first.window}, {last.window}",
        "relative bias": f"{first.relative_bias}",
        "at longest h": f"{last.relative_bias}",
        "variance times": factor(first.variance, last.variance),
        "least MSE at": span(sweep),
    }


def span(sweep: Sweep) -> str:
    """The windows among which the least MSE is; "any" if that cannot be told at all."""
    if len(sweep.best) == len(sweep.rows) > 1:
        return "any"
    return ", ".join(map(str, sweep.best))


def factor(before: Interval, after: Interval) -> str:
    """Of two variances, with the far ends of both."""
    if not before.low > 0:
        return "unknown"
    ends = after.estimate / before.estimate, after.low / before.high, after.high / before.low
    if ends[2] > WIDE * ends[1]:  # decimals for the upper end would leave none of the others
        middle, low, high = (f"{end:.2g}" for end in ends)
        return f"{middle} [{low}, {high}]"
    return format_interval(*ends)


def _rests_on(bounds: Sequence[Bound], singles: Sequence[Single]) -> str:
    parts = []
    for task, rows in grouped(singles, lambda row: row.task).items():
        row = rows[0]
        error = row.truth_relative_stderr
        truth = "exact ∇J and Q" if error == 0 else f"∇J to {error:.1%}"
        parts.append(f"{task}: {row.count:,} episodes, {truth}.")
    heavy = sum(row.status != "ok" for row in singles)
    if heavy:
        parts.append(
            f"{heavy} of {len(singles)} rows have heavy tails or lost samples (column status)."
        )
    q, theta = (max(getattr(row, k) for row in bounds) for k in ("l_q", "l_theta"))
    parts.append(
        f"L_Q (to {q:.2g}) and L_θ (to {theta:.2g}) are the largest slopes that the same episodes visit, below the "
        "theorem's suprema: a bound that holds with them holds. MSE is of 64 samples."
    )
    return " ".join(parts)
