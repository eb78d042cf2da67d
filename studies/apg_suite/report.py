"""The long form of what `apg_suite` found."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from gradlab.study import text
from studies.apg_suite import crossing
from studies.apg_suite.answer import ratio_text
from studies.apg_suite.crossing import PUBLISHED, Ratio, ratios, thresholds_of
from studies.shared.curves import words
from studies.shared.curves.figures import AXES
from studies.shared.curves.rows import Curve, by_task, curves

LEGEND = "\n".join(line for line in (crossing.__doc__ or "").splitlines()[2:])


def summarise(table: pd.DataFrame) -> str:
    """The rules, ratios by every way to count, what thresholds cost, and what all curves share."""
    tasks = by_task(curves(table))
    parts = [LEGEND.strip()]
    found = [one for count in AXES for one in ratios(tasks, count)]
    if found:
        parts.append(text.titled("A. PPO over APG until the threshold", map(_line, found)))
    costs = (row for task, known in tasks.items() for row in _costs(task, known))
    parts.append(text.titled("B. Spent until the threshold", costs))
    return "\n\n".join([*parts, words.summarise(table, [])])


def _line(one: Ratio) -> dict[str, str]:
    gradient = one.unit == "gradient steps"
    return {
        "task": one.task,
        "counted in": one.unit,
        "threshold": f"{one.threshold:.3g}" + ("" if one.published else " (ours)"),
        "APG": "not reached" if math.isinf(one.ours) else f"{one.ours:,.0f}",
        "PPO": ("more than " if one.censored else "") + f"{one.theirs:,.0f}",
        "PPO over APG": ratio_text(one),
        "the paper's": f"{PUBLISHED[one.task]:g}" if gradient and one.task in PUBLISHED else "",
        "fewer": one.fewer,
        "in the range": one.within if gradient else "",
    }


def _costs(task: str, known: list[Curve]) -> Iterator[dict[str, str]]:
    """Of every arm: how many of its seeds cross, and what the middle one spends."""
    pairs = ((threshold, curve) for threshold, _ in thresholds_of(task, known) for curve in known)
    for threshold, curve in pairs:
        row = {"task": task, "trained by": curve.arm.label, "threshold": f"{threshold:.3g}"}
        reached = curve.first(threshold, curve.steps)
        row["seeds"] = f"{sum(map(math.isfinite, reached))} of {len(curve.seeds)}"
        for count, cost in AXES.items():
            row[count] = words.middle(curve.first(threshold, cost(curve)))
        yield row
