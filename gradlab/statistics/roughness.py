"""How rough is a surface that is seen through Monte-Carlo noise?

A quadratic through four neighbouring points of a line leaves one number, the third difference:

    Δ³f_i = f_{i+3} − 3 f_{i+2} + 3 f_{i+1} − f_i,    residual sum of squares = (Δ³f_i)²/20.

*Roughness* is the mean of (Δ³f)²/20 over all windows of the grid (over both axes alike): the
variance about local quadratics, in the square of the surface's unit. It is 0 for a quadratic, s²
for independent values of variance s², and (A²/2)(2 sin(κ/2))⁶/20 for A sin(κ i) along a line. The
*share* divides it by the variance of the surface over the grid: 0 for a quadratic, 1 for
independent values. With `stride` s every s-th point is taken, so a share is one of the scale s·h, h
the spacing of the grid: from one stride to twice it, roughness grows 64 times where the surface is
smooth, 8 times for kinks, 2 times for jumps and not at all where neighbours have nothing in common.

**Noise.** The surface is a mean over episodes, and with common random numbers all of its points
share them: neighbouring errors are strongly correlated, and no error bar of single points says how
rough they make the surface. But Δ³ is linear: with y_i the vector of all windows of episode i,
roughness is ‖E y‖², and the plug-in ‖ȳ‖² exceeds it by tr Σ/N on average. So it is debiased,
‖ȳ‖² − tr Σ̂/N (it may be negative), and its interval is that of a squared length (`intervals.py`)
from independent blocks of episodes. `seen` keeps the plug-in: the roughness of the picture drawn
from these N episodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.statistics.gram import Gram, grams
from gradlab.statistics.intervals import Interval, ratio_interval
from gradlab.statistics.moments import BLOCKS, Moments
from gradlab.statistics.pairs import CrossMoments, compare_pair
from gradlab.statistics.truth import OracleGradient

_RESIDUAL = 20.0  # 1² + 3² + 3² + 1²: squared length of the third difference
_ROWS = 256  # episodes whose windows are in memory at once


class Roughness(NamedTuple):
    """Of the expected surface, with 95 % intervals, unless it says `seen`."""

    variance: Interval  # about local quadratics, debiased [unit of the surface, squared]
    share: Interval  # of the variance over the grid [1]
    seen: float  # share in the picture: the noise of these episodes included [1]
    spread: float  # standard deviation of the expected surface over the grid [unit]
    episodes: int  # used
    nonfinite: int  # episodes left out: a NaN or an infinity somewhere on the grid


class Rougher(NamedTuple):
    """Roughness of one surface minus that of another, on the same episodes, with 95 % intervals.

    A surface that is flatter all over has less variance off local quadratics for that alone: the
    share tells a smoother shape from a smaller one.
    """

    variance: Interval  # negative: the first is smoother [unit, squared]
    variance_p_value: float  # two-sided
    share: Interval  # [1]; NaN in [-1, 1] where the surfaces are too noisy for one
    share_p_value: float  # two-sided; 1 there


def third_differences(
    values: Float[Tensor, "N *grid"], stride: int = 1
) -> Float[Tensor, "N windows"]:
    """Scaled third differences along every axis of the grid: the mean over axes of their mean
    square over windows is the squared length of a row.

    Raises `BadShape` if an axis has fewer than 3·stride + 1 points.
    """
    axes = range(1, values.ndim)
    if not len(axes) or stride < 1 or min(values.shape[1:]) < 3 * stride + 1:
        raise BadShape(
            f"third differences of stride {stride} need 3·stride + 1 points along each axis, got a "
            f"grid {tuple(values.shape[1:])}; try a finer grid or a smaller stride"
        )
    columns = []
    for axis in axes:
        size = values.shape[axis] - 3 * stride
        f = [values.narrow(axis, k * stride, size) for k in range(4)]
        delta = (f[3] - f[0] - 3 * (f[2] - f[1])).flatten(1)
        columns.append(delta / math.sqrt(_RESIDUAL * delta.shape[1] * len(axes)))
    return torch.cat(columns, dim=1)


def roughness(
    values: Float[Tensor, "N *grid"], stride: int = 1, confidence: float = 0.95
) -> Roughness:
    """Roughness of the surface E values[i] from N independent episodes on
    a grid of one or two axes.

    Raises `BadShape` for a grid too small for the stride, `BadValue` for fewer than 5 episodes.
    """
    moments = _moments(values, stride)
    table = grams([moments])
    windows, whole = table["windows"], table["whole"]
    variance = _interval(windows, confidence)
    total = _interval(whole, confidence)
    seen, drawn = (g.inner(g.combine([1]), g.combine([1])) for g in (windows, whole))
    share = ratio_interval(variance, total, _correlation(windows, whole))
    return Roughness(
        variance,
        share,
        seen / drawn if drawn > 0 else math.nan,
        math.sqrt(max(total.estimate, 0.0)),
        moments.count,
        moments.nonfinite,
    )


def compare_roughness(
    first: Float[Tensor, "N *grid"],
    second: Float[Tensor, "N *grid"],
    stride: int = 1,
    confidence: float = 0.95,
) -> Rougher:
    """Is the first surface smoother? Both from the same N episodes, in the same unit.

    The difference of variances is ‖E y_a‖² − ‖E y_b‖², debiased (`pairs.py`); that of shares has a
    delete-one-block jackknife interval. The noise that the surfaces share cancels in both. An
    episode that is not finite in one of them is left out of both. Raises as `roughness` does.
    """
    kept = (first.isfinite() & second.isfinite()).flatten(1).all(1)
    both = first[kept].double(), second[kept].double()
    cross: CrossMoments | None = None
    for k, (a, b) in enumerate(zip(*(x.split(_ROWS) for x in both), strict=True)):
        chunk = ({"windows": third_differences(part, stride)} for part in (a, b))
        pilots = None if cross is None else cross.pilots
        piece = CrossMoments.of(*chunk, start=k * _ROWS, pilots=pilots)
        cross = piece if cross is None else cross.merge(piece)
    if cross is None:
        raise BadValue("no episode is finite on the whole grid; try a smaller plane")
    zero = {"windows": torch.zeros_like(cross.first.mean["windows"])}
    report = compare_pair(cross, OracleGradient.exact(zero, "flat"), confidence=confidence)
    row = report.rows["windows"]
    shares = [_jackknifed_shares(values, stride) for values in both]
    share, p_value = _jackknife(shares[0] - shares[1], confidence)
    return Rougher(row.difference, row.p_value, share, p_value)


def _jackknifed_shares(
    values: Float[Tensor, "N *grid"], stride: int
) -> Float[np.ndarray, " blocks_plus_1"]:
    """The debiased share of all blocks of episodes, then without each block in turn."""
    blocks = torch.stack([values[k::BLOCKS].mean(0) for k in range(min(BLOCKS, len(values)))])
    sizes = [
        _debiased((rows @ rows.mT).numpy())
        for rows in (third_differences(blocks, stride), _whole(blocks))
    ]
    return np.divide(*sizes, out=np.full(len(sizes[0]), math.nan), where=sizes[1] > 0)


def _debiased(gram: Float[np.ndarray, "B B"]) -> Float[np.ndarray, " blocks_plus_1"]:
    """‖E y‖² as the mean inner product of different blocks, and the same without each block."""
    count, own = len(gram), np.diag(gram)
    whole = gram.sum() - own.sum()
    without = whole - 2 * (gram.sum(1) - own)
    return np.append(whole / (count * (count - 1)), without / ((count - 1) * (count - 2)))


def _jackknife(
    estimates: Float[np.ndarray, " blocks_plus_1"], confidence: float
) -> tuple[Interval, float]:
    """Interval and two-sided p-value against 0 of a difference of shares,
    by those without one block.

    Where one of them is unknown or beyond ±1, as no difference of shares is, nothing can be told:
    the estimate is NaN, the interval all of [−1, 1] and the p-value 1.
    """
    estimate, without = float(estimates[0]), estimates[1:]
    if not np.isfinite(estimates).all() or abs(estimate) > 1:
        return Interval(math.nan, -1.0, 1.0), 1.0
    count = len(without)
    spread = math.sqrt((count - 1) / count * float(np.square(without - without.mean()).sum()))
    if spread == 0:
        return Interval(estimate, estimate, estimate), float(estimate == 0)
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, count - 1)) * spread
    p_value = float(2 * scipy.stats.t.sf(abs(estimate) / spread, count - 1))
    return Interval(estimate, max(-1.0, estimate - reach), min(1.0, estimate + reach)), p_value


def _parts(values: Tensor) -> Iterable[Tensor]:
    return values.double().split(_ROWS)


def _moments(values: Tensor, stride: int) -> Moments:
    """Statistics of the windows and of the whole surface about its mean over the grid."""
    total: Moments | None = None
    for begin, part in enumerate(_parts(values)):
        chunk = {"windows": third_differences(part, stride), "whole": _whole(part)}
        pilot = None if total is None else total.pilot
        piece = Moments.of(chunk, start=begin * _ROWS, pilot=pilot, blocks=BLOCKS)
        total = piece if total is None else total.merge(piece)
    assert total is not None
    return total


def _whole(values: Float[Tensor, "N *grid"]) -> Float[Tensor, "N points"]:
    """Scaled deviations from the mean over the grid: squared length is the variance over it."""
    flat = values.flatten(1)
    return (flat - flat.mean(1, keepdim=True)) / math.sqrt(flat.shape[1])


def _interval(gram: Gram, confidence: float) -> Interval:
    return gram.interval(gram.combine([1]), gram.errors[0], confidence)


def _correlation(a: Gram, b: Gram) -> float:
    """Of the two squared lengths, to first order in the noise: the blocks' influences x_j·x̄."""
    influence = [g.along(g.combine([1]), g.combine([1])) for g in (a, b)]
    sizes = [float(np.linalg.norm(x)) for x in influence]
    if min(sizes) == 0:
        return 0.0
    return float(np.clip(influence[0] @ influence[1] / (sizes[0] * sizes[1]), -1, 1))
