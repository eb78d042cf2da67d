"""What `mixture_weights` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import Answer, text
from studies.mixture_weights.rows import (
    Contrast,
    Error,
    by_setting,
    contrasts,
    errors,
    first_of,
    shift_verdict,
)

QUESTION = (
    "What does taking a mixture's weights from the samples that they weigh do to bias and to error, at "
    "which N, and which source, level and rule should one take?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The bias of weights from the same samples, what it does to the error, and what to take."""
    shifts = contrasts(table, "shift", first=True)
    sources = contrasts(table, "same/cross", "pilot/cross", first=True)
    found = errors(table)
    parts = [_bias(shifts), _source(sources), _choices(table)]
    return Answer(
        question=QUESTION,
        answer=" ".join(filter(None, parts)),
        rests_on=_rests_on(found),
        would_change=(
            "Parts of about equal noise, where weights matter (a PG that is a hundred times louder than FOG gets nothing "
            "anyway); a pilot of another policy (here it is of the same one); other N, parts and tasks."
        ),
        table=pd.DataFrame([line(one, sources) for one in shown(shifts)]),
    )


def shown(shifts: Sequence[Contrast]) -> list[Contrast]:
    """Settings of the answer's table: those of unbiased parts, which the question is about, or all
    where there are none. The long form has them all."""
    return [one for one in shifts if one.unbiased] or list(shifts)


def _bias(shifts: Sequence[Contrast]) -> str:
    """The verdict on mixtures of unbiased parts, and the setting with the largest shift over N."""
    known = [one for one in shifts if one.unbiased]
    if not known:
        return "No mixture of unbiased parts was run."
    verdict = shift_verdict(known)
    biased = sum(one.shift == "biased" for one in known)
    small = sum(one.small for one in known)
    worst = max(known, key=lambda one: (one.shift == "biased", abs(one.value.estimate)))
    along = by_setting(known)[worst.setting]
    said = ", ".join(f"{percent(one.value)} at N = {one.size}" for one in along)
    return (
        f"That weights from the same samples bias a mixture of unbiased parts {verdict}: it is seen in {biased} of "
        f"{len(known)} settings (task, parts, N), and the interval is within 1 % in {small}; most on {worst.setting}, where "
        f"it moves the gradient along itself by {said}."
    )


def _source(ratios: Sequence[Contrast]) -> str:
    """By mean square error: the same samples and a pilot, each against cross-fitting."""
    parts = [
        f"with {words} {_tally([one for one in ratios if one.contrast == f'{name}/cross'])}"
        for name, words in (("same", "the same samples"), ("pilot", "N other episodes (pilot)"))
    ]
    ladder = source_advice(ratios)
    return f"Mean square errors against cross-fitting: {', '.join(parts)}. So take {ladder}."


def source_advice(ratios: Sequence[Contrast]) -> str:
    """Which source to take by mean square error, fixed before the run; bias decides a draw."""
    sides = {one.side for one in ratios if one.contrast == "same/cross"}
    pilots = {one.side for one in ratios if one.contrast == "pilot/cross"}
    if {"better", "worse"} <= sides:
        chosen = "the source by task and N: neither has the smaller error everywhere"
    elif "better" in sides:
        chosen = "the same samples for the least error of one batch, and cross where bias adds up"
    elif "worse" in sides:
        chosen = "cross: the same samples cost error as well as bias"
    else:
        chosen = "cross: it biases nothing, and costs no error that can be told"
    if "better" in pilots and "worse" not in pilots:
        chosen += " (a pilot where one is at hand: it is nowhere seen to be worse than cross)"
    return chosen


def _choices(table: pd.DataFrame) -> str:
    """Levels and rules against the first ones, by mean square error of cross-fitted mixtures."""
    said = []
    for kind, name in (("level", "level"), ("rule", "rule")):
        found = contrasts(table, kind)
        if not found:
            continue
        names = dict.fromkeys(getattr(one, name) for one in found)
        each = (
            f"{one.replace('_', ' ')} {_tally([c for c in found if getattr(c, name) == one])}"
            for one in names
        )
        first = first_of(table)[kind == "level"]
        said.append(f"Errors by {kind}, against {first}: {'; '.join(each)}.")
    return " ".join(said)


def _tally(found: Sequence[Contrast]) -> str:
    """ "smaller in 2 and larger in 1 of 9 settings"; a setting is a task, parts and N."""
    sides = [one.side for one in found]
    smaller, larger = sides.count("better"), sides.count("worse")
    if not smaller and not larger:
        return f"not told apart in any of {len(sides)} settings"
    parts = [f"smaller in {smaller}"] if smaller else []
    parts += [f"larger in {larger}"] if larger else []
    return f"{' and '.join(parts)} of {len(sides)} settings"


def _rests_on(found: Sequence[Error]) -> str:
    first: dict[tuple[str, str], Error] = {}
    for one in found:
        first.setdefault((one.task, one.pair), one)
    counts = sorted({one.replicates for one in found})
    how = (
        f"{counts[0]} to {counts[-1]} pairs of groups of N episodes in every setting, the same for all ways of weighing. "
        "Same − pilot is what dependence does and nothing else. Settings are told apart at 5 % for each family of tests "
        "(Holm)."
    )
    return " ".join(
        [
            how,
            f"Truths, with relative standard error: {'; '.join(_truths(first.values()))}.",
            *text.lost("Groups", pd.DataFrame([{"nonfinite": one.nonfinite} for one in found])),
        ]
    )


def _truths(found: Iterable[Error]) -> Iterator[str]:
    said: dict[str, None] = {}
    for one in found:
        error = one.truth_relative_stderr
        how = "exact" if error == 0 else f"{error:.1%}"
        what = "" if one.known else ", no truth but the cross-fitted mixture of other episodes"
        said[f"{one.task} {how}{what}"] = None
    yield from said


def line(shift: Contrast, sources: Sequence[Contrast]) -> dict[str, str]:
    """One setting of the table."""
    mine = {
        one.contrast: one
        for one in sources
        if (one.task, one.pair, one.size, one.rule, one.level)
        == (shift.task, shift.pair, shift.size, shift.rule, shift.level)
    }
    return {
        "task (parts)": shift.setting + ("" if shift.unbiased else "*"),
        "N": f"{shift.size}",
        "same − pilot along ∇J": percent(shift.value),
        "MSE same/cross": text.ratio(mine["same/cross"].value),
        "MSE pilot/cross": text.ratio(mine["pilot/cross"].value),
    }


def percent(interval: Interval) -> str:
    """A share of the gradient's length in per cent, of either sign."""
    ends = (100 * end for end in interval)
    return f"{format_interval(*ends, within=(-math.inf, math.inf))} %"
