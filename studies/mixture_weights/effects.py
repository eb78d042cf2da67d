"""What groups of samples say, with intervals by Student's law over independent replicates."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
from jaxtyping import Float

from gradlab.statistics import Interval

CONFIDENCE = 0.95


class Effect(NamedTuple):
    """A number with its interval, and the p-value of what it would be without an effect."""

    interval: Interval
    p_value: float  # two-sided


def mean(values: Float[np.ndarray, " n"], error: float = 0.0) -> Effect:
    """The mean of independent replicates, tested against 0; `error` is another independent
    standard error, added in squares.
    """
    count = len(values)
    if count < 2:
        return Effect(Interval(*(math.nan,) * 3), math.nan)
    spread = math.hypot(float(values.std(ddof=1)) / math.sqrt(count), error)
    return _effect(float(values.mean()), spread, count - 1, log=False)


def ratio(above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"]) -> Effect:
    """The ratio of two means of paired replicates, tested against 1, by the delta method on its
    logarithm; NaN unless both means are positive.
    """
    count, first, second = len(above), float(above.mean()), float(below.mean())
    if count < 2 or not (first > 0 and second > 0):
        return Effect(Interval(*(math.nan,) * 3), math.nan)
    moves = above / first - below / second
    spread = float(moves.std(ddof=1)) / math.sqrt(count)
    found = _effect(math.log(first / second), spread, count - 1, log=True)
    return found


def _effect(value: float, spread: float, freedom: int, log: bool) -> Effect:
    t = scipy.stats.t
    reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * spread
    # equal replicates leave nothing to test: they are equal, or differ for sure
    p = float(2 * t.sf(abs(value) / spread, freedom)) if spread > 0 else float(value == 0)
    ends = (value, value - reach, value + reach)
    return Effect(Interval(*(math.exp(end) if log else end for end in ends)), p)
