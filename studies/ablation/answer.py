"""What `ablation` answers, and the claims that it judges."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer
from studies.ablation.variants import FULL, OPTIONS, VARIANTS, Variant
from studies.shared.curves import words
from studies.shared.curves.arms import Arm
from studies.shared.curves.claims import Claim, against
from studies.shared.curves.rows import Curve, average, curves

QUESTION = (
    "Which part of ABPT does it: the 0-step return, the entropy, or restarts at visited states?"
)
CHANGE = (
    "More steps (--share) or --seeds; rates of their own without entropy, as the paper has them."
)
OF_OPTIONS = "Which options of a training are of use?"
CHANGE_OPTIONS = (
    "More steps (--share) or --seeds; other sizes of an option: each is tried at one alone."
)


def answer(table: pd.DataFrame) -> Answer:
    """The claims, task by task."""
    known = curves(table)
    options = any(arm.variant in OPTIONS for arm in known)
    question, change = (OF_OPTIONS, CHANGE_OPTIONS) if options else (QUESTION, CHANGE)
    return words.answer(table, question, claims(table), change)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Each part on each task where it was changed."""
    known = curves(table)
    return [
        _claim(known, arm, VARIANTS[arm.variant])
        for arm in known
        if arm.variant != FULL and arm._replace(variant=FULL) in known
    ]


def _claim(known: dict[Arm, Curve], arm: Arm, variant: Variant) -> Claim:
    """That what the variant is about is of use."""
    full = arm._replace(variant=FULL)
    several = len({other.algorithm for other in known}) > 1
    where = f"On {arm.task}, by {arm.algorithm}," if several else f"On {arm.task}"
    return Claim(
        f"{where} {variant.claim}",
        "" if arm.variant in OPTIONS else "001 Fig. 7",
        (against(arm, full) if variant.given else against(full, arm),),
        variant.read,
        of="mean return over training" if variant.read is average else "return after training",
    )
