"""The long form of what `critic_quality` found."""

from __future__ import annotations

import pandas as pd

from gradlab.study import text
from gradlab.study.tables import grouped, read
from studies.critic_quality.answer import cosine, line, verdict
from studies.critic_quality.rows import Judged, Single, by_direction, judged, thresholds

LEGEND = (
    "Cosine and length of a critic: those of its action gradient ∇Q̂ beside the true one, over the states of\n"
    "the policy, weighted by γ^t. The true one is the derivative of Q by the mean action, so that a jump of Q\n"
    "counts. Difference: squared bias of ABPT less that of N-step, over ‖∇J‖²; below 0 the 0-step term helps. p is\n"
    "corrected over all rows (Holm). A cosine at which the effect changes its sign lies between the critics\n"
    "that are proven to harm and those proven to help, and its interval reaches to the far ends of theirs.\n"
    "By direction it helps or harms where the intervals of both cosines are apart. Intervals are 95 %."
)


def summarise(table: pd.DataFrame) -> str:
    """Thresholds, then every critic, then every estimator."""
    found = judged(table)
    singles = read(Single, table, kind="single")
    edges = thresholds(found), thresholds(found, by_direction)
    parts = [LEGEND, verdict(found), text.titled("1. Thresholds", map(line, *edges))]
    cases = grouped(found, lambda one: (one.pair.task, one.pair.window))
    for number, ((task, window), case) in enumerate(cases.items(), start=1):
        ordered = sorted(case, key=lambda one: one.pair.cosine_of_critic.estimate)
        parts.append(text.titled(f"2.{number} {task}, window {window}", map(_pair, ordered)))
    for number, (task, rows) in enumerate(grouped(singles, lambda one: one.task).items(), start=1):
        parts.append(text.titled(f"3.{number} Estimators on {task}", map(_single, rows)))
    return "\n\n".join(parts)


def _pair(one: Judged) -> dict[str, str]:
    pair = one.pair
    return {
        "critic": pair.critic,
        "cosine": cosine(pair.cosine_of_critic),
        "length": text.ratio(pair.length_of_critic),
        "difference": text.signed(pair.relative_difference),
        "p": f"{one.corrected:.2g}",
        "by bias": one.bias,
        "cosine of N-step": text.cosine(one.nstep),
        "of ABPT": text.cosine(one.abpt),
        "by direction": one.direction,
    }


def _single(row: Single) -> dict[str, str]:
    return {
        "critic": f"{row.factor} {row.level}".strip(),
        "window": f"{row.window}",
        "estimator": row.estimator,
        "relative bias": f"{row.relative_bias}",
        "cosine": text.cosine(row.cosine),
        "relative length": f"{row.relative_norm}",
    }
