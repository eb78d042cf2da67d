"""Covariances of a mixture's parts, how well they are known, and the weights that are best by them.

Letters: k parts, N samples, p numbers that have a weight together. A unit is whatever has a weight
of its own; arrays over units are [*unit, ...], with *unit of nothing (everything, a layer),
[*param], [T] or [T, nz]. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from estimators.mixtures.calls import by_step, centred_products
from estimators.mixtures.rules import by_output, inverse_variance_shares
from estimators.mixtures.weights import Level, layer_of
from gradlab.foundation.per_sample import TILE_NUMBERS, PerSample
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.statistics.rows import DenseRows

NULL = 1e-12  # variance of a combination over those of its parts that is rounding [1]
ROUNDING = 1e-10  # and along which nothing is learnt of the weights [1]
LEAST_LEFT = 0.05  # of a fit without a sample that all but decides it [1]


class Products(NamedTuple):
    """What samples say of their parts' second moments, in each unit.

    Σ_kl = Σ over the unit's numbers of Cov(g_k, g_l), unbiased.
    """

    covariance: Float[Tensor, "*unit k k"]  # Σ
    best: Float[Tensor, "*unit k"]  # weights of least variance by Σ; equal ones if not finite
    excess: Float[Tensor, "*unit"]  # variance that those add for being estimated
    apart: Float[Tensor, "*unit k k"]  # ⟨ḡ_k − ḡ_r, ḡ_l − ḡ_r⟩ of the means, r the reference


def products(
    parts: Sequence[GradientSamples], level: Level, horizon: int, reference: int = 0
) -> dict[str, Products]:
    """Second moments of the parts' samples at a level, N of each, by the names of its weights."""
    if level == "step":
        factors, first = by_step(parts, horizon), parts[0]
        if factors is not None and isinstance(first, Factored):
            each, apart = centred_products(factors, first.bias, reference)
            return {"": Products(*_moments(each), apart)}
        steps = []
        for t in range(horizon):
            calls = [part.at_step(t) for part in parts if isinstance(part, Factored)]
            steps.append(_of_units(calls, "global", reference)[""])
        return {"": Products(*(torch.stack(column) for column in zip(*steps, strict=True)))}
    if level == "output":
        given = torch.stack([by_output(part, horizon) for part in parts])
        return {"": _elementwise(given, reference)}
    return _of_units(parts, level, reference)


def _of_units(
    parts: Sequence[GradientSamples], level: Level, reference: int
) -> dict[str, Products]:
    if level == "parameter":
        return {name: _elementwise(leaf, reference) for name, leaf in _leaves(parts)}
    walks = _alike(parts)
    means = [walk.mean() for walk in walks]
    each: dict[str, Tensor] = {}
    apart: dict[str, Tensor] = {}
    length: dict[str, Tensor] = {}
    for number, layer in enumerate(walks[0].layers()):
        for name in layer:
            key = layer_of(name) if level == "layer" else ""
            mean = torch.stack([own[name].double().flatten() for own in means])
            gap = mean - mean[reference]
            apart[key] = apart.get(key, 0) + gap @ gap.mT
            length[key] = length.get(key, 0) + mean.square().sum(1)
            none = mean.new_zeros(len(walks[0]), len(walks), len(walks))
            each.setdefault(key, none)
        for rows in _tiles(walks[0], number):
            formed = [
                walk.form(number, rows, mean) for walk, mean in zip(walks, means, strict=True)
            ]
            for name in layer:
                key = layer_of(name) if level == "layer" else ""
                each[key][rows] += _pairs([leaves[name] for leaves in formed])
    found = {}
    for key, products in each.items():
        covariance, best, excess = _moments(_spread(products, length[key], walks[0].like.dtype))
        found[key] = Products(covariance, best, excess, apart[key])
    return found


def _alike(parts: Sequence[GradientSamples]) -> list[PerSample]:
    """Gradients of all parts that are formed some samples of the same leaves at a time."""
    walks = [part.products() for part in parts]
    first = walks[0].layers()
    if all(list(walk.layers()) == list(first) for walk in walks):
        return walks
    return [DenseRows(part.per_sample()) for part in parts]


