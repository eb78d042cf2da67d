"""Per-sample gradients without [N, P]: formed a few at a time, summed up, and gone.

Letters: n replicates, G blocks, P parameters, p of one leaf. A chunk of samples is walked in tiles,
a layer and a few samples each, small enough for a core's cache; of a tile only Σ(g − c) over each
block and ‖g_i − c‖² are kept. c is the pilot, a point near the mean in the samples' own dtype: the
difference is taken element by element before anything is squared, so that no digits cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.per_sample import TILE_NUMBERS, Layer, PerSample
from gradlab.foundation.reading import expected

ON_GPU = 32  # times as large tiles, since launches cost more there and caches are larger [1]
FEW = 8  # rows that are added one by one, sooner than by a reduction

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class DenseRows:
    """Gradients that are there in full, {leaf: [N, *param]}."""

    leaves: Mapping[str, Tensor]
    tile_numbers: int = TILE_NUMBERS

    def __post_init__(self) -> None:
        if not self.leaves:
            raise BadValue("expected at least one parameter leaf, got none")
        lengths = {x.shape[0] for x in self.leaves.values()}
        if len(lengths) != 1:
            raise BadShape(
                f"expected the same number of samples in every leaf, got {sorted(lengths)}"
            )

    def __len__(self) -> int:
        return self.like.shape[0]

    @property
    def like(self) -> Tensor:
        return next(iter(self.leaves.values()))

    def layers(self) -> Sequence[Layer]:
        return [{name: tuple(x.shape[1:])} for name, x in self.leaves.items()]

    def form(self, layer: int, samples: slice, centre: Mapping[str, Tensor] | None) -> Leaves:
        name, leaf = list(self.leaves.items())[layer]
        rows = leaf.detach()[samples]
        return {name: rows if centre is None else rows - centre[name]}

    def columns(self, leaf: str, rows: slice) -> Tensor:
        whole = self.leaves[leaf].detach()
        return (whole if whole.ndim == 1 else whole[:, rows]).clone()

    def mean(self) -> Leaves:
        return {name: x.detach().mean(0) for name, x in self.leaves.items()}

    def group_means(self, size: int) -> DenseRows:
        return DenseRows(
            {n: x.detach().unflatten(0, (-1, size)).mean(1) for n, x in self.leaves.items()}
        )


class Chunk(NamedTuple):
    """What the statistics need of n replicates, about a pilot."""

    pilot: Leaves  # {leaf: [*param]} c, as the samples' dtype rounds it
    first: int  # block of the first replicate
    lost: Bool[Tensor, " n"]  # replicates that enter no sum
    squares: Float[Tensor, "leaves n"]  # ‖g_i − c‖² of each leaf, in float64; 0 where lost
    deviation: Leaves  # {leaf: [G, p]}: Σ (g_i − c) over each block
    half_squares: Leaves  # {leaf: [2, p]}: Σ (g_i − c)², even and odd blocks; {} if not asked for


def summed(
    samples: PerSample,
    start: int,
    pilot: Mapping[str, Tensor] | None,
    blocks: int,
    *,
    lost: Bool[Tensor, " n"] | None = None,
    per_parameter: bool = False,
) -> Chunk:
    """Sums over replicates, of which the first has global index `start`.

    Without a `pilot` their mean serves. Unless it is said which are `lost`, those are whose squared
    length is not finite in float64. The pilot must be finite.
    """
    first = start % blocks
    if lost is None:
        chunk = walked(samples, start, pilot, blocks, per_parameter=per_parameter)
        if all_finite([chunk.squares]):
            return chunk
        lost = lost_rows(samples)
    if pilot is None:
        about = _Walk(samples, blocks, first, None, lost, double=True).chunk()
        count = (~lost).sum().clamp(min=1)
        pilot = {name: about.deviation[name].sum(0) / count for name in about.pilot}
    chunk = _Walk(samples, blocks, first, pilot, lost, per_parameter).chunk()
    if all_finite([chunk.squares]):
        return chunk
    # squares that overflow in the samples' own dtype alone
    return _Walk(samples, blocks, first, pilot, lost, per_parameter, double=True).chunk()


def walked(
    samples: PerSample,
    start: int,
    pilot: Mapping[str, Tensor] | None,
    blocks: int,
    *,
    per_parameter: bool = False,
) -> Chunk:
    """The sums as if no sample were lost, for `summed` and for what cannot wait for the host.

    They stand where all of `squares` is finite; a pilot that is not makes none of them so.
    """
    centre = samples.mean() if pilot is None else pilot
    return _Walk(samples, blocks, start % blocks, centre, None, per_parameter).chunk()


def lost_rows(samples: PerSample) -> Bool[Tensor, " n"]:
    """Samples with a NaN or an infinity, or whose squared length is too large for float64."""
    squares = _Walk(samples, 1, 0, None, double=True).chunk().squares
    return ~torch.isfinite(squares.sum(0))


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether there is no NaN and no infinity: one look at the device."""
    return expected(torch.stack([torch.isfinite(x).all() for x in tensors]).all())


