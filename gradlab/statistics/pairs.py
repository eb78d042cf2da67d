"""Two estimators on the same noise: which one is less biased?

Two separate intervals hardly ever decide. The difference of squared biases

    Δ = ‖a − g*‖² − ‖b − g*‖² = ‖a‖² − ‖b‖² − 2⟨a − b, g*⟩ = u·s,   u = a − b,  s = a + b − 2 g*,

is linear in the truth, and whatever noise the two share cancels in u.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when they are used
import torch
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.statistics.accumulating import Accumulator
from gradlab.statistics.comparing import check_streams
from gradlab.statistics.gram import Gram, grams
from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import BLOCKS, Moments, check_pilot, check_stream
from gradlab.statistics.report import PairReport, PairRow
from gradlab.statistics.rows import DenseRows, lost_rows, summed
from gradlab.statistics.truth import OracleGradient


@dataclass(frozen=True)
class CrossMoments:
    """Moments of two estimators on the same noise, whose block means are paired block by block."""

    first: Moments
    second: Moments

    @staticmethod
    def of(
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
        start: int = 0,
        pilots: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
        blocks: int = BLOCKS,
        group: int = 1,
    ) -> CrossMoments:
        """Statistics of one chunk of both; a sample that either lost is left out of both."""
        check_stream(len(DenseRows(first)), start, group, blocks)
        both = DenseRows(first), DenseRows(second)
        lost = lost_rows(both[0]) | lost_rows(both[1])
        pair = []
        for k, one in enumerate(both):
            total = Accumulator()
            pilot = None if pilots is None else pilots[k]
            check_pilot(pilot)
            rows = one.group_means(group) if group > 1 else one
            out = lost.unflatten(0, (-1, group)).any(1)
            total.add(summed(rows, start // group, pilot, blocks, lost=out if out.any() else None))
            pair.append(Moments(**total.sums(), group=group))
        return CrossMoments(*pair)

    def merge(self, other: CrossMoments) -> CrossMoments:
        """Statistics of both sets of samples."""
        return CrossMoments(self.first.merge(other.first), self.second.merge(other.second))

    def split(self) -> tuple[CrossMoments, CrossMoments]:
        """Even and odd blocks, as `Moments.split`."""
        (a, b), (c, d) = self.first.split(), self.second.split()
        return CrossMoments(a, c), CrossMoments(b, d)

    @property
    def pilots(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What later chunks pass to `of`."""
        return self.first.pilot, self.second.pilot


def compare_pair(
    cross: CrossMoments,
    truth: OracleGradient,
    *,
    confidence: float = 0.95,
    only: Callable[[str], bool] | None = None,
) -> PairReport:
    """Δ, the squared bias of the first minus that of the second: negative if the first is better.

    Debiased by both traces; interval and two-sided p-value include the truth's error. The truth may
    be far noisier than either bias: it enters through u only. Correct p-values over a table by
    `holm`.
    """
    a, b = cross.first, cross.second
    if a.group != b.group or not torch.equal(a.block_count, b.block_count):
        raise BadShape("expected two estimators on the same samples, got other counts; pair them")
    truth.check_leaves(a.mean)
    truth.check_leaves(b.mean)
    check_streams(a, truth)
    check_streams(b, truth)
    rows = {}
    for part, gram in grams([a, b, truth]).items():
        if only is not None and not only(part):
            continue
        count, lost = a.count * a.group, max(a.nonfinite, b.nonfinite) * a.group
        difference, p_value = _difference(gram, confidence)
        reference = gram.combine([0, 0, 1])
        length = gram.inner(reference, reference) - gram.errors[2]
        relative = Interval(*(x / length if length > 0 else math.nan for x in difference))
        share = _oracle_share(gram)
        rows[part] = PairRow(part, count, lost, difference, relative, share, p_value)
    return PairReport(rows, truth.name, confidence)


def _difference(gram: Gram, confidence: float) -> tuple[Interval, float]:
    """Δ with interval and p-value.

    var(ū·s̄) = [s'C_u s + u'C_s u + 2 u'C_us' s] + D with D = tr C_u C_s + tr C_us C_us, the part
    that is left when both biases vanish. The spread of the blocks' influences, at noisy ū and s̄,
    is the bracket plus 2D on average, so D, from pairs of different contrasts, is taken off once.
    """
    u, s = gram.combine([1, -1, 0]), gram.combine([1, 1, -2])
    estimate = gram.inner(u, s) - (gram.errors[0] - gram.errors[1])
    influence = gram.along(u, s) + gram.along(s, u)
    linear = float(influence @ influence) / gram.n
    both = gram.cross(u, s)
    products = gram.cross(u, u) * gram.cross(s, s) + both * both.T
    degenerate = float(products.sum() - np.trace(products)) / (gram.n * (gram.n - 1))
    spread = math.sqrt(max(linear - degenerate, degenerate, 0.0))
    if spread == 0:
        return Interval(estimate, estimate, estimate), float(estimate == 0)
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, gram.n)) * spread
    p_value = float(2 * scipy.stats.t.sf(abs(estimate) / spread, gram.n))
    return Interval(estimate, estimate - reach, estimate + reach), p_value


def _oracle_share(gram: Gram) -> float:
    """The truth enters through −2 u·(its noise): its share of the linear part of Δ's variance."""
    u, s = gram.combine([1, -1, 0]), gram.combine([1, 1, -2])
    whole = gram.along(u, s) + gram.along(s, u)
    oracle = -2 * gram.contrast_rows(2) @ gram.matrix @ u.vector
    own = whole - oracle
    total = float(own @ own) + float(oracle @ oracle)
    return float(oracle @ oracle) / total if total > 0 else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the whole table (Holm 1979):
    reject where the result is below the level.

    A NaN stays NaN and counts as a test, so that a missing row never makes the others look better.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise BadValue("expected a list of p-values in [0, 1]")
    order = np.argsort(np.where(np.isnan(p), 2.0, p), kind="stable")
    steps = np.arange(len(p), 0, -1) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.where(np.isnan(steps), np.nan, np.fmax.accumulate(steps).clip(max=1.0))
    return [float(x) for x in adjusted]
