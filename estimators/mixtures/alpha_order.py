"""The rule of AoBG: trust first-order gradients as far as a confidence bound allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mixtures.rules import (
    by_output,
    inverse_variance_shares,
    leaf_moments,
    totals,
    variances,
)
from estimators.mixtures.weights import Level, layer_of
from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue
from gradlab.gradients.samples import Factored, GradientSamples


@dataclass(frozen=True)
class AlphaOrder:
    """α for a first-order part and 1 − α for a zeroth-order one (AoBG), in this order.

    With variances v1 and v0 per sample (traces), the N samples of a part that weights come from, d
    numbers in a gradient and B = ‖mean first − mean zeroth‖, the zeroth-order mean is closer to its
    expectation than

        ε = √(2 v0 ln((d + 1)/δ) / N) + (2 L / 3N) ln((d + 1)/δ)

    but for a probability δ (empirical Bernstein, for vectors). ᾱ = v0/(v0 + v1 + regulariser) is
    the inverse-variance weight. If ε > γ nothing is known of the bias: α = 0. Else α is ᾱ as long
    as ᾱB ≤ γ − ε, and (γ − ε)/B beyond. Whatever has a weight of its own has a bound of its own.

    Bias: α B stays within γ − ε, so that with confidence 1 − δ the expected mixture is within γ of
    that of the zeroth-order part; γ = ∞ bounds nothing, and is `InverseVariance` exactly with
    regulariser = 0. γ is in units of the gradient and does not transfer between problems or
    parameterisations; with `relative` it is in standard errors √(v0/N) of the zeroth-order mean.
    The published δ = 0.95 is a probability of failure: a bound that holds with 5 % confidence.
    0.05 is what is meant by one that holds with 95 %, and recommended.
    Reference: AoBG (Suh et al. 2022) section 4. Published batches are independent: `Mixture` with
    `batches="separate"`, `Same(2 N)`.
    """

    gamma: float  # largest bias accepted [gradient], or [√(v0/N)] if `relative`
    relative: bool = False
    bound: float = 10.0  # L, assumed on the length of a zeroth-order sample [gradient]
    failure_probability: float = 0.95  # δ, as published; 0.05 gives 95 % confidence [1]
    regulariser: float = 1e-5  # as published [gradient²]

    def __post_init__(self) -> None:
        for name in ("gamma", "bound", "regulariser"):
            value = number(name, getattr(self, name))
            if not value >= 0:
                raise BadValue(f"{name} should be at least 0, got {value:g}; try {name}=1.0")
        if not 0 < number("failure_probability", self.failure_probability) < 1:
            raise BadValue(
                "failure_probability should lie between 0 and 1, "
                f"got {self.failure_probability:g}; try 0.05"
            )

    @property
    def label(self) -> str:
        return "AoBG"

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        if len(parts) != 2:
            raise BadValue(
                f"AlphaOrder mixes two parts, a first-order and a zeroth-order one, got "
                f"{len(parts)}; try Mixture((FOG(), PG()), AlphaOrder(gamma=1.0))"
            )
        if level in ("global", "layer"):  # variances and means of one walk
            each = [leaf_moments(part) for part in parts]
            spread = [totals(part.variance, level) for part in each]
            found = {key: torch.stack([part[key] for part in spread]) for key in spread[0]}
            apart = _apart(each[0].mean, each[1].mean, level)
        else:
            found = variances(parts, level, horizon)
            apart = distances(parts[0], parts[1], level, horizon)
        sizes = _sizes(parts[0], level)
        count = len(parts[1])
        shares = {}
        for key, (first, zeroth) in found.items():
            alpha = self.alpha(first, zeroth, apart[key], count, sizes[key])
            shares[key] = torch.stack([alpha, 1 - alpha])
        return shares

    def radius(self, zeroth: Float[Tensor, "*unit"], count: int, size: int) -> Tensor:
        """ε from v0, the variance of a zeroth-order sample, of N samples of `size` numbers."""
        log = math.log((size + 1) / self.failure_probability)
        return (2 * zeroth * log / count).sqrt() + 2 * self.bound / (3 * count) * log

    def alpha(
        self,
        first: Float[Tensor, "*unit"],
        zeroth: Float[Tensor, "*unit"],
        apart: Float[Tensor, "*unit"],
        count: int,
        size: int,
    ) -> Float[Tensor, "*unit"]:
        """The weight of the first-order part, from v1, v0 and B; 0 where one is not a number."""
        if self.regulariser > 0:
            best = zeroth / (zeroth + first + self.regulariser)
        else:
            best = inverse_variance_shares(torch.stack([first, zeroth]))[0]
        if math.isinf(self.gamma):
            return torch.nan_to_num(best, nan=0.0)
        unit = (zeroth / count).sqrt() if self.relative else 1.0
        room = self.gamma * unit - self.radius(zeroth, count, size)
        within = best * apart <= room
        # where B vanishes there is nothing to bound, and `within` holds
        capped = room / torch.where(apart == 0, 1.0, apart)
        alpha = torch.where(within, best, capped)
        return torch.where((room >= 0) & alpha.isfinite(), alpha, 0.0)


def distances(
    a: GradientSamples, b: GradientSamples, level: Level, horizon: int
) -> dict[str, Float[Tensor, "*unit"]]:
    """‖mean a − mean b‖ of whatever has a weight of its own, in float64."""
    if level == "step":
        assert isinstance(a, Factored) and isinstance(b, Factored)
        pairs = [(a.at_step(t).mean(), b.at_step(t).mean()) for t in range(horizon)]
        return {"": torch.stack([_apart(*pair, level)[""] for pair in pairs])}
    if level == "output":
        return {"": (by_output(a, horizon).mean(0) - by_output(b, horizon).mean(0)).abs()}
    return _apart(a.mean(), b.mean(), level)


def _apart(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], level: Level
) -> dict[str, Float[Tensor, "*unit"]]:
    gaps = {name: a[name].double() - b[name].double() for name in a}
    if level == "parameter":
        return {name: gap.abs() for name, gap in gaps.items()}
    squares: dict[str, Tensor] = {}
    for name, gap in gaps.items():
        key = _key(name, level)
        squares[key] = squares.get(key, 0) + gap.square().sum()
    return {key: square.sqrt() for key, square in squares.items()}


def _sizes(samples: GradientSamples, level: Level) -> dict[str, int]:
    """d, how many numbers have a weight together."""
    if level == "output":
        return {"": 1}
    sizes: dict[str, int] = {}
    for name, value in samples.rows(0, 1).per_sample().items():
        key = name if level == "parameter" else _key(name, level)
        sizes[key] = 1 if level == "parameter" else sizes.get(key, 0) + value.numel()
    return sizes


def _key(name: str, level: Level) -> str:
    return layer_of(name) if level == "layer" else ""
