"""What `rollout_variance` answers first."""

from __future__ import annotations

import math

import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.statistics import format_interval
from gradlab.study import Answer
from studies.rollout_variance.report import ORDER, Row, Table

SETTINGS = 12  # of the table
# column: name and estimator of the row, bound, what it says of the settings above the bound
CLAIMS = {
    "decades PG over QG": ("orders", "pg/qg", ORDER, "PG's variance is at least one order above QG's"),
    "decades SG over QG": ("orders", "sg/qg", 0.0, "SG's variance is above QG's at the median"),
    "spread SG − QG": ("spread_difference", "sg/qg", 0.0, "SG's variance is more spread out than QG's"),
    "outliers at contact": (
        "changes_log_odds", "sg", 0.0, "SG's outliers are more often where something lands or lifts off",
    ),
}  # fmt: skip


def answer(rows: Table) -> Answer:
    """In how many settings each claim about the three variances holds."""
    found = rows[rows["kind"] == "answer"]
    settings = list(dict.fromkeys(rows["setting"]))
    said, columns = [], {}
    for column, (name, estimator, bound, claim) in CLAIMS.items():
        mine = found[(found["name"] == name) & (found["estimator"] == estimator)]
        if not len(mine):
            continue
        yes, no = int((mine["value_low"] > bound).sum()), int((mine["value_high"] < bound).sum())
        said.append(f"{claim} in {_counts(yes, no, len(mine))}")
        columns[column] = {row["setting"]: _value(row) for _, row in mine.iterrows()}
    policies = rows[rows["kind"] == "policy"]
    explained = {row["setting"]: f"{row['explained']:.2f}" for _, row in policies.iterrows()}
    table = pd.DataFrame({"Q explains": explained, **columns}, index=settings[:SETTINGS])
    return Answer(
        question=(
            "How noisy are PG, SG and QG along a rollout of the ant, and is SG's noise large where contacts change? "
            "(Noise alone: direction and length of the gradients are not judged here.)"
        ),
        answer="; ".join(said) + "." if said else "No claim could be judged with these estimators.",
        rests_on=_rests_on(policies),
        would_change=(
            "A better Q, a policy that was trained in the setting itself, another seed of training, or a contact law that "
            "is not among the settings: there is one policy per preset."
        ),
        table=table.rename_axis("setting").reset_index(),
    )


def _counts(yes: int, no: int, count: int) -> str:
    """ "3 of 6 settings (not in 1, cannot be told in 2)"."""
    rest = [f"not in {no}"] * (no > 0) + [f"cannot be told in {count - yes - no}"] * (
        yes + no < count
    )
    return f"{yes} of {count} settings" + (f" ({', '.join(rest)})" if rest else "")


def _value(row: Row) -> str:
    """The interval; an infinite estimate (an empty cell of a table of counts)
    is bounded on one side only.
    """
    value = row["value"] if math.isfinite(row["value"]) else math.nan
    return format_interval(value, row["value_low"], row["value_high"], within=(-math.inf, math.inf))


def _rests_on(policies: Table) -> str:
    worst = policies.sort_values("explained").iloc[0]
    return (
        f"One policy per preset and one fitted Q per setting, which explains between {policies['explained'].min():.0%} and "
        f"{policies['explained'].max():.0%} of the returns' variance; the worst is that of {worst['setting']} "
        f"({Quality.in_words(worst)}). Brackets are 95 % intervals over start states."
    )
