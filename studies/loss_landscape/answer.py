"""What `loss_landscape` answers first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.study import Answer
from studies.loss_landscape.arrows import TRUTH
from studies.loss_landscape.report import (
    ESTIMATORS,
    Judged,
    Table,
    counts,
    direction,
    judgements,
    length,
    pairs_of,
    policies_of,
    title_of,
)

ROWS = 12  # of the table
POLICIES = 2  # in the answer's sentence


def answer(rows: Table) -> Answer:
    """Do the estimators point along the slope, and are the mixtures'
    surfaces smoother than SG's?
    """
    found = [
        (title_of(policy.iloc[0]), name, one)
        for _, policy in policies_of(rows)
        for name, one in judgements(policy)
    ]
    table = pd.DataFrame(
        {
            "policy": title,
            "estimator": ESTIMATORS.get(name, name),
            "direction (cosine)": direction(one.cosine),
            "length (ratio)": length(one.length),
            "arrows that differ": f"{one.apart} of {one.arrows}",
            "could show 20 %": f"{one.could} of {one.arrows}",
        }
        for title, name, one in found[:ROWS]
    )
    said = [_pointing(found)] if found else []
    said += [text for text in (_smoother(rows),) if text]
    return Answer(
        question=(
            "Around a policy, do the estimators' expected gradients point along the slope of the return, and is "
            "the one-step objective of SG+QG smoother than that of SG?"
        ),
        answer=" ".join(said) or "No arrows and no one-step objectives were drawn.",
        rests_on=_rests_on(rows, found),
        would_change=(
            "More --arrow-episodes (arrows that could not show a bias of 20 % say nothing), other tasks and "
            "policies (--tasks, --policies), other planes (--directions, --radius), a better critic."
        ),
        table=table,
    )


def _pointing(found: list[tuple[str, str, Judged]]) -> str:
    """Direction first, then length, of SG and of its mixture with QG, or of what there is."""
    parts = []
    known = list(dict.fromkeys(name for _, name, _ in found))
    for name in [name for name in ("fog", "sg_qg") if name in known] or known[:2]:
        mine = [one for _, other, one in found if other == name][:POLICIES]
        directions = " and ".join(direction(one.cosine) for one in mine)
        lengths = " and ".join(length(one.length) for one in mine)
        parts.append(
            f"{ESTIMATORS.get(name, name)} {directions} (length over the slope's {lengths})"
        )
    return f"Cosine of the gradients with the slope: {'; '.join(parts)}."


def _smoother(rows: Table) -> str:
    pairs = pairs_of(rows)
    pairs = pairs[(pairs["objective"] == "sg_qg") & (pairs["stride"] == pairs["stride"].min())]
    if not len(pairs):
        return ""
    pairs = pairs[pairs["alpha"] == pairs["alpha"].iloc[0]]
    return (
        f"Of {len(pairs)} steps, SG+QG's surface is {counts(pairs, 'share_')} than SG's, and elsewhere that cannot "
        "be told (share of roughness)."
    )


def _rests_on(rows: Table, found: list[tuple[str, str, Judged]]) -> str:
    critics = [policy.iloc[0] for _, policy in policies_of(rows)]
    text = "Critics of which each explains " + " and ".join(
        f"{row['critic_quality']:.0%} of the returns' variance ({Quality.in_words(row)})"
        for row in critics[:POLICIES]
    )
    arrows = rows[(rows["kind"] == "arrow") & (rows["estimator"] == TRUTH)]
    if not len(arrows):
        return f"{text}."
    size = np.hypot(arrows["slope_a"], arrows["slope_b"])
    error = np.hypot(arrows["slope_stderr_a"], arrows["slope_stderr_b"]) / size
    step = np.hypot(arrows["truncation_a"], arrows["truncation_b"]) / size
    fewest = min((one.could for _, _, one in found), default=0)
    return (
        f"{text}; slopes by differences of {int(arrows['episodes'].iloc[0])} episodes, whose median standard error "
        f"is {error.median():.0%} and whose error of step {step.median():.1%} of their length; estimators are judged on "
        f"the same episodes. At the worst estimator {fewest} of its arrows could have shown a bias of 20 %. "
        "Intervals are over places on the plane."
    )
