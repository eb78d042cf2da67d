"""Streaming statistics of per-sample gradients: `of` a chunk, `merge`, then read.

Letters: N replicates, G blocks, P parameters. A replicate is one sample, or the mean of one group
for an estimator that looks across samples. Block = replicate index mod G, so that any order and any
grouping of merges gives the same statistics, and 10⁶ samples cost no more memory than one chunk.
Sums over blocks and updates centred about the chunk mean are in float64: the textbook
E[g²] − E[g]² loses every digit once the mean is large (Chan, Golub & LeVeque 1983 for the merge).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.foundation.display import Facts, Shown, leaves, norm
from gradlab.foundation.errors import BadShape, BadValue, NotFinite
from gradlab.statistics.streams import Stream, joined

BLOCKS = 64  # G: block means whose spread gives the intervals
ALL = "all"  # the part that holds every parameter

Leaves = dict[str, Tensor]


def parts(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Everything, each layer of several leaves, each leaf: {part: names of its leaves}.

    The layer of "layers.0.weight" is "layers.0".
    """
    names = tuple(names)
    layers: dict[str, tuple[str, ...]] = {}
    for name in names:
        layer = name.rpartition(".")[0]
        if layer:
            layers[layer] = (*layers.get(layer, ()), name)
    several = {layer: leaves for layer, leaves in layers.items() if len(leaves) > 1}
    return {ALL: names, **several, **{name: (name,) for name in names}}


