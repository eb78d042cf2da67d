"""A median with an interval that asks for no law."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy  # its parts are imported when they are used

from gradlab.statistics import Interval


def median_interval(
    values: Iterable[float], confidence: float = 0.95, *, extremes: bool = False
) -> Interval:
    """The median with the narrowest pair of order statistics that holds it with this probability.

    Free of any distribution: the number of values below the median is binomial(n, ½). With fewer
    than 6 values no pair holds it with 95 %: then the ends are NaN, or the `extremes` (94 % for 5).
    Values that are not finite are left out; NaN where none is left.
    """
    known = np.sort([value for value in values if np.isfinite(value)])
    count = len(known)
    if count == 0:
        return Interval(np.nan, np.nan, np.nan)
    middle = float(np.median(known))
    below = int(scipy.stats.binom.ppf((1 - confidence) / 2, count, 0.5))
    if below < 1 and not extremes:
        return Interval(middle, np.nan, np.nan)
    below = max(below, 1)
    return Interval(middle, float(known[below - 1]), float(known[count - below]))
