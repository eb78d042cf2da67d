"""Confidence intervals for a squared length ‖b‖² seen through noise, and for ratios.

What is seen is d̄ = b + e with e ~ N(0, C), and n independent contrasts x_j ~ N(0, C) of the
blocks. Then Q = ‖d̄‖² has mean ‖b‖² + tr C: the plug-in ‖d̄‖² is mostly noise when b is small.

**The law.** The cumulants of Q are

    κ₁ = ‖b‖² + tr C,   κ₂ = 2 tr C² + 4 b'Cb,   κ₃ = 8 tr C³ + 24 b'C²b.

A shifted and scaled noncentral χ² with h = tr C²/a² degrees of freedom, noncentrality b'Cb/a² and
scale a = (tr C³ + 3 b'C²b)/(tr C² + 3 b'Cb) has just these three, and *is* the law of Q whenever
the nonzero eigenvalues of C are equal, at any rank and any b: so it stays right at rank 1, where a
normal law fails, and at rank 30.

**The spectrum.** tr C comes from all N samples. The shape, tr C²/(tr C)² and tr C³/(tr C)³, comes
from the spectrum of the Gram matrix of the contrasts, whose raw power sums are far too large when n
is not much above the rank; the unbiased ones solve the moment equations of the Wishart law (Letac &
Massam 2004, *All invariant moments of the Wishart distribution*). All ratios are exact at rank 1.

**The direction.** b'Cb is zero where noise never points and ‖b‖² times the top eigenvalue at worst,
a factor in the width that no average over directions gets right. d̄'Ĉd̄ − tr C² estimates it
without bias (Ĉ is independent of d̄), but what is off in it goes together with what is off in Q.
Under the hypothesis ‖b‖² = β that common part is known, so it is removed by regression:

    b'Cb(β) = d̄'Ĉd̄ − tr C² − cov(d̄'Cd̄, Q)/var(Q) · (Q − β − tr C),

a quadratic equation, since the slope (2 tr C³ + 4 b'C²b)/(2 tr C² + 4 b'Cb) contains b'Cb. With
equal eigenvalues it is exact.

**Inversion.** The interval holds every β that the observed Q does not reject, equal-tailed. At the
upper end the tail probability is compared with a multiple of its value at β = 0 (Read 2002, the CLs
rule), so that an unluckily small Q never yields the interval {0}. The level is that of Student's t
with n degrees of freedom, since Ĉ has only n. `test_intervals.py` measures the coverage.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
from jaxtyping import Float

from gradlab.foundation.errors import BadValue
from gradlab.statistics.formatting import format_interval

_GRID, _ZOOM = 129, 17  # points of the search for the ends, and of each refinement
_RESOLUTION = 1e-4  # of the standard deviation of Q, at which the refinement stops


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """As `format_interval` prints a size: "0.31 [0.25, 0.37]", or "below 0.54"."""
        return format_interval(*self)


class SquaredNormLaw(NamedTuple):
    """What the law of Q = ‖d̄‖² needs, estimated from the blocks."""

    observed: float  # Q
    trace: float  # tr C
    trace2: float  # tr C²
    trace3: float  # tr C³
    along: float  # d̄'Cd̄ = b'Cb + tr C² on average
    ratio: float  # d̄'C²d̄ / d̄'Cd̄
    top: float  # bound on the largest eigenvalue
    contrasts: int  # n

    @property
    def variance(self) -> float:
        """Variance of Q, at least its value for b = 0."""
        return 2 * self.trace2 + 4 * max(self.along - self.trace2, 0.0)

    def cdf(self, squared: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """P(Q <= observed) for each hypothesised ‖b‖²."""
        gap, extra = self.observed - squared - self.trace, self.along - self.trace2
        linear = self.trace2 - 2 * extra + 2 * self.ratio * gap
        root = linear**2 + 8 * (extra * self.trace2 - gap * self.trace3)
        through = np.where(root > 0, (np.sqrt(np.maximum(root, 0)) - linear) / 4, 0)
        through = np.clip(through, 0, self.top * squared)  # b'Cb
        scale = (self.trace3 + 3 * self.ratio * through) / (self.trace2 + 3 * through)
        return _noncentral_cdf(gap / scale, self.trace2 / scale**2, through / scale**2)


def _noncentral_cdf(
    gap: Float[np.ndarray, " k"], freedom: Float[np.ndarray, " k"], shift: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """P(χ'² <= mean + gap) of a noncentral χ², whose mean is freedom + shift.

    Beyond a mean of 1000 the series is slow, and Sankaran's power (1959) good to 1e-5.
    """
    mean = freedom + shift
    far = mean > 1000
    near = np.where(far, 1.0, mean + gap), np.where(far, 1.0, freedom), np.where(far, 1.0, shift)
    series = scipy.stats.ncx2.cdf(np.maximum(near[0], 0), near[1], np.maximum(near[2], 1e-12))
    h = 1 - 2 / 3 * mean * (mean + 2 * shift) / (mean + shift) ** 2
    p = (mean + shift) / mean**2
    m = (h - 1) * (1 - 3 * h)
    power = np.expm1(h * np.log1p(np.maximum(gap / mean, -1 + 1e-12)))  # (x/mean)^h, less 1
    centre = h * p * (h - 1 - (2 - h) * m * p / 2)
    spread = h * np.sqrt(2 * p) * (1 + m * p / 2)
    return np.where(far, scipy.stats.norm.cdf((power - centre) / spread), series)


def squared_norm_law(
    observed: float,
    trace: float,
    gram: Float[np.ndarray, "n n"],
    along: Float[np.ndarray, " n"],
) -> SquaredNormLaw:
    """Fits the law of ‖d̄‖²: `gram` holds x_i·x_j of the contrasts, `along` x_j·d̄."""
    n = len(gram)
    if n < 4:
        raise BadValue(f"expected at least 5 non-empty blocks for an interval, got {n + 1}")
    eigenvalues = np.maximum(np.linalg.eigvalsh(gram), 0.0)
    w1, w2, w3 = (float((eigenvalues**k).sum()) for k in (1, 2, 3))
    if not w1 > 0:
        raise BadValue(
            "the blocks show no noise where the samples do: estimator and truth seem to be the same "
            "samples; use another seed for one of them"
        )
    # Moments of W ~ Wishart(n, C): rows E tr W³, E tr W² tr W, E (tr W)³ in tr C³, tr C² tr C, (tr
    # C)³.
    cubic = np.array(
        [
            [n**3 + 3 * n**2 + 4 * n, 3 * n**2 + 3 * n, n],
            [4 * n**2 + 4 * n, n**3 + n**2 + 4 * n, n**2],
            [8 * n, 6 * n**2, n**3],
        ],
        dtype=float,
    )
    third, _, first3 = np.linalg.solve(cubic, np.array([w3 / w1**3, w2 / w1**2, 1.0]))
    second = (w2 / w1**2 - 1 / n) / ((n - 1) * (n + 2))
    first2 = 1 / n**2 - 2 * second / n
    shape2 = float(np.clip(second / first2, 1e-9, 1.0))
    shape3 = float(np.clip(third / first3, shape2**2, shape2**1.5))
    trace2, trace3 = shape2 * trace**2, shape3 * trace**3
    quadratic = trace * float(along @ along) / w1
    raw = trace**2 / (w1**2 * first2) * float(along @ gram @ along) / n**2
    quartic = (raw - trace * quadratic / n) * n / (n + 1)
    top = min(math.sqrt(trace2), trace * eigenvalues[-1] / w1)
    # Cauchy-Schwarz: (d'Cd)² <= d'd d'C²d, and d'C²d <= top d'Cd.
    low = min(quadratic / observed, top) if observed > 0 else 0.0
    ratio = float(np.clip(quartic / quadratic, low, top)) if quadratic > 0 else 0.0
    return SquaredNormLaw(observed, trace, trace2, trace3, quadratic, ratio, top, n)


def squared_norm_interval(
    observed: float,
    trace: float,
    gram: Float[np.ndarray, "n n"],
    along: Float[np.ndarray, " n"],
    confidence: float = 0.95,
) -> Interval:
    """Debiased ‖b‖² = ‖d̄‖² − tr C (sign kept) and its interval in [0, ∞)."""
    if not 0 < confidence < 1:
        raise BadValue(f"expected a confidence in (0, 1), got {confidence}")
    estimate = observed - trace
    if trace <= 1e-24 * observed or trace <= 0 or not np.trace(gram) > 0:
        return Interval(estimate, max(estimate, 0.0), max(observed, 0.0))
    return invert(squared_norm_law(observed, trace, gram, along), confidence)


def invert(law: SquaredNormLaw, confidence: float = 0.95) -> Interval:
    """The ‖b‖² that the observed length does not reject."""
    tail = tail_probability(confidence, law.contrasts)
    length = math.sqrt(law.observed) + math.sqrt(law.trace + 10 * math.sqrt(law.trace2))
    grid = np.linspace(0.0, (length + 8 * math.sqrt(law.top)) ** 2, _GRID)
    close = max(_RESOLUTION * math.sqrt(law.variance), 1e-14 * float(grid[-1]))
    below = law.cdf(grid)
    kept = below <= 1 - tail
    low = float(grid[-1])
    if kept[0]:
        low = 0.0
    elif kept.any():
        first = int(np.argmax(kept))
        a, b = grid[first - 1], grid[first]
        while b - a > close:
            fine = np.linspace(a, b, _ZOOM)
            inside = law.cdf(fine) <= 1 - tail
            inside[-1] = True
            step = max(int(np.argmax(inside)), 1)
            a, b = fine[step - 1], fine[step]
        low = float(b)
    least = tail * below[0]
    last = int(np.flatnonzero(below >= least)[-1])
    high = float(grid[last])
    if last < _GRID - 1:
        a, b = grid[last], grid[last + 1]
        while b - a > close:
            fine = np.linspace(a, b, _ZOOM)
            inside = law.cdf(fine) >= least
            inside[0] = True
            step = min(int(np.flatnonzero(inside)[-1]), _ZOOM - 2)
            a, b = fine[step], fine[step + 1]
        high = float(a)
    return Interval(law.observed - law.trace, low, max(high, low))


def tail_probability(confidence: float, freedom: int) -> float:
    """One tail of the normal law beyond Student's quantile: its level with an estimated spread."""
    return float(scipy.stats.norm.sf(scipy.stats.t.ppf((1 + confidence) / 2, freedom)))


def ratio_interval(
    numerator: Interval, denominator: Interval, correlation: float = 0.0
) -> Interval:
    """Interval of a ratio from those of its parts, both nonnegative quantities.

    Donner & Zou 2012 (MOVER-R), with the correlation of the two estimates: the ratio ρ is kept
    while 0 lies in the interval of numerator − ρ denominator. Infinite above when the denominator's
    interval reaches 0; the estimate is NaN when the denominator's is not positive.
    """
    (x, x_low, x_high), (y, y_low, y_high) = numerator, denominator
    if not y > 0:
        return Interval(math.nan, 0.0, math.inf)

    def end(reach: float, other: float, sign: float) -> float:
        middle = x * y - correlation * reach * other
        leading, constant = y * y - other * other, (x - reach) * (x + reach)
        root = math.sqrt(max(middle * middle - leading * constant, 0.0))
        if sign < 0:
            return constant / (middle + root) if middle + root > 0 else 0.0
        return (middle + root) / leading if leading > 0 else math.inf

    low = end(x - x_low, y_high - y, -1.0) if x_low > 0 else 0.0
    high = end(x_high - x, y - y_low, 1.0) if y_low > 0 else math.inf
    return Interval(x / y, max(low, 0.0), max(high, low, 0.0))
