"""Inner products of per-sample gradients from the factors of a layer,
without the gradients if possible.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.policies.factors import LinearFactor

GRAM_TOLERANCE = (
    1e-4  # relative error of a Gram product before the gradients are formed instead [1]
)
DENSE_NUMBERS = 2**24  # of a layer's gradients in memory at once


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
