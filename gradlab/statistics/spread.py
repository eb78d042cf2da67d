"""The interval of a variance from samples whose tails may be heavy.

With y_i = ‖g_i − ḡ‖² the variance is the mean of y, and its standard error comes from the spread of
y. Heavy tails fail a normal law in two ways, and both misses have the true value above the
interval:

- the mean is skewed: its skewness γ lengthens the upper reach q by the factor 1 + γ q/3 (Johnson
  1978), q counted as at most 3;
- the standard error is itself uncertain. Its degrees of freedom by its own moments are 2N/(κ − 1),
  κ the kurtosis of y (Satterthwaite), instead of N − 1, and κ is too small whenever the largest
  values have not been seen. The upper end takes a third of them, at least 1: the share at which
  log-normal radii were covered 95 % of the time at any N and rank. It costs nothing where tails are
  light.

N/(κ − 1) is the number of samples that the standard error rests on. With tails P(y > x) ~ x^−α it
grows like N^(2 − 4/α) for α < 4; below N^(1/3), where α is at most 2.4, a fourth moment of g, and
with it any standard error of the variance, may not exist (α <= 2), and no interval can be trusted.
Measured coverage: docs/statistics.md.
"""

from __future__ import annotations

import math

import scipy  # its parts are imported when they are used

from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import Moments

_SHARE = 3.0  # the upper end believes a third of the degrees of freedom that the samples show
FEW = 8.0  # samples: a mean that rests on fewer may have an interval that is too short,
_DECIDING = 6.0  # where fewer than these decide its error. Misses were seen below 3 of them, with
# an event in 0.2 to 0.5 % of 2,000 samples
_LARGEST = 700.0  # exponent, beyond which a factor is infinite


def variance_interval(moments: Moments, part: str, confidence: float) -> Interval:
    """Trace of the covariance of one sample; for groups, what a sample of a group is worth."""
    trace = moments.variance(part) * moments.group
    error = moments.variance_relative_stderr(part)
    if error == 0 or not trace > 0:
        return Interval(trace, trace, trace)
    level, most = (1 + confidence) / 2, float(moments.count - 1)
    freedom = 2 * decisive_samples(moments, part)
    short = float(scipy.stats.t.ppf(level, min(max(freedom, 1.0), most)))
    long = float(scipy.stats.t.ppf(level, min(max(freedom / _SHARE, 1.0), most)))
    skewness = moments.variance_tails(part)[0] / math.sqrt(moments.count)
    exponent = error * long * (1 + max(skewness, 0.0) * min(long, 3.0) / 3)
    high = trace * math.exp(exponent) if exponent < _LARGEST else math.inf
    return Interval(trace, trace * math.exp(-min(error * short, _LARGEST)), high)


def decisive_samples(moments: Moments, part: str) -> float:
    """N/(κ − 1): replicates that the standard error of the variance rests on, between 1 and N."""
    kurtosis = moments.variance_tails(part)[1]
    return moments.count / max(kurtosis - 1, 1.0)


def heavy_tailed(moments: Moments, part: str) -> bool:
    """Whether so few samples decide that the interval of the variance may be far too short."""
    if not moments.variance(part) > 0:
        return False
    return decisive_samples(moments, part) < max(moments.count ** (1 / 3), 4.0)


def carrying_samples(moments: Moments, part: str) -> float:
    """(Σ y)²/Σ y²: replicates that the error of the mean rests on, between 1 and N.

    An event in k of N samples, and little else, gives about k.
    """
    error = moments.variance_relative_stderr(part)
    return 1 / (error**2 + 1 / moments.count)


def carried_by_few(moments: Moments, part: str) -> bool:
    """Whether so few samples carry the mean that intervals of bias and cosine may be too short."""
    # few among many: ten means of large groups are not rare events
    carry = carrying_samples(moments, part) < min(FEW, moments.count / 10)
    return carry and decisive_samples(moments, part) < _DECIDING and heavy_tailed(moments, part)
