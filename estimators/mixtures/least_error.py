"""Weights of least error from a matrix of the parts' errors; in closed form for two parts.

A unit is whatever has a weight of its own; arrays over units are [*unit, ...], in float64.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.reading import waiting
from gradlab.foundation.tensors import positions

NULL = 1e-12  # variance of a combination over those of its parts that is rounding [1]


def best_weights(
    error: Float[Tensor, "*unit k k"], nonnegative: bool = False
) -> Float[Tensor, "*unit k"]:
    """Weights w that sum to 1 with the least wᵀ E w, E positive semidefinite.

    That is E⁻¹1/(1ᵀE⁻¹1), and where E has no inverse the weights of a combination without error.
    Parts without error share 1 equally, and so do parts that cannot be told apart. With
    `nonnegative`, the best of all sets of parts whose weights are so: 2^k − 1 sets.
    """
    count = error.shape[-1]
    if not nonnegative:
        return _best(error)
    best = error.new_zeros(error.shape[:-1])
    least = error.new_full(error.shape[:-2], float("inf"))
    for size in range(count, 0, -1):
        for members in combinations(range(count), size):
            picked = positions(members, error)
            among = error[..., picked, :][..., picked]
            weights = _best(among)
            value = (weights[..., None, :] @ among @ weights[..., None])[..., 0, 0]
            better = (weights >= 0).all(-1) & (value < least)
            least = torch.where(better, value, least)
            whole = torch.zeros_like(best)
            whole[..., picked] = weights
            best = torch.where(better[..., None], whole, best)
    return best


def _best(error: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k"]:
    if error.shape[-1] == 2:
        return _best_of_two(error)
    return _by_eigenvectors(error)


def _by_eigenvectors(error: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k"]:
    size = error.diagonal(dim1=-2, dim2=-1)
    exact = size <= 0
    scale = torch.where(exact, 1.0, size).sqrt()
    one = scale.amin(-1, keepdim=True) / scale  # 1/scale, but for a factor that cancels
    values, vectors = eigen(error / (scale[..., :, None] * scale[..., None, :]))
    along = (vectors.mT @ one[..., None])[..., 0]
    # a combination without error that adds up to nothing: parts that cannot be told apart
    idle = (values < NULL) & (along.abs() < 1e-8 * one.square().sum(-1, keepdim=True).sqrt())
    along = torch.where(idle, 0.0, along)
    weights = one * (vectors @ (along / (values.clamp(min=0) + NULL))[..., None])[..., 0]
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.where(exact.any(-1, keepdim=True), _shares(exact), weights)


def _best_of_two(error: Float[Tensor, "*unit 2 2"]) -> Float[Tensor, "*unit 2"]:
    """The same in closed form, as units may be many: in units of each part the eigenvectors are the
    sum and the difference."""
    sizes = torch.stack([error[..., 0, 0], error[..., 1, 1]])
    exact = sizes <= 0
    scale = torch.where(exact, 1.0, sizes).sqrt()
    one = scale.amin(0) / scale
    alike = error[..., 0, 1] / (scale[0] * scale[1])
    between, apart = one[0] - one[1], 1 - alike
    idle = (apart < NULL) & (between.abs() < 2e-8)
    between = torch.where(idle, 0.0, between) / (apart.clamp(min=0) + NULL)
    along = (one[0] + one[1]) / ((1 + alike).clamp(min=0) + NULL)
    weights = one * torch.stack([along + between, along - between])
    weights = torch.where(exact.any(0), exact.double(), weights)
    return (weights / weights.sum(0)).movedim(0, -1)


def eigen(matrix: Float[Tensor, "*unit k k"]) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and vectors as columns; of two parts by formula, as units are many."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0], torch.ones_like(matrix)
    if matrix.shape[-1] != 2:  # on a GPU eigh asks whether it has come to an end
        waiting("a mixture by eigenvectors of three or more parts")
        return torch.linalg.eigh(matrix)
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    middle, half = (a + d) / 2, torch.hypot((a - d) / 2, b)
    angle = torch.atan2(2 * b, a - d) / 2
    cos, sin = angle.cos(), angle.sin()
    vectors = torch.stack([torch.stack([-sin, cos], -1), torch.stack([cos, sin], -1)], -1)
    return torch.stack([middle - half, middle + half], -1), vectors


def _shares(of: Bool[Tensor, "*unit k"]) -> Float[Tensor, "*unit k"]:
    """1 among the parts that are true, 0 if none is."""
    return of.double() / of.sum(-1, keepdim=True).clamp(min=1)
