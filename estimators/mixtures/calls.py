"""Products of parts' gradients by single policy calls, from layer factors and without [N, P].

Letters: k parts, N samples, T steps with a call each. By one call a layer's gradient is an outer
product of its cotangent c and its input x, so that inner products are products of dot products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mixtures.least_error import eigen
from gradlab.foundation.reading import numbers, true
from gradlab.foundation.tensors import positions
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.policies.factors import Factors

CLOSE = 1e-6  # variance over the squared mean below which float32 factors say too little of it [1]
STEP_NUMBERS = 2**19  # products of all samples of some steps in memory at once


def exact(samples: Factored) -> Factored:
    """The same in float64 from the observations on, with layer factors if layers are known.

    Σ‖g_i‖² − N‖ḡ‖² of float32 numbers loses a small spread.
    """
    double = replace(
        samples,
        params={name: value.double() for name, value in samples.params.items()},
        obs=samples.obs.double(),
        cotangent=samples.cotangent.double(),
        known=None,
        buffers={name: _double(value) for name, value in samples.buffers.items()},
    )
    return replace(double, known=double.factors()) if double.layered else double


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def by_step(parts: Sequence[GradientSamples], horizon: int) -> list[Factors] | None:
    """Layer factors of every part in the order of the steps; None unless each has a call a step."""
    found = []
    for part in parts:
        if not isinstance(part, Factored) or not part.layered:
            return None
        places = {step: k for k, step in enumerate(numbers(part.steps))}
        if not len(places) == len(part.steps) == horizon:
            return None
        index, factors = [places[t] for t in range(horizon)], part.factors()
        if index != list(range(horizon)):
            order = positions(index, part.obs)
            factors = factors.map(lambda each, order=order: each[:, order])
        found.append(factors)
    return found


def step_products(
    parts: Sequence[GradientSamples], horizon: int
) -> Float[Tensor, "N T k k"] | None:
    """⟨g_ik − ḡ_k, g_il − ḡ_l⟩ of every sample and step; None unless each part has a call a step.

    From the factors as they are, or from those of float64 where parts vary or differ little.
    """
    factors = by_step(parts, horizon)
    first = parts[0]
    if factors is None or not isinstance(first, Factored):
        return None
    each, squared_mean = centred_products(factors, first.bias)
    if first.obs.dtype == torch.float64 or not _little(each.sum(0) / len(each), squared_mean):
        return each
    factors = by_step([exact(part) for part in parts if isinstance(part, Factored)], horizon)
    assert factors is not None
    return centred_products(factors, first.bias)[0]


def _little(covariance: Float[Tensor, "T k k"], squared_mean: Float[Tensor, "T k"]) -> bool:
    """Whether a part's variance, or that of a combination of parts, is not above rounding."""
    size = covariance.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(size > 0, size, 1.0).rsqrt()
    alike, _ = eigen(torch.nan_to_num(covariance * scale[..., :, None] * scale[..., None, :]))
    return true((size <= CLOSE * squared_mean).any() | (alike[..., 0] <= CLOSE).any())


