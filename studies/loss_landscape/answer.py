"""What `loss_landscape` answers first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.study import Answer, text
from gradlab.study.tables import grouped, read
from studies.loss_landscape.arrows import TRUTH
from studies.loss_landscape.judgement import Judged, both, judgements
from studies.loss_landscape.rows import (
    ESTIMATORS,
    Arrow,
    Pair,
    Policy,
    counts,
    finest,
    pairs_of,
    policies_of,
)

ROWS = 12  # of the table
POLICIES = 2  # in the answer's sentence


def answer(table: pd.DataFrame) -> Answer:
    """Do the estimators point along the slope, and are the mixtures'
    surfaces smoother than SG's?
    """
    policies = policies_of(table)
    found = [(p.title, name, one) for p, rows in policies for name, one in judgements(rows)]
    said = [_pointing(found)] if found else []
    said += filter(None, [_smoother(pairs_of(table))])
    lines = (
        {
            "policy": title,
            "estimator": ESTIMATORS.get(name, name),
            "direction (cosine)": text.cosine(one.cosine),
            "length (ratio)": f"{one.length}",
            "arrows that differ": f"{one.apart} of {one.arrows}",
            "could show 20 %": f"{one.could} of {one.arrows}",
        }
        for title, name, one in found[:ROWS]
    )
    return Answer(
        question=(
            "Around a policy, do the estimators' expected gradients point along the slope of the return, and is "
            "the one-step objective of SG+QG smoother than that of SG?"
        ),
        answer=" ".join(said) or "No arrows and no one-step objectives were drawn.",
        rests_on=_rests_on([policy for policy, _ in policies], table, [one for *_, one in found]),
        would_change=(
            "More --arrow-episodes (arrows that could not show a bias of 20 % say nothing), other tasks and "
            "policies (--tasks, --policies), other planes (--directions, --radius), a better critic."
        ),
        table=pd.DataFrame(lines),
    )


def _pointing(found: list[tuple[str, str, Judged]]) -> str:
    """Direction first, then length, of SG and of its mixture with QG, or of what there is."""
    known = grouped(found, lambda one: one[1])
    parts = []
    for name in [name for name in ("fog", "sg_qg") if name in known] or list(known)[:2]:
        mine = [one for *_, one in known[name]][:POLICIES]
        directions = " and ".join(text.cosine(one.cosine) for one in mine)
        lengths = " and ".join(f"{one.length}" for one in mine)
        parts.append(
            f"{ESTIMATORS.get(name, name)} {directions} (length over the slope's {lengths})"
        )
    return f"Cosine of the gradients with the slope: {'; '.join(parts)}."


def _smoother(pairs: list[Pair]) -> str:
    mine = finest([pair for pair in pairs if pair.objective == "sg_qg"])
    mine = [pair for pair in mine if pair.alpha == mine[0].alpha]
    if not mine:
        return ""
    return (
        f"Of {len(mine)} steps, SG+QG's surface is {counts(mine, share=True)} than SG's, and elsewhere that cannot "
        "be told (share of roughness)."
    )


def _rests_on(policies: list[Policy], table: pd.DataFrame, found: list[Judged]) -> str:
    said = "Critics of which each explains " + " and ".join(
        f"{one.critic_quality:.0%} of the returns' variance ({Quality.in_words(vars(one))})"
        for one in policies[:POLICIES]
    )
    slopes = read(Arrow, table, kind="arrow", estimator=TRUTH)
    if not slopes:
        return f"{said}."
    size, error, step = (
        np.hypot(*both(slopes, name).T) for name in ("slope", "slope_stderr", "truncation")
    )
    fewest = min((one.could for one in found), default=0)
    return (
        f"{said}; slopes by differences of {slopes[0].episodes} episodes, whose median standard error is "
        f"{np.nanmedian(error / size):.0%} and whose error of step {np.nanmedian(step / size):.1%} of their length; "
        f"estimators are judged on the same episodes. At the worst estimator {fewest} of its arrows could have shown a "
        "bias of 20 %. Intervals are over places on the plane."
    )