def _tiles(walk: PerSample, layer: int) -> Iterator[slice]:
    """Samples whose gradients of a layer fit in a core's cache."""
    size = sum(math.prod(shape) for shape in walk.layers()[layer].values())
    most = max(1, walk.tile_numbers // max(size, 1))
    for begin in range(0, len(walk), most):
        yield slice(begin, begin + most)


def _pairs(rows: Sequence[Float[Tensor, "n *param"]]) -> Float[Tensor, "n k k"]:
    """Inner products of the parts' rows, in float64 over all but the last dimension."""
    count = len(rows)
    out = rows[0].new_zeros(len(rows[0]), count, count, dtype=torch.float64)
    for k in range(count):
        for other in range(k, count):
            product = (rows[k] * rows[other]).reshape(len(out), -1, rows[k].shape[-1]).sum(-1)
            out[:, k, other] = out[:, other, k] = product.double().sum(-1)
    return out


def _spread(
    each: Float[Tensor, "N k k"], length: Float[Tensor, " k"], dtype: torch.dtype
) -> Float[Tensor, "N k k"]:
    """Products of deviations from the mean, 0 of parts that deviate by its rounding alone."""
    variance = each.diagonal(dim1=1, dim2=2).sum(0) / (len(each) - 1)
    rounding = (8 * torch.finfo(dtype).eps) ** 2 * length
    some = ~(variance <= rounding)  # what is not finite stays so
    return torch.where(some[:, None] & some, each, 0.0)


def _leaves(parts: Sequence[GradientSamples]) -> Iterator[tuple[str, Float[Tensor, "k N *param"]]]:
    rows = [part.per_sample() for part in parts]
    for name in rows[0]:
        yield name, torch.stack([row[name].double() for row in rows])


def _elementwise(leaf: Float[Tensor, "k N *param"], reference: int) -> Products:
    """Of every number by itself, some of them at a time."""
    shape = leaf.shape[2:]
    rows = leaf.reshape(*leaf.shape[:2], -1)
    found = []
    for some in rows.split(max(1, TILE_NUMBERS // (rows.shape[1] * rows.shape[0] ** 2)), dim=2):
        mean = some.mean(1)
        centred, gap = some - mean[:, None], mean - mean[reference]
        by_sample = centred.permute(1, 2, 0)  # [N, p, k]
        moments = _moments(by_sample[..., :, None] * by_sample[..., None, :])
        found.append((*moments, gap.mT[:, :, None] * gap.mT[:, None, :]))
    return Products(*(torch.cat(column).unflatten(0, shape) for column in zip(*found, strict=True)))


def _moments(each: Float[Tensor, "N *unit k k"]) -> tuple[Tensor, Tensor, Tensor]:
    """Σ, the best weights and the excess, from ⟨g_ik − ḡ_k, g_il − ḡ_l⟩ of every sample."""
    covariance = each.sum(0) / (len(each) - 1)
    known = finite(covariance)[..., None, None]  # a unit that is not stays so in Σ alone
    own = torch.where(known, covariance, 0.0)
    best = best_weights(own)
    return covariance, best, _excess(torch.where(known, each, 0.0), own, best)


def finite(matrices: Float[Tensor, "*unit k k"]) -> Bool[Tensor, "*unit"]:
    """Units of finite numbers alone."""
    return matrices.isfinite().all(-1).all(-1)


def _excess(
    each: Float[Tensor, "N *unit k k"],
    covariance: Float[Tensor, "*unit k k"],
    best: Float[Tensor, "*unit k"],
) -> Float[Tensor, "*unit"]:
    """E[wᵀΣw] less its least value, w the weights that are best by the samples.

    Those minimise Σ_i wᵀ z_i w, so that leaving sample i out moves them by H⁻¹ s_i / (1 − h_i),
    s_i the slope z_i w and H the sum of all z_j, both along the weights that sum to 0, and
    h_i = tr H⁻¹ z_i. The squares of these moves, added up, are the jackknife's variance of w; exact
    for two parts or a single number, and somewhat large beyond. The mean has a share 1/N in h_i.
    """
    count = len(each)
    size = covariance.diagonal(dim1=-2, dim2=-1)
    exact = (size <= 0).any(-1)
    scale = torch.where(size > 0, size, 1.0).sqrt()
    one = scale.amin(-1, keepdim=True) / scale
    one = one / one.square().sum(-1, keepdim=True).sqrt()
    both = scale[..., :, None] * scale[..., None, :]
    eye = torch.eye(size.shape[-1], dtype=size.dtype, device=size.device)
    along = eye - one[..., :, None] * one[..., None, :]
    values, vectors = _eigen(along @ (covariance / both) @ along)
    # columns whose outer products are the inverse along the weights that sum to 0
    roots = along @ (vectors * torch.where(values > ROUNDING, values.rsqrt(), 0.0)[..., None, :])
    scaled = each / both
    slope = (scaled @ (best * scale)[..., None]).mT @ roots  # [N, *unit, 1, k]
    moved = slope.square().sum((-2, -1))
    lever = (scaled * (roots @ roots.mT)).sum((-2, -1)) / (count - 1)
    left = (1 - lever - 1 / count).clamp(min=LEAST_LEFT)
    excess = (moved / left.square()).sum(0) / (count - 1) ** 2
    return torch.where(exact, 0.0, excess)


def shrinkage_of(found: Products, count: int) -> Float[Tensor, ""]:
    """How far weights are best shrunk towards those without covariances, from 0 to 1.

    (1 − ρ) ŵ + ρ w_0 has the least variance, summed over units, at ρ = Σ excess / Σ E d², where d²
    is the variance of ŵ − w_0: it exceeds that of w* − w_0 by the excess. The principle is that of
    Ledoit and Wolf (2004), with the variance of the mixture as the loss instead of the distance of
    matrices: where parts err nearly alike, a matrix that is little changed may have a bad mixture.
    Too few samples say nothing of the excess: 1.
    """
    every = found.excess.new_ones(())
    if count < found.best.shape[-1] + 2:
        return every
    moved = (found.best - uncorrelated_weights(found.covariance))[..., None]
    square = (moved.mT @ found.covariance @ moved)[..., 0, 0]
    total = torch.where(finite(found.covariance), square, 0.0).clamp(min=0).sum()
    share = found.excess.sum() / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, share.clamp(max=1.0), every)


def uncorrelated(covariance: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k k"]:
    """The variances alone."""
    return torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))


def uncorrelated_weights(covariance: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k"]:
    """Inverse-variance weights; equal ones where the matrix is not finite."""
    known = finite(covariance)[..., None]
    variances = torch.where(known, covariance.diagonal(dim1=-2, dim2=-1), 0.0)
    return inverse_variance_shares(variances.movedim(-1, 0)).movedim(0, -1)


def squared_bias(found: Products, reference: int, count: int) -> Float[Tensor, "*unit k k"]:
    """B_kl = ⟨b_k, b_l⟩, b_k the expectation of part k less that of the reference; debiased.

    The inner products of differences of N-sample means exceed it by Cov(g_k − g_r, g_l − g_r)/N on
    average. What is left is projected to be positive semidefinite, each difference in units of its
    own length.
    """
    own = found.covariance
    to_reference = own[..., :, reference]
    noise = own - to_reference[..., :, None] - to_reference[..., None, :]
    noise = (noise + own[..., reference, reference, None, None]) / count
    size = (found.apart + noise).diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    size = torch.where(size > 0, size, 1.0)
    scale = size[..., :, None] * size[..., None, :]
    values, vectors = _eigen((found.apart - noise) / scale)
    positive = (vectors * values.clamp(min=0)[..., None, :]) @ vectors.mT
    bias = scale * positive
    bias[..., reference, :] = 0.0  # exactly, whatever the rounding
    bias[..., :, reference] = 0.0
    return bias


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
            among = error[..., members, :][..., members]
            weights = _best(among)
            value = (weights[..., None, :] @ among @ weights[..., None])[..., 0, 0]
            better = (weights >= 0).all(-1) & (value < least)
            least = torch.where(better, value, least)
            whole = torch.zeros_like(best)
            whole[..., members] = weights
            best = torch.where(better[..., None], whole, best)
    return best


def _best(error: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k"]:
    size = error.diagonal(dim1=-2, dim2=-1)
    exact = size <= 0
    scale = torch.where(exact, 1.0, size).sqrt()
    one = scale.amin(-1, keepdim=True) / scale  # 1/scale, but for a factor that cancels
    values, vectors = _eigen(error / (scale[..., :, None] * scale[..., None, :]))
    along = (vectors.mT @ one[..., None])[..., 0]
    # a combination without error that adds up to nothing: parts that cannot be told apart
    idle = (values < NULL) & (along.abs() < 1e-8 * one.square().sum(-1, keepdim=True).sqrt())
    along = torch.where(idle, 0.0, along)
    weights = one * (vectors @ (along / (values.clamp(min=0) + NULL))[..., None])[..., 0]
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.where(exact.any(-1, keepdim=True), _shares(exact), weights)


def _eigen(matrix: Float[Tensor, "*unit k k"]) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and vectors as columns; of two parts by formula, as units are many."""
    if matrix.shape[-1] != 2:
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
