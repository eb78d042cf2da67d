"""Rules: from samples of a mixture's parts to their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mixtures.calls import CLOSE, exact
from estimators.mixtures.elementwise import parameter_variances
from estimators.mixtures.weights import Level, layer_of
from gradlab.foundation.reading import numbers, true
from gradlab.foundation.tensors import positions
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.policies.factors import Factors
from gradlab.statistics.rows import all_finite, summed


@runtime_checkable
class Rule(Protocol):
    """How much of each part a mixture takes, found from samples of all parts.

    The weights are [k, ...] by name, as `Weights.values` has them for one block: at level "global"
    {"": [k]}. They must sum to 1 over the k parts, and may be negative.
    """

    @property
    def label(self) -> str:
        """A short name for tables and figures: the mixture is `label(part, part)`."""
        ...

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        """Weights at `level` from each part's samples, as many of one as of another.

        `horizon` is T. `paired` says that the parts ran on the same episodes, sample by sample;
        else each ran on episodes of its own, and parts are independent of each other.
        """
        ...


@dataclass(frozen=True)
class InverseVariance:
    """Weights ∝ 1/σ_k², with the variance over samples of whatever has a weight of its own.

    Parts without variance share all of it equally. It trusts what is quiet: a part that misses a
    hard event is quiet for that reason.
    Reference: AGPO section 3.3; AoBG section 4; PIPPS section 3.
    """

    label: str = "IVW"

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        found = variances(parts, level, horizon)
        return {key: inverse_variance_shares(value) for key, value in found.items()}


def variances(
    parts: Sequence[GradientSamples], level: Level, horizon: int
) -> dict[str, Float[Tensor, "k *unit"]]:
    """Variance over samples of each part, in float64, with names and shapes as weights have them.

    That of a layer, of a step's calls or of everything is the trace of the covariance; that of an
    output is of the gradient by a coordinate of what the policy gives at a step.
    """
    if level == "step":
        return {"": torch.stack([_of_steps(part, horizon) for part in parts])}
    if level == "output":
        return {"": torch.stack([_of_outputs(part, horizon) for part in parts])}
    if level == "parameter":
        each = [parameter_variances(part) for part in parts]
    else:
        each = [totals(leaf_moments(part).variance, level) for part in parts]
    return {key: torch.stack([found[key] for found in each]) for key in each[0]}


def inverse_variance_shares(variance: Float[Tensor, "k *unit"]) -> Float[Tensor, "k *unit"]:
    """1/σ_k² over its sum, along the first dimension.

    Where variances vanish their parts share 1 equally; where one is not a number all k do.
    """
    count = variance.shape[0]
    if count == 2:  # as units may be many
        total = variance[0] + variance[1]
        first = torch.where(total > 0, variance[1] / total, 0.5)
        return torch.stack([first, (1 - first).clamp(min=0)])
    vanishing = (variance == 0).sum(0).to(variance)
    shares: list[Tensor] = []
    for k in range(count - 1):
        # σ_r²/(σ_k² + σ_r²), σ_r² the variance of the best mixture of the others
        rest = _of_best(torch.cat([variance[:k], variance[k + 1 :]]))
        total = variance[k] + rest
        known = total > 0
        equal = torch.where(total == 0, 1.0 / vanishing, 1.0 / count)
        shares.append(torch.where(known, rest / torch.where(known, total, 1.0), equal))
    last = (1 - torch.stack(shares).sum(0)).clamp(min=0)
    return torch.stack([*shares, last])


def _of_best(variance: Float[Tensor, "k *unit"]) -> Float[Tensor, "*unit"]:
    """1/Σ_k 1/σ_k², of numbers of any size; 0 where one of them vanishes."""
    least = variance.amin(0)
    ratio = least / torch.where(variance == 0, 1.0, variance)
    return least / torch.where(variance == 0, 1.0, ratio).sum(0)


class LeafMoments(NamedTuple):
    """Mean and trace of the covariance of samples, of each parameter tensor, in float64."""

    mean: dict[str, Float[Tensor, "*param"]]
    variance: dict[str, Float[Tensor, ""]]


def leaf_moments(samples: GradientSamples) -> LeafMoments:
    """Found without [N, P]: by lengths about the first sample, as far from the mean as any.

    Samples that are all the same have a variance of 0 to the last bit.
    """
    products, first = samples.products(), samples.rows(0, 1).products().mean()
    about = first if all_finite(first.values()) else None
    count, chunk = len(samples), summed(products, 0, about, 1)
    lost = torch.where(chunk.lost.any(), torch.nan, 0.0)
    found = LeafMoments({}, {})
    for (name, deviation), squares in zip(chunk.deviation.items(), chunk.squares, strict=True):
        off = deviation.double().sum(0) / count
        found.mean[name] = chunk.pilot[name].double() + off.reshape(chunk.pilot[name].shape) + lost
        spread = squares.sum() - count * off.square().sum()
        found.variance[name] = spread.clamp(min=0) / (count - 1) + lost
    return found


def totals(found: dict[str, Tensor], level: Level) -> dict[str, Tensor]:
    """Sums over what has a weight of its own, a layer or everything, of numbers of each leaf."""
    sums: dict[str, Tensor] = {}
    for name, variance in found.items():
        key = layer_of(name) if level == "layer" else ""
        sums[key] = sums[key] + variance if key in sums else variance
    return sums


def _of_steps(samples: GradientSamples, horizon: int) -> Float[Tensor, " T"]:
    """Trace of the covariance of each time step's contribution to the gradient, in float64."""
    assert isinstance(samples, Factored)
    count = len(samples)
    order = {step: k for k, step in enumerate(numbers(samples.steps))}
    if samples.layered and len(order) == len(samples.steps) == horizon:
        # one call per step: all steps at once
        index = [order[t] for t in range(horizon)]
        variance, squared_mean = _of_calls(samples.factors(), samples.bias)
        rounded = samples.obs.dtype != torch.float64
        if rounded and true((variance <= CLOSE * squared_mean).any()):
            variance, _ = _of_calls(exact(samples).factors(), samples.bias)
        return variance if index == sorted(index) else variance[positions(index, variance)]
    double = exact(samples)
    out = []
    for t in range(horizon):
        calls = double.at_step(t)
        mean = torch.cat([leaf.flatten() for leaf in calls.mean().values()])
        spread = calls.squared_norms().sum() - count * mean.square().sum()
        out.append(spread.clamp(min=0) / (count - 1))
    return torch.stack(out)


