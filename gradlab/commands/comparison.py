"""Several estimators on one problem, on the same episodes, against one truth: `gradlab.report`, and
what `gradlab compare` prints.
"""

from __future__ import annotations

import html
import importlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.display import Facts, Shown
from gradlab.foundation.errors import BadValue, Missing
from gradlab.gradients.measurement import Measurement, measure, named_samplers
from gradlab.gradients.occurrence import event_counts
from gradlab.gradients.precision import precision_check
from gradlab.gradients.sampling import Sampler, noise_stream
from gradlab.oracle import ClosedForm, LargeSample, Params, Progress
from gradlab.problems.problem import Problem
from gradlab.rollouts.rollout import rollout
from gradlab.statistics import OracleGradient
from gradlab.statistics.formatting import format_interval
from gradlab.statistics.report import Report
from gradlab.study import text
from gradlab.study.answer import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TRUTH_WIDTH = 0.1  # of the Split behind a truth: unbiased at any width
CHECKED = 16  # episodes that are looked at for rounding and for contact
COUNTED = 4096  # episodes at most in which events are counted: rollouts without gradients
CONVERGED = 1e-6  # bound of the acceleration's relative error [1]


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What `report` gives: print it, `figure()`, `to_frame()`."""

    problem: Problem
    measured: Measurement
    truth: OracleGradient
    reports: dict[str, Report]  # by estimator
    answer: Answer  # the question, the answer, what it rests on, a table

    def facts(self) -> Facts:
        return {"problem": self.problem.name, "answer": self.answer.answer}

    def __str__(self) -> str:
        return str(self.answer)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_frame(self) -> pd.DataFrame:
        """Every estimator and part of the parameters with all intervals: a row for each."""
        return pd.DataFrame(
            {"estimator": name, **row, "seconds_per_sample": self.measured.seconds[name]}
            for name, report in self.reports.items()
            for row in report.table()
        )

    def figure(self, path: str | Path | None = None) -> Figure:
        """Direction, bias and error of every estimator, with 95 % intervals.

        Written to `path` as PNG and SVG (a suffix of `path` is left out). Raises `NotWritten`.
        """
        from gradlab.commands.pictures import drawn  # brings matplotlib
        from gradlab.study.figures import save

        figure = drawn(self.reports, self.problem.name, self.truth, self.answer.answer)
        if path is not None:
            save(figure, Path(path).with_suffix(""))
        return figure


def report(
    problem: Problem,
    params: Params,
    estimators: Sampler | Sequence[Sampler] | Mapping[str, Sampler],
    truth: OracleGradient | None = None,
    *,
    count: int = 4000,
    batch: int = 100,
    seed: int = 0,
    stderr: float = 0.05,
    most: int = 1_000_000,
    progress: bool = True,
) -> Comparison:
    """Which estimator comes closest to ∇J on a problem of your own: one answer, table and figure.

    All estimators see the same `count` episodes (rounded up to whole groups) of the stream `seed`.
    Without a `truth` it is the problem's formula where there is one, else the mean of as many
    episodes of `Split` as a relative standard error of `stderr` asks for, at most `most`; their
    stream is another. `batch` is the B of MSE(B). Definitions of what is measured: `compare`.
    Raises what the estimators' own checks raise, and `BadValue` for counts below 1.
    """
    whole("batch", batch)
    named = named_samplers(estimators)
    for sampler in named.values():
        if isinstance(sampler, Checked):
            sampler.check(problem)
    if truth is None:
        split = importlib.import_module("estimators").Split(TRUTH_WIDTH)  # by name: not below us
        truth = truth_of(problem, params, split, stderr, most)
    measured = measure(
        named, problem, params, whole_groups(whole("count", count), named), seed, progress=progress
    )
    checks = spot_checks(problem, params, named, seed)
    happened = event_sentences(problem, params, measured, seed)
    return comparison_of(
        problem, measured, truth, whole_groups(batch, named), "the policy given", checks, happened
    )


@runtime_checkable
class Checked(Protocol):
    """An estimator that can say beforehand what a problem lacks."""

    def check(self, problem: Problem) -> None: ...


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


@runtime_checkable
class Iterates(Protocol):
    """A simulator that can say how far its contact law is from its solution."""

    def residual(self, state: Tensor, action: Tensor) -> Tensor: ...


def spot_checks(
    problem: Problem, params: Params, estimators: Mapping[str, Sampler], seed: int
) -> str:
    """What `CHECKED` episodes say of rounding and of contact that has not converged, in sentences.

    Rounding: gradients of the first estimator again in float64. Contact: steps of which the bound
    of the acceleration's relative error is above `CONVERGED`, in float64. Empty where there is
    nothing to check.
    """
    said = ""
    name, first = next(iter(estimators.items()))
    count = whole_groups(CHECKED, {name: first})
    if problem.dtype != torch.float64:
        check = precision_check(first, problem, params, count, seed)
        said += f" Of {count} gradients of {name}, {check.share_off:.0%} are off by rounding by more than 10 %."
    if isinstance(problem.simulator, Iterates):
        exact = problem.replace(dtype=torch.float64)
        noise = next(iter(noise_stream(exact, CHECKED, seed)))
        with torch.no_grad(), suppress(BadValue):  # a law that has nothing to converge
            path = rollout(exact, exact.bind({n: p.double() for n, p in params.items()}), noise)
            off = problem.simulator.residual(path.before, path.action) > CONVERGED
            said += f" Contact has not converged to {CONVERGED:g} in {int(off.sum())} of {off.numel()} steps."
    return said


def event_sentences(problem: Problem, params: Params, measured: Measurement, seed: int) -> str:
    """How often the hard events happened in the episodes that were measured, or in the first
    `COUNTED` of them; empty without events."""
    measured_count = _episodes(measured)
    count = min(measured_count, COUNTED)
    counts = event_counts(problem.unrelaxed, params, count, seed)
    if not counts:
        return ""
    part = f" In the first {count:,} of these episodes:" if count < measured_count else ""
    return f"{part} {text.events(counts, count)}"


def _episodes(measured: Measurement) -> int:
    """Episodes that were measured, those of lost samples too."""
    return max((m.count + m.nonfinite) * m.group for m in measured.moments.values())


def comparison_of(
    problem: Problem,
    measured: Measurement,
    truth: OracleGradient,
    batch: int,
    policy: str,
    checks: str = "",
    happened: str = "",
) -> Comparison:
    """The comparison in words, as a table and a figure; `policy` says whose gradients these are.

    `checks` are sentences of `spot_checks`, `happened` those of `event_sentences`.
    """
    reports = measured.compare(truth, batch=batch)
    answer = _answer(problem, measured, truth, batch, policy, reports, checks, happened)
    return Comparison(problem, measured, truth, reports, answer)


def _answer(
    problem: Problem,
    measured: Measurement,
    truth: OracleGradient,
    batch: int,
    policy: str,
    reports: Mapping[str, Report],
    checks: str,
    happened: str,
) -> Answer:
    rows = {name: report.overall for name, report in reports.items()}
    table = pd.DataFrame(
        [
            {
                "estimator": name,
                "cosine": format_interval(*row.cosine, within=(-1, 1)),
                "relative bias": format_interval(*row.relative_bias),
                "variance/‖∇J‖²": format_interval(*reports[name].over_truth("variance")),
                f"MSE({batch})/‖∇J‖²": format_interval(*reports[name].over_truth("mse")),
                "not finite": measured.lost[name],
                "ms/episode": f"{1e3 * measured.seconds[name]:.2g}",
            }
            for name, row in rows.items()
        ]
    )
    count = max(part.count * part.group for part in measured.moments.values())
    known = truth.relative_stderr
    seen = problem.standardisation
    return Answer(
        question=f"Which of {', '.join(reports)} comes closest to the true gradient of "
        f"{problem.name} at a batch of {batch}?",
        answer=headline(reports),
        rests_on=f"{count} episodes, the same for all; the truth is {truth.name}, "
        + (f"known to {known:.1%}, and all rows share its error" if known > 0 else "exact")
        + f"; {policy}{', ' * bool(seen)}{seen}; {str(problem.dtype).removeprefix('torch.')}."
        + happened
        + checks
        + "".join(f" {name}: {row.status}." for name, row in rows.items() if row.status != "ok"),
        would_change="Another policy, horizon or batch; the order depends on all of them.",
        table=table,
    )


def headline(reports: Mapping[str, Report]) -> str:
    """Which has the least error, or between which that cannot be decided: the best and those whose
    intervals reach down to its own. Heavy tails alone decide nothing.
    """
    errors = {name: report.over_truth("mse") for name, report in reports.items()}
    known = {name: error for name, error in errors.items() if math.isfinite(error.estimate)}
    if not known:
        return "Nothing can be said: the truth is lost in its own noise."
    order = sorted(known, key=lambda name: known[name].estimate)
    best = order[0]
    # an upper end that heavy tails leave too low decides nothing
    reach = math.inf if reports[best].overall.heavy_tails else known[best].high
    close = [name for name in order if name == best or not known[name].low > reach]
    cosines = {n: format_interval(*reports[n].overall.cosine, within=(-1, 1)) for n in close}
    if len(close) > 1:
        numbers = [f"{n} {format_interval(*known[n])} with cosine {cosines[n]}" for n in close]
        return f"cannot be decided between {text.listed(close)}: MSE/‖∇J‖² of {'; '.join(numbers)}."
    has = "has the least error, MSE/‖∇J‖²" if len(known) > 1 else "has MSE/‖∇J‖²"
    return (
        f"{best} {has} {format_interval(*known[best])}; the cosine of its expected gradient with the "
        f"true one is {cosines[best]}."
    )
