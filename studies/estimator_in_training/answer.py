"""What `estimator_in_training` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import Answer, text
from studies.estimator_in_training.rows import MAIN, PRECISE, PREDICTORS, Seen

USEFUL = 0.3  # a mean rank correlation below it is of no use for a choice [1]
QUESTION = (
    "Does the measured error of a training's gradient say which algorithm gains most over the next "
    "updates?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The verdict on the error to the return, and every other predictor beside it."""
    seen = Seen.of(table)
    overall = seen.correlation(MAIN)
    by_task = {task: seen.correlation(MAIN, task) for task in seen.tasks}
    board = seen.leaderboard()
    boards = {task: seen.leaderboard(task) for task in seen.tasks}
    return Answer(
        question=QUESTION,
        answer=(
            f"{verdict(overall, by_task)} The rank correlation over {len(seen.algorithms)} algorithms "
            f"of less squared error at equal cost with more gain is {correlation(overall)}; that of "
            f"their mean error with their mean return over a training is {correlation(board)}: "
            f"{judged(board, boards)}"
        ),
        rests_on=_rests_on(seen),
        would_change=(
            "Other algorithms, sizes, tasks or states (--algorithms, --episodes, --tasks, --states); "
            "learning rates, which are the same for all and suit some better than others; a longer look "
            "ahead (--ahead); more seeds (--trainings)."
        ),
        table=pd.DataFrame(list(lines(seen))),
    )


def told(overall: Interval, by_task: Mapping[str, Interval]) -> str:
    """The ladder, fixed before any run: by the interval over seeds.

    Above 0 it holds; below `USEFUL` it fails; on some tasks this and on others that: it depends;
    else it is open.
    """
    yes, no = _sides(by_task)
    if yes and no:
        return "depends"
    return "holds" if overall.low > 0 else "fails" if overall.high < USEFUL else "open"


def _sides(by_task: Mapping[str, Interval]) -> tuple[list[str], list[str]]:
    """The tasks on which it holds, and those on which it does not."""
    yes = [task for task, one in by_task.items() if one.low > 0]
    no = [task for task, one in by_task.items() if one.high < USEFUL]
    return yes, [task for task in no if task not in yes]


def verdict(overall: Interval, by_task: Mapping[str, Interval]) -> str:
    """Of the error at a state and the gain after it, in a sentence."""
    yes, no = map(text.listed, _sides(by_task))
    return {
        "depends": f"It depends on the task: less error gains more on {yes}, not on {no}.",
        "holds": "Holds: algorithms whose gradient has less error gain more over the next updates.",
        "fails": "Does not hold: less error of the gradient does not say who gains more over the next "
        "updates.",
        "open": "Cannot be told at this budget whether less error of the gradient gains more.",
    }[told(overall, by_task)]


def judged(overall: Interval, by_task: Mapping[str, Interval]) -> str:
    """The same of the leaderboard of whole trainings, as the end of a sentence."""
    yes, no = map(text.listed, _sides(by_task))
    return {
        "depends": f"a leaderboard by error says who learns fastest on {yes}, not on {no}.",
        "holds": "a leaderboard by error does say who learns fastest.",
        "fails": "a leaderboard by error does not say who learns fastest.",
        "open": "whether a leaderboard by error says who learns fastest cannot be told.",
    }[told(overall, by_task)]


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
        f"is on one of {len(PREDICTORS)} predictors; the others are shown, and no correction is made "
        "for looking at them."
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
