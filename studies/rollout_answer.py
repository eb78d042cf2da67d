"""What `rollout_variance` answers first."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer
from studies.rollout_report import ORDER, Table, _interval

CLAIMS = {
    "QG is less spread out than SG": ("spread_difference", "sg/qg", 0.0),
    "PG is at least one order above QG": ("orders", "pg/qg", ORDER),
    "PG is at least one order above SG": ("orders", "pg/sg", ORDER),
}


def answer(rows: Table) -> Answer:
    """In how many settings each claim about the three variances holds."""
    found = rows[rows["kind"] == "answer"]
    said, columns = [], {}
    for claim, (name, estimator, bound) in CLAIMS.items():
        mine = found[(found["name"] == name) & (found["estimator"] == estimator)]
        if not len(mine):
            continue
        yes, no = int((mine["value_low"] > bound).sum()), int((mine["value_high"] < bound).sum())
        said.append(f"{claim}: yes in {yes}, no in {no}, not told in {len(mine) - yes - no}")
        columns[claim] = {row["setting"]: _interval(row) for _, row in mine.iterrows()}
    policies = rows[rows["kind"] == "policy"]
    low, high = policies["explained"].min(), policies["explained"].max()
    return Answer(
        question="How do the variances of PG, QG and SG compare along a rollout of the ant?",
        answer="; ".join(said) + "." if said else "No claim could be judged with these estimators.",
        rests_on=(
            f"A fitted Q that explains between {low:.0%} and {high:.0%} of the returns' variance; one "
            "policy per setting; 95 % intervals over start states."
        ),
        would_change="A better Q, another policy, or a contact model that is not among the settings.",
        table=pd.DataFrame(columns).rename_axis("setting").reset_index(),
    )
