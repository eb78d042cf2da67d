"""Per-sample gradients from the factors of a layer, a few at a time, and their inner products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.per_sample import TILE_NUMBERS, Layer
from gradlab.policies.factors import Factors, LinearFactor

GRAM_TOLERANCE = (
    1e-4  # relative error of a Gram product before the gradients are formed instead [1]
)
DENSE_NUMBERS = 2**24  # of a layer's gradients in memory at once


@dataclass(frozen=True)
class LayerProducts:
    """The gradients of N samples, formed from factors: some samples of one layer at a time.

    A layer's gradient by K calls costs K·in·out operations and so do its means over blocks, however
    they are found; squared distances of the formed ones from a point cost in·out more. From Gram
    matrices alone those would take K·in·out for the product with the point and K²(in + out) for the
    squared lengths, and lose the digits that cancel between them: statistics form the gradients.
    """

    factors: Factors
    shapes: Mapping[str, tuple[int, ...]]  # {leaf: shape} of the parameters
    tile_numbers: int = TILE_NUMBERS

    def __len__(self) -> int:
        return len(self.like)

    @property
    def like(self) -> Tensor:
        """A tensor of the gradients' dtype, on their device, of N rows."""
        return self.factors.linear[0].cotangent

    def layers(self) -> Sequence[Layer]:
        """Every leaf by itself."""
        return [{name: tuple(shape)} for name, shape in self.shapes.items()]

    def form(
        self, layer: int, samples: slice, centre: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """g_i, less a centre if there is one: {leaf: [n, *param]} of some samples."""
        name = list(self.shapes)[layer]
        x, c = self._factor(name)
        leaf = c[samples].sum(1) if x is None else c[samples].mT @ x[samples]
        return {name: leaf if centre is None else leaf.sub_(centre[name])}

    def columns(self, leaf: str, rows: slice) -> Tensor:
        """[N, rows, *rest] of a parameter [first, *rest] in all samples."""
        x, c = self._factor(leaf)
        some = c[..., rows]
        return some.sum(1) if x is None else some.mT @ x

    def mean(self) -> dict[str, Tensor]:
        """The mean over samples: {leaf: [*param]}."""
        leaves: dict[str, Tensor] = {}
        for name in self.shapes:
            x, c = self._factor(name)
            # one dimension at a time, as both at once are slow where samples are some of more
            total = c.sum(0).sum(0) if x is None else _summed_products(c, x)
            leaves[name] = total / len(self)
        return leaves

    def _factor(self, name: str) -> tuple[Tensor | None, Tensor]:
        """Inputs of the layer, for its weight, and cotangents: [N, K, ·]."""
        if name in self.factors.direct:
            return None, self.factors.direct[name]
        layer, _, kind = name.rpartition(".")
        factor = next(f for f in self.factors.linear if f.layer == layer)
        return (factor.input if kind == "weight" else None), factor.cotangent


def _summed_products(
    c: Float[Tensor, "N K out"], x: Float[Tensor, "N K in"]
) -> Float[Tensor, "out in"]:
    """Σ over calls and samples of c ⊗ x."""
    c, x = c.transpose(0, 1), x.transpose(0, 1)
    if c.is_contiguous() and x.is_contiguous():
        return c.flatten(0, 1).mT @ x.flatten(0, 1)
    # the sum over calls of one product over samples each
    return torch.addbmm(c.new_zeros(c.shape[2], x.shape[2]), c.mT, x)


def layer_inner(a: LinearFactor, b: LinearFactor, bias: bool) -> Float[Tensor, " N"]:
    """⟨Σ_k δ_k ⊗ x_k, Σ_l δ'_l ⊗ x'_l⟩ of one layer (and its bias), in float64.

    Gram matrices cost K·L·(in + out) per sample, gradients in full (K + L)·in·out: the cheaper is
    taken. A Gram product is a sum of K·L numbers with the rounding of the samples' dtype ε each, so
    that the error is about ε·(Σ_k ‖δ_k‖‖x_k‖)·(Σ_l ‖δ'_l‖‖x'_l‖), whatever is left of the sum: of a
    difference of estimators little is. Samples where that exceeds `GRAM_TOLERANCE` of the product
    take the gradients in full, in which the calls have cancelled before anything is squared.
    """
    calls_a, calls_b = a.input.shape[1], b.input.shape[1]
    size_in, size_out = a.input.shape[2], a.cotangent.shape[2]
    if calls_a * calls_b * (size_in + size_out) >= (calls_a + calls_b) * size_in * size_out:
        return _dense(a, b, bias)
    gram = (a.input @ b.input.mT).double() + float(bias)
    total = (gram * (a.cotangent @ b.cotangent.mT)).sum((1, 2))
    error = torch.finfo(a.input.dtype).eps * _reach(a, bias) * _reach(b, bias)
    cancelled = error > GRAM_TOLERANCE * total.abs()
    if bool(cancelled.any()):
        total[cancelled] = _dense(_rows(a, cancelled), _rows(b, cancelled), bias)
    return total


def _reach(a: LinearFactor, bias: bool) -> Float[Tensor, " N"]:
    """Σ_k ‖δ_k‖ ‖(x_k, 1)‖: what the norm of the sum cannot exceed."""
    rows = (a.input.double().square().sum(-1) + float(bias)).sqrt()
    return (rows * torch.linalg.vector_norm(a.cotangent.double(), dim=-1)).sum(-1)


def _rows(a: LinearFactor, keep: Bool[Tensor, " N"]) -> LinearFactor:
    return LinearFactor(a.layer, a.input[keep], a.cotangent[keep])


def _dense(a: LinearFactor, b: LinearFactor, bias: bool) -> Float[Tensor, " N"]:
    """The same from gradients in full, some samples at a time."""
    size = max(1, DENSE_NUMBERS // (a.input.shape[2] * a.cotangent.shape[2]))
    pieces = []
    for begin in range(0, len(a.input), size):
        part = slice(begin, begin + size)
        x = a.cotangent[part].mT @ a.input[part]
        y = x if b is a else b.cotangent[part].mT @ b.input[part]
        total = (x.double() * y).sum((1, 2))
        if bias:
            total = total + (a.cotangent[part].sum(1).double() * b.cotangent[part].sum(1)).sum(-1)
        pieces.append(total)
    return torch.cat(pieces) if pieces else a.input.new_zeros(0, dtype=torch.float64)
