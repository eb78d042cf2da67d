"""How fast something grows: fits with errors, crossings, and products of step Jacobians."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.statistics import Interval

CONFIDENCE = 0.95
RESAMPLES = 1000  # of the bootstrap over episodes
ROWS = 1024  # states whose Jacobians are taken at once

Array = np.ndarray


class GrowthFit(NamedTuple):
    """log variance = intercept + rate·x, with x the horizon (exponential) or its log (power)."""

    rate: Interval  # per step, or the power [1]
    intercept: float
    chi2: float  # Σ ((log variance − fit)/its error)²
    freedom: int  # points minus 2
    points: int  # that entered: positive and finite

    @property
    def misfit(self) -> float:
        """χ² per degree of freedom: about 1 where the law holds within the points' errors."""
        return self.chi2 / self.freedom if self.freedom else math.nan


def fit_growth(
    x: Sequence[float],
    variance: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    confidence: float = CONFIDENCE,
) -> GrowthFit:
    """Weighted least squares of log variance on x, weights from the variances' own 95 % intervals.

    The rate's error is the one that the points' errors give, times √(χ²/ν) where that exceeds 1
    (the scale factor of the Particle Data Group): with a law that does not hold, the interval says
    how well a straight line can be placed, not more, and with few points not that: if all errors
    are half of what they should be it covers 81 % with 3 points, 87 % with 5. Points whose
    variance is zero or not finite cannot enter a logarithm and are left out (`points` counts the
    others). Fewer than 3 points give NaN. Raises `BadShape` for different lengths.
    """
    if len({len(part) for part in (x, variance, low, high)}) > 1:
        raise BadShape(
            f"expected as many variances as x and ends of intervals, got {len(variance)}, {len(x)}, "
            f"{len(low)} and {len(high)}"
        )
    table = np.array([x, variance, low, high], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(table[1:])
        error = (logs[2] - logs[1]) / (2 * scipy.stats.norm.ppf(0.975))
    keep = np.isfinite(logs).all(0) & (error > 0)
    if keep.sum() < 3 or np.ptp(table[0][keep]) == 0:
        nothing = Interval(math.nan, math.nan, math.nan)
        return GrowthFit(nothing, math.nan, math.nan, max(0, int(keep.sum()) - 2), int(keep.sum()))
    at, y, weight = table[0][keep], logs[0][keep], 1 / error[keep] ** 2
    centre = np.average(at, weights=weight)
    spread = float((weight * (at - centre) ** 2).sum())
    rate = float((weight * (at - centre) * y).sum() / spread)
    intercept = float(np.average(y, weights=weight) - rate * centre)
    chi2 = float((weight * (y - intercept - rate * at) ** 2).sum())
    freedom = len(y) - 2
    quantile = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    reach = quantile * math.sqrt(max(1.0, chi2 / freedom) / spread)
    return GrowthFit(Interval(rate, rate - reach, rate + reach), intercept, chi2, freedom, len(y))


def crossing(
    x: Sequence[float], ratio: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> Interval:
    """Where log ratio first rises through 0, on straight lines over log x between the points.

    `low` and `high` are the ends of the intervals of the log ratios; the interval of the crossing
    is where they rise through 0. Infinite where that does not happen within the range, the first x
    where it has happened before.
    """
    at = np.log(np.array(x, dtype=float))

    def first(values: Sequence[float]) -> float:
        y = np.array(values, dtype=float)
        if not np.isfinite(y).all():
            return math.nan
        if y[0] > 0:
            return float(np.exp(at[0]))
        for k in range(1, len(y)):
            if y[k] > 0:
                share = -y[k - 1] / (y[k] - y[k - 1])
                return float(np.exp(at[k - 1] + share * (at[k] - at[k - 1])))
        return math.inf

    return Interval(first(ratio), first(high), first(low))


# --------------------------------------------------------------------------------- step Jacobians

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def step_jacobians(
    step: Step, states: Float[Tensor, "N T_plus_1 ns"], eps: Float[Tensor, "N T nu"]
) -> Float[Tensor, "N T ns ns"]:
    """∂ s_{t+1}/∂ s_t along given episodes, by one backward pass per component,
    in chunks of states.

    `step(state [n, ns], noise [n, nu], time [n])` must treat rows independently. Raises `BadShape`
    for states and noise of different lengths.
    """
    count, horizon = eps.shape[:2]
    if states.shape[:2] != (count, horizon + 1):
        raise BadShape(
            f"expected states [{count}, {horizon + 1}, ns] for noise [{count}, {horizon}, nu], got "
            f"{list(states.shape)}"
        )
    times = (
        torch.arange(horizon, dtype=states.dtype, device=states.device).expand(count, -1).flatten()
    )
    flat, noise = states[:, :-1].flatten(0, 1), eps.flatten(0, 1)
    chunks = []
    for begin in range(0, len(flat), ROWS):
        rows = slice(begin, begin + ROWS)
        state = flat[rows].detach().clone().requires_grad_()
        after = step(state, noise[rows], times[rows])
        lines = [
            torch.autograd.grad(part.sum(), state, retain_graph=True)[0]
            for part in after.unbind(-1)
        ]
        chunks.append(torch.stack(lines, -2).detach())
    return torch.cat(chunks).unflatten(0, (count, horizon))


def product_log_norms(jacobians: Float[Tensor, "N T n n"]) -> Float[Tensor, "N T"]:
    """ln ‖A_t ⋯ A_0‖₂ for t = 0..T−1, in float64, renormalised at every step so
    that nothing overflows.

    −∞ once a product is exactly 0. Raises `BadValue` for entries that are not finite.
    """
    if not bool(jacobians.isfinite().all()):
        raise BadValue("step Jacobians are not finite; leave those episodes out and count them")
    matrices = jacobians.double()
    product = torch.eye(matrices.shape[-1]).to(matrices).expand_as(matrices[:, 0])
    total = matrices.new_zeros(len(matrices))
    out = []
    for factor in matrices.unbind(1):
        product = factor @ product
        norm = torch.linalg.matrix_norm(product, 2)
        product = product / norm.clamp(min=1e-300)[:, None, None]
        total = total + norm.log()
        out.append(total)
    return torch.stack(out, 1)


def summed_log_norms(jacobians: Float[Tensor, "N T n n"]) -> Float[Tensor, "N T"]:
    """ln ‖Σ_{k<=j<=t} A_j ⋯ A_{k+1}‖₂ for t = 0..T−1:
    products summed as an objective of T rewards sums them.

    The step k that an action enters and the step j that a reward is read at both run over the
    episode; the empty product, k = j, is the identity. With C_j = A_j C_{j−1} + 1 it is ‖Σ_j C_j‖.
    For a free mass, whose product grows like t, it grows like T³, and like T² for its velocity
    alone. Raises `BadValue` for entries that are not finite, −∞ never occurs unless the sum
    vanishes.
    """
    if not bool(jacobians.isfinite().all()):
        raise BadValue("step Jacobians are not finite; leave those episodes out and count them")
    matrices = jacobians.double()
    one = torch.eye(matrices.shape[-1]).to(matrices).expand_as(matrices[:, 0])
    reach, total = torch.zeros_like(one), torch.zeros_like(one)
    scale = matrices.new_zeros(len(matrices))
    out = []
    for factor in matrices.unbind(1):
        # both sums are kept over e^scale, so that nothing overflows
        reach = factor @ reach + one * (-scale).exp()[:, None, None]
        total = total + reach
        norm = torch.linalg.matrix_norm(total, 2).clamp(min=1e-300)
        shrink = norm.clamp(min=1.0)[:, None, None]
        reach, total = reach / shrink, total / shrink
        out.append(scale + norm.log())
        scale = scale + norm.clamp(min=1.0).log()
    return torch.stack(out, 1)


class ProductGrowth(NamedTuple):
    """Growth of products of step Jacobians over episodes; all per step [1]."""

    typical: Interval  # mean over episodes of ln ‖P_T‖/T
    square: Interval  # slope of ln E‖P_T‖² over the horizons
    step_norm: Interval  # mean over episodes and steps of ln ‖A_t‖
    episodes: int


def product_growth(
    log_norms: Float[Tensor, "N T"],
    step_log_norms: Float[Tensor, "N T"],
    horizons: Sequence[int],
    seed: int = 0,
) -> ProductGrowth:
    """Mean growth and growth of the mean square, with 95 % intervals over episodes.

    The typical growth has Student's interval. The mean square is dominated by the largest episodes:
    its slope is refitted on bootstrap resamples of episodes (percentiles), which cannot know of
    episodes larger than any seen.
    """
    count = len(log_norms)
    last = max(horizons)
    typical = _mean((log_norms[:, last - 1] / last).cpu().numpy())
    steps = _mean(step_log_norms[:, :last].mean(1).cpu().numpy())
    chosen = log_norms[:, [h - 1 for h in horizons]].cpu().numpy()
    generator = np.random.default_rng(seed)
    picks = generator.integers(count, size=(RESAMPLES, count))
    resampled = np.array([_square_slope(chosen[pick], horizons) for pick in picks])
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    square = Interval(_square_slope(chosen, horizons), float(low), float(high))
    return ProductGrowth(typical, square, steps, count)


def log_mean_square(log_norms: Float[Array, "N k"]) -> Float[Array, " k"]:
    """ln of the mean over episodes of ‖P‖²."""
    twice = 2 * log_norms
    largest = twice.max(0)
    return largest + np.log(np.exp(twice - largest).mean(0))


def resampled_mean_squares(
    log_norms: Float[Array, "N k"], resamples: int, seed: int = 0
) -> Float[Array, "resamples k"]:
    """`log_mean_square` of bootstrap resamples of the episodes."""
    count = len(log_norms)
    picks = np.random.default_rng(seed).integers(count, size=(resamples, count))
    return np.array([log_mean_square(log_norms[pick]) for pick in picks])


def widened(fit: GrowthFit, rates: Sequence[float]) -> GrowthFit:
    """The fit with an interval that holds the spread of `rates`, those of resampled x, too."""
    known = np.array([rate for rate in rates if math.isfinite(rate)])
    if len(known) < 2 or not math.isfinite(fit.rate.estimate):
        return fit
    quantile = float(scipy.stats.norm.ppf((1 + CONFIDENCE) / 2))
    reach = math.hypot(fit.rate.high - fit.rate.estimate, quantile * float(known.std(ddof=1)))
    rate = fit.rate.estimate
    return fit._replace(rate=Interval(rate, rate - reach, rate + reach))


def _square_slope(log_norms: Float[Array, "N k"], horizons: Sequence[int]) -> float:
    if len(horizons) < 2:
        return math.nan
    return float(np.polyfit(np.array(horizons, dtype=float), log_mean_square(log_norms), 1)[0])


def _mean(values: Float[Array, " N"]) -> Interval:
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    middle = float(values.mean())
    return Interval(middle, middle - reach, middle + reach)
