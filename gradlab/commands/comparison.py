"""Several estimators on one problem, on the same episodes, against one truth:
what `gradlab compare` prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from gradlab.foundation.errors import BadValue, Missing
from gradlab.gradients.measurement import Measurement
from gradlab.gradients.sampling import Sampler
from gradlab.oracle import ClosedForm, LargeSample, Params, Progress
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.formatting import format_interval
from gradlab.statistics.intervals import Interval
from gradlab.statistics.report import Report
from gradlab.study.answer import Answer


def truth_of(
    problem: Problem,
    params: Params,
    sampler: Sampler,
    stderr: float,
    most: int,
    progress: Progress | None = None,
) -> OracleGradient:
    """∇J: by its formula where the problem has one, else the mean of `sampler`'s episodes.

    `sampler` must be unbiased on the problem; as many episodes are drawn as a relative standard
    error of `stderr` asks for, at most `most`. `relative_stderr` of what is returned says what was
    reached.
    """
    try:
        return ClosedForm()(problem, params)
    except (Missing, BadValue):
        return LargeSample(sampler, stderr, most)(problem, params, progress)


def whole_groups(count: int, estimators: Mapping[str, Sampler]) -> int:
    """The least number of samples from `count` on that is whole groups of every estimator."""
    size = math.lcm(*(estimator.group for estimator in estimators.values()))
    return math.ceil(count / size) * size


def answer_of(
    problem: Problem, measured: Measurement, truth: OracleGradient, batch: int, policy: str
) -> Answer:
    """The comparison in words and as one table; `policy` says whose gradients these are."""
    reports = measured.compare(truth, batch=batch)
    rows = {name: report.overall for name, report in reports.items()}
    table = pd.DataFrame(
        [
            {
                "estimator": name,
                "cosine": format_interval(*row.cosine, within=(-1, 1)),
                "relative bias": format_interval(*row.relative_bias),
                "variance/‖∇J‖²": format_interval(*_over_truth(reports[name], "variance")),
                f"MSE({batch})/‖∇J‖²": format_interval(*_over_truth(reports[name], "mse")),
                "not finite": measured.lost[name],
                "ms/episode": f"{1e3 * measured.seconds[name]:.2g}",
            }
            for name, row in rows.items()
        ]
    )
    count = max(part.count * part.group for part in measured.moments.values())
    known = truth.relative_stderr
    return Answer(
        question=f"Which of {', '.join(reports)} comes closest to the true gradient of "
        f"{problem.name} at a batch of {batch}?",
        answer=_sentence(reports),
        rests_on=f"{count} episodes, the same for all; the truth is {truth.name}, "
        + (f"known to {known:.1%}, and all rows share its error" if known > 0 else "exact")
        + f"; {policy}; {str(problem.dtype).removeprefix('torch.')}."
        + "".join(f" {name}: {row.status}." for name, row in rows.items() if row.status != "ok"),
        would_change="Another policy, horizon or batch; the order depends on all of them.",
        table=table,
    )


def _over_truth(report: Report, quantity: str) -> Interval:
    """A squared size over ‖∇J‖², whose own error is not in it."""
    row = report.overall
    return Interval(*(value / row.truth_norm**2 for value in getattr(row, quantity)))


def _sentence(reports: Mapping[str, Report]) -> str:
    errors = {name: _over_truth(report, "mse") for name, report in reports.items()}
    known = {name: error for name, error in errors.items() if math.isfinite(error.estimate)}
    if not known:
        return "Nothing can be said: the truth is lost in its own noise."
    best = min(known, key=lambda name: known[name].estimate)
    row = reports[best].overall
    text = (
        f"{best} has the least error, MSE/‖∇J‖² {format_interval(*known[best])}; the cosine of its "
        f"expected gradient with the true one is {format_interval(*row.cosine, within=(-1, 1))}."
    )
    close = [n for n, error in known.items() if n != best and not error.low > known[best].high]
    return f"{text} The intervals of {', '.join(close)} overlap its own." if close else text
