"""What `learning_rate_robustness` answers, and the claims that it judges."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer
from gradlab.study.tables import grouped
from studies.shared.curves import words
from studies.shared.curves.claims import Claim
from studies.shared.curves.rows import average, curves

QUESTION = "Which algorithm still learns when its learning rate is not the right one?"
CHANGE = "Other rates (--rates, --both), another --task, longer trainings (--share), more --seeds."
SOURCE = "001 Fig. 9"


def answer(table: pd.DataFrame) -> Answer:
    """ABPT's learning at the same rates, and at the worst rate."""
    return words.answer(table, QUESTION, claims(table), CHANGE)


def claims(table: pd.DataFrame) -> list[Claim]:
    """ABPT against each other algorithm, with rates as strata, and by the worst rate of a seed."""
    sides = grouped(curves(table), lambda arm: arm.algorithm)
    pairs = tuple(
        (tuple(sides["abpt"]), tuple(others))
        for name, others in sides.items()
        if name != "abpt" and "abpt" in sides
    )
    return [
        Claim(
            "At the same rate ABPT learns faster than the others", SOURCE, pairs, average,
            of="mean return over training, rate by rate",
        ),
        Claim(
            "ABPT's worst rate ends above the others' worst rate", SOURCE, pairs, worst=True,
            of="return after training of the worst rate of each seed",
        ),
    ]  # fmt: skip
