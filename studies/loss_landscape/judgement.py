"""How the arrows of `loss_landscape` are judged by the slope of the return."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used

from gradlab.statistics import Interval
from gradlab.study.tables import grouped, read
from studies.loss_landscape.arrows import TRUTH
from studies.loss_landscape.rows import Arrow

APART = 0.01  # share of arrows that noise alone may set apart (Bonferroni over two coordinates)
SHOWN = 0.2  # of the slope's length: the bias that an arrow is asked whether it could have shown
POWER = 0.8  # probability with which it is then shown


class Judged(NamedTuple):
    """What the arrows of one estimator say around one policy."""

    cosine: Interval  # of the field of arrows with the field of slopes, noise taken off
    length: Interval  # of the one over the other
    arrows: int
    apart: int  # further from the slope than noise and the error of step explain
    could: int  # that would have shown a bias of 20 % of the slope's length, whatever its direction


def judgements(policy: pd.DataFrame) -> Iterator[tuple[str, Judged]]:
    """Every estimator's arrows around one policy, judged."""
    arrows = (one for one in read(Arrow, policy, kind="arrow") if one.estimator != TRUTH)
    for name, mine in grouped(arrows, lambda arrow: arrow.estimator).items():
        yield name, judged(mine)


def judged(arrows: list[Arrow]) -> Judged:
    """Direction, length and the arrows that differ, for the arrows of one estimator."""
    gap, reach = _gaps(arrows, 0.0)
    apart = (np.abs(gap) > reach).any(1)
    _, wide = _gaps(arrows, float(scipy.stats.norm.ppf(POWER)))
    could = np.hypot(*wide.T) <= SHOWN * np.hypot(*both(arrows, "true").T)
    return Judged(
        _over_places(arrows, lambda sums: sums[0] / math.sqrt(sums[1] * sums[2]), -1.0, 1.0),
        _over_places(arrows, lambda sums: math.sqrt(sums[1] / sums[2]), 0.0, math.inf),
        len(arrows),
        int(apart.sum()),
        int(could.sum()),
    )


def both(arrows: Iterable[Arrow], name: str) -> np.ndarray:
    """Both components of a quantity, [arrows, 2]."""
    return np.array([[getattr(arrow, f"{name}_{end}") for end in "ab"] for arrow in arrows])


def _gaps(arrows: list[Arrow], more: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimator minus slope on the same episodes, [arrows, 2],
    and how far it must be from zero to count.

    `more` standard errors are added, for a bias that is to be found with some probability.
    """
    gap, stderr, freedom, truncation = (
        both(arrows, name) for name in ("gap", "gap_stderr", "gap_freedom", "truncation")
    )
    # no quantile where one episode makes the whole variance: nothing can be told
    quantile = np.where(
        freedom > 0, scipy.stats.t.isf(APART / 4, np.maximum(freedom, 1e-9)), np.inf
    )
    return gap, np.where(stderr > 0, (quantile + more) * stderr, 0.0) + truncation


def _over_places(
    arrows: list[Arrow], read: Callable[[np.ndarray], float], least: float, most: float
) -> Interval:
    """A read-out of Σ⟨g, s⟩, Σ‖g‖² and Σ‖s‖² over arrows, noise taken off,
    with the jackknife over places.
    """
    g, s = both(arrows, "slope"), both(arrows, "true")
    noise = [both(arrows, f"{name}_stderr") ** 2 for name in ("slope", "true", "gap")]
    # the two share their episodes: cov(g, s) = (var g + var s − var(g − s))/2
    products = (g * s - (noise[0] + noise[1] - noise[2]) / 2, g**2 - noise[0], s**2 - noise[1])
    terms = np.stack(products, -1).sum(1)

    def value(sums: np.ndarray) -> float:
        return read(sums) if min(sums[1], sums[2]) > 0 else math.nan

    total, count = terms.sum(0), len(terms)
    found = value(total)
    if count < 3 or not math.isfinite(found):
        return Interval(found, least, most)
    without = np.array([value(total - term) for term in terms])
    if not np.isfinite(without).all():
        return Interval(found, least, most)
    stderr = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    reach = float(scipy.stats.t.ppf(0.975, count - 1)) * stderr
    estimate = min(max(found, least), most)
    return Interval(estimate, max(least, found - reach), min(most, found + reach))
