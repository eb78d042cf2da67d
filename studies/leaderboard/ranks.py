"""Ranks over repeats: Friedman's test, Nemenyi's critical difference, and lengths chosen across.

Repeats are blocks: within one, all estimators see the same episodes, and are judged on the same
fresh ones. [1] Demšar (2006), *Statistical comparisons of classifiers over multiple data sets*. [2]
Benavoli, Corani, Mangili (2016), *Should we really use post-hoc tests based on mean-ranks?*
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import scipy  # its parts are imported when they are used
from jaxtyping import Float

from gradlab.statistics import Interval, holm

LARGEST = 1e300  # in place of infinity, of which signed ranks cannot be taken
Gains = Float[np.ndarray, "repeats lengths"]


Pairs = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of k contestants over n blocks; 1 is best.

    Two are told apart where Friedman's test tells anybody apart, and their mean ranks differ by
    more than the critical difference, or signed ranks of their own differences do (`apart`).
    """

    mean_ranks: tuple[float, ...]
    p_value: float  # that all are alike
    critical_difference: float  # of two mean ranks, for all pairs together
    level: float
    apart: Pairs = frozenset()  # places of those that signed ranks tell apart

    @property
    def best(self) -> int:
        """The place of the contestant with the least mean rank."""
        return int(np.argmin(self.mean_ranks))

    def alike(self, first: int, second: int) -> bool:
        """Whether two places cannot be told apart."""
        if not self.p_value <= self.level:
            return True
        gap = abs(self.mean_ranks[first] - self.mean_ranks[second])
        pair = min(first, second), max(first, second)
        return gap <= self.critical_difference and pair not in self.apart

    def as_good(self) -> list[int]:
        """Places of those that cannot be told from the best, the best first; all where Friedman's
        test tells no two apart."""
        return [place for place in self._order() if self.alike(self.best, place)]

    def groups(self) -> list[list[int]]:
        """Longest runs, from the best on, within which no two can be told apart; runs of one are
        left out."""
        order = self._order()
        found: list[list[int]] = []
        for start in range(len(order)):
            run: list[int] = []
            for place in order[start:]:
                if not all(self.alike(place, before) for before in run):
                    break
                run.append(place)
            if len(run) > 1 and not (found and set(run) <= set(found[-1])):
                found.append(run)
        return found

    def _order(self) -> list[int]:
        return [int(i) for i in np.argsort(self.mean_ranks, kind="stable")]


def ranking(values: Float[np.ndarray, "n k"], level: float) -> Ranking:
    """Ranks of k contestants in n blocks, the largest value first; NaN is worst, ties share ranks.

    Friedman's test for three and more, a sign test for two. Then all pairs, at half the level
    each: by their mean ranks (Nemenyi), and by Wilcoxon's signed ranks with Holm's correction.
    What mean ranks say of two depends on who else takes part [2]; signed ranks see those two alone.
    """
    values = np.nan_to_num(values, nan=-math.inf, neginf=-math.inf)
    count, contestants = values.shape
    if not contestants:
        return Ranking((), 1.0, 0.0, level)
    ranks = scipy.stats.rankdata(-values, axis=1)
    means = tuple(float(x) for x in ranks.mean(0))
    if contestants < 2:
        return Ranking(means, 1.0, 0.0, level)
    spread = math.sqrt(contestants * (contestants + 1) / (6 * count))
    difference = _quantile(contestants, level / 2) * spread
    return Ranking(means, _p_value(ranks), difference, level, _apart(values, level / 2))


def _apart(values: Float[np.ndarray, "n k"], level: float) -> Pairs:
    """The pairs of columns that signed ranks tell apart, all pairs together at this level."""
    pairs = list(combinations(range(values.shape[1]), 2))
    found = holm([_signed_rank(values[:, i], values[:, j]) for i, j in pairs])
    return frozenset(pair for pair, p in zip(pairs, found, strict=True) if p <= level)


def _signed_rank(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """P-value of Wilcoxon's test that differences are symmetric about 0; ties are left out."""
    differ = first != second
    if not differ.any():
        return 1.0
    # an infinite difference is larger than any other, and two of them are alike
    gaps = np.clip(first[differ] - second[differ], -LARGEST, LARGEST)
    return float(scipy.stats.wilcoxon(gaps).pvalue)


def _p_value(ranks: Float[np.ndarray, "n k"]) -> float:
    if np.ptp(ranks) == 0:  # ties alone
        return 1.0
    if ranks.shape[1] > 2:
        p = float(scipy.stats.friedmanchisquare(*ranks.T).pvalue)
        return 1.0 if math.isnan(p) else p
    first, second = (int((ranks[:, i] < ranks[:, 1 - i]).sum()) for i in (0, 1))
    return float(scipy.stats.binomtest(first, first + second).pvalue)


@lru_cache(maxsize=64)
def _quantile(contestants: int, level: float) -> float:
    """q_α of Nemenyi's test: the studentised range over √2."""
    return float(scipy.stats.studentized_range.ppf(1 - level, contestants, np.inf)) / math.sqrt(2)


def across(gains: Gains) -> tuple[Float[np.ndarray, " repeats"], tuple[int, int]]:
    """The gain of every repeat at the length that the other half of the repeats likes best.

    Even repeats choose for odd ones and odd for even; so no gain has chosen its own length. Also
    the places of the lengths that even and odd repeats got. A length at which a gain is not finite
    is taken only where every length has one.
    """
    usable = np.where(np.isfinite(gains), gains, -math.inf)
    places = tuple(int(np.argmax(usable[1 - half :: 2].mean(0))) for half in (0, 1))
    out = np.empty(len(gains))
    for half in (0, 1):
        out[half::2] = gains[half::2, places[half]]
    return out, (places[0], places[1])


def mean_interval(values: Float[np.ndarray, " n"], level: float = 0.05) -> Interval:
    """The mean with Student's interval; NaN where a value is not finite."""
    if not np.isfinite(values).all():
        return Interval(math.nan, -math.inf, math.inf)
    count = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(count)
    reach = float(scipy.stats.t.ppf(1 - level / 2, count - 1)) * error
    middle = float(values.mean())
    return Interval(middle, middle - reach, middle + reach)


def share_interval(
    values: Float[np.ndarray, " n"], whole: Float[np.ndarray, " n"], level: float = 0.05
) -> Interval:
    """mean(values)/mean(whole) of paired blocks, its interval to first order in the noise of both.

    NaN unless the interval of the whole's mean lies above 0.
    """
    below = mean_interval(whole, level)
    if not below.low > 0 or not np.isfinite(values).all():
        return Interval(math.nan, -math.inf, math.inf)
    ratio = float(values.mean()) / below.estimate
    reach = mean_interval((values - ratio * whole) / below.estimate, level)
    return Interval(ratio, ratio + reach.low - reach.estimate, ratio + reach.high - reach.estimate)