@dataclass(frozen=True, repr=False)
class Moments(Shown):
    """Count, mean, spread and block means of N replicates of a gradient, all in float64.

    The even and the odd blocks keep their sums of squares apart, so that `split` can hand back two
    independent halves. Replicates with a NaN or an infinity enter no sum; `nonfinite` counts them.
    """

    block_count: Int[Tensor, " G"]
    block_sum: Leaves  # {leaf: [G, *param]}
    half_m2: Leaves  # {leaf: [2, *param]}: Σ (g − mean of that half)², even and odd blocks
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
    ) -> Moments:
        """Statistics of one chunk `{leaf: [n, *param]}` whose first sample has
        global index `start`.

        Without a `pilot` the mean of this chunk serves; pass `first.pilot` for every later chunk.
        With `group` > 1, `n` and `start` are multiples of it and each group's mean is a replicate.
        A replicate whose squared distance from the pilot is not finite counts as non-finite.
        """
        rows = _replicates(per_sample, start, blocks, group)
        if pilot is None:
            pilot = {name: _finite_mean(x) for name, x in rows.items()}
        shape = {name: x.shape[1:] for name, x in per_sample.items()}
        centre = {name: pilot[name].to(x).reshape(shape[name]) for name, x in rows.items()}
        if not all(bool(torch.isfinite(x).all()) for x in centre.values()):
            raise NotFinite(
                "expected a finite pilot, got a NaN or an infinity; try a mean of samples"
            )
        shifted = {name: x - centre[name].reshape(1, -1) for name, x in rows.items()}
        squares = {name: torch.einsum("np,np->n", y, y) for name, y in shifted.items()}
        finite = torch.isfinite(torch.stack(list(squares.values())).sum(0))
        if not bool(finite.all()):
            shifted = {name: y.where(finite[:, None], 0.0) for name, y in shifted.items()}
            squares = {name: s.where(finite, 0.0) for name, s in squares.items()}
        first = (start // group) % blocks
        count = _by_block(finite[:, None].to(torch.int64), first, blocks)[:, 0]
        total, m2 = {}, {}
        for name, y in shifted.items():
            deviation = _by_block(y, first, blocks)
            spread = _half_m2(y, finite, first, _halves(deviation), _halves(count))
            m2[name] = spread.reshape(2, *shape[name])
            moved = deviation + count[:, None] * centre[name].reshape(1, -1)
            total[name] = moved.reshape(blocks, *shape[name])
        norm_mean, powers = {}, {}
        for part, names in parts(rows).items():
            s = torch.stack([squares[name] for name in names]).sum(0)[:, None]
            sums = _halves(_by_block(s, first, blocks))
            norm_mean[part] = sums[:, 0] / _halves(count).clamp(min=1)
            powers[part] = _half_powers(s[:, 0], finite, first, norm_mean[part])
        second, third, fourth = ({part: x[k] for part, x in powers.items()} for k in range(3))
        lost = int((~finite).sum())
        return Moments(
            count, total, m2, norm_mean, second, third, fourth, centre, nonfinite=lost, group=group
        )

    def merge(self, other: Moments) -> Moments:
        """Statistics of both sets of replicates; associative and commutative up to rounding."""
        self._check(other)
        n, m = (_halves(x.block_count).to(torch.float64) for x in (self, other))
        both = (n + m).clamp(min=1)

        def pooled(m2: Tensor, other_m2: Tensor, gap: Tensor) -> Tensor:
            weight = (n * m / both).reshape(2, *[1] * (gap.ndim - 1))
            return m2 + other_m2 + weight * gap.square()

        m2 = {
            name: pooled(self.half_m2[name], other.half_m2[name], other._half_mean(name) - mean)
            for name, mean in ((name, self._half_mean(name)) for name in self.half_m2)
        }
        gaps = {part: other.norm_mean[part] - mean for part, mean in self.norm_mean.items()}
        powers = {
            part: _merged_powers(n, m, gap, self._powers(part), other._powers(part))
            for part, gap in gaps.items()
        }
        return Moments(
            block_count=self.block_count + other.block_count,
            block_sum={name: x + other.block_sum[name] for name, x in self.block_sum.items()},
            half_m2=m2,
            norm_mean={p: mean + gaps[p] * (m / both) for p, mean in self.norm_mean.items()},
            norm_m2={part: x[0] for part, x in powers.items()},
            norm_m3={part: x[1] for part, x in powers.items()},
            norm_m4={part: x[2] for part, x in powers.items()},
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
        """Sum of squared deviations from the mean, per parameter: {leaf: [*param]}."""
        even, odd = _halves(self.block_count).to(torch.float64).tolist()
        weight = even * odd / max(even + odd, 1.0)
        gap = {name: self._half_mean(name) for name in self.half_m2}
        return {
            name: x.sum(0) + weight * (gap[name][1] - gap[name][0]).square()
            for name, x in self.half_m2.items()
        }

    def stderr(self) -> Leaves:
        """Standard error of the mean, per parameter: {leaf: [*param]}."""
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
        spread = float(self._norm_powers(part)[0]) / (self.count - 1)
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
        if float(m2) == 0:
            return 0.0, 1.0
        scaled = float(worst[0] * m3 / m2**1.5), float(worst[1] * m4 / m2 / m2)
        return scaled if all(map(math.isfinite, scaled)) else worst

    @cached_property
    def _variances(self) -> dict[str, float]:
        leaf = {name: float(x.sum()) / (self.count - 1) for name, x in self.m2.items()}
        return {part: sum(leaf[name] for name in names) for part, names in parts(leaf).items()}

    def _powers(self, part: str) -> tuple[Tensor, Tensor, Tensor]:
        return self.norm_m2[part], self.norm_m3[part], self.norm_m4[part]

    def _norm_powers(self, part: str) -> tuple[Tensor, Tensor, Tensor]:
        """Central sums of the squares over both halves."""
        n, m = _halves(self.block_count).to(torch.float64)
        gap = self.norm_mean[part][1] - self.norm_mean[part][0]
        even, odd = (tuple(x[k] for x in self._powers(part)) for k in (0, 1))
        return _merged_powers(n, m, gap, even, odd)

    def _half_mean(self, name: str) -> Float[Tensor, "2 *param"]:
        total = _halves(self.block_sum[name])
        count = _halves(self.block_count).clamp(min=1)
        return total / count.reshape(2, *[1] * (total.ndim - 1))

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


def _replicates(
    per_sample: Mapping[str, Tensor], start: int, blocks: int, group: int
) -> dict[str, Float[Tensor, "n p"]]:
    """Rows of float64, one per replicate, with each leaf flattened."""
    if not per_sample:
        raise BadValue("expected at least one parameter leaf, got none")
    if blocks < 2 or blocks % 2 or group < 1:
        raise BadValue(f"expected an even number of blocks and group >= 1, got {blocks}, {group}")
    lengths = {x.shape[0] for x in per_sample.values()}
    if len(lengths) != 1:
        raise BadShape(f"expected the same number of samples in every leaf, got {sorted(lengths)}")
    (n,) = lengths
    if n < 1 or n % group or start % group or start < 0:
        raise BadValue(f"expected whole groups of {group} samples, got {n} from index {start}")
    rows = {name: x.detach().to(torch.float64).reshape(n, -1) for name, x in per_sample.items()}
    if group == 1:
        return rows
    return {name: x.reshape(n // group, group, -1).mean(1) for name, x in rows.items()}


def _finite_mean(x: Float[Tensor, "n p"]) -> Float[Tensor, " p"]:
    finite = torch.isfinite(x).all(1)
    return x.where(finite[:, None], 0.0).sum(0) / finite.sum().clamp(min=1)


def _by_block(x: Tensor, first: int, blocks: int) -> Tensor:
    """Sums [n, p] over the rows of each block, the first row being in block `first`: [G, p].

    Padding to whole rounds keeps the order of summation fixed, on any device.
    """
    tail = -(first + x.shape[0]) % blocks
    whole = torch.nn.functional.pad(x, (0, 0, first, tail)) if first or tail else x
    return whole.reshape(-1, blocks, x.shape[1]).sum(0)


def _halves(x: Tensor) -> Tensor:
    """Sums over the even and the odd blocks: [G, ...] -> [2, ...]."""
    return x.reshape(-1, 2, *x.shape[1:]).sum(0)


def _half_m2(y: Tensor, finite: Tensor, first: int, sums: Tensor, count: Tensor) -> Tensor:
    """Squared deviations from the mean of each half: rows [n, p], sums [2, p] -> [2, p].

    Rows that are not finite hold zeros here, and what they add is taken off again.
    """
    mean = sums / count.clamp(min=1)[:, None]
    out = []
    for half in (0, 1):
        rows = slice((half - first) % 2, None, 2)  # blocks alternate, so halves do
        squares = (y[rows] - mean[half]).square_()
        out.append(squares.sum(0) - (~finite[rows]).sum() * mean[half].square())
    return torch.stack(out).clamp(min=0)  # rounding of that difference


def _half_powers(
    s: Float[Tensor, " n"], finite: Tensor, first: int, mean: Float[Tensor, " 2"]
) -> Float[Tensor, "3 2"]:
    """Sums of (s − mean)², (s − mean)³ and (s − mean)⁴ over the finite rows of each half."""
    out = []
    for half in (0, 1):
        rows = slice((half - first) % 2, None, 2)
        gap = (s[rows] - mean[half]).where(finite[rows], 0.0)
        out.append(torch.stack([gap.pow(k).sum() for k in (2, 3, 4)]))
    return torch.stack(out, dim=1)


def _merged_powers(
    n: Tensor, m: Tensor, gap: Tensor, a: Sequence[Tensor], b: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Central sums of powers 2, 3, 4 of n and m values whose means are `gap` apart (Pébay 2008)."""
    both = (n + m).clamp(min=1)
    share, other = n / both, m / both
    m2 = a[0] + b[0] + n * other * gap**2
    m3 = (
        a[1] + b[1] + n * other * (share - other) * gap**3 + 3 * gap * (share * b[0] - other * a[0])
    )
    m4 = (
        a[2]
        + b[2]
        + n * other * (share**2 - share * other + other**2) * gap**4
        + 6 * gap**2 * (share**2 * b[0] + other**2 * a[0])
        + 4 * gap * (share * b[1] - other * a[1])
    )
    return m2, m3, m4
