"""Has an objective a part that no pathwise gradient sees? A test without a constant.

Let f(ε) be a number of an episode as a function of standard normal noise ε, with all else that is
random held, and g what autograd says of ∇f. Expand f in Hermite polynomials, f_k of degree k, with
a_k = E f_k². If g is the weak gradient of f, then

    Var f = Σ_{k>=1} a_k,    E‖g‖² = Σ_{k>=1} k a_k,    ‖E g‖² = a_1,

so that

    D = 2 Var f − 2 ‖E g‖² − tr Cov g = −Σ_{k>=3} (k − 2) a_k <= 0,

with equality for quadratics. Where f jumps, g misses the jump and D can be positive: **D > 0 proves
a part of f that no pathwise gradient sees**, whatever f is. The converse is not true: what is
curved lowers D and can hide a jump. Nor can samples tell a jump from a ramp so steep that none of
them falls on it, which FOG does not see either: `steepest` says how steep that is.

Two episodes that share all but ε, which is independent in both, give D without bias:

    D = E[(f − f')² − ½ ‖g + g'‖²],

a mean of independent pairs, so that its interval and its test are those of a mean. If only some
coordinates of ε are drawn anew, and g is taken by these, the same holds for f as a function of
them; fewer coordinates carry less curvature. D/(2 Var f), with 2 Var f = E (f − f')², is the share
of the variance that is proven to be unseen.

In units of θ of a smoothed objective E f(θ + σ ε), D is divided by σ². With a constant c to absorb
noise the same comparison is the test of DDCG (arXiv 2604.18161, eq. 14); the inequality, the pairs
and the test are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.display import Facts, Shown
from gradlab.foundation.errors import BadShape, BadValue, NotFinite
from gradlab.statistics.formatting import format_interval
from gradlab.statistics.intervals import Interval

LEAST = 8  # pairs without which there is no interval
POWER = 0.95  # with which a share of `detectable` would have been found


class Pairs(NamedTuple):
    """What n pairs of episodes say of one objective."""

    statistic: Float[Tensor, " n"]  # (f − f')² − ½ ‖g + g'‖², whose mean is D
    squared: Float[Tensor, " n"]  # (f − f')², whose mean is 2 Var f


def pairs_of(values: Float[Tensor, "2 n"], gradients: Float[Tensor, "2 n d"]) -> Pairs:
    """Statistics in float64 of n pairs: f(ε_i), f(ε'_i) and the gradients by ε_i and by ε'_i.

    Raises `BadShape` unless both have one row for each of the two episodes of every pair.
    """
    if values.ndim != 2 or len(values) != 2 or gradients.shape[:2] != values.shape:
        raise BadShape(
            f"expected values [2, n] and gradients [2, n, d], got {list(values.shape)} and "
            f"{list(gradients.shape)}"
        )
    f, g = values.detach().double(), gradients.detach().double()
    squared = (f[0] - f[1]).square()
    return Pairs(squared - 0.5 * (g[0] + g[1]).square().sum(-1), squared)


@dataclass(frozen=True)
class Jump:
    """D of one objective, with its interval and its test."""

    name: str
    pairs: int
    statistic: Interval  # D, with its 95 % interval [objective²]
    share: Interval  # D/(2 Var f), at most 1; below 0 where the objective is curved and unbroken
    p_value: float  # of D <= 0, one-sided
    detectable: float  # the share that these pairs find with a probability of 95 % at `level`
    skewness: float  # of the statistic; far below 0 a p-value is too small [1]

    def __str__(self) -> str:
        share = format_interval(*self.share, within=(-math.inf, 1.0))
        return f"{self.name}: share {share}, p = {self.p_value:.2g} ({self.pairs:,} pairs)"


def jump(name: str, pairs: Pairs, level: float = 0.05) -> Jump:
    """The test of one objective. An objective without variance has D = 0 and p = 1.

    Raises `BadValue` for fewer than 8 pairs or a level outside (0, 1), `NotFinite` if a pair is not
    finite: what is left of a sample would be a selected one.
    """
    n = len(pairs.statistic)
    if n < LEAST or not 0 < level < 1:
        raise BadValue(f"expected at least {LEAST} pairs and 0 < level < 1, got {n} and {level}")
    both = torch.stack(pairs).double().cpu().numpy()
    lost = int((~np.isfinite(both).all(0)).sum())
    if lost:
        raise NotFinite(
            f"{lost} of {n} pairs of {name!r} have a value or a gradient that is not finite; try a "
            "shorter horizon or float64"
        )
    d, squared = both
    mean, scale = float(d.mean()), float(squared.mean())
    if scale == 0 and mean == 0:
        none = Interval(0.0, 0.0, 0.0)
        return Jump(name, n, none, none, 1.0, 0.0, 0.0)
    error = _stderr(d)
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * error
    share, share_error = -math.inf, math.inf
    if scale > 0:
        share = mean / scale
        share_error = _stderr(d - share * squared) / scale
    wide = float(scipy.stats.t.ppf(0.975, n - 1)) * share_error
    spread = float(d.std())
    quantiles = float(scipy.stats.t.isf(level, n - 1)), float(scipy.stats.t.ppf(POWER, n - 1))
    return Jump(
        name=name,
        pairs=n,
        statistic=Interval(mean, mean - half, mean + half),
        share=Interval(share, share - wide, min(share + wide, 1.0)),
        p_value=float(scipy.stats.t.sf(mean / error, n - 1)) if error > 0 else float(mean <= 0),
        detectable=sum(quantiles) * error / scale if scale > 0 else math.inf,
        skewness=float(((d - mean) ** 3).mean()) / spread**3 if spread > 0 else 0.0,
    )


def steepest(pairs: int, level: float) -> float:
    """The probability q of an episode on a ramp such that all 2 n miss it with probability `level`:
    (1 − q)^2n = level. What is steep at places of less probability than q is called a jump more
    often than at `level` [1].
    """
    return -math.expm1(math.log(level) / (2 * pairs))


def _stderr(values: Float[np.ndarray, " n"]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


@dataclass(frozen=True, repr=False)
class JumpReport(Shown):
    """Jumps of several objectives, tested together: the chance to call any of them without one that
    jumps is at most `level` (Holm 1979), a ramp that no episode falls on (`steepest`) being a jump.
    """

    jumps: tuple[Jump, ...]
    level: float

    @property
    def found(self) -> tuple[Jump, ...]:
        """Those that are proven to jump, surest first."""
        ranked = sorted(self.jumps, key=lambda one: one.p_value)
        for place, one in enumerate(ranked):
            if one.p_value > self.level / (len(ranked) - place):
                return tuple(ranked[:place])
        return tuple(ranked)

    def __getitem__(self, name: str) -> Jump:
        """The objective of a name. Raises `BadValue` for one that was not tested."""
        for one in self.jumps:
            if one.name == name:
                return one
        raise BadValue(f"no objective {name!r} was tested; there are {self.names}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return tuple(one.name for one in self.jumps)

    def facts(self) -> Facts:
        jumping = ", ".join(one.name for one in self.found) or "none proven"
        each = {one.name: str(one).partition(": ")[2] for one in self.jumps}
        return {f"jumps at level {self.level:g}": jumping, **each}


def tested(names: Sequence[str], pairs: Sequence[Pairs], level: float = 0.05) -> JumpReport:
    """The report of objectives that were seen in the same pairs of episodes."""
    level_each = level / len(names)
    each = (jump(name, seen, level_each) for name, seen in zip(names, pairs, strict=True))
    return JumpReport(tuple(each), level)
