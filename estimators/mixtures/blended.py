"""Samples in which every parameter has weights of its own, formed some at a time.

Letters: k parts, R rows of each, N samples, W sets of weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.display import Facts
from gradlab.foundation.errors import BadShape
from gradlab.foundation.per_sample import Layer, PerSample
from gradlab.gradients.samples import Dense, GradientSamples
from gradlab.policies.products import DENSE_NUMBERS
from gradlab.statistics.rows import DenseRows


@dataclass(frozen=True, repr=False)
class Blended(GradientSamples):
    """Σ_k w_k ⊙ g_k of the parts' rows, or the mean over every `average` of these: N = R/average.

    Row r takes set (start + r) // size of the weights, modulo W. It is never held in full.
    """

    parts: tuple[GradientSamples, ...]
    weights: Mapping[str, Float[Tensor, "W k *ones_or_param"]]  # by the name of the parameter
    size: int  # rows of one set
    start: int = 0
    average: int = 1
    group: int = 1

    def facts(self) -> Facts:
        return {
            "samples": f"{len(self):,}",
            "parts": str(len(self.parts)),
            "sets of weights": str(self.sets),
            "group": str(self.group),
        }

    @property
    def sets(self) -> int:
        """W."""
        return len(next(iter(self.weights.values())))

    def grouped(self, group: int) -> Blended:
        return replace(self, group=group)

    def __len__(self) -> int:
        return len(self.parts[0]) // self.average

    def chunks(self, chunk_size: int | None = None) -> Iterator[dict[str, Tensor]]:
        size, formed = chunk_size or len(self), self.products()
        for begin in range(0, len(self), size):
            leaves: dict[str, Tensor] = {}
            for layer in range(len(formed.layers())):
                leaves |= formed.form(layer, slice(begin, min(begin + size, len(self))), None)
            yield leaves

    def mean(self) -> dict[str, Tensor]:
        rows, total = len(self.parts[0]), {}
        for begin, end in self._runs(rows):
            chosen = self.set_of(begin)
            for k, part in enumerate(self.parts):
                for name, leaf in part.rows(begin, end).mean().items():
                    weight = self.weights[name][chosen, k].to(leaf)
                    share = leaf * weight * ((end - begin) / rows)
                    total[name] = total[name] + share if name in total else share
        return total

    def _runs(self, rows: int) -> Iterator[tuple[int, int]]:
        """Rows that follow each other and have the same weights."""
        begin = 0
        while begin < rows:
            end = rows
            if self.sets > 1:
                end = min(rows, begin + self.size - (self.start + begin) % self.size)
            yield begin, end
            begin = end

    def set_of(self, row: int) -> int:
        """Which weights a row takes."""
        return (self.start + row) // self.size % self.sets

    def squared_norms(self) -> Float[Tensor, " N"]:
        return self.inner(self)

    def inner(self, other: GradientSamples) -> Float[Tensor, " N"]:
        shapes = [shape for layer in self.products().layers() for shape in layer.values()]
        size = max(1, DENSE_NUMBERS // max(1, sum(math.prod(shape) for shape in shapes)))
        pieces = []
        for number, mine in enumerate(self.chunks(size)):
            begin, one = number * size, Dense(mine)
            theirs = one if other is self else other.rows(begin, begin + len(one))
            pieces.append(one.inner(theirs))
        return torch.cat(pieces)

    def prepared(self) -> Blended:
        return replace(self, parts=tuple(part.prepared() for part in self.parts))

    def products(self) -> PerSample:
        walks = [part.products() for part in self.parts]
        first = list(walks[0].layers())
        if any(list(walk.layers()) != first for walk in walks):
            walks = [DenseRows(part.per_sample()) for part in self.parts]
        return BlendedRows(self, walks)

    def rows(self, begin: int, end: int) -> Blended:
        first, last = begin * self.average, end * self.average
        parts = tuple(part.rows(first, last) for part in self.parts)
        return replace(self, parts=parts, start=self.start + first)

    def group_means(self, size: int) -> Blended:
        if size < 1 or len(self) % size:
            raise BadShape(f"{len(self)} samples do not make whole groups of {size}")
        rows = self.average * size
        # rows of one set are averaged before they are weighed
        alike = rows if self.sets == 1 else math.gcd(rows, self.size, self.start)
        return replace(
            self,
            parts=tuple(part.group_means(alike) for part in self.parts),
            size=max(1, self.size // alike),
            start=self.start // alike,
            average=rows // alike,
            group=math.lcm(self.group, size) // size,
        )

    def __mul__(self, weight: float | Tensor) -> Blended:
        if isinstance(weight, Tensor) and weight.ndim == 1:
            rows = weight.repeat_interleave(self.average)
            return replace(self, parts=tuple(part * rows for part in self.parts))
        return replace(self, weights={name: w * weight for name, w in self.weights.items()})


@dataclass(frozen=True)
class BlendedRows:
    """Gradients of N samples from those of the parts, formed in the same tiles."""

    samples: Blended
    walks: Sequence[PerSample]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def like(self) -> Tensor:
        """A tensor of the gradients' dtype, on their device."""
        return self.walks[0].like

    @property
    def tile_numbers(self) -> int:
        """How many numbers are best formed at once."""
        return self.walks[0].tile_numbers

    def layers(self) -> Sequence[Layer]:
        """The leaves, as the parts form them together."""
        return self.walks[0].layers()

    def form(
        self, layer: int, samples: slice, centre: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """g_i (less a centre) of some samples and one layer: {leaf: [n, *param]}."""
        begin, end, step = samples.indices(len(self))
        average, total = self.samples.average, {}
        for j in range(average):
            rows = range(begin * average + j, end * average, step * average)
            for k, walk in enumerate(self.walks):
                some = slice(rows.start, rows.stop, rows.step)
                for name, leaf in walk.form(layer, some, None).items():
                    weight = self._weights(name, k, rows, leaf)
                    if name in total:
                        total[name].addcmul_(leaf, weight)
                    else:
                        total[name] = leaf * weight
        for name, leaf in total.items():
            if average > 1:
                leaf.div_(average)
            if centre is not None:
                leaf.sub_(centre[name])
        return total

    def mean(self) -> dict[str, Tensor]:
        """The mean over samples: {leaf: [*param]}."""
        return self.samples.mean()

    def _weights(self, name: str, k: int, rows: range, leaf: Tensor) -> Tensor:
        """Those of part k in some rows: one for all where these have one set."""
        chosen = [self.samples.set_of(row) for row in rows]
        each = self.samples.weights[name][:, k].to(leaf)
        if len(set(chosen)) == 1:
            return each[chosen[0]]
        return torch.stack([each[number] for number in chosen])
