"""Static problems in closed form: gradients, and variances of one sample of FOG and PG.

Decision x = μ + std·ε, ε ~ N(0, 1) in each component. A sample of FOG is f'(x) for the mean and
f'(x)·std·ε for the log std; a sample of PG is (f(x) − baseline)·ε/std and
(f(x) − baseline)(ε² − 1). Heaviside and soft Heaviside need only moments of a truncated Gaussian,
the quadratic only polynomial moments, for which Gauss-Hermite quadrature is exact.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.oracle.closed_forms.quadrature import normal_density, normal_panels
from gradlab.tasks.smoothing import Heaviside, Quadratic, SoftHeaviside
from gradlab.tasks.static import Landscape


class Sensitivity(NamedTuple):
    """Numbers that belong to the policy's mean and to its log std."""

    mean: Float[Tensor, " nu"]
    log_std: Float[Tensor, " nu"]


class StaticMoments(NamedTuple):
    """First and second moments of the estimators on a static problem."""

    value: Float[Tensor, ""]  # J
    gradient: Sensitivity  # ∇J
    fog: Sensitivity  # E[FOG]
    fog_variance: Sensitivity  # of one sample, per component
    pg_variance: Sensitivity  # of one sample, per component, with the given baseline


def truncated_moments(low: Tensor | float, high: Tensor | float, order: int) -> list[Tensor]:
    """∫_low^high ε^k φ(ε) dε for k = 0..order, by m_k = (k−1) m_{k−2} − [ε^{k−1} φ]."""
    low, high = (torch.as_tensor(part, dtype=torch.float64) for part in (low, high))
    moments = [torch.special.ndtr(high) - torch.special.ndtr(low)]
    moments.append(normal_density(low, 0.0, 1.0) - normal_density(high, 0.0, 1.0))
    for k in range(2, order + 1):
        edge = _edge(high, k - 1) - _edge(low, k - 1)
        moments.append((k - 1) * moments[k - 2] - edge)
    return moments[: order + 1]


def heaviside(task: Heaviside, mean: Tensor, std: Tensor, baseline: float = 0.0) -> StaticMoments:
    """bonus·Π_i Φ(z_i), z = (μ − threshold)/std. f² = bonus·f, so second moments are closed too."""
    z = (mean - task.threshold) / std
    chance, density = torch.special.ndtr(z), normal_density(z, 0.0, 1.0)
    others = torch.stack([_product_without(chance, i) for i in range(task.dim)])
    gradient = Sensitivity(task.bonus * others * density / std, -task.bonus * others * z * density)
    # (f − β)² = β² + [(bonus − β)² − β²]·1[success]
    level, gain = baseline**2, (task.bonus - baseline) ** 2 - baseline**2
    above = truncated_moments(-z, torch.full_like(z, math.inf), 4)
    second = Sensitivity(
        (level + gain * others * above[2]) / std.square(),
        2 * level + gain * others * (above[4] - 2 * above[2] + above[0]),
    )
    zero = Sensitivity(torch.zeros_like(mean), torch.zeros_like(mean))
    return StaticMoments(
        task.bonus * chance.prod(), gradient, zero, zero, _variance(second, gradient)
    )


def soft_heaviside(
    task: SoftHeaviside, mean: Tensor, std: Tensor, baseline: float = 0.0
) -> StaticMoments:
    """Pieces −1, 2x/width, +1: polynomials in ε times φ."""
    slope = 2 / task.width
    low, high = (-task.width / 2 - mean[0]) / std[0], (task.width / 2 - mean[0]) / std[0]
    infinite = torch.tensor(math.inf, dtype=torch.float64)
    pieces = [
        ((-1.0, 0.0), truncated_moments(-infinite, low, 6)),
        ((slope * mean[0], slope * std[0]), truncated_moments(low, high, 6)),
        ((1.0, 0.0), truncated_moments(high, infinite, 6)),
    ]
    value = torch.stack([c * m[0] + d * m[1] for (c, d), m in pieces]).sum()
    inside = pieces[1][1]
    gradient = Sensitivity((slope * inside[0])[None], (slope * std[0] * inside[1])[None])
    fog = Sensitivity((slope**2 * inside[0])[None], (slope**2 * std[0].square() * inside[2])[None])
    by_mean, by_log_std = torch.zeros_like(value), torch.zeros_like(value)
    for (c, d), m in pieces:
        # (c + d ε − β)² = square[0] + square[1] ε + square[2] ε²
        square = ((c - baseline) ** 2, 2 * (c - baseline) * d, d**2)
        for k, s in enumerate(square):
            by_mean = by_mean + s * m[k + 2]
            by_log_std = by_log_std + s * (m[k + 4] - 2 * m[k + 2] + m[k])
    second = Sensitivity((by_mean / std[0].square())[None], by_log_std[None])
    return StaticMoments(
        value, gradient, gradient, _variance(fog, gradient), _variance(second, gradient)
    )


