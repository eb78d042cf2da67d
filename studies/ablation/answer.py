"""What `ablation` answers, and the claims that it judges."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from numpy.typing import NDArray

from gradlab.study import Answer
from studies.ablation.config import ALGORITHM, FULL
from studies.shared.curves import words
from studies.shared.curves.arms import Arm
from studies.shared.curves.claims import Claim, against
from studies.shared.curves.rows import Curve, average, curves, last

QUESTION = (
    "Which part of ABPT does it: the 0-step return, the entropy, or restarts at visited states?"
)
CHANGE = (
    "More steps (--share) or --seeds; rates of their own without entropy, as the paper has them."
)
# (what of training shows it, with what ABPT is compared, the claim)
CLAIMS: tuple[tuple[Callable[[Curve], NDArray], str, str], ...] = (
    (last, "without 0-step return", "the 0-step return improves what training reaches"),
    (last, "without entropy", "entropy improves what training reaches"),
    (average, "without replay", "restarts at visited states speed learning"),
)


def answer(table: pd.DataFrame) -> Answer:
    """The paper's claims, task by task."""
    return words.answer(table, QUESTION, claims(table), CHANGE)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Each part on each task where it was left out."""
    trained = list(curves(table))
    return [
        Claim(
            f"On {full.task} {said}",
            "001 Fig. 7",
            (against(full, full._replace(variant=without)),),
            read,
            of="mean return over training" if read is average else "return after training",
        )
        for full in trained
        for read, without, said in CLAIMS
        if full == Arm(full.task, ALGORITHM, FULL) and full._replace(variant=without) in trained
    ]
