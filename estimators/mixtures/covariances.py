"""Covariances of a mixture's parts, and how well the weights that are best by them are known.

Letters: k parts, N samples, p numbers that have a weight together. A unit is whatever has a weight
of its own; arrays over units are [*unit, ...], with *unit of nothing (everything, a layer),
[*param], [T] or [T, nz]. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from estimators.mixtures.calls import step_products
from estimators.mixtures.elementwise import (
    LEAST_LEFT,
    ROUNDING,
    PairMoments,
    by_columns,
    by_name,
    pair_moments,
    tiles,
)
from estimators.mixtures.least_error import best_weights, eigen
from estimators.mixtures.rules import by_output, inverse_variance_shares
from estimators.mixtures.weights import Level, layer_of
from gradlab.foundation.per_sample import TILE_NUMBERS, PerSample
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.statistics.rows import DenseRows


class Products(NamedTuple):
    """What samples say of their parts' second moments, in each unit.

    Σ_kl = Σ over the unit's numbers of Cov(g_k, g_l), unbiased.
    """

    covariance: Float[Tensor, "*unit k k"]  # Σ
    best: Float[Tensor, "*unit k"]  # weights of least variance by Σ; equal ones if not finite
    alone: Float[Tensor, "*unit k"]  # those without covariances; equal ones if not finite
    excess: Float[Tensor, "*unit"]  # variance that those add for being estimated
    # ⟨ḡ_k − ḡ_r, ḡ_l − ḡ_r⟩ of the means, r the reference; None without one
    apart: Float[Tensor, "*unit k k"] | None


def products(
    parts: Sequence[GradientSamples], level: Level, horizon: int, reference: int | None = None
) -> dict[str, Products]:
    """Second moments of the parts' samples at a level, N of each, by the names of its weights."""
    if level == "step":
        return {"": _of_steps(parts, horizon, reference)}
    if level == "output":
        given = [by_output(part, horizon).flatten(1) for part in parts]
        found = _elementwise(given, reference)
        return {
            "": _products(
                [each if each is None else each.unflatten(0, (horizon, -1)) for each in found]
            )
        }
    if level == "parameter":
        return _of_parameters(parts, reference)
    return _of_units(parts, level, reference)


def _of_steps(parts: Sequence[GradientSamples], horizon: int, reference: int | None) -> Products:
    each = step_products(parts, horizon)
    if each is not None and reference is None:
        return Products(*_moments(each), None)
    steps = []
    for t in range(horizon):
        calls = [part.at_step(t) for part in parts if isinstance(part, Factored)]
        if each is None:
            steps.append(_of_units(calls, "global", reference)[""])
        else:
            means = [call.mean() for call in calls]
            gaps = [
                torch.cat([leaf.double().flatten() for leaf in mean.values()]) for mean in means
            ]
            steps.append(Products(*_moments(each[:, t]), _apart(torch.stack(gaps), reference)))
    columns = zip(*steps, strict=True)
    return _products([None if c[0] is None else torch.stack(c) for c in columns])


def _apart(mean: Float[Tensor, "k p"], reference: int | None) -> Float[Tensor, "k k"] | None:
    if reference is None:
        return None
    gap = mean - mean[reference]
    return gap @ gap.mT


def _of_units(
    parts: Sequence[GradientSamples], level: Level, reference: int | None
) -> dict[str, Products]:
    walks = _alike(parts)
    means = [walk.mean() for walk in walks]
    each: dict[str, Tensor] = {}
    gaps: dict[str, list[Tensor]] = {}
    for number, layer in enumerate(walks[0].layers()):
        for name in layer:
            key = layer_of(name) if level == "layer" else ""
            mean = torch.stack([own[name].double().flatten() for own in means])
            gaps.setdefault(key, []).append(mean)
            each.setdefault(key, mean.new_zeros(len(walks[0]), len(walks), len(walks)))
        for rows in _tiles(walks[0], number):
            formed = [
                walk.form(number, rows, mean) for walk, mean in zip(walks, means, strict=True)
            ]
            for name in layer:
                key = layer_of(name) if level == "layer" else ""
                each[key][rows] += _pairs([leaves[name] for leaves in formed])
    found = {}
    for key, products in each.items():
        mean = torch.cat(gaps[key], 1)
        spread = _spread(products, mean.square().sum(1), walks[0].like.dtype)
        found[key] = Products(*_moments(spread), _apart(mean, reference))
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