def quadratic(task: Quadratic, mean: Tensor, std: Tensor, baseline: float = 0.0) -> StaticMoments:
    """−H(μ − target) and −std² diag H; moments of degree 8 at most,
    so 5 nodes per axis are exact.
    """
    curvature = torch.tensor(task.curvature, dtype=torch.float64)
    curvature = 0.5 * (curvature + curvature.T)
    offset = mean - torch.tensor(task.target, dtype=torch.float64)
    spread = curvature.diagonal() * std.square()
    value = -0.5 * (offset @ curvature @ offset + spread.sum())
    gradient = Sensitivity(-(curvature @ offset), -spread)
    eps, weight = _hermite(len(mean), 5)
    slope = -(offset + std * eps) @ curvature
    f = 0.5 * ((offset + std * eps) * slope).sum(-1, keepdim=True) - baseline
    fog = Sensitivity(weight @ slope.square(), weight @ (slope * std * eps).square())
    second = Sensitivity(
        weight @ (f * eps / std).square(), weight @ (f * (eps.square() - 1)).square()
    )
    return StaticMoments(
        value, gradient, gradient, _variance(fog, gradient), _variance(second, gradient)
    )


def by_quadrature(
    task: Landscape, mean: Tensor, std: Tensor, baseline: float = 0.0
) -> StaticMoments:
    """Any one-dimensional landscape without events, with panels that end at its breakpoints.

    The derivative is the one that autograd finds on each smooth piece, as FOG would.
    """
    low, high = float(mean - 11 * std), float(mean + 11 * std)
    nodes, weights = normal_panels(float(mean), float(std), task.breakpoints(low, high))
    with torch.enable_grad():
        x = nodes[:, None].clone().requires_grad_()
        f = task.reward(x)
        slope = torch.autograd.grad(f.sum(), x)[0][:, 0]
    f = f.detach()
    eps = (nodes - mean) / std
    samples_fog = torch.stack([slope, slope * std * eps], dim=-1)
    scores = torch.stack([eps / std, eps.square() - 1], dim=-1)

    def moment(samples: Tensor) -> Sensitivity:
        return Sensitivity(*(weights @ samples).split(1))

    gradient, fog = moment(f[:, None] * scores), moment(samples_fog)
    second = moment(((f - baseline)[:, None] * scores).square())
    return StaticMoments(
        weights @ f,
        gradient,
        fog,
        _variance(moment(samples_fog.square()), fog),
        _variance(second, gradient),
    )


def _variance(second: Sensitivity, first: Sensitivity) -> Sensitivity:
    return Sensitivity(*(s - m.square() for s, m in zip(second, first, strict=True)))


def _edge(x: Tensor, power: int) -> Tensor:
    """x^power φ(x), 0 at infinity."""
    finite = torch.where(x.isinf(), torch.zeros_like(x), x)
    return torch.where(x.isinf(), 0.0, finite**power * normal_density(finite, 0.0, 1.0))


def _product_without(factors: Tensor, i: int) -> Tensor:
    return torch.cat([factors[:i], factors[i + 1 :]]).prod()


def _hermite(dim: int, order: int) -> tuple[Tensor, Tensor]:
    """Nodes [order^dim, dim] and weights of a standard normal vector."""
    x, w = np.polynomial.hermite_e.hermegauss(order)
    w = w / math.sqrt(2 * math.pi)
    nodes = torch.tensor(list(itertools.product(x, repeat=dim)), dtype=torch.float64)
    weights = torch.tensor(list(itertools.product(w, repeat=dim)), dtype=torch.float64)
    return nodes, weights.prod(-1)
