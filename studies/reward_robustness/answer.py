"""What `reward_robustness` answers, and the claims that it judges."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer
from studies.reward_robustness.config import TASK
from studies.shared.curves import words
from studies.shared.curves.arms import Arm
from studies.shared.curves.claims import Claim, against
from studies.shared.curves.rows import curves, goals

QUESTION = "Do algorithms that race by closeness to the gate also race by speed towards it?"
CHANGE = (
    "More steps (--share) or --seeds; rates of their own for each reward, as the paper has them."
)
SOURCE = "001 Fig. 8"
FAST = ("abpt", "shac")  # which the paper says pass more gates with the reward of speed


def answer(table: pd.DataFrame) -> Answer:
    """The paper's three claims."""
    return words.answer(table, QUESTION, claims(table), CHANGE)


def claims(table: pd.DataFrame) -> list[Claim]:
    """By gates per episode after training."""
    trained = list(curves(table))
    fast = [arm for arm in trained if arm.variant == "velocity"]
    most = [
        against(Arm(TASK, "abpt", arm.variant), arm) for arm in trained if arm.algorithm != "abpt"
    ]
    speed = [[Arm(TASK, name, reward) for reward in ("velocity", "position")] for name in FAST]
    slow = Arm(TASK, "bptt", "velocity")
    told = {"source": SOURCE, "read": goals, "of": "gates per episode after training"}
    return [
        Claim(
            "ABPT passes more gates than the others with either reward", pairs=tuple(most), **told
        ),
        Claim(
            "ABPT and SHAC pass more gates with the reward of speed",
            pairs=tuple(against(*both) for both in speed),
            **told,
        ),
        Claim(
            "BPTT passes fewer gates than the others with the reward of speed",
            pairs=tuple(against(arm, slow) for arm in fast if arm.algorithm != "bptt"),
            **told,
        ),
    ]
