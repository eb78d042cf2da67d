"""Sums over chunks, added up in place: a stream costs the memory of one [G, P] in float64."""

from __future__ import annotations

from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import positions
from gradlab.statistics.parts import parts
from gradlab.statistics.powers import Powers
from gradlab.statistics.rows import Chunk, Leaves, by_block

CAST_NUMBERS = 2**18  # cast to float64 at once, within a core's cache


class Sums(TypedDict):
    """The fields of `Moments` that chunks add up to."""

    block_count: Tensor
    block_sum: Leaves
    half_m2: Leaves
    norm_mean: Leaves
    norm_m2: Leaves
    norm_m3: Leaves
    norm_m4: Leaves
    pilot: Leaves
    nonfinite: int


class Accumulator:
    """Chunks about one pilot, added up; nothing else is kept of them."""

    def __init__(self) -> None:
        self._pilot: Leaves = {}
        self._count = torch.zeros(0)
        self._deviation: Leaves = {}  # {leaf: [G, p]}: Σ (g − c), float64
        self._half_squares: Leaves = {}
        self._powers: Powers | None = None
        self._lost: Tensor | int = 0  # counted where the chunks are, read in the end

    def add(self, chunk: Chunk) -> None:
        """One more chunk. Raises `BadValue` if it is about another pilot."""
        blocks = len(next(iter(chunk.deviation.values())))
        count = by_block((~chunk.lost)[:, None].to(torch.int64), chunk.first, blocks)[:, 0]
        powers = Powers.of(_of_parts(chunk), chunk.lost, chunk.first)
        self._lost = self._lost + chunk.lost.sum()
        if self._powers is None:
            self._pilot, self._count, self._powers = chunk.pilot, count.clone(), powers
            self._half_squares = dict(chunk.half_squares)
            self._deviation = dict(chunk.deviation)  # of a single chunk, in its own dtype
            return
        same = self._pilot is chunk.pilot
        if not (same or all(torch.equal(c, chunk.pilot[n]) for n, c in self._pilot.items())):
            raise BadValue("expected chunks about one pilot, got another; pass that of the first")
        self._powers = self._powers.merge(halves(self._count), powers, halves(count))
        self._count += count
        for name, total in self._deviation.items():
            if total.dtype != torch.float64:
                total = self._deviation[name] = total.to(torch.float64)
            for some, more in zip(*_few(total, chunk.deviation[name]), strict=True):
                some += more
        for name, total in self._half_squares.items():
            total += chunk.half_squares[name]

    def sums(self) -> Sums:
        """What was added up. The memory is handed over: nothing can be added afterwards."""
        assert self._powers is not None
        count = self._count.to(torch.float64)
        names = list(parts(self._pilot))
        mean, m2, m3, m4 = (dict(zip(names, x, strict=True)) for x in self._powers)
        half_m2, block_sum, pilot = {}, {}, {}
        for name, c in self._pilot.items():
            deviation = self._deviation.pop(name)
            pilot[name] = c.to(torch.float64)
            if self._half_squares:
                spread = _half_m2(self._half_squares[name], deviation, count)
                half_m2[name] = spread.reshape(2, *c.shape)
            total = torch.empty_like(deviation, dtype=torch.float64)
            for some, more, n in zip(*_few(total, deviation, count[:, None]), strict=True):
                torch.addcmul(more.double(), n, pilot[name].reshape(1, -1), out=some)
            block_sum[name] = total.reshape(-1, *c.shape)
        return Sums(
            block_count=self._count,
            block_sum=block_sum,
            half_m2=half_m2,
            norm_mean=mean,
            norm_m2=m2,
            norm_m3=m3,
            norm_m4=m4,
            pilot=pilot,
            nonfinite=int(self._lost),
        )


def _few(total: Float[Tensor, "G p"], *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Pieces of some blocks each, that are cast within a core's cache."""
    rows = max(CAST_NUMBERS // total.shape[1], 1)
    return [x.split(rows) for x in (total, *others)]


def halves(x: Tensor) -> Tensor:
    """Sums over the even and the odd blocks: [G, ...] -> [2, ...]."""
    return x.reshape(-1, 2, *x.shape[1:]).sum(0)


def _of_parts(chunk: Chunk) -> Float[Tensor, "parts n"]:
    """‖g_i − c‖² over each part."""
    row, squares = {name: k for k, name in enumerate(chunk.deviation)}, chunk.squares
    return torch.stack(
        [
            squares[positions([row[n] for n in names], squares)].sum(0)
            for names in parts(row).values()
        ]
    )


def _half_m2(
    squares: Float[Tensor, "2 p"], deviation: Float[Tensor, "G p"], count: Float[Tensor, " G"]
) -> Float[Tensor, "2 p"]:
    """Σ (g − its mean)² of each half, from Σ (g − c)²."""
    n = halves(count).clamp(min=1)[:, None]
    return (squares - halves(deviation).square() / n).clamp(min=0)  # rounding of that difference
