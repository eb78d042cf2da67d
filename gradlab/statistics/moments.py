"""Streaming statistics of per-sample gradients: `of` a chunk, `merge`, then read.

Letters: N replicates, G blocks, P parameters. A replicate is one sample, or the mean of one group
for an estimator that looks across samples. Block = replicate index mod G, so that any order and any
grouping of merges gives the same statistics, and 10⁶ samples cost no more memory than one chunk.
Everything is about a pilot, a fixed point near the mean, and added up in float64: the textbook
E[g²] − E[g]² loses every digit once the mean is large. Second moments of each parameter are kept
only where they are asked for; those of whole parts come from ‖g_i − pilot‖² (`rows.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from gradlab.foundation.display import Facts, Shown, leaves, norm
from gradlab.foundation.errors import BadShape, BadValue, NotFinite
from gradlab.statistics.accumulating import Accumulator, halves
from gradlab.statistics.parts import ALL, parts
from gradlab.statistics.powers import Powers
from gradlab.statistics.rows import DenseRows, Leaves, all_finite, summed
from gradlab.statistics.streams import Stream, joined

BLOCKS = 64  # G: block means whose spread gives the intervals


@dataclass(frozen=True, repr=False)
class Moments(Shown):
    """Count, mean, spread and block means of N replicates of a gradient, all in float64.

    The even and the odd blocks keep their sums of squares apart, so that `split` can hand back two
    independent halves. Replicates with a NaN or an infinity enter no sum; `nonfinite` counts them.
    """

    block_count: Int[Tensor, " G"]
    block_sum: Leaves  # {leaf: [G, *param]}
    half_m2: Leaves  # {leaf: [2, *param]}: Σ (g − mean of that half)², even and odd; {}: not kept
    norm_mean: Leaves  # {part: [2]}: mean of ‖g − pilot‖² in each half
    norm_m2: Leaves  # {part: [2]}: Σ (‖g − pilot‖² − its mean)² in each half
    norm_m3: Leaves  # {part: [2]}: Σ (‖g − pilot‖² − its mean)³ in each half
    norm_m4: Leaves  # {part: [2]}: likewise to the fourth power
    pilot: Leaves  # {leaf: [*param]}: a fixed point near the mean, the same for all that is merged
    nonfinite: int = 0  # replicates left out
    group: int = 1  # samples averaged in one replicate
    streams: tuple[Stream, ...] = ()  # the noise behind them, where it is known

    def facts(self) -> Facts:
        return {
            "replicates": f"{self.count:,}",
            "samples in each": str(self.group),
            "not finite": str(self.nonfinite),
            "parameters": leaves(self.pilot),
            "norm of the mean": norm(self.mean),
            "variance": f"{self.variance():.4g}" if self.count > 1 else "unknown",
        }

    @staticmethod
    def of(
        per_sample: Mapping[str, Tensor],
        start: int = 0,
        pilot: Mapping[str, Tensor] | None = None,
        blocks: int = BLOCKS,
        group: int = 1,
        per_parameter: bool = False,
    ) -> Moments:
        """Statistics of one chunk `{leaf: [n, *param]}` whose first sample has
        global index `start`.

        Without a `pilot` the mean of this chunk serves; pass `first.pilot` for every later chunk.
        With `group` > 1, `n` and `start` are multiples of it and each group's mean is a replicate.
        A replicate whose squared length is not finite counts as non-finite. `per_parameter` keeps
        the second moments of every parameter, for `m2` and `stderr`.
        """
        given = DenseRows(per_sample)
        check_stream(len(given), start, group, blocks)
        check_pilot(pilot)
        rows = given.group_means(group) if group > 1 else given
        total = Accumulator()
        total.add(summed(rows, start // group, pilot, blocks, per_parameter=per_parameter))
        return Moments(**total.sums(), group=group)

    def merge(self, other: Moments) -> Moments:
        """Statistics of both sets of replicates; associative and commutative up to rounding."""
        self._check(other)
        n, m = (halves(x.block_count).to(torch.float64) for x in (self, other))
        weight = n * m / (n + m).clamp(min=1)
        half_m2 = {
            name: x
            + other.half_m2[name]
            + _column(weight, x) * (other._half_mean(name) - self._half_mean(name)).square()
            for name, x in self.half_m2.items()
        }
        powers = self._powers(self.norm_mean).merge(n, other._powers(self.norm_mean), m)
        mean, m2, m3, m4 = (dict(zip(self.norm_mean, x, strict=True)) for x in powers)
        return Moments(
            block_count=self.block_count + other.block_count,
            block_sum={name: x + other.block_sum[name] for name, x in self.block_sum.items()},
            half_m2=half_m2,
            norm_mean=mean,
            norm_m2=m2,
            norm_m3=m3,
            norm_m4=m4,
            pilot=self.pilot,
            nonfinite=self.nonfinite + other.nonfinite,
            group=self.group,
            streams=joined((*self.streams, *other.streams)),
        )

    def split(self) -> tuple[Moments, Moments]:
        """Two independent halves, the even and the odd blocks: choose on one, report on the other.

        Which block a non-finite replicate was in is not kept, so each half reports them all.
        """
        return self._half(0), self._half(1)

    @cached_property
    def count(self) -> int:
        """Number of finite replicates N (groups, when `group` > 1)."""
        return int(self.block_count.sum())

    @cached_property
    def mean(self) -> Leaves:
        """The mean gradient: {leaf: [*param]}."""
        return {name: x.sum(0) / max(self.count, 1) for name, x in self.block_sum.items()}

    @cached_property
    def block_mean(self) -> Leaves:
        """Mean of each block: {leaf: [G, *param]}; zero where a block is empty."""
        count = self.block_count.clamp(min=1)
        return {
            name: x / count.reshape(-1, *[1] * (x.ndim - 1)) for name, x in self.block_sum.items()
        }

    @cached_property
    def m2(self) -> Leaves:
        """Sum of squared deviations from the mean, per parameter: {leaf: [*param]}.

        Raises `BadValue` where the moments were taken without them.
        """
        if not self.half_m2:
            raise BadValue(
                "these moments have no second moments of each parameter; take them with "
                "per_parameter=True"
            )
        even, odd = halves(self.block_count).to(torch.float64).tolist()
        weight = even * odd / max(even + odd, 1.0)
        gap = {name: self._half_mean(name) for name in self.half_m2}
        return {
            name: x.sum(0) + weight * (gap[name][1] - gap[name][0]).square()
            for name, x in self.half_m2.items()
        }

    def stderr(self) -> Leaves:
        """Standard error of the mean, per parameter: {leaf: [*param]}. Raises as `m2`."""
        self._need(2)
        scale = self.count * (self.count - 1)
        return {name: (x / scale).sqrt() for name, x in self.m2.items()}

    def variance(self, part: str = ALL) -> float:
        """Trace of the covariance of one replicate, Σ‖g_i − ḡ‖²/(N − 1), over one part.

        The definition of Suh et al. 2022 (Definition 3.1); not divided by N.
        """
        self._need(2)
        return self._variances[part]

    def variance_relative_stderr(self, part: str = ALL) -> float:
        """Standard error of `variance(part)` over itself, from the spread of ‖g_i − pilot‖²."""
        self._need(2)
        spread = self._norm_powers(part)[0] / (self.count - 1)
        trace = self._variances[part]
        return (spread / self.count) ** 0.5 / trace if trace > 0 else 0.0

    def variance_tails(self, part: str = ALL) -> tuple[float, float]:
        """Skewness and kurtosis of ‖g_i − pilot‖²: how heavy the tails behind `variance` are.

        They are at most √N and N; where a fourth power overflows,
        or was not kept, that is returned.
        """
        self._need(2)
        m2, m3, m4 = self._norm_powers(part)
        worst = math.sqrt(self.count), float(self.count)
        if m2 == 0:
            return 0.0, 1.0
        scaled = worst[0] * m3 / m2 / math.sqrt(m2), worst[1] * m4 / m2 / m2
        return scaled if all(map(math.isfinite, scaled)) else worst

    @cached_property
    def _variances(self) -> dict[str, float]:
        """Σ‖g_i − c‖² − N‖ḡ − c‖²: the pilot c is so near that hardly a digit is lost."""
        counts = halves(self.block_count).to(torch.float64)
        gap = {n: float((x - self.pilot[n]).square().sum()) for n, x in self.mean.items()}
        out = {}
        for part, names in parts(gap).items():
            about = float((counts * self.norm_mean[part]).sum())
            trace = about - self.count * sum(gap[name] for name in names)
            out[part] = max(trace, 0.0) / (self.count - 1)
        return out

    def _powers(self, of: Iterable[str]) -> Powers:
        """Those of these parts."""
        each = self.norm_mean, self.norm_m2, self.norm_m3, self.norm_m4
        return Powers(*(torch.stack([x[part] for part in of]) for x in each))

    def _norm_powers(self, part: str) -> tuple[float, float, float]:
        """Central sums of the squares over both halves."""
        both = self._powers([part])
        even, odd = (Powers(*(x[:, k] for x in both)) for k in (0, 1))
        n, m = halves(self.block_count)
        _, *sums = even.merge(n, odd, m)
        m2, m3, m4 = (float(x) for x in sums)
        return m2, m3, m4

    def _half_mean(self, name: str) -> Float[Tensor, "2 *param"]:
        total = halves(self.block_sum[name])
        return total / _column(halves(self.block_count).clamp(min=1), total)

    def _half(self, parity: int) -> Moments:
        def only(x: Tensor) -> Tensor:
            keep = torch.arange(x.shape[0], device=x.device) % 2 == parity
            return x.where(keep.reshape(-1, *[1] * (x.ndim - 1)), 0)

        return Moments(
            block_count=only(self.block_count),
            block_sum={name: only(x) for name, x in self.block_sum.items()},
            half_m2={name: only(x) for name, x in self.half_m2.items()},
            norm_mean={part: only(x) for part, x in self.norm_mean.items()},
            norm_m2={part: only(x) for part, x in self.norm_m2.items()},
            norm_m3={part: only(x) for part, x in self.norm_m3.items()},
            norm_m4={part: only(x) for part, x in self.norm_m4.items()},
            pilot=self.pilot,
            nonfinite=self.nonfinite,
            group=self.group,
            streams=self.streams,
        )

    def _need(self, count: int) -> None:
        if self.count < count:
            raise BadValue(
                f"expected at least {count} finite replicates, got {self.count} "
                f"({self.nonfinite} were not finite); draw more samples"
            )

    def _check(self, other: Moments) -> None:
        mine, theirs = (len(self.block_count), self.group), (len(other.block_count), other.group)
        if bool(self.half_m2) != bool(other.half_m2):
            raise BadValue(
                "expected second moments of each parameter in both moments or in neither; "
                "take them with the same per_parameter"
            )
        if mine != theirs or self.block_sum.keys() != other.block_sum.keys():
            raise BadShape(
                f"expected moments of the same (blocks, group) {mine} and leaves, got {theirs}; "
                "merge only pieces of one stream"
            )
        same = self.pilot is other.pilot or all(
            torch.equal(x, other.pilot[name]) for name, x in self.pilot.items()
        )
        if not same:
            raise BadValue(
                "expected moments about the same pilot, got two; pass pilot=first.pilot to the "
                "later chunks"
            )


def check_stream(count: int, start: int, group: int, blocks: int = BLOCKS) -> None:
    """Raise `BadValue` unless samples start..start+count−1 are whole groups, blocks in pairs."""
    if blocks < 2 or blocks % 2 or group < 1:
        raise BadValue(f"expected an even number of blocks and group >= 1, got {blocks}, {group}")
    if count < 1 or count % group or start % group or start < 0:
        raise BadValue(f"expected whole groups of {group} samples, got {count} from index {start}")


def check_pilot(pilot: Mapping[str, Tensor] | None) -> None:
    """Raise `NotFinite` for a pilot with a NaN or an infinity."""
    if pilot is not None and not all_finite(pilot.values()):
        raise NotFinite("expected a finite pilot, got a NaN or an infinity; try a mean of samples")


def _column(x: Shaped[Tensor, " k"], like: Tensor) -> Tensor:
    """[k] to broadcast over [k, ...]."""
    return x.reshape(-1, *[1] * (like.ndim - 1))
