"""What `jumps` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import Answer, text
from studies.jumps.rows import BIASED, Seen

ROWS = 16  # of the table
QUESTION = (
    "Does the jump test find every objective on which first-order gradients (FOG) are biased, and is "
    "it silent on smooth ones?"
)


def answer(table: pd.DataFrame) -> Answer:
    """How many biased cases are found and how many smooth ones called, and by how many pairs."""
    cases = Seen.by_case(table)
    known = [case for case in cases if case.bias is not None]
    return Answer(
        question=QUESTION,
        answer=" ".join([verdict(cases), *_pairs(cases), *_runners(cases)]),
        rests_on=_rests_on(cases, known),
        would_change=(
            "Another policy; curvature, which can hide a jump (silence is no proof); the noise of a policy, since a "
            "jump that no action reaches is seen by neither the test nor the objective; more pairs (--pairs, "
            "--runner-pairs); longer episodes of runners (--horizon)."
        ),
        table=pd.DataFrame([line(case) for case in known[:ROWS]]),
    )


def verdict(cases: Sequence[Seen]) -> str:
    """Found of the biased, called of the smooth, at which level."""
    biased = [case for case in cases if case.biased]
    smooth = [case for case in cases if case.smooth]
    found = [case for case in biased if case.last.found]
    missed = [case.name for case in biased if not case.last.found]
    wrong = [case.name for case in smooth if case.last.found]
    open_bias = [c for c in cases if c.bias is not None and not c.smooth and not c.biased]
    unclear = [case.name for case in open_bias]
    called = sum(case.last.found for case in open_bias)
    level = cases[0].last.level * len(cases)
    said = (
        f"The test finds {len(found)} of {len(biased)} cases in which FOG is biased, and calls "
        f"{len(wrong)} of {len(smooth)} smooth ones, at a level of {level:.0%} for all {len(cases)} "
        "cases together."
    )
    parts = [said]
    if unclear:
        parts.append(
            f"Whether FOG is biased cannot be told by the truth of {', '.join(unclear)} "
            f"({called} of {len(unclear)} called)."
        )
    if missed:
        parts.append(f"Missed: {', '.join(missed)}.")
    if wrong:
        parts.append(f"Called though smooth: {', '.join(wrong)}.")
    return " ".join(parts)


def _pairs(cases: Sequence[Seen]) -> Iterator[str]:
    """The least and the most pairs that a biased case needs."""
    found = [case for case in cases if case.biased and case.last.found]
    if not found:
        return
    ranked = sorted(found, key=lambda case: case.last.needed.estimate)
    ends = [ranked[0]] if len(ranked) == 1 else [ranked[0], ranked[-1]]
    said = " to ".join(f"{count(case.last.needed)} ({case.name})" for case in ends)
    yield f"Pairs of episodes that find such a case with 95 % probability: {said}."


def _runners(cases: Sequence[Seen]) -> Iterator[str]:
    runners = [case for case in cases if case.last.family == "runner"]
    if not runners:
        return
    called = [case.name for case in runners if case.last.found]
    by_term = [
        f"{case.name}: {', '.join(case.found_terms)}" for case in runners if case.found_terms
    ]
    terms = f"single terms of {len(by_term)} ({'; '.join(by_term)})" if by_term else "no term"
    yield (
        f"Of {len(runners)} runners, which have no truth, it calls the return of "
        f"{text.several(called)}, and {terms}."
    )


def _rests_on(cases: Sequence[Seen], known: Sequence[Seen]) -> str:
    sampled = [case for case in known if case.bias and case.bias.truth_relative_stderr > 0]
    counts = sorted({case.last.pairs for case in cases})
    numbers = " or ".join(f"{n:,}" for n in counts)
    said = (
        f"{numbers} pairs of episodes per case, each case at its share of the level; biased: the "
        f"whole 95 % interval of FOG's relative bias is above {BIASED:.0%}."
    )
    parts = [said]
    exact = len(known) - len(sampled)
    truths = [f"closed forms in {exact} cases"] if exact else []
    truths += [
        f"{case.name} {case.bias.truth} ({case.bias.truth_relative_stderr:.1%})"
        for case in sampled
        if case.bias is not None
    ]
    if truths:
        parts.append(f"Truths, with relative standard error: {'; '.join(truths)}.")
    return " ".join(parts)


def line(case: Seen) -> dict[str, str]:
    """One case of the table."""
    return {
        "case": case.name,
        "built": case.last.built,
        "FOG's relative bias": "no truth" if case.bias is None else f"{case.bias.relative_bias}",
        "share unseen": share(case.last.share),
        "p": "< 1e-6" if case.last.p_value < 1e-6 else f"{case.last.p_value:.2g}",
        "called from": "not called" if case.first is None else f"{case.first} pairs",
        "needs": count(case.last.needed) if case.last.found else "",
    }


def share(interval: Interval) -> str:
    """A share with its interval, which may be negative and ends at 1."""
    return format_interval(*interval, within=(-math.inf, 1.0))


def count(needed: Interval) -> str:
    """A number of pairs with its interval; empty where the test has nothing to find."""
    if math.isinf(needed.estimate):
        return ""
    high = "∞" if math.isinf(needed.high) else f"{needed.high:,.0f}"
    return f"{needed.estimate:,.0f} [{needed.low:,.0f}, {high}]"
