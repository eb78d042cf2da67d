"""What a batch of B samples points to, and how large it must be: with intervals.

The mean of B samples has cosine c/√(1 + 1/(B·SNR)) with the truth at its root-mean-square length, c
being the cosine of the expectation. Both c and the SNR have an interval; the errors of the two are
independent to first order (the part of ḡ across g* turns it, the part along g* lengthens it), so
each end adds their reaches in squares (Zou & Donner 2008, *Construction of confidence limits about
effect measures*). The batch size is read off that band, so both say the same.
"""

from __future__ import annotations

import math

from gradlab.statistics.intervals import Interval

_LARGEST = 1e18  # samples, beyond which a batch size is called infinite


def batch_cosine(cosine: Interval, snr: Interval, batch: float) -> Interval:
    """Cosine of a mean of `batch` samples with the truth.

    NaN where that of the expectation is unknown, or its length cannot be told from 0; the ends are
    then the extremes over both intervals. So is an end whose cosine ends at ±1, where an unbiased
    estimator is: the error of the angle has one side there, and adds nothing in squares.
    """

    corners = [_of_mean(c, s, batch) for c in cosine[1:] for s in snr[1:]]
    if not (math.isfinite(cosine.estimate) and snr.estimate > 0):
        return Interval(math.nan, min(corners), max(corners))
    middle = _of_mean(cosine.estimate, snr.estimate, batch)
    # The SNR moves a negative cosine the other way.
    shorter, longer = (1, 2) if cosine.estimate > 0 else (2, 1)

    down, up = (
        math.hypot(
            _of_mean(cosine[turned], snr.estimate, batch) - middle,
            _of_mean(cosine.estimate, snr[end], batch) - middle,
        )
        for turned, end in ((1, shorter), (2, longer))
    )
    low = middle - down if cosine.low > -1 else min(corners)
    high = middle + up if cosine.high < 1 else max(corners)
    return Interval(middle, max(low, min(corners)), min(high, max(corners)))


def _of_mean(cosine: float, snr: float, batch: float) -> float:
    """c/√(1 + 1/(B·SNR)), 0 without a signal."""
    return cosine / math.sqrt(1 + 1 / (batch * snr)) if snr > 0 else 0.0


def samples_to_cosine(cosine: Interval, snr: Interval, wanted: float, group: int) -> Interval:
    """Least batch, in whole groups, whose cosine reaches `wanted`; infinite where none does.

    NaN where the batch cosine is unknown; the ends are those batches at which the interval of the
    batch cosine reaches it.
    """

    def least(end: int) -> float:
        def reached(batch: float) -> bool:
            return batch_cosine(cosine, snr, batch)[end] >= wanted

        if reached(group):
            return float(group)
        if not reached(_LARGEST):
            return math.inf
        low, high = float(group), _LARGEST
        while high > low * (1 + 1e-9) and high - low > 0.5:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if reached(middle) else (middle, high)
        return float(group * math.ceil(high / group - 1e-6))

    if not (math.isfinite(cosine.estimate) and snr.estimate > 0):
        return Interval(math.nan, least(2), least(1))
    return Interval(least(0), least(2), least(1))
