"""The long form of what `estimator_in_training` found."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import text
from studies.estimator_in_training.answer import lines
from studies.estimator_in_training.rows import Seen, State

LEGEND = (
    "At one state of a training the gradient of its next update is drawn again and again. Error: E ‖ĝ − g*‖²\n"
    "of one update over ‖g*‖², with the noise that equal simulator steps buy; g* is the gradient of the\n"
    "segment with the critic as it is, or of the whole return from the same moments. Gain: in undiscounted\n"
    "return of the mean action over the next updates, on episodes that all share. Rank correlations are\n"
    "Spearman's over the algorithms at one state, averaged; 95 % intervals are over seeds. Of a cosine, more\n"
    "should gain more; of all else, less."
)


def summarise(table: pd.DataFrame) -> str:
    """Predictors, ranks of the algorithms, and every state."""
    seen = Seen.of(table)
    parts = [LEGEND, text.titled("1. Rank correlations with the gain", lines(seen))]
    for number, task in enumerate(seen.tasks, 2):
        parts.append(text.titled(f"{number}. Mean ranks on {task}, 1 the best", ranks(seen, task)))
    last = len(seen.tasks) + 2
    parts.append(text.titled(f"{last}. States", (_line(state) for state in seen.states)))
    return "\n\n".join(parts)


def ranks(seen: Seen, task: str) -> Iterator[dict[str, str]]:
    """Of every algorithm by its mean error and by its mean return."""
    errors = seen.mean_ranks(seen.errors(), task, least=True)
    learnt = seen.mean_ranks(seen.learnt(), task, least=False)
    for name in seen.algorithms:
        yield {
            "algorithm": name,
            "rank by error": rank(errors[name]),
            "rank by return": rank(learnt[name]),
        }


def rank(interval: Interval) -> str:
    """A mean rank with its interval; empty where no seed has all algorithms."""
    if math.isnan(interval.estimate):
        return ""
    return format_interval(*interval, within=(1.0, math.inf))


def _line(state: State) -> dict[str, str]:
    return {
        "task": state.task,
        "seed": str(state.training),
        "algorithm": state.algorithm,
        "updates": str(state.updates),
        "gain": f"{state.gain:.3g}",
        "error to the return": f"{state.mse('whole'):.3g}",
        "to the segment": f"{state.mse('segment'):.3g}",
        "bias to the return": str(state.whole_bias),
        "cosine": text.cosine(state.whole_cosine),
        "truth's error": f"{state.whole_error:.2f}",
    }
