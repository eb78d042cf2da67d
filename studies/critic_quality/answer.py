"""What `critic_quality` answers first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study import Answer, text
from gradlab.study.tables import read
from studies.critic_quality.rows import (
    HARMS,
    HELPS,
    LEVEL,
    UNDER,
    Judged,
    Single,
    Threshold,
    by_direction,
    claim,
    judged,
    thresholds,
)

QUESTION = (
    "From which quality of the critic on (the cosine of its action gradient with the true one) does "
    "the 0-step term lower the bias of N-step gradients, and where does it raise it?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The claim about under-fitted critics, and the threshold of every task."""
    found = judged(table)
    edges, turns = thresholds(found), thresholds(found, by_direction)
    return Answer(
        question=QUESTION,
        answer=" ".join([verdict(found), *_first(edges), *_others(edges), directions(turns)]),
        rests_on=_rests_on(found, read(Single, table, kind="single")),
        would_change=(
            "Other policies and tasks; another window (--windows), since it says how much the 0-step term can "
            "add; more episodes (--samples, --flight-samples) for those that cannot be told."
        ),
        table=pd.DataFrame([line(*both) for both in zip(edges, turns, strict=True)]),
    )


def verdict(found: Sequence[Judged]) -> str:
    """Of the reviewers' doubt, with the largest effect either way and how often it is told."""
    under = [one for one in found if one.pair.under_fitted]
    ways = ("raises", HARMS, 1.0), ("lowers", HELPS, -1.0)
    said = [_largest(under, *way) for way in ways if any(one.bias == way[1] for one in under)]
    told = f"the 0-step term {' and '.join(said)}" if said else "nothing is told"
    return (
        f'"An under-fitted critic makes the 0-step return harmful" {claim(found)}: with a cosine '
        f"below {UNDER:g} {told} in {len(under)} comparisons."
    )


def _largest(under: Sequence[Judged], verb: str, verdict: str, sign: float) -> str:
    """The largest of the effects that are told, and how many these are."""
    mine = [one.pair for one in under if one.bias == verdict]
    most = max(mine, key=lambda pair: sign * pair.relative_difference.estimate)
    middle, low, high = most.relative_difference
    size = Interval(sign * middle, *((low, high) if sign > 0 else (-high, -low)))
    where = f"{most.task}, n = {most.window} of {most.horizon}"
    return (
        f"{verb} the squared bias by up to {text.signed(size)} ‖∇J‖² ({where}), {len(mine)} times"
    )


def _first(edges: Sequence[Threshold]) -> list[str]:
    """Where one cosine decides."""
    known = [f"{cosine(edge.at)} ({where(edge)})" for edge in edges if edge.kind == "from"]
    if not known:
        return ["In no case does one cosine separate harm from help."]
    return [
        f"Where one cosine decides, the term helps from {text.listed(known)} on and harms below."
    ]


def _others(edges: Sequence[Threshold]) -> list[str]:
    return [sentence(edge) for edge in edges if edge.kind != "from"]


def where(edge: Threshold) -> str:
    """Task and window."""
    return f"{edge.task}, n = {edge.window} of {edge.horizon}"


def sentence(edge: Threshold) -> str:
    """What a threshold says."""
    ends = f"{place(edge.at.low)} to {place(edge.at.high)}"
    said = {
        "from": f"it helps from a cosine of {cosine(edge.at)} on",
        "to": f"it helps up to a cosine of {cosine(edge.at)} and harms above",
        "helps": f"it never harms, and helps at cosines of {ends}",
        "harms": f"it never helps, and harms at cosines of {ends}",
        "mixed": (
            f"not by the cosine alone (harms at {spread(edge.harms)}, helps at "
            f"{spread(edge.helps)})"
        ),
        "unknown": "cannot be told at this budget",
    }[edge.kind]
    return f"{where(edge)}: {said}."


def cosine(at: Interval) -> str:
    """A cosine with its interval, with the digits that it needs near 1."""
    return f"{place(at.estimate)} [{place(at.low)}, {place(at.high)}]"


def place(value: float) -> str:
    """A cosine with two digits of its distance from 1."""
    if not math.isfinite(value):
        return "unknown"
    if value > 1 - 1e-6:
        return "1"
    digits = 2 if value < 0.9 else 1 + math.ceil(-math.log10(1 - value))
    said = f"{value:.{digits}f}"
    return "0.00" if said == "-0.00" else said.replace("-", "−")


def directions(turns: Sequence[Threshold]) -> str:
    """The same by direction."""
    return f"By direction alone, to which length is nothing: {'; '.join(f'{where(t)} {brief(t)}' for t in turns)}."


def brief(edge: Threshold) -> str:
    """What a threshold says, in a few words."""
    helps, harms = len(edge.helps), len(edge.harms)
    return {
        "from": f"helps from {cosine(edge.at)}",
        "to": f"helps up to {cosine(edge.at)}",
        "helps": f"helps ({helps} of {edge.total})",
        "harms": f"harms ({harms} of {edge.total})",
        "mixed": f"helps {helps}, harms {harms}: mixed",
        "unknown": "cannot be told",
    }[edge.kind]


def line(edge: Threshold, turn: Threshold) -> dict[str, str]:
    """One task and window of the table."""
    every = [one.pair.relative_difference.estimate for one in (*edge.helps, *edge.harms)]
    return {
        "task": where(edge),
        "0-step term, by bias": brief(edge),
        "by direction": brief(turn),
        "difference": f"{min(every):.2g} to {max(every):.2g}".replace("-", "−") if every else "",
    }


def spread(found: Sequence[Judged]) -> str:
    """The range of their cosines; empty if there are none."""
    if not found:
        return ""
    known = [one.pair.cosine_of_critic.estimate for one in found]
    return f"{place(min(known))} to {place(max(known))}"


def _rests_on(found: Sequence[Judged], singles: Sequence[Single]) -> str:
    critics = {(one.pair.task, one.pair.critic) for one in found}
    said = (
        f"{len(critics)} critics, {len(found)} comparisons on the same episodes, all together at a level of "
        f"{LEVEL:.0%} (Holm); ABPT and N-step both tiled, so that both aim at ∇J; the rule that the effect changes "
        "sign once was fixed before the run."
    )
    parts = [said]
    for task in dict.fromkeys(one.task for one in singles):
        row = next(one for one in singles if one.task == task)
        pairs = next(one.pair.pairs for one in found if one.pair.task == task)
        if row.truth_relative_stderr == 0:
            parts.append(f"{task}: exact ∇J and ∇_a Q, {row.count:,} episodes.")
        else:
            parts.append(
                f"{task}: ∇J to {row.truth_relative_stderr:.1%}, ∇_a Q by {pairs:,} pairs of episodes, "
                f"{row.count:,} episodes."
            )
    return " ".join([*parts, *_lost(singles)])


def _lost(singles: Sequence[Single]) -> list[str]:
    return text.lost("Gradients", pd.DataFrame({"nonfinite": [one.nonfinite for one in singles]}))
