"""One estimator against a truth: bias, variance, direction and length, each with an interval.

With g = E ĝ the estimator's expectation, g* the truth, Σ the covariance of one sample:

- *squared bias* ‖g − g*‖², debiased, sign kept; *relative bias* its root over ‖g*‖, sign kept;
- *variance* tr Σ (Suh et al. 2022, Definition 3.1), not divided by N;
- *cosine* of g with g*, as 1/√(1 + tan²): the squared length of ḡ across ĝ*, noise taken off, over
  that along it. Noise may push it above 1 in size: it is then reported as 1, `cosine_raw` keeps the
  value, and the interval ends at 1. NaN when a debiased squared length is not positive;
- *relative norm* ‖g‖/‖g*‖, and what is left after the best scalar, √(1 − cos²);
- *SNR* ‖g‖²/tr Σ of one sample, debiased; *MSE(B)* = tr Σ/B + squared bias (at least 0);
- *cosine_batch*, of a mean of B samples: cosine/√(1 + 1/(B·SNR)), at its root-mean-square length;
- *samples to cosine 0.9*: least B (in whole groups) with cosine_batch >= 0.9, infinite if there is
  none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy  # its parts are imported when they are used

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.statistics.batches import batch_cosine, samples_to_cosine
from gradlab.statistics.gram import Combination, Gram, grams
from gradlab.statistics.intervals import Interval, ratio_interval
from gradlab.statistics.moments import Moments
from gradlab.statistics.report import Report, Row
from gradlab.statistics.spread import (
    carried_by_few,
    decisive_samples,
    heavy_tailed,
    variance_interval,
)
from gradlab.statistics.streams import shared
from gradlab.statistics.truth import OracleGradient

COSINE = 0.9  # asked of a batch in `samples_to_cosine`


def compare(
    moments: Moments,
    truth: OracleGradient,
    target: OracleGradient | None = None,
    *,
    batch: int = 100,
    confidence: float = 0.95,
    only: Callable[[str], bool] | None = None,
) -> Report:
    """How far an estimator's expectation is from the truth, how noisy it is, and how sure we are.

    `target` is what the estimator claims to estimate, Σ w_k g_k; its relative bias is against the
    target's own length. `batch` is the B of the batch cosine and the MSE, a multiple of the
    estimator's group. `only` says which parts (everything, layers, leaves) get a row. Truth and
    target must come from seeds independent of `moments`. Raises `BadShape` for other parameters,
    `BadValue` for too few samples or a batch of broken groups.
    """
    if not isinstance(moments, Moments):
        raise BadValue(f"expected Moments, got {type(moments).__name__}; try samples.moments()")
    for given in (truth, target):
        if not isinstance(given, OracleGradient | None) or truth is None:
            raise BadValue(
                f"the truth should be an OracleGradient, got {type(given).__name__}; "
                'try gradlab.OracleGradient.exact(mean, "closed form") or an oracle of gradlab.oracle'
            )
    batch = whole("batch", batch)
    if batch % moments.group:
        near = max(1, round(batch / moments.group)) * moments.group
        raise BadValue(
            f"expected a batch of whole groups of {moments.group}, got {batch}; try batch={near}"
        )
    for oracle in (truth, target):
        if oracle is not None:
            oracle.check_leaves(moments.mean)
            check_streams(moments, oracle)
    against_truth = grams([moments, truth])
    against_target = grams([moments, target]) if target is not None else {}
    rows = {
        part: _row(part, gram, against_target.get(part), moments, batch, confidence)
        for part, gram in against_truth.items()
        if only is None or only(part)
    }
    return Report(rows, truth.name, truth.relative_stderr, batch, confidence)


def _row(
    part: str, gram: Gram, target: Gram | None, moments: Moments, batch: int, confidence: float
) -> Row:
    estimate, reference = gram.combine([1, 0]), gram.combine([0, 1])
    own, oracle = gram.errors
    squared_bias = gram.interval(gram.combine([1, -1]), own + oracle, confidence)
    length = gram.interval(estimate, own, confidence)
    truth_length = gram.interval(reference, oracle, confidence)
    variance = variance_interval(moments, part, confidence)
    cosine_raw, cosine, left = _cosine(gram, confidence)
    snr = _snr(length, variance)
    return Row(
        part=part,
        count=moments.count * moments.group,
        nonfinite=moments.nonfinite * moments.group,
        squared_bias=squared_bias,
        relative_bias=_relative_bias(gram, squared_bias, truth_length),
        relative_bias_target=None if target is None else _from_target(target, confidence),
        variance=variance,
        cosine=cosine,
        cosine_raw=cosine_raw,
        cosine_batch=batch_cosine(cosine, snr, batch),
        relative_norm=_root(ratio_interval(length, truth_length)),
        left_after_scaling=left,
        snr=snr,
        mse=mean_square_error(variance, squared_bias, batch),
        samples_to_cosine=samples_to_cosine(cosine, snr, COSINE, moments.group),
        **_oracle_shares(gram),
        spread_samples=decisive_samples(moments, part) * moments.group,
        heavy_tails=heavy_tailed(moments, part),
        carried_by_few=carried_by_few(moments, part),
        truth_norm=math.sqrt(size) if (size := truth_length.estimate) > 0 else math.nan,
    )


def check_streams(moments: Moments, truth: OracleGradient) -> None:
    """Raises `BadValue` where samples and truth have episodes in common."""
    both = shared(moments.streams, truth.streams)
    if both is not None:
        raise BadValue(
            f"the truth {truth.name!r} and the samples come from the same stream ({both}), so their "
            f"errors are not independent; use another seed for one of them than {both.seed}"
        )


def _snr(length: Interval, variance: Interval) -> Interval:
    """‖g‖²/tr Σ; the two are independent (exactly so for Gaussian samples)."""
    if variance.estimate <= 0:
        return Interval(math.inf, math.inf, math.inf)
    return ratio_interval(length, variance)


def mean_square_error(variance: Interval, squared_bias: Interval, batch: float) -> Interval:
    """tr Σ/B + ‖b‖² of a mean of B = `batch` samples, from what `compare` gives of one sample.

    The reaches of the two independent parts are added in squares. A debiased ‖b‖² below 0 counts as
    0: an MSE below the variance would lie outside its interval.
    """
    estimate = variance.estimate / batch + max(squared_bias.estimate, 0.0)

    def reach(end: int) -> float:
        noise = (variance[end] - variance.estimate) / batch
        return math.hypot(noise, squared_bias[end] - squared_bias.estimate)

    # Where the bias's interval starts at 0 its reach is cut short: only the variance is sure.
    low = estimate - reach(1) if squared_bias.low > 0 else variance.low / batch
    return Interval(estimate, max(low, 0.0), estimate + reach(2))


def _from_target(gram: Gram, confidence: float) -> Interval:
    """The relative bias against another truth than that of the rest of the row."""
    own, oracle = gram.errors
    bias = gram.interval(gram.combine([1, -1]), own + oracle, confidence)
    return _relative_bias(gram, bias, gram.interval(gram.combine([0, 1]), oracle, confidence))


def _relative_bias(gram: Gram, bias: Interval, length: Interval) -> Interval:
    """Root of ‖b‖²/‖g*‖² with the sign of the debiased ‖b‖².

    The oracle's error is in both, with opposite signs: cov(‖d̄‖², ‖ĝ*‖²) = −4 b'C*g* + 2 tr C*²,
    and d̄'C*ĝ* is b'C*g* − tr C*² on average.
    """
    own, oracle = gram.errors
    gap, reference = gram.combine([1, -1]), gram.combine([0, 1])
    correlation = 0.0
    if oracle > 0 and own + oracle > 0:
        law, other = gram.law(gap, own + oracle), gram.law(reference, oracle)
        shared = gram.along(reference, gap) @ gram.along(reference, reference) / gram.n
        covariance = -4 * (shared + other.trace2) + 2 * other.trace2
        correlation = float(np.clip(covariance / math.sqrt(law.variance * other.variance), -1, 1))
    return _root(ratio_interval(bias, length, correlation))


def _oracle_shares(gram: Gram) -> dict[str, float]:
    """Share of the truth in the variance of the relative bias, the cosine and the relative norm.

    To first order each moves by u·(noise of ḡ) + v·(noise of ĝ*); 0 where neither has noise.
    """
    estimate, reference = gram.combine([1, 0]), gram.combine([0, 1])
    gap = gram.combine([1, -1])
    own, oracle = gram.contrast_rows(0), gram.contrast_rows(1)
    gap_length, length, truth_length = (gram.inner(x, x) for x in (gap, estimate, reference))
    along = gram.inner(estimate, reference)
    d, e, r = (x.vector for x in (gap, estimate, reference))
    if not truth_length > 0:
        return {
            f"{name}_oracle_share": 0.0 for name in ("relative_bias", "cosine", "relative_norm")
        }
    # derivatives of the logarithms of bias/‖ĝ*‖, cosine and ‖ḡ‖/‖ĝ*‖, each times the squared length
    # (the cosine: the product) that it would be divided by: a share does not change, and 0 divides
    # nothing
    moves = {
        "relative_bias": (d, -d - gap_length / truth_length * r),
        "cosine": (length * r - along * e, length * e - along * length / truth_length * r),
        "relative_norm": (e, -length / truth_length * r),
    }
    shares = {}
    for name, (by_own, by_oracle) in moves.items():
        mine, its = (
            float(np.square(rows @ (gram.matrix @ vector)).sum())
            for rows, vector in ((own, by_own), (oracle, by_oracle))
        )
        shares[f"{name}_oracle_share"] = its / (mine + its) if mine + its > 0 else 0.0
    return shares


def _cosine(gram: Gram, confidence: float) -> tuple[float, Interval, Interval]:
    """Uncapped cosine; cosine and √(1 − cos²) with intervals.

    The interval is that of the angle: the part of ḡ across ĝ* gives a squared length with the law
    of `intervals`, the part along it a Student interval, and their ratio is the tangent.
    """
    estimate, reference = gram.combine([1, 0]), gram.combine([0, 1])
    own, oracle = gram.errors
    size = gram.inner(reference, reference)
    if not size > 0:
        unknown = Interval(math.nan, -1.0, 1.0)
        return math.nan, unknown, Interval(math.nan, 0.0, 1.0)
    along = gram.inner(estimate, reference) / math.sqrt(size)
    scalar = along / math.sqrt(size)
    across, error = _across(gram, scalar, size)
    squared_across = gram.interval(across, error, confidence)
    noise = gram.along(estimate, reference) + gram.along(reference, across)
    spread = math.sqrt(float(noise @ noise) / gram.n / size)
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, gram.n)) * spread
    lengths = gram.inner(estimate, estimate) - own, size - oracle
    total = along**2 + squared_across.estimate
    raw = along / math.sqrt(total) if min(*lengths, total) > 0 else math.nan
    capped = min(max(raw, -1.0), 1.0)
    low, high = along - reach, along + reach
    if low <= 0 <= high:
        ends = (_cosine_of(low, squared_across.low), _cosine_of(high, squared_across.low))
        sines = (math.sqrt(max(1 - max(ends[0] ** 2, ends[1] ** 2), 0.0)), 1.0)
    else:
        near, far = sorted((abs(low), abs(high)))
        correlation = 0.0
        if spread > 0 and error > 0:  # the same noise moves both parts
            shared = float(noise @ gram.along(across, across)) / gram.n / math.sqrt(size)
            deviation = spread * math.sqrt(gram.law(across, error).variance) / 2
            correlation = math.copysign(min(abs(shared) / deviation, 1.0), shared * along)
        along_squared = Interval(along**2, near**2, far**2)
        tangent = ratio_interval(squared_across, along_squared, correlation)
        least, most = (1 / math.sqrt(1 + t) for t in (tangent.high, tangent.low))
        ends = (least, most) if along > 0 else (-most, -least)
        sines = (math.sqrt(max(1 - most**2, 0.0)), math.sqrt(1 - least**2))
    left = math.sqrt(1 - capped**2) if math.isfinite(capped) else math.nan
    return raw, Interval(capped, *ends), Interval(left, *sines)


def _across(gram: Gram, scalar: float, size: float) -> tuple[Combination, float]:
    """The residual ḡ − α ĝ*, its contrasts projected off ĝ*, and the trace of its noise."""
    reference = gram.combine([0, 1])
    residual = gram.combine([1, -scalar])
    along = gram.along(residual, reference)
    projected = residual.contrasts - np.outer(along / size, reference.vector)
    whole = float(np.trace(gram.cross(residual, residual)))
    error = gram.errors[0] + scalar**2 * gram.errors[1]
    share = 1 - float(along @ along) / size / whole if whole > 0 else 1.0
    return Combination(residual.vector, projected), error * max(share, 0.0)


def _cosine_of(along: float, squared_across: float) -> float:
    size = math.hypot(along, math.sqrt(squared_across))
    return along / size if size > 0 else 1.0


def _root(squared: Interval) -> Interval:
    """Square roots of a ratio's interval; the estimate keeps its sign."""
    estimate = math.copysign(math.sqrt(abs(squared.estimate)), squared.estimate)
    return Interval(estimate, math.sqrt(squared.low), math.sqrt(squared.high))
