"""What `mixture_ratio` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.mixture_ratio.alphas import GAMMA, TAU
from studies.mixture_ratio.rows import (
    ABOUT_ONE,
    LITTLE,
    PUBLISHED,
    Alpha,
    Policy,
    about_one,
    between,
    changes,
    policies,
    share,
    whole,
)

QUESTION = (
    "On the ant, how much of the simulation gradient does a mixture with PG take, and one with the gradient of "
    "a critic; is it about 1 with PG, as AGPO's paper says?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The verdict on SG + PG, then SG + QG, then what training and AoBG's bound do."""
    score, critic = whole(table, "sg+pg"), whole(table, "sg+qg")
    published = [one for one in critic if one.variant == PUBLISHED]
    parts = [_score(score), _critic(published, critic), *_training(table), _bounds(table)]
    return Answer(
        question=QUESTION,
        answer=" ".join(filter(None, parts)),
        rests_on=_rests_on(score, policies(table)),
        would_change=(
            "Trainings that go on until the ant runs (these are short, and of 32 steps); stiffer contact, whose SG is "
            "noisier (--settings brax/brax); longer windows (--windows); other advantages for PG: here "
            "G − Q(s, μ(s)), as in the paper's appendix B."
        ),
        table=pd.DataFrame(list(short(score, critic))),
    )


def _score(found: Sequence[Alpha]) -> str:
    above, total = share(found, lambda value: value.low > ABOUT_ONE)
    least = min(found, key=lambda one: one.value.estimate)
    most = max(found, key=lambda one: one.value.estimate)
    return (
        f"That α of SG + PG (γ = ∞) is about 1 {about_one(found)}: it is above {ABOUT_ONE} in {above} of {total} cases, "
        f"{_ends(*(f'{alpha(one.value)} ({one.policy}, {one.variant})' for one in (least, most)))}."
    )


def _critic(published: Sequence[Alpha], critic: Sequence[Alpha]) -> str:
    """AGPO's own, and what its median normalisation does."""
    if not published:
        return ""
    least, most = (f(published, key=lambda one: one.value.estimate) for f in (min, max))
    inside, total = share(published, lambda v: LITTLE < v.low and v.high < ABOUT_ONE)
    other = [one.value.estimate for one in critic if one.variant == "not normalised"]
    plain = (
        f"; without the median normalisation {_ends(f'{min(other):.2f}', f'{max(other):.2f}')}"
        if other
        else ""
    )
    return (
        f"That AGPO's α of SG + QG is in between ({LITTLE} to {ABOUT_ONE}) {between(published)}: {inside} of {total} "
        f"policies, {_ends(*(f'{alpha(one.value)} ({one.policy})' for one in (least, most)))} as a mean over steps{plain}."
    )


def _training(table: pd.DataFrame) -> Iterator[str]:
    """What a training does to both."""
    said = [
        f"{'SG + QG' if one.mixture == 'sg+qg' else f'SG + PG, {one.variant},'} {one.said} by "
        f"{text.signed(one.value)}{f' in training {one.method}' if one.method != 'agpo' else ''}"
        for mixture in ("sg+qg", "sg+pg")
        for one in changes(table, mixture)
        if one.variant == PUBLISHED or one.mixture == "sg+pg"
    ]
    if said:
        yield f"Over training α of {'; '.join(said)}."


def _bounds(table: pd.DataFrame) -> str:
    """AoBG's α by γ, over all policies."""
    parts = []
    for reading, words in ((TAU, "τ = γ − ε (as AGPO's paper has it)"), (GAMMA, "γ")):
        found = [one for one in whole(table, "aobg") if one.variant == reading]
        if not found:
            continue
        each = []
        for gamma, mine in grouped(found, lambda one: one.gamma or 0.0).items():
            values = [one.value.estimate for one in mine]
            ends = _ends(f"{min(values):.2g}", f"{max(values):.2g}")
            name = "∞" if math.isinf(gamma) else f"{gamma:g}"
            each.append(f"{ends} at {name}")
        parts.append(f"by {words}: {', '.join(each)}")
    return f"AoBG's α {'; '.join(parts)}." if parts else ""


def _rests_on(found: Sequence[Alpha], seen: Sequence[Policy]) -> str:
    counts = sorted({(one.groups, one.size) for one in found})
    groups = " or ".join(f"{g} independent groups of {n}" for g, n in counts)
    quality = [one.critic_start for one in seen]
    ceiling = [one.critic_ceiling for one in seen]
    return (
        f"{groups} episodes, an α each, the same noise for all policies of one length; intervals are Student's over "
        "groups, and those behind a verdict hold for all of its cases at once. Critics are fitted to each policy: they explain "
        f"{text.percent_range(quality)} of the return's variance at t = 0, where the best could explain "
        f"{text.percent_range(ceiling)}."
    )


def short(score: Sequence[Alpha], critic: Sequence[Alpha]) -> Iterator[dict[str, str]]:
    """A line per policy that fits on a screen, two decimals; the long form has all readings."""
    readings = {PUBLISHED: "SG+QG", "not normalised": "SG+QG, no medians"}
    found = [*(one for one in critic if one.variant in readings), *score]
    for policy, mine in grouped(found, lambda one: one.policy).items():
        columns = {
            readings.get(one.variant, f"SG+PG, {one.variant}"): text.two_decimals(
                one.value, (0.0, 1.0)
            )
            for one in mine
        }
        yield {"policy": policy, **columns}


def lines(score: Sequence[Alpha], critic: Sequence[Alpha]) -> Iterator[dict[str, str]]:
    """A line per policy: SG + QG by reading, SG + PG by window."""
    for policy, mine in grouped([*critic, *score], lambda one: one.policy).items():
        columns = {
            f"{'SG+QG' if one.mixture == 'sg+qg' else 'SG+PG'}, {one.variant}": alpha(one.value)
            for one in mine
        }
        yield {"policy": policy, **columns}


def _ends(low: str, high: str) -> str:
    """ "low to high", or the one where both read the same."""
    return low if low == high else f"{low} to {high}"


def alpha(value: Interval) -> str:
    """A ratio with its interval, which ends at 0 and 1."""
    return format_interval(*value, within=(0.0, 1.0))