@dataclass(frozen=True)
class _Walk:
    """Every tile once; about a pilot or 0, in the samples' dtype or all in float64."""

    samples: PerSample
    blocks: int
    first: int
    pilot: Mapping[str, Tensor] | None
    lost: Bool[Tensor, " n"] | None = None
    per_parameter: bool = False
    double: bool = False

    def chunk(self) -> Chunk:
        count, like = len(self.samples), self.samples.like
        dtype = torch.float64 if self.double else like.dtype
        centre, deviation, half_squares = self._centres(), {}, {}
        squares: list[Tensor] = []
        tile_numbers = self.samples.tile_numbers * (ON_GPU if like.is_cuda else 1)
        for k, layer in enumerate(self.samples.layers()):
            sizes = {name: math.prod(shape) for name, shape in layer.items()}
            for name, size in sizes.items():
                deviation[name] = like.new_empty(self.blocks, size, dtype=dtype)
                squares.append(like.new_empty(count, dtype=torch.float64))
                if self.per_parameter:
                    half_squares[name] = like.new_zeros(2, size, dtype=torch.float64)
            mine = dict(zip(layer, squares[-len(layer) :], strict=True))
            most = max(tile_numbers // max(sum(sizes.values()), 1), 1)
            for rows, step in tiles(count, most, self.blocks):
                for name, y in self._formed(k, rows, centre).items():
                    mine[name][rows] = _squared_rows(y)
                    y = y.reshape(-1, sizes[name])
                    begin = (self.first + rows.start) % self.blocks
                    into = deviation[name][begin % step :: step]
                    new = rows.start < step
                    sums = by_block(y, begin // step, self.blocks // step, into if new else None)
                    if not new:
                        into.add_(sums)
                    if self.per_parameter:
                        _add_half_squares(half_squares[name], y.double(), begin, step)
        lost = self.lost
        if lost is None:
            lost = torch.zeros(count, dtype=torch.bool, device=like.device)
        return Chunk(centre, self.first, lost, torch.stack(squares), deviation, half_squares)

    def _centres(self) -> Leaves:
        """The pilot as the samples have it; the very same where it is that of an earlier chunk."""
        like = self.samples.like
        shapes = {name: shape for layer in self.samples.layers() for name, shape in layer.items()}
        if self.pilot is None:
            return {name: like.new_zeros(shape) for name, shape in shapes.items()}
        given = dict(self.pilot)
        cast = {n: given[n].detach().to(like).reshape(shape) for n, shape in shapes.items()}
        same = list(given) == list(cast) and all(
            (x.dtype, x.device, x.shape, x.requires_grad) == (y.dtype, y.device, y.shape, False)
            for x, y in zip(given.values(), cast.values(), strict=True)
        )
        return self.pilot if same and isinstance(self.pilot, dict) else cast

    def _formed(self, layer: int, rows: slice, centre: Leaves) -> Leaves:
        """g_i − c, 0 where lost."""
        if self.double:
            raw = self.samples.form(layer, rows, None)
            leaves = {name: x.double() - centre[name].double() for name, x in raw.items()}
        else:
            leaves = self.samples.form(layer, rows, centre)
        if self.lost is None:
            return leaves
        out = self.lost[rows]
        return {
            n: y.masked_fill(out.reshape(-1, *[1] * (y.ndim - 1)), 0) for n, y in leaves.items()
        }


def tiles(count: int, most: int, blocks: int) -> Iterator[tuple[slice, int]]:
    """Slices of `count` samples, at most `most` in each, and their steps.

    Every `step`-th sample, so that those of one block come together and are added up before they
    leave the cache; the step divides the number of blocks, and is 1 or even.
    """
    even = (s for s in range(2, blocks + 1, 2) if blocks % s == 0)
    step = next((s for s in (1, *even) if -(-count // s) <= most), blocks)
    for begin in range(min(step, count)):
        for some in range(begin, count, step * most):
            yield slice(some, min(some + step * most, count), step), step


def by_block(
    x: Shaped[Tensor, "n p"], first: int, blocks: int, out: Tensor | None = None
) -> Shaped[Tensor, "G p"]:
    """Sums over the rows of each block, the first row being in block `first`; into `out`.

    Padding to whole rounds keeps the order of summation fixed, on any device.
    """
    tail = -(first + x.shape[0]) % blocks
    whole = torch.nn.functional.pad(x, (0, 0, first, tail)) if first or tail else x
    rounds = whole.reshape(-1, blocks, x.shape[1])
    if not 1 < len(rounds) <= FEW:
        return torch.sum(rounds, 0, out=out)
    total = torch.add(rounds[0], rounds[1], out=out)
    for row in rounds[2:]:
        total += row
    return total


def _squared_rows(y: Float[Tensor, "n *param"]) -> Float[Tensor, " n"]:
    """‖y_i‖², in float64 over all but the last dimension."""
    if y.ndim == 1:
        return y.double().square()
    rows = torch.linalg.vector_norm(y, dim=-1).double().square_()
    return rows.reshape(len(y), -1).sum(1)


def _add_half_squares(into: Float[Tensor, "2 p"], y: Tensor, begin: int, step: int) -> None:
    """Adds Σ y² to that of the half (even or odd blocks) that each row is in."""
    if step % 2 == 0:
        into[begin % 2] += y.square().sum(0)
        return
    for half in (0, 1):
        into[half] += y[(half - begin) % 2 :: 2].square().sum(0)
