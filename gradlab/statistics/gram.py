"""Inner products of block contrasts and means:
every interval is linear algebra on this small matrix.

With G blocks the noise of a mean shows in n = G − 1 contrasts, each distributed as the mean's own
error. Stacking the contrasts and means of all sources (estimators, truth) in one matrix with a row
per vector and a column per parameter, only its Gram matrix is needed: 130 x 130 whatever P is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.statistics.intervals import (
    Interval,
    SquaredNormLaw,
    squared_norm_interval,
    squared_norm_law,
)
from gradlab.statistics.moments import Moments
from gradlab.statistics.parts import parts
from gradlab.statistics.truth import OracleGradient

Source = Moments | OracleGradient


@dataclass(frozen=True)
class Combination:
    """A linear combination of the sources' means, Σ_k w_k mean_k,
    and what is known of its noise.
    """

    vector: Float[np.ndarray, " R"]  # coefficients on the stacked rows
    contrasts: Float[np.ndarray, "n R"]  # likewise, one row per contrast


@dataclass(frozen=True)
class Gram:
    """Inner products of stacked rows, n contrasts and then the mean of each
    source, over one part.
    """

    matrix: Float[np.ndarray, "R R"]
    errors: tuple[float, ...]  # tr C of each source's mean
    n: int  # contrasts per source

    def combine(self, weights: Sequence[float]) -> Combination:
        """Σ_k w_k mean_k; contrasts combine alike, for independent sources and for paired ones."""
        each = self.n + 1
        vector = np.zeros(each * len(weights))
        contrasts = np.zeros((self.n, len(vector)))
        for k, weight in enumerate(weights):
            vector[k * each + self.n] = weight
            contrasts[np.arange(self.n), k * each + np.arange(self.n)] = weight
        return Combination(vector, contrasts)

    def contrast_rows(self, source: int) -> Float[np.ndarray, "n R"]:
        """Selects the contrasts of one source."""
        start = source * (self.n + 1)
        return np.eye(len(self.matrix))[start : start + self.n]

    def inner(self, a: Combination, b: Combination) -> float:
        """Inner product of the two vectors."""
        return float(a.vector @ self.matrix @ b.vector)

    def along(self, a: Combination, b: Combination) -> Float[np.ndarray, " n"]:
        """Contrasts of `a` projected on the vector of `b`."""
        return a.contrasts @ (self.matrix @ b.vector)

    def cross(self, a: Combination, b: Combination) -> Float[np.ndarray, "n n"]:
        """Inner products of the contrasts of `a` with those of `b`."""
        return a.contrasts @ self.matrix @ b.contrasts.T

    def interval(self, a: Combination, error: float, confidence: float) -> Interval:
        """Squared length of the expectation of `a`, whose noise has trace `error`."""
        size = max(self.inner(a, a), 0.0)  # rounding of a difference
        return squared_norm_interval(size, error, self.cross(a, a), self.along(a, a), confidence)

    def law(self, a: Combination, error: float) -> SquaredNormLaw:
        """Law of the squared length of `a`."""
        size = max(self.inner(a, a), 0.0)
        return squared_norm_law(size, error, self.cross(a, a), self.along(a, a))


def grams(sources: Sequence[Source]) -> dict[str, Gram]:
    """One Gram matrix per part (everything, layers, leaves); truths without error have none.

    Sources must be independent of each other, or paired block by block (same noise).
    """
    sampled = [_moments(source) for source in sources]
    filled = [(int((m.block_count > 0).sum()), m.nonfinite) for m in sampled if m is not None]
    blocks, lost = min(filled, default=(0, 0))
    if blocks < 5:
        why = f" ({lost} replicates were not finite)" if lost else ""
        raise BadValue(
            f"expected at least 5 non-empty blocks in every sampled source, got {blocks}{why}; "
            "draw more samples"
        )
    bases = [None if m is None else _contrast_basis(m) for m in sampled]
    n = blocks - 1
    leaf: dict[str, np.ndarray] = {}
    for name in sources[0].mean:
        rows = []
        for source, moments, basis in zip(sources, sampled, bases, strict=True):
            mean = source.mean[name].reshape(1, -1).cpu()
            zero = torch.zeros(n, mean.shape[1], dtype=mean.dtype)
            noise = zero if moments is None or basis is None else _contrasts(moments, basis, name)
            rows += [noise[:n], mean]
        stacked = torch.cat(rows)
        leaf[name] = (stacked @ stacked.T).numpy()
    out = {}
    for part, names in parts(leaf).items():
        errors = tuple(0.0 if m is None else m.variance(part) / m.count for m in sampled)
        out[part] = Gram(np.sum([leaf[name] for name in names], axis=0), errors, n)
    return out


def _moments(source: Source) -> Moments | None:
    return source.moments if isinstance(source, OracleGradient) else source


def _contrast_basis(moments: Moments) -> Float[Tensor, "n G"]:
    """Weights on the block means of n = (non-empty blocks − 1) independent contrasts.

    With w_j = √(n_j/N), block j's mean times w_j has covariance Σ/N. The rows of the reflection
    that takes w to a unit vector, but for that one, are orthonormal and orthogonal to w, so the
    unknown mean drops out and each contrast is distributed as the error of the mean, equal blocks
    or not.
    """
    count = moments.block_count.to("cpu", torch.float64)
    filled = torch.nonzero(count)[:, 0]
    w = (count[filled] / count.sum()).sqrt()
    axis = w.clone()
    axis[0] += 1.0
    reflection = torch.eye(len(w), dtype=w.dtype) - 2 * torch.outer(axis, axis) / (axis @ axis)
    basis = torch.zeros(len(w) - 1, len(count), dtype=w.dtype)
    basis[:, filled] = reflection[1:] * w
    return basis


def contrasts(moments: Moments) -> dict[str, Float[Tensor, "n p"]]:
    """n independent draws from the law of the mean's error: {leaf: [n, P_leaf]}, on the CPU."""
    basis = _contrast_basis(moments)
    return {name: _contrasts(moments, basis, name) for name in moments.block_sum}


def _contrasts(moments: Moments, basis: Float[Tensor, "n G"], name: str) -> Float[Tensor, "n p"]:
    deviation = (
        moments.block_mean[name] - moments.mean[name]
    )  # for digits: the basis annuls the mean
    return basis @ deviation.reshape(basis.shape[1], -1).cpu()
