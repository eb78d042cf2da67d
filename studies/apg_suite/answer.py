"""What `apg_suite` answers."""

from __future__ import annotations

import math

import pandas as pd

from gradlab.study import Answer
from studies.apg_suite.crossing import RANGE, Ratio, ratios, verdict
from studies.shared.curves import words
from studies.shared.curves.rows import by_task, curves

QUESTION = "Do first-order gradients need 3.9 to 15.9 times fewer gradient steps than PPO?"
CHANGE = (
    "Another budget (--share; schedules are as long as a training), more --seeds, other thresholds; the "
    "rates are the paper's, tuned for neither here. A gradient step of APG is of a whole episode of all "
    "environments, one of PPO of a quarter of its batch, four times over."
)


def answer(table: pd.DataFrame) -> Answer:
    """The ratio on every task, and the verdicts by the paper's thresholds and by ours."""
    base = words.answer(table, QUESTION, [], CHANGE)
    found = ratios(by_task(curves(table)), "gradient steps")
    if not found:
        return base
    known = {
        "By the paper's thresholds": [one for one in found if one.published],
        "By nine tenths of the way to the best": [one for one in found if not one.published],
    }
    said = " ".join(_said(name, each) for name, each in known.items() if each)
    return Answer(base.question, said, base.rests_on, base.would_change, base.table)


def _said(name: str, each: list[Ratio]) -> str:
    low, high = RANGE
    fewer, within = verdict([one.fewer for one in each]), verdict([one.within for one in each])
    ratios = "; ".join(f"{one.task} {ratio_text(one)}" for one in each)
    return f"{name}: fewer {fewer}; {low:g} to {high:g} times {within} ({ratios})."


def ratio_text(one: Ratio) -> str:
    """A ratio with its interval."""
    if math.isinf(one.ours):
        return f"neither is at {one.threshold:.3g}" if one.censored else "PPO alone gets there"
    known = "at least " if one.censored else ""
    high = f"{one.ratio.high:.2g}" if math.isfinite(one.ratio.high) else "∞"
    return f"{known}{one.ratio.estimate:.2g} [{one.ratio.low:.2g}, {high}]"
