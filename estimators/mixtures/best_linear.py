"""The rule of least variance, or least error, from all covariances of the parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mixtures.covariances import (
    Products,
    finite,
    products,
    shrinkage_of,
    squared_bias,
    uncorrelated,
)
from estimators.mixtures.least_error import best_weights
from estimators.mixtures.weights import Level
from gradlab.foundation.arguments import got, number, whole
from gradlab.foundation.errors import BadValue
from gradlab.gradients.samples import GradientSamples

MOST = 10  # parts of which all sets are tried


@dataclass(frozen=True)
class BestLinear:
    """The weights of least variance by the parts' k x k covariance matrix: Σ⁻¹1/(1ᵀΣ⁻¹1).

    Σ_kl sums Cov(g_k, g_l) over whatever has a weight of its own. Parts that err together are
    subtracted from each other, so weights may be negative unless `nonnegative`. As few samples say
    little of Σ, weights are shrunk towards those of parts that do not covary by `shrinkage`: 0 is
    not at all, 1 is `InverseVariance`, and "auto" what has the least variance by the samples
    (`shrinkage_of`: one number for everything, a layer, a parameter tensor or all steps). On
    batches of their own parts do not covary, and all of these are the same.

    With `unbiased`, the index of a part that is known to be so, weights minimise the estimated mean
    square error of a mean of `batch` samples, wᵀ(B + Σ/batch)w. B_kl = ⟨b_k, b_l⟩ holds each part's
    bias against that one, debiased of its own noise and projected to be positive semidefinite;
    `batch` is as many as the weights come from unless given; the larger, the more bias counts.

    Bias: without `unbiased` none is looked for: a part that is quiet because it is biased is
    trusted. With it, bias is traded for variance, vanishes as `batch` and samples grow, and is at
    its worst where it is as large as the noise of the samples that it is estimated from.
    Either way weights from the same samples (`Same`) bias the mixture of unbiased parts as well.
    Reference: Bates and Granger (1969) for the combination, whose covariances AGPO's limitations
    ask for; Ledoit and Wolf (2004) for the shrinkage, with another loss.
    """

    shrinkage: float | Literal["auto"] = "auto"
    nonnegative: bool = False
    unbiased: int | None = None
    batch: int | None = None  # samples of the mean whose error counts [1]

    def __post_init__(self) -> None:
        if self.shrinkage != "auto":
            hint = 'try shrinkage="auto"'
            value = number("shrinkage", self.shrinkage, hint)
            if not 0 <= value <= 1:
                raise BadValue(f"shrinkage should lie between 0 and 1, got {value:g}; {hint}")
        if self.unbiased is not None:
            whole("unbiased", self.unbiased, 0, "it is the index of a part")
        if self.batch is not None:
            whole("batch", self.batch)
            if self.unbiased is None:
                raise BadValue(
                    f"batch={self.batch} weighs variance against bias, which needs an unbiased "
                    f"part; try BestLinear(unbiased=1, batch={self.batch})"
                )

    @property
    def label(self) -> str:
        return "BestLinear"

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        self._check(len(parts))
        found = products(parts, level, horizon, self.unbiased)
        count = len(parts[0])
        weights = {key: self._weights(each, count, paired) for key, each in found.items()}
        return {key: value.movedim(-1, 0) for key, value in weights.items()}

    def _check(self, parts: int) -> None:
        if self.unbiased is not None and self.unbiased >= parts:
            raise BadValue(
                f"unbiased should be the index of one of {parts} parts, got {self.unbiased}; "
                f"try unbiased={parts - 1}"
            )
        if self.nonnegative and parts > MOST:
            raise BadValue(
                f"nonnegative weights are looked for among all sets of at most {MOST} parts, got "
                f"{got(parts)}; mix fewer of them, or mixtures of them"
            )

    def _weights(self, found: Products, count: int, paired: bool) -> Float[Tensor, "*unit k"]:
        """Weights of each unit; equal ones where a number is not finite."""
        whole, alone = found.best, found.alone
        if self.unbiased is not None or self.nonnegative:
            whole, alone = self._restricted(found, count, paired)
        shrinkage = shrinkage_of(found, count) if self.shrinkage == "auto" else self.shrinkage
        return torch.lerp(whole, alone, shrinkage) if paired else alone

    def _restricted(self, found: Products, count: int, paired: bool) -> tuple[Tensor, Tensor]:
        """Weights of least error with covariances and without, both of the kind asked for."""
        known = finite(found.covariance)
        if found.apart is not None:
            known = known & finite(found.apart)
        own = torch.where(known[..., None, None], found.covariance, 0.0)
        alone = uncorrelated(own)
        bias = torch.zeros_like(own)
        if self.unbiased is not None and found.apart is not None:
            apart = torch.where(known[..., None, None], found.apart, 0.0)
            noise = own if paired else alone
            bias = squared_bias(found._replace(covariance=noise, apart=apart), self.unbiased, count)
        whole, part = (
            best_weights(bias + matrix / (self.batch or count), self.nonnegative)
            for matrix in (own, alone)
        )
        return whole, part
