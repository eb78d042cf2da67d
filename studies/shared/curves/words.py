"""Words and tables that studies of learning curves share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.statistics import Interval
from gradlab.study import Answer, text
from studies.shared.curves.claims import (
    FAILS,
    HOLDS,
    UNKNOWN,
    Claim,
    Judged,
    chance,
    judged,
    versus,
)
from studies.shared.curves.rows import Curve, average, by_task, curves, learnt

ROOM = 400  # for the claims that are told, five lines or so [characters]
WHERE = "all in summary.txt"
NONE = "None of {} claims can"
LEGEND = (
    "Scores are those of whole episodes with the policy's mean action, undiscounted, the same episodes for\n"
    "all. Seeds are the unit: the interquartile mean over seeds (Agarwal et al. 2021) with a bootstrap\n"
    "interval at 95 %, which with few seeds is too short: of normal scores it holds the truth in 75 % of\n"
    "cases with 3 seeds, 87 % with 4, 91 % with 5, 93 % with 10. P is the probability that a training of\n"
    "the one beats one of the other; p is exact, by permutation of seeds. Learnt: nine tenths of the way\n"
    "from before training to the best arm of the task; what it took is what more than half of the seeds\n"
    "needed at most. Seconds are of one processor, without evaluations."
)


def answer(
    table: pd.DataFrame, question: str, claims: Sequence[Claim], would_change: str
) -> Answer:
    """The claims that were judged, or who is best, and a line per arm."""
    known = curves(table)
    found = judged(claims, known)
    return Answer(
        question=question,
        answer=_said(found) if found else " ".join(_leaders(by_task(known))),
        rests_on=_rests_on(list(known.values()), found),
        would_change=would_change,
        table=pd.DataFrame([line(curve) for curve in known.values()]),
    )


def _said(found: Sequence[Judged]) -> str:
    """The claims that hold, those that do not, and one sentence about those that are undecided.

    With their comparisons, or without where that is too long for a screen; what still finds no room
    is counted. All of them are in the summary.
    """
    told = [one for verdict in (HOLDS, FAILS) for one in found if one.verdict == verdict]
    unclear = [one.claim.text for one in found if one.verdict == UNKNOWN]
    sentences = [one.sentence for one in told]
    if sum(map(len, sentences)) > ROOM:
        sentences = [one.brief for one in told]
    shown = 0
    while shown < len(told) and sum(map(len, sentences[: shown + 1])) <= ROOM:
        shown += 1
    said = sentences[:shown]
    if shown < len(told):
        said.append(f"And {len(told) - shown} more that are told ({WHERE}).")
    if len(unclear) == 1:
        said.append(f"{unclear[0]}: {UNKNOWN}.")
    elif unclear:
        of = f"{len(unclear)} of {len(found)} claims cannot" if told else NONE.format(len(found))
        said.append(f"{of} be told at this budget ({WHERE}).")
    return " ".join(said)


def _leaders(tasks: dict[str, list[Curve]]) -> Iterator[str]:
    """Of each task, who earns most, and whether that is told from who comes next."""
    for task, known in tasks.items():
        first, *others = sorted(known, key=lambda curve: -curve.band[-1].estimate)
        said = f"On {task}, {first.arm.label} earns most, {interval(first.band[-1])}"
        if others:
            said += f"; next is {others[0].arm.label} ({chance(versus([first], [others[0]]))})"
        yield f"{said}."


def _rests_on(known: Sequence[Curve], found: Sequence[Judged]) -> str:
    seeds = sorted({len(curve.seeds) for curve in known})
    steps = sorted({round(float(curve.steps[:, -1].mean())) for curve in known})
    counts = " or ".join(map(str, seeds))
    parts = [
        f"Seeds per arm: {counts}; {_range(steps)} environment steps each.",
        f"Intervals of so few are too short: exact tests decide, and {_least(seeds[0])}",
    ]
    if len(found) > 1:
        parts.append(f"{len(found)} claims, each at 5 % by itself.")
    lost = sum(curve.skipped for curve in known)
    if lost:
        parts.append(f"{lost} updates were left out: their gradient was not finite.")
    return " ".join(parts)


def _range(steps: Sequence[int]) -> str:
    low, high = f"{steps[0]:,}", f"{steps[-1]:,}"
    return low if low == high else f"{low} to {high}"


def _least(seeds: int) -> str:
    """The smallest p-value that so many seeds against as many can have."""
    least = 2 / math.comb(2 * seeds, seeds)
    return f"{seeds} against {seeds} cannot have p below {least:.2g}."


def line(curve: Curve) -> dict[str, str]:
    """An arm of the table."""
    row = {"task": curve.arm.task, "trained by": curve.arm.label}
    row["return"] = interval(curve.band[-1])
    if curve.goal is not None:
        row["goal"] = f"{curve.goal_name} {interval(curve.goal_band[-1])}"
    else:
        row["goal"] = ""
    row["seconds"] = f"{float(curve.seconds[:, -1].mean()):.0f}"
    return row


def interval(one: Interval) -> str:
    """A score with its interval, of either sign."""
    return text.signed(one)


def summarise(table: pd.DataFrame, claims: Sequence[Claim]) -> str:
    """Claims with their comparisons, every arm, what it took to learn, and all pairs."""
    known = curves(table)
    parts = [LEGEND]
    if found := judged(claims, known):
        parts.append(text.titled("1. Claims", (row for one in found for row in _claim(one))))
    parts.append(text.titled("2. After training", (line(curve) for curve in known.values())))
    tasks = by_task(known)
    parts.append(text.titled("3. Until learnt", (r for t in tasks.values() for r in _costs(t))))
    pairs = [row for task in tasks.values() for row in _pairs(task)]
    if pairs:
        parts.append(text.titled("4. All pairs (p of each by itself)", pairs))
    return "\n\n".join(parts)


def _claim(one: Judged) -> Iterator[dict[str, str]]:
    for i, found in enumerate(one.found):
        yield {
            "claim": one.claim.text if not i else "",
            "verdict": one.verdict if not i else "",
            "by": one.claim.of,
            "comparison": f"{found.ours} over {found.theirs}",
            "found": chance(found),
            "source": one.claim.source if not i else "",
        }


def _costs(task: list[Curve]) -> Iterator[dict[str, str]]:
    """What every arm spent until more than half of its seeds had learnt."""
    threshold = learnt(task)
    for curve in task:
        yield {
            "task": curve.arm.task,
            "trained by": curve.arm.label,
            "return": f"{threshold:.3g}" if math.isfinite(threshold) else "nothing learnt",
            "seeds": f"{np.isfinite(curve.first(threshold, curve.steps)).sum()} of {len(curve.seeds)}",
            "environment steps": middle(curve.first(threshold, curve.steps)),
            "gradient steps": middle(curve.first(threshold, curve.gradient_steps)),
            "seconds": middle(curve.first(threshold, curve.seconds)),
        }


def middle(values: NDArray) -> str:
    """What more than half of them are at most: of an even number the upper of the middle two;
    "not reached" where half of them or more are infinite.
    """
    found = float(np.sort(values)[len(values) // 2])
    return f"{found:,.0f}" if math.isfinite(found) else "not reached"


def _pairs(task: list[Curve]) -> Iterator[dict[str, str]]:
    for i, one in enumerate(task):
        for other in task[i + 1 :]:
            yield {
                "task": one.arm.task,
                "pair": f"{one.arm.label} over {other.arm.label}",
                "after training": chance(versus([one], [other])),
                "on average": chance(versus([one], [other], average)),
            }
