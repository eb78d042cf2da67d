"""What `bias_vs_relaxation` answers first."""

from __future__ import annotations

import pandas as pd

from gradlab.statistics import holm
from gradlab.study import Answer
from studies.relaxation_report import CRITICS, HARD, LEVEL, NAMES, Table, overall

ROWS = 12


def answer(rows: Table) -> Answer:
    """How often adding the 0-step return helps or harms, against the hard truth."""
    single, pairs = overall(rows, "single", "A"), overall(rows, "pair", "A")
    hard = pairs[pairs["truth_width"] == HARD].copy()
    if len(hard):
        hard["p_holm"] = holm(hard["p_value"].tolist())
    told = hard[hard["p_holm"] <= LEVEL] if len(hard) else hard
    helps = int((told["difference"] < 0).sum()) if len(told) else 0
    errors = rows["truth_relative_stderr"].dropna()
    worst = f"{errors.max():.1%}" if len(errors) else "not known"
    return Answer(
        question=(
            "Does the 0-step return reduce the bias of N-step gradients when rewards are only "
            "partially differentiable?"
        ),
        answer=(
            f"Of {len(hard)} comparisons with the hard gradient, the distance to it (direction and length "
            f"together) becomes smaller in {helps}, larger in {len(told) - helps}, and cannot be told in "
            f"{len(hard) - len(told)} (p < {LEVEL} after Holm's correction); cosines are in the table."
        ),
        rests_on=f"Oracles with a relative standard error of at most {worst}, and fitted critics.",
        would_change="Another critic, another window, or windows that start at every step.",
        table=_table(single[single["truth_width"] == HARD] if len(single) else single),
    )


def _table(single: Table) -> Table:
    lines = [
        {
            "task": row["task"],
            "estimator": NAMES.get(row["estimator"], row["estimator"]),
            "critic": CRITICS.get(row["critic_fit"], ""),
            "cosine": _number(row["cosine"]),
            "relative bias": _number(row["relative_bias"]),
        }
        for _, row in single.iterrows()
        if row["estimator"] in ("fog", "nstep", "abpt")
    ]
    return pd.DataFrame(lines[:ROWS])


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}"
