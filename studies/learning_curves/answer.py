"""What `learning_curves` answers, and the claims that it judges."""

from __future__ import annotations

import pandas as pd

from gradlab.study import Answer
from studies.shared.curves import words
from studies.shared.curves.arms import Arm
from studies.shared.curves.claims import Claim, against
from studies.shared.curves.rows import curves, goals, unsteadiness
from studies.train.algorithms import FLIGHTS

QUESTION = "Which way to train learns faster and ends higher, and do the papers' claims hold?"
CHANGE = (
    "Another budget (--share; schedules are as long as a training) or more --seeds; other sizes and rates, "
    "which are the same for all algorithms of a task and were tuned for none."
)

BETTER = ("abpt", "abpt_full", "split")  # which see gates, or correct for not seeing them


def answer(table: pd.DataFrame) -> Answer:
    """The claims whose algorithms were trained, or who earns most."""
    return words.answer(table, QUESTION, claims(table), CHANGE)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Those that concern what was trained."""
    trained = list(curves(table))

    def others(task: str, name: str) -> list[Arm]:
        return [arm for arm in trained if arm.task == task and arm.algorithm != name]

    racing, landing = Arm("racing", "bptt"), Arm("landing", "shac")
    better = [arm for arm in others("racing", "bptt") if arm.algorithm in BETTER]
    # the paper's ABPT is that in full
    name = "abpt_full" if any(arm.algorithm == "abpt_full" for arm in trained) else "abpt"
    abpt = [
        against(Arm(task, name), arm)
        for task in FLIGHTS
        for arm in others(task, name)
        if not arm.algorithm.startswith("abpt")
    ]
    limits = ("agpo_maxnorm", "agpo_quantile")
    runners = dict.fromkeys(arm.task for arm in trained if arm.task not in FLIGHTS)
    return [
        Claim(
            f"Racing passes more gates with {' or '.join(a.algorithm for a in better)} than with bptt",
            "001 Fig. 4",
            tuple(against(arm, racing) for arm in better),
            goals,
            "any",
            "gates per episode after training",
        ),
        Claim(
            "BPTT is worst on racing",
            "001 Fig. 4",
            tuple(against(arm, racing) for arm in others("racing", "bptt")),
        ),
        Claim(
            "SHAC is noisier than the others on landing",
            "001 Fig. 4",
            tuple(against(landing, arm) for arm in others("landing", "shac")),
            unsteadiness,
            of="distance of the last return from the median of its seeds",
        ),
        Claim("ABPT ends above all others on every flight trained", "001 section 6.2", tuple(abpt)),
        *(
            Claim(
                f"On {task} AGPO's adaptive α beats a fixed one",
                "003 Fig. 8",
                (against(Arm(task, "agpo"), Arm(task, "agpo_fixed")),),
            )
            for task in runners
        ),
        *(
            Claim(
                f"On {task} AGPO beats limits of the gradient's norm and quantiles",
                "003 Fig. 7",
                tuple(against(Arm(task, "agpo"), Arm(task, name)) for name in limits),
            )
            for task in runners
        ),
    ]
