"""Intervals that hold for many comparisons at once."""

from __future__ import annotations

import functools
import math

import scipy  # its parts are imported when they are used

CONFIDENCE = 0.95


@functools.cache
def longer(many: int, freedom: float = math.inf) -> float:
    """By how much intervals at 95 % must be longer for that many at once (Bonferroni).

    `freedom` is that of Student's law, infinite for a normal one.
    """
    law = scipy.stats.t(freedom) if math.isfinite(freedom) else scipy.stats.norm
    tail = (1 - CONFIDENCE) / 2
    return float(law.isf(tail / max(many, 1)) / law.isf(tail))
