"""The long form of what `loss_landscape` found."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.critics.quality import Quality
from gradlab.study import text
from gradlab.study.tables import grouped, read
from studies.loss_landscape.config import RETURN
from studies.loss_landscape.judgement import judgements
from studies.loss_landscape.rows import (
    ESTIMATORS,
    LEVEL,
    Pair,
    Point,
    Policy,
    Roughness,
    counts,
    finest,
    name_of,
    pairs_of,
    policies_of,
)

LEGEND = (
    "A surface's roughness is the share of its variance over the grid that a quadratic through four "
    "neighbouring points does not explain. It is that of the expected surface: Monte-Carlo noise is taken off, "
    "so that a negative number means that none is seen. The intervals are 95 % ones from independent episodes. "
    "A quadratic has 0, points that have nothing in common have 1. The column `seen` has the noise of these "
    "episodes left in, and `spread` is the standard deviation over the grid. SG, SG+PG and SG+QG are read as the "
    "one-step objectives of AGPO at steps t of the episode, with states and noise held fixed."
)


def summarise(table: pd.DataFrame) -> str:
    """What was drawn, how rough it is, whether mixtures are smoother than SG, and the arrows."""
    paragraphs, pairs = [LEGEND], pairs_of(table)
    for policy, rows in policies_of(table):
        mine = [pair for pair in pairs if (pair.task, pair.label) == (policy.task, policy.label)]
        paragraphs += [_describe(policy, rows), _table(read(Roughness, rows, kind="roughness"))]
        paragraphs += filter(None, (_verdicts(mine), _arrows(rows)))
    return "\n\n".join([*paragraphs, *text.lost("Values", table)])


def _describe(policy: Policy, rows: pd.DataFrame) -> str:
    surface = read(Point, rows, kind="surface", objective=RETURN)
    said = (
        f"{policy.title}. The critic explains {policy.critic_quality:.0%} of the variance of the returns "
        f"({Quality.in_words(vars(policy))}); the directions are {policy.directions}."
    )
    if not surface:
        return said
    centre, values = surface[len(surface) // 2], [point.value for point in surface]
    error = np.nanmedian([point.change_stderr for point in surface])
    return (
        f"{said} The return is {centre.value:.4g} ± {centre.stderr:.2g} in the centre, and lies between "
        f"{np.nanmin(values):.4g} and {np.nanmax(values):.4g} on {len(surface)} points. A change from the "
        f"centre has a standard error of {error:.2g} (median)."
    )


def _table(rough: list[Roughness]) -> str:
    """Roughness of every surface, a column per scale."""
    scales = sorted({one.scale for one in rough})
    lines = [["surface", "t", *(f"share at {scale:.3g}" for scale in scales), "seen", "spread"]]
    for surface in grouped(rough, lambda one: (one.step, one.objective, one.alpha)).values():
        first, *_ = ordered = sorted(surface, key=lambda one: one.scale)
        # where no episode is alive any more there is nothing to be rough
        shares = ["flat" if first.spread == 0 else f"{one.share}" for one in ordered]
        when = "" if first.step is None else f"{first.step}"
        ends = [text.short(first.share_seen), text.short(first.spread)]
        lines.append([first.name, when, *shares, *ends])
    return text.columns(lines)


def _verdicts(pairs: list[Pair]) -> str:
    """In how many steps of the simulation is each objective smoother than SG,
    at the finest scale?
    """
    if not pairs:
        return ""
    fine = finest(pairs)
    parts = [
        f"{name_of(*objective)}: {counts(mine)} in the variance off quadratics; {counts(mine, share=True)} in its "
        "share of the surface's variance."
        for objective, mine in grouped(fine, lambda pair: (pair.objective, pair.alpha)).items()
    ]
    return (
        f"Every objective is compared with SG on the same episodes, at the finest scale, at "
        f"{len({pair.step for pair in fine})} steps of the simulation (p < {LEVEL} after Holm's correction over the "
        "table; elsewhere it cannot be told):\n" + "\n".join(parts)
    )


def _arrows(rows: pd.DataFrame) -> str:
    """Direction, length, and how many arrows differ of those that could have shown it."""
    parts = [
        f"{ESTIMATORS.get(name, name)}: direction {text.cosine(one.cosine)}, length {one.length}; {one.apart} of "
        f"{one.arrows} arrows differ, {one.could} could have shown a bias of 20 %."
        for name, one in judgements(rows)
    ]
    if not parts:
        return ""
    return (
        "The arrows are compared with the slope of J, which is known from differences of returns whose error of step is "
        "part of every comparison. Direction is the cosine between the field of arrows and the field of slopes, "
        "length is their ratio; both are free of noise bias, with 95 % jackknife intervals over the places. An arrow "
        "differs where it is further from the slope than noise and the error of step explain (1 % would be by "
        "chance). It could have shown a bias of 20 % of the slope's length, whatever the direction of that bias, if "
        "it would be found in four of five repetitions:\n" + "\n".join(parts) + "\n"
        "QG and its mixture read the critic of the policy in the centre, which knows less of the policies around it."
    )
