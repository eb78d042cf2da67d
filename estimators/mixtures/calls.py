"""Products of parts' gradients by single policy calls, from layer factors and without [N, P].

Letters: k parts, N samples, T steps with a call each. By one call a layer's gradient is an outer
product, so that inner products of two are products of two dot products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.policies.factors import Factors


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
        order = {step: k for k, step in enumerate(part.steps.tolist())}
        if not len(order) == len(part.steps) == horizon:
            return None
        index = [order[t] for t in range(horizon)]
        found.append(exact(part).factors().map(lambda each, index=index: each[:, index]))
    return found


def centred_products(
    parts: Sequence[Factors], bias: bool, reference: int
) -> tuple[Float[Tensor, "N T k k"], Float[Tensor, "T k k"]]:
    """⟨g_ik − ḡ_k, g_il − ḡ_l⟩ of every sample and step, and of ḡ_k − ḡ_r, r the reference."""
    each: list[Tensor] = []
    apart: list[Tensor] = []
    for layers in zip(*(part.linear for part in parts), strict=True):
        x, c = torch.stack([a.input for a in layers]), torch.stack([a.cotangent for a in layers])
        if bias:  # one more input, which is 1
            x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        x, c = x.transpose(1, 2), c.transpose(1, 2)  # [k, T, N, ...]
        mean = c.mT @ x / x.shape[2]  # [k, T, out, in]
        at_mean = x[:, None] @ mean.mT  # [k, l, T, N, out]: what the mean of l makes of x of k
        with_mean = (c[:, None] * at_mean).sum(-1).permute(3, 2, 0, 1)
        own = _dots(c) * _dots(x)
        flat = mean.flatten(2).transpose(0, 1)
        means = flat @ flat.mT
        each.append(own - with_mean - with_mean.mT + means)
        gap = flat - flat[:, reference : reference + 1]
        apart.append(gap @ gap.mT)
    for name in parts[0].direct:
        c = torch.stack([part.direct[name] for part in parts])  # [k, N, T, size]
        mean = c.mean(1)
        each.append(_dots((c - mean[:, None]).transpose(1, 2)))
        gap = (mean - mean[reference]).transpose(0, 1)
        apart.append(gap @ gap.mT)
    return torch.stack(each).sum(0), torch.stack(apart).sum(0)


def _dots(rows: Float[Tensor, "k T N d"]) -> Float[Tensor, "N T k k"]:
    """Dot products of the parts' rows, sample by sample."""
    each = rows.permute(2, 1, 0, 3)
    return each @ each.mT
