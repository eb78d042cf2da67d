"""What `rollout_variance` answers first."""

from __future__ import annotations

import math

import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.statistics import Interval
from gradlab.study import Answer, text
from gradlab.study.tables import read
from studies.rollout_variance.rows import ORDER, Policy, Verdict

SETTINGS = 12  # of the table
# column: name and estimator of the verdict, bound, what it says of the settings above the bound
CLAIMS = {
    "decades PG over QG": ("orders", "pg/qg", ORDER, "PG's variance is at least one order above QG's"),
    "decades SG over QG": ("orders", "sg/qg", 0.0, "SG's variance is above QG's at the median"),
    "spread SG − QG": ("spread_difference", "sg/qg", 0.0, "SG's variance is more spread out than QG's"),
    "outliers at contact": (
        "changes_log_odds", "sg", 0.0, "SG's outliers are more often where something lands or lifts off",
    ),
}  # fmt: skip


def answer(rows: pd.DataFrame) -> Answer:
    """In how many settings each claim about the three variances holds."""
    verdicts, policies = read(Verdict, rows, kind="answer"), read(Policy, rows, kind="policy")
    columns = {"Q explains": {one.setting: f"{one.explained.estimate:.2f}" for one in policies}}
    said = []
    for column, (name, estimator, bound, claim) in CLAIMS.items():
        mine = {v.setting: v.value for v in verdicts if (v.name, v.estimator) == (name, estimator)}
        if mine:
            said.append(f"{claim} in {_counts(text.Tally.of(mine.items(), bound))}")
            columns[column] = {setting: _value(value) for setting, value in mine.items()}
    settings = list(dict.fromkeys(rows["setting"]))[:SETTINGS]
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
        table=pd.DataFrame(columns, index=settings).rename_axis("setting").reset_index(),
    )


def _counts(tally: text.Tally) -> str:
    """ "3 of 6 settings (not in 1, cannot be told in 2)"."""
    rest = [f"not in {len(tally.no)}"] if tally.no else []
    rest += [f"cannot be told in {tally.unsure}"] if tally.unsure else []
    said = f"{len(tally.yes)} of {tally.total} settings"
    return f"{said} ({', '.join(rest)})" if rest else said


def _value(value: Interval) -> str:
    """The interval; an infinite estimate (an empty cell of a table of counts)
    is bounded on one side only.
    """
    known = math.isfinite(value.estimate)
    return text.signed(value if known else value._replace(estimate=math.nan))


def _rests_on(policies: list[Policy]) -> str:
    explained = [policy.explained.estimate for policy in policies]
    worst = min(policies, key=lambda policy: policy.explained.estimate)
    return (
        f"One policy per preset and one fitted Q per setting, which explains between {min(explained):.0%} and "
        f"{max(explained):.0%} of the returns' variance; the worst is that of {worst.setting} "
        f"({Quality.in_words(vars(worst))}). Brackets are 95 % intervals over start states."
    )