def centred_products(
    parts: Sequence[Factors], bias: bool
) -> tuple[Float[Tensor, "N T k k"], Float[Tensor, "T k"]]:
    """⟨g_ik − ḡ_k, g_il − ḡ_l⟩ of every sample and step in float64, and about ‖ḡ_k‖²."""
    each: list[Tensor] = []  # [T, N, k, l] of every layer
    squared: list[Tensor] = []
    for layers in zip(*(part.linear for part in parts), strict=True):
        x = [a.input.transpose(0, 1) for a in layers]  # [T, N, in] of each part
        c = [a.cotangent.transpose(0, 1) for a in layers]
        steps = len(x[0])
        size = max(1, STEP_NUMBERS // (len(parts) * x[0].shape[1]) ** 2)
        pieces = []
        for t in range(0, steps, size):
            some = [_Centred.of([row[t : t + size] for row in rows]) for rows in (x, c)]
            pieces.append(_of_layer(some[0], some[1], bias))
        own, square = (torch.cat(column) for column in zip(*pieces, strict=True))
        each.append(own)
        squared.append(square)
    for name in parts[0].direct:
        rows = _Centred.of([part.direct[name].transpose(0, 1) for part in parts])
        each.append(rows.dots())
        squared.append(rows.mean.double().square().sum(-1))
    total = torch.stack(each).sum(0)  # [T, N, k, l]
    return total.transpose(0, 1), torch.stack(squared).sum(0)


class _Centred(NamedTuple):
    """Factors of k parts at T steps as their mean and what is left of each sample."""

    mean: Float[Tensor, "T k d"]
    rest: Float[Tensor, "T k N d"]

    @staticmethod
    def of(parts: Sequence[Float[Tensor, "T N d"]]) -> _Centred:
        steps, count, size = parts[0].shape
        rest = parts[0].new_empty(steps, len(parts), count, size)
        means = []
        for k, rows in enumerate(parts):
            means.append(rows.mean(1))
            apart = torch.sub(rows, means[-1][:, None], out=rest[:, k])
            apart.sub_(apart.mean(1, keepdim=True))  # what the rounding of the mean left
        return _Centred(torch.stack(means, 1), rest)

    def dots(self) -> Float[Tensor, "T N k k"]:
        """Of rest and rest, sample by sample."""
        rows = [(self.rest * self.rest[:, k, None]).sum(-1) for k in range(self.rest.shape[1])]
        return torch.stack(rows, -1).transpose(1, 2).double()

    def gram(self) -> Float[Tensor, "T k N k N"]:
        """Of rest and rest, of all samples."""
        parts, count = self.rest.shape[1:3]
        flat = self.rest.flatten(1, 2)
        return (flat @ flat.mT).unflatten(1, (parts, count)).unflatten(3, (parts, count))

    def with_means(self) -> Float[Tensor, "T k N k"]:
        """Of rest of the first and mean of the second part."""
        flat = self.rest.flatten(1, 2)
        return (flat @ self.mean.mT).unflatten(1, self.rest.shape[1:3])


def _of_layer(
    x: _Centred, c: _Centred, bias: bool
) -> tuple[Float[Tensor, "T N k k"], Float[Tensor, "T k"]]:
    """Centred products of a layer, and the squared length of c̄ ⊗ x̄.

    With x = x̄ + ξ and c = c̄ + γ a gradient is c̄ ⊗ x̄ and y = γ ⊗ x + c̄ ⊗ ξ, whose mean is that of
    γ ⊗ ξ: nothing large cancels in the products of y.
    """
    _, k, count, size_in = x.rest.shape
    size_out = c.rest.shape[-1]
    x_mean, c_mean = x.with_means(), c.with_means()
    if k * count * (size_in + size_out) < (1 + k) * size_in * size_out:
        xx, cc = x.gram(), c.gram()
        # c of k and γ of l, times ξ of both; γ of both, times x̄ of k and ξ of l
        gradient = cc + c_mean.permute(0, 3, 1, 2)[:, :, None]
        gradient.mul_(xx).addcmul_(cc, x_mean.permute(0, 3, 1, 2)[:, :, None])
        with_mean = gradient.sum(-1).double() / count
        xx, cc = (each.diagonal(dim1=2, dim2=4).permute(0, 3, 1, 2).double() for each in (xx, cc))
    else:
        mean = c.rest.mT @ x.rest / count  # of γ ⊗ ξ: [T, l, out, in]
        at_rest, at_mean = (
            part[:, :, None] @ mean.mT[:, None] for part in (x.rest, x.mean[:, :, None])
        )
        gradient = (c.rest + c.mean[:, :, None])[:, :, None] * at_rest
        gradient.addcmul_(c.rest[:, :, None], at_mean)
        with_mean = gradient.sum(-1).transpose(2, 3).double()
        xx, cc = x.dots(), c.dots()
    with_mean = with_mean.transpose(1, 2)  # [T, N, k, l]: y of k and the mean of l
    x_mean, c_mean = x_mean.transpose(1, 2).double(), c_mean.transpose(1, 2).double()
    mean_x, mean_c = (part.mean.double() @ part.mean.mT.double() for part in (x, c))
    at_mean = xx + x_mean.mT  # x of k and ξ of l
    whole = at_mean + x_mean + (mean_x + float(bias))[:, None]
    across = c_mean * at_mean
    own = cc * whole + across + across.mT + mean_c[:, None] * xx
    each = own - with_mean - with_mean.mT + with_mean.mean(1, keepdim=True)
    return each, (mean_c * (mean_x + float(bias))).diagonal(dim1=-2, dim2=-1)