def _of_outputs(samples: GradientSamples, horizon: int) -> Float[Tensor, "T nz"]:
    """Variance of the gradient by each coordinate of what the policy gives at each step."""
    return by_output(samples, horizon).var(0)


def by_output(samples: GradientSamples, horizon: int) -> Float[Tensor, "N T nz"]:
    """The gradient by each coordinate of what the policy gives at each step, in float64."""
    assert isinstance(samples, Factored)
    given = samples.cotangent.double()
    total = given.new_zeros(len(samples), horizon, given.shape[-1])
    return total.index_add(1, samples.steps, given)


def _of_calls(factors: Factors, bias: bool) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """The variance of every call's gradient, and ‖ḡ_k‖²: a layer's is one outer product.

    Products are of float64, whatever the factors are: the difference of Σ_i‖g_ik‖² and N‖ḡ_k‖²
    loses what these round.
    """
    count = len(factors.linear[0].input)
    square = squared_mean = torch.zeros(
        (), dtype=torch.float64, device=factors.linear[0].input.device
    )
    for _, x, c in factors.map(torch.Tensor.double).linear:
        size_in, size_out = x.shape[2], c.shape[2]
        square = square + (c.square().sum(-1) * (x.square().sum(-1) + bias)).sum(0)
        x, c = x.transpose(0, 1), c.transpose(0, 1)  # [K, N, ·]
        if count * (size_in + size_out) < size_in * size_out:
            mean = ((c @ c.mT) * (x @ x.mT + bias)).sum((1, 2)) / count**2
        else:
            mean = (c.mT @ x / count).square().sum((1, 2)) + bias * c.mean(1).square().sum(-1)
        squared_mean = squared_mean + mean
    for c in factors.direct.values():
        square = square + c.double().square().sum((0, 2))
        squared_mean = squared_mean + c.double().mean(0).square().sum(-1)
    return (square - count * squared_mean).clamp(min=0) / (count - 1), squared_mean
