"""Healthy ranges of what a training measures of itself, with their reasons: the one place of both.

A quantity is out of range where its whole interval is. Most ranges follow from one number: a small
step along E ĝ, of the best length, gains cos² of what a step along the true gradient gains; noise
leaves of that SNR/(1 + SNR).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gradlab.statistics.intervals import Interval


class Range(NamedTuple):
    """What a quantity is, where it should lie, ends included, and why."""

    what: str  # for a reader
    low: float
    high: float
    reason: str

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        if math.isinf(self.high):
            return f"at least {self.low:g}"
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"

    def misses(self, interval: Interval) -> bool:
        """Whether the whole interval lies outside."""
        return interval.high < self.low or interval.low > self.high

    def holds(self, interval: Interval) -> bool:
        """Whether the whole interval lies inside."""
        return self.low <= interval.low and interval.high <= self.high


_DIRECTION = "below 0.7 the best step gains less than half (cos²) of what the true gradient's gains"
HEALTHY: dict[str, Range] = {
    "bias": Range("bias to the segment", 
        0.0, 1.0, "an error longer than the gradient itself may turn it round; length alone hardly "
        "matters to Adam"
    ),
    "cosine": Range("cosine to the segment", 0.7, 1.0, _DIRECTION),
    "snr": Range("signal to noise of an update", 0.1, math.inf, "below 0.1 noise costs ten elevenths of what a step could gain"),
    "whole bias": Range("bias to the whole return", 0.0, 1.0, "as the bias; what it is above that comes from the critic"),
    "whole cosine": Range("cosine to the whole return", 0.7, 1.0, _DIRECTION),
    "jump p": Range("p-value that nothing jumps", 
        0.01, 1.0, "below 0.01 the return jumps, which pathwise gradients do not see: relax the "
        "event, or take Split or PG"
    ),
    "weight alpha": Range("α of the mixture", 0.05, 0.95, "outside, one of the two gradients costs and does nothing"),
    "explained share": Range("explained of the explainable", 
        0.5, math.inf, "a critic that explains less than half of what can be explained leaves more "
        "than half to noise, or to bias"
    ),
    "action cosine": Range("cosine of ∇_a Q", 0.7, 1.0, "below 0.7 less than half of ∇_a Q is about the action"),
    "clipped": Range("share of clipped updates", 
        0.0, 0.5, "where most updates are clipped their sum is no longer that of their gradients: "
        "the noisy ones weigh less"
    ),
    "not finite": Range("share of non-finite episodes", 0.0, 0.0, "an episode that is not finite stops or skips its update"),
    "gradients lost": Range("share of non-finite gradients", 0.0, 0.0, "what is said of the others is then a selection"),
}  # fmt: skip


class Finding(NamedTuple):
    """A quantity that was looked at."""

    name: str
    value: Interval
    range: Range

    @property
    def out(self) -> bool:
        """Whether it is out of range, by its whole interval."""
        return self.range.misses(self.value)

    @property
    def verdict(self) -> str:
        """In one word: "healthy", "OUT" of range, or "open" where the interval holds an end."""
        return "OUT" if self.out else "healthy" if self.range.holds(self.value) else "open"


def findings(row: Mapping[str, float]) -> Iterator[Finding]:
    """Of a row with the columns of `UpdateQuality.columns`, those that have a healthy range."""
    for name, healthy in HEALTHY.items():
        value = row.get(name, math.nan)
        interval = Interval(*(row.get(f"{name}{end}", value) for end in ("", "_low", "_high")))
        if not any(math.isnan(end) for end in interval[1:]):
            yield Finding(name, interval, healthy)
