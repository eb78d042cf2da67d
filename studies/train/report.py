"""What a run says at its end: one screen of text, and the same as a page with the figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from gradlab.problems.problem import Problem
from gradlab.statistics.formatting import format_interval
from gradlab.statistics.intervals import Interval
from gradlab.study import text
from gradlab.training.algorithm import Algorithm
from gradlab.training.healthy import HEALTHY, Finding, findings
from studies.train.algorithms import described, named
from studies.train.log import Row
from studies.train.options import Options

REPORT, FIGURE = "report.md", "report"


def report(
    options: Options,
    problem: Problem,
    log: list[Row],
    seconds: float | None,
    written: Sequence[str],
    distances: Tensor | None = None,
) -> str:
    """Where the training stands, in one sentence, and what that rests on."""
    first, last = log[0], log[-1]
    best = max(log, key=lambda row: row["return"])
    took = "" if seconds is None else f" in {seconds:.0f} s"
    answer = (
        f"After {last['updates']} updates ({last['steps']:,} steps{took}), {options.algorithm} earns "
        f"{_of(last)} per episode of {options.task}; before training it was {_of(first)}."
    )
    basis = (
        f"Evaluated on {options.evaluations} episodes of {problem.horizon} steps that the training "
        "does not use, with the mean action, undiscounted; 95 % intervals over these episodes, not "
        "over seeds."
    )
    lines = [answer, "", basis, f"Episodes last {last['length']:.0f} steps on average."]
    for i, event in enumerate(problem.task.events):
        found = last[f"event {i}"]
        often = (
            f"{found:.2f} times per episode"
            if event.switches
            else f"in {found:.0%} of the episodes"
        )
        lines.append(f"{event.name}: {often}.")
    if distances is not None:
        lines.append(_farthest(distances))
    if options.detached:
        lines.append(f"Rewards pass no gradient through: {', '.join(options.detached)}.")
    changed = {"Observations": options.observations, "Restarts": options.restart}
    lines += [f"{name}: {value}, as asked for." for name, value in changed.items() if value]
    if best["low"] > last["high"]:
        lines.append(f"It had been better: {_of(best)} after {best['updates']} updates.")
    skipped = sum(row.get("not finite", 0) > 0 for row in log)
    if skipped:
        lines.append(f"Episodes that were not finite before {skipped} of the {len(log)} rows.")
    lines += ["", *quality(log)]
    if any(measured(row) for row in log):
        lines += list(beside(named(options.algorithm, options.task)[1]))
    lines += ["", f"Algorithm: {described(options.algorithm, options.task, problem)}."]
    lines += [f"All in {options.folder}: {', '.join(written)}"]
    return "\n".join(lines)


def _farthest(distances: Tensor) -> str:
    """How far from the goal, of the episodes that no event had ended."""
    far, steps = distances.amax(1), distances.shape[1]
    whole = far[far.isfinite()]
    if not len(whole):
        return (
            f"Every episode had ended before its last step: nothing is known of its last {steps}."
        )
    which = (
        "" if len(whole) == len(far) else f" (the {len(whole)} of {len(far)} that were not over)"
    )
    return (
        f"Farthest from its goal in the last {steps} steps: {float(whole.mean()):.2g} m on average over "
        f"episodes{which}, {float(whole.max()):.2g} m at most."
    )


def quality(log: Sequence[Row]) -> Iterator[str]:
    """The last gradient that was measured, each quantity beside its healthy range."""
    rows = [row for row in log if measured(row)]
    if not rows:
        yield "How good the gradient was is not known: --quality 50 measures it every 50 updates."
        return
    last = rows[-1]
    found = list(findings(last))
    yield (
        f"The gradient of the next update after {last['updates']} updates, with 95 % intervals (OUT: "
        "all of it is out of range; open: a part):"
    )
    table = [("", "value", "healthy", "", f"OUT in rows of {len(rows)}")]
    table += [
        (
            one.range.what,
            said(one.value),
            str(one.range),
            one.verdict,
            str(
                sum(other.out for row in rows for other in findings(row) if other.name == one.name)
            ),
        )
        for one in found
    ]
    yield text.columns(table)
    names = [name for name in last if name.startswith("weight ")]
    if names:
        weights = (f"{_weight(name[7:])} {last[name]:.3g}" for name in names)
        yield f"Weights of the estimator, on average: {', '.join(weights)}."
    yield from (f"{one.range.what}: {one.range.reason}." for one in found if one.out)


def _weight(name: str) -> str:
    """What is weighed: the parts of a mixture have numbers."""
    return f"part {name}" if name.isdigit() else name or "k"


def beside(algorithm: Algorithm) -> Iterator[str]:
    """What of an algorithm's gradient the truths do not have, or the measurement leaves out."""
    entropy = algorithm.entropy
    inside = entropy is not None and entropy.where == "estimator"
    if inside:
        yield (
            "Both truths are of rewards alone: the entropy in this algorithm's gradient is all bias to "
            "them."
        )
    added = ["the bonus for entropy"] if entropy is not None and not inside else []
    added += ["the KL penalty"] if algorithm.kl is not None else []
    if added:
        yield f"Not in the gradient that was measured: {' and '.join(added)}."


def measured(row: Row) -> bool:
    """Whether the gradient was measured there."""
    return "quality steps" in row


def said(value: Interval) -> str:
    """A number with its interval, or alone where it is a count."""
    if value.low == value.high:
        return f"{value.estimate:.3g}"
    return format_interval(*value, within=(-math.inf, math.inf))


def page(options: Options, said: str, log: Sequence[Row]) -> str:
    """The report as a page, with its figure and every measured row."""
    lines = [
        f"# {options.algorithm} on {options.task}, seed {options.seed}",
        "",
        "```text",
        said,
        "```",
        "",
        "![Return, gradient, critic and norms over the training](report.png)",
        "",
    ]
    rows = [row for row in log if measured(row)]
    names = [name for name in HEALTHY if any(name in row for row in rows)]
    if rows:
        lines += ["| updates | " + " | ".join(HEALTHY[name].what for name in names) + " |",
                  "|---" * (1 + len(names)) + "|"]  # fmt: skip
        for row in rows:
            known: dict[str, Finding] = {one.name: one for one in findings(row)}
            cells = [_cell(known.get(name)) for name in names]
            lines.append(f"| {row['updates']} | " + " | ".join(cells) + " |")
        lines += ["", "Healthy ranges (bold: the whole 95 % interval lies outside):", ""]
        lines += [f"- {HEALTHY[n].what}: {HEALTHY[n]}. {HEALTHY[n].reason}." for n in names]
    return "\n".join(lines) + "\n"


def _cell(one: Finding | None) -> str:
    if one is None:
        return ""
    return f"**{said(one.value)}**" if one.out else said(one.value)


def _of(row: dict[str, Any]) -> str:
    return f"{row['return']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