def _of_parameters(parts: Sequence[GradientSamples], reference: int | None) -> dict[str, Products]:
    """Of every number by itself, without [N, P] where layers are known."""
    walks = by_columns(parts)
    if len(parts) == 2:
        moments = pair_moments(tiles(walks), len(walks[0]))
        for part, walk, mean in zip(parts, walks, moments.means, strict=True):
            part.remember(by_name(walk, mean.to(walk.like.dtype)))
        whole = _of_pair(moments, reference)
    else:
        whole = _beside([_elementwise(rows, reference) for rows in tiles(walks)])
    by_kind = [None if each is None else by_name(walks[0], each) for each in whole]
    names = [name for layer in walks[0].layers() for name in layer]
    return {
        name: _products([None if each is None else each[name] for each in by_kind])
        for name in names
    }


def _products(columns: Sequence[Tensor | None]) -> Products:
    """Products from their fields, of which the last alone may be absent."""
    return Products(*columns)  # type: ignore[arg-type]


def _beside(found: Sequence[Products]) -> Products:
    """Products of some units and of the next ones."""
    columns = zip(*found, strict=True)
    return _products([None if c[0] is None else torch.cat(c) for c in columns])


def _elementwise(rows: Sequence[Float[Tensor, "N p"]], reference: int | None) -> Products:
    """Of every number by itself, some of them at a time."""
    count, parts = len(rows[0]), len(rows)
    if parts == 2:
        return _of_pair(pair_moments([rows], count), reference)
    found = []
    most = max(1, TILE_NUMBERS // (count * parts**2))
    for some in zip(*(x.split(most, 1) for x in rows), strict=True):
        given = torch.stack([x.double() for x in some], -1)  # [N, p, k]
        mean = given.mean(0)
        centred = given - mean
        moments = _moments(centred[..., :, None] * centred[..., None, :])
        gap = None if reference is None else mean - mean[:, reference, None]
        found.append(Products(*moments, None if gap is None else gap[:, :, None] * gap[:, None, :]))
    return _beside(found)


def _of_pair(moments: PairMoments, reference: int | None) -> Products:
    """Of two parts and units of one number; in memory the units are together."""
    first, second, both, excess, means = moments
    rows = torch.stack([first, both, both, second]).unflatten(0, (2, 2))
    covariance = rows.movedim((0, 1), (-2, -1))
    apart = None
    if reference is not None:
        gap = means[0] - means[1]
        sizes = [torch.zeros_like(gap) if k == reference else gap.square() for k in range(2)]
        apart = torch.diag_embed(torch.stack(sizes, -1))
    return Products(covariance, best_weights(covariance), _alone(covariance), excess, apart)


def _moments(each: Float[Tensor, "N *unit k k"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Σ, both kinds of weights and the excess, from ⟨g_ik − ḡ_k, g_il − ḡ_l⟩ of every sample."""
    covariance = each.sum(0) / (len(each) - 1)
    known = finite(covariance)[..., None, None]  # a unit that is not stays so in Σ alone
    own = torch.where(known, covariance, 0.0)
    best = best_weights(own)
    excess = _excess(torch.where(known, each, 0.0), own, best)
    return covariance, best, _alone(own), excess


def finite(matrices: Float[Tensor, "*unit k k"]) -> Bool[Tensor, "*unit"]:
    """Units of finite numbers alone."""
    return matrices.sum((-2, -1)).isfinite()


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
    values, vectors = eigen(along @ (covariance / both) @ along)
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
    total = _lengths(found.best - found.alone, found.covariance).nan_to_num(0.0, 0.0, 0.0).sum()
    share = found.excess.sum() / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, share.clamp(max=1.0), every)


def _lengths(
    weights: Float[Tensor, "*unit k"], covariance: Float[Tensor, "*unit k k"]
) -> Float[Tensor, "*unit"]:
    """wᵀΣw of weights that sum to 0, at least 0."""
    if weights.shape[-1] == 2:
        first, second, both = (covariance[..., k, m] for k, m in ((0, 0), (1, 1), (0, 1)))
        return (weights[..., 0].square() * (first + second - 2 * both)).clamp(min=0)
    return (weights[..., :, None] * weights[..., None, :] * covariance).sum((-2, -1)).clamp(min=0)


def uncorrelated(covariance: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k k"]:
    """The variances alone."""
    return torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))


def _alone(covariance: Float[Tensor, "*unit k k"]) -> Float[Tensor, "*unit k"]:
    """Inverse-variance weights, from a finite matrix."""
    variances = covariance.diagonal(dim1=-2, dim2=-1)
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
    assert found.apart is not None
    size = (found.apart + noise).diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    size = torch.where(size > 0, size, 1.0)
    scale = size[..., :, None] * size[..., None, :]
    values, vectors = eigen((found.apart - noise) / scale)
    positive = (vectors * values.clamp(min=0)[..., None, :]) @ vectors.mT
    bias = scale * positive
    bias[..., reference, :] = 0.0  # exactly, whatever the rounding
    bias[..., :, reference] = 0.0
    return bias
