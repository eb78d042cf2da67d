"""What `estimator_in_training` answers first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import Answer, text
from gradlab.study.tables import UNKNOWN
from studies.estimator_in_training.rows import (
    MAIN,
    PRECISE,
    PREDICTORS,
    SEEDS,
    Seen,
    bounded,
    student,
)

USEFUL = 0.3  # a mean rank correlation below it is of no use for a choice [1]
QUESTION = (
    "Does the measured error of a training's gradient say which algorithm gains most over the next "
    "updates?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The verdict on the error to the return, and every other predictor beside it."""
    seen = Seen.of(table)
    main = Found.of(seen.tasks, partial(seen.correlations, MAIN))
    board = Found.of(seen.tasks, seen.leaderboards)
    return Answer(
        question=QUESTION,
        answer=(
            f"{verdict(main)} The rank correlation over {len(seen.algorithms)} algorithms "
            f"of less squared error at equal cost with more gain is {correlation(main.overall)}; that of "
            f"their mean error with their mean return over a training is "
            f"{correlation(board.overall)}: {judged(board)}"
        ),
        rests_on=_rests_on(seen),
        would_change=(
            "Other algorithms, sizes, tasks or states (--algorithms, --episodes, --tasks, --states); "
            "learning rates, which are the same for all and suit some better than others; a longer look "
            "ahead (--ahead); more seeds (--trainings)."
        ),
        table=pd.DataFrame(list(lines(seen))),
    )


@dataclass(frozen=True)
class Found:
    """Mean rank correlations, with their intervals over seeds."""

    overall: Interval
    by_task: Mapping[str, Interval]
    apart: Interval  # the tasks on which it holds minus those on which it does not, by seed

    @classmethod
    def of(cls, tasks: Sequence[str], by_seed: Callable[[str | None], dict[int, float]]) -> Found:
        """Of what each seed has on one task, or on all (None)."""
        known = {task: by_seed(task) for task in tasks}
        means = {task: bounded([*values.values()]) for task, values in known.items()}
        found = cls(bounded([*by_seed(None).values()]), means, UNKNOWN)
        yes, no = ([known[task] for task in side] for side in found.sides)
        shared = set.intersection(*map(set, (*yes, *no))) if yes and no else set()
        gaps = [
            float(np.mean([one[seed] for one in yes]) - np.mean([one[seed] for one in no]))
            for seed in shared
        ]
        return replace(found, apart=student(gaps) if len(gaps) >= SEEDS else UNKNOWN)

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """The tasks whose interval lies above 0, and the others whose interval lies below
        `USEFUL`.
        """
        yes = [task for task, one in self.by_task.items() if one.low > 0]
        no = [task for task, one in self.by_task.items() if one.high < USEFUL]
        return yes, [task for task in no if task not in yes]

    @property
    def told(self) -> str:
        """The ladder, by intervals over seeds.

        On some tasks this and on others that, and the difference between them told: it "depends".
        Else by the mean over tasks: above 0 it "holds", below `USEFUL` it "fails", or it is "open".
        """
        yes, no = self.sides
        if yes and no and self.apart.low > 0:
            return "depends"
        overall = self.overall
        return "holds" if overall.low > 0 else "fails" if overall.high < USEFUL else "open"

    @property
    def aside(self) -> str:
        """What single tasks say that the mean over tasks does not, in brackets."""
        yes, no = self.sides
        rest = [task for task in self.by_task if task not in (*yes, *no)]
        unknown = f"on {text.listed(rest)} it cannot be told" if rest else ""
        if self.told == "depends":
            return f" ({unknown})" if rest else ""
        if len(self.by_task) < 2:
            return ""
        if self.told == "holds":
            against = f"by itself it does not on {text.listed(no)}" if no else ""
            found = "; ".join(filter(None, (against, unknown)))
            return f" ({found})" if found else ""
        if not yes:
            return ""
        return (
            f" (by itself, and not corrected for looking at {len(self.by_task)} tasks, it does on "
            f"{text.listed(yes)})"
        )


def verdict(found: Found) -> str:
    """Of the error at a state and the gain after it, in a sentence."""
    yes, no = map(text.listed, found.sides)
    return {
        "depends": f"It depends on the task: less error gains more on {yes}, not on {no}{found.aside}.",
        "holds": "Holds: algorithms whose gradient has less error gain more over the next updates"
        f"{found.aside}.",
        "fails": "Does not hold: less error of the gradient does not say who gains more over the next "
        f"updates{found.aside}.",
        "open": "Cannot be told at this budget whether less error of the gradient gains more"
        f"{found.aside}.",
    }[found.told]


def judged(found: Found) -> str:
    """The same of the leaderboard of whole trainings, as the end of a sentence."""
    yes, no = map(text.listed, found.sides)
    return {
        "depends": f"a leaderboard by error says who learns fastest on {yes}, not on {no}{found.aside}.",
        "holds": f"a leaderboard by error does say who learns fastest{found.aside}.",
        "fails": f"a leaderboard by error does not say who learns fastest{found.aside}.",
        "open": f"whether a leaderboard by error says who learns fastest cannot be told{found.aside}.",
    }[found.told]


def correlation(interval: Interval) -> str:
    """A mean rank correlation with its interval."""
    if math.isnan(interval.estimate):
        return "unknown"
    return format_interval(*interval, within=(-1.0, 1.0))


def _rests_on(seen: Seen) -> str:
    trainings = {state.training for state in seen.states}
    left_out = len(seen.states) - len(seen.precise)
    said = (
        f"{len(seen.states)} states of trainings by {', '.join(seen.algorithms)} on "
        f"{text.listed(seen.tasks)}, {len(trainings)} seeds; 95 % intervals over seeds. The verdict "
        f"is on the first row of the table; the other {len(PREDICTORS) - 1} predictors and single "
        "tasks are shown, and no correction is made for looking at them."
    )
    if left_out:
        said += (
            f" {left_out} states are left out, whose truth has an error above {PRECISE:.0%} or whose "
            "gradient was not finite."
        )
    return said


def lines(seen: Seen) -> Iterable[dict[str, str]]:
    """A row per predictor."""
    tasks: Sequence[str] = seen.tasks
    for name in PREDICTORS:
        by_task = {task: correlation(seen.correlation(name, task)) for task in tasks}
        yield {
            "predictor": name,
            "all": correlation(seen.correlation(name)),
            **by_task,
        }
    yield {
        "predictor": "mean error, mean return",
        "all": correlation(seen.leaderboard()),
        **{task: correlation(seen.leaderboard(task)) for task in tasks},
    }
