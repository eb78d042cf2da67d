"""Second moments of every parameter by itself, some parameters of all samples at a time.

Letters: k parts, N samples, p numbers, each a unit with a weight of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.per_sample import ByColumns
from gradlab.gradients.samples import GradientSamples
from gradlab.statistics.rows import DenseRows

NARROW = 2**17  # numbers of one part that elementwise operations find in a core's cache
ROUNDING = 1e-10  # of the parts' variances, below which nothing is learnt of the weights [1]
LEAST_LEFT = 0.05  # of a fit without a sample that all but decides it [1]


def tiles(parts: Sequence[ByColumns]) -> Iterator[list[Float[Tensor, "N p"]]]:
    """Every number of every parameter, in order, a few of them at a time: [N, p] of each part,
    in memory of its own."""
    count = len(parts[0])
    narrow = max(1, NARROW // count)
    waiting: list[list[Tensor]] = []  # small parameters, until they make a tile
    for layer in parts[0].layers():
        for name, shape in layer.items():
            across = math.prod(shape[1:])
            most = max(1, NARROW // max(1, count * across))
            for begin in range(0, shape[0] if shape else 1, most):
                some = slice(begin, begin + most)
                formed = [part.columns(name, some).reshape(count, -1) for part in parts]
                if formed[0].shape[1] < narrow // 4:
                    waiting.append(formed)
                    if sum(rows[0].shape[1] for rows in waiting) < narrow // 2:
                        continue
                    formed = _beside(waiting)
                elif waiting:
                    yield _beside(waiting)
                for pieces in zip(*(rows.split(narrow, 1) for rows in formed), strict=True):
                    yield list(pieces)
    if waiting:
        yield _beside(waiting)


def _beside(waiting: list[list[Tensor]]) -> list[Float[Tensor, "N p"]]:
    """The numbers of all that waits, which then waits no more."""
    formed = [torch.cat(rows, 1) for rows in zip(*waiting, strict=True)]
    waiting.clear()
    return formed


def by_columns(parts: Sequence[GradientSamples]) -> list[ByColumns]:
    """All parts by columns; in full where a policy is a function of which no layers are known."""
    walks = [part.products() for part in parts]
    found = [walk for walk in walks if isinstance(walk, ByColumns)]
    first = list(walks[0].layers())
    if len(found) == len(parts) and all(list(walk.layers()) == first for walk in found):
        return found
    return [DenseRows(part.per_sample()) for part in parts]


def by_name(part: ByColumns, flat: Float[Tensor, "P *rest"]) -> dict[str, Tensor]:
    """Numbers of all parameters, in order, as [*param, *rest] by their names."""
    shapes = {name: shape for layer in part.layers() for name, shape in layer.items()}
    pieces = flat.split([math.prod(shape) for shape in shapes.values()])
    return {
        name: piece.unflatten(0, shape) if shape else piece[0]
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def parameter_variances(samples: GradientSamples) -> dict[str, Float[Tensor, "*param"]]:
    """Of every number by itself, in float64."""
    walks = by_columns([samples])
    return by_name(walks[0], torch.cat([_variance(rows) for (rows,) in tiles(walks)]))


def _variance(rows: Float[Tensor, "N p"]) -> Float[Tensor, " p"]:
    apart = rows.double()
    apart = apart - apart.mean(0)
    return apart.square_().sum(0) / (len(rows) - 1)


class PairMoments(NamedTuple):
    """What N samples say of two parts' numbers, in float64."""

    first: Float[Tensor, " p"]  # variance of the first part
    second: Float[Tensor, " p"]
    both: Float[Tensor, " p"]  # covariance
    excess: Float[Tensor, " p"]  # variance that the best weights add for being estimated
    means: tuple[Float[Tensor, " p"], Float[Tensor, " p"]]


def pair_moments(tiles: Iterable[Sequence[Float[Tensor, "N p"]]], count: int) -> PairMoments:
    """Of N = count samples of two parts, tile by tile.

    Products are of the samples' dtype, and d = a − b has its own: parts may be nearly alike. With
    the best mixture m = a − βd, all of it centred, a weight without sample i is off by
    u_i m_i/(1 − u_i² − 1/N)/‖d‖, u = d/‖d‖: the `covariances._excess` of every number.
    All are 0 where a sample is not finite. The tiles are overwritten.
    """
    pieces = [torch.stack(_sums(a, b)) for a, b in tiles]
    first, second, both, along, apart, moved, *means = torch.cat(pieces, 1).double()
    lost = ~(first + second + both).isfinite()
    for part in (first, second, both):
        part.masked_fill_(lost, 0.0)
    rounding = (8 * torch.finfo(pieces[0].dtype).eps) ** 2
    # parts that deviate by the rounding of their mean alone do not vary
    first, second = (
        part.masked_fill_(part <= count * rounding * mean.square(), 0.0)
        for part, mean in zip((first, second), means, strict=True)
    )
    alike = apart < torch.minimum(first, second)
    both = torch.where(alike, first - along, both)
    second = torch.where(alike, first - 2 * along + apart, second)
    total = first + second
    known = (apart > ROUNDING * total) & (first > 0) & (second > 0)
    both.masked_fill_((first == 0) | (second == 0), 0.0)
    moved = torch.where(known, moved, 0.0)
    degrees = count - 1
    return PairMoments(
        first / degrees, second / degrees, both / degrees, moved / degrees, (means[0], means[1])
    )


def _sums(a: Float[Tensor, "N p"], b: Float[Tensor, "N p"]) -> list[Float[Tensor, " p"]]:
    """Of a², b², ab, ad and d² about the means, Σ_i (u_i m_i/(1 − u_i² − 1/N))², and the means.

    In place, a and b with it: what is in the cache stays there. Sums over samples are products with
    a row of ones.
    """
    ones = a.new_ones(1, len(a))
    means = [(ones @ rows)[0] / len(a) for rows in (a, b)]
    a, b = (rows.sub_(mean) for rows, mean in zip((a, b), means, strict=True))
    product = torch.empty_like(a)

    def summed(x: Tensor, y: Tensor) -> Float[Tensor, " p"]:
        return (ones @ torch.mul(x, y, out=product))[0]

    sums = [summed(a, a), summed(b, b), summed(a, b)]
    d = torch.sub(a, b, out=b)
    along, apart = summed(a, d), summed(d, d)
    moved = a.addcmul_(d, along / apart, value=-1).mul_(d)
    left = torch.addcmul(apart * (1 - 1 / len(a)), d, d, value=-1, out=product)
    moved.div_(torch.maximum(left, apart * LEAST_LEFT, out=left)).square_()
    return [*sums, along, apart, (ones @ moved)[0] * apart, *means]
