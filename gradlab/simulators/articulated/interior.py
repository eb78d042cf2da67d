"""An interior-point method for MuJoCo's convex problem:
as many iterations however firm the constraints are.

Newton's method with a line search meets the rows one by one where they are nearly rigid: the step
ends at the next row that starts to act. Here all rows are kept off their corners until the last
iterations:

    M a − f = J'λ,    J a − r + λ/D = s,    λᵢ sᵢ = ν → 0,    λ, s > 0.

Mehrotra's predictor and corrector (S. Mehrotra, On the implementation of a primal-dual interior
point method, SIAM J. Optim. 2, 1992); each iteration is one Cholesky factorisation of M + J' W J.
Dry friction, whose force has two bounds, has two products: J a − r + λ/D = s₁ − s₂ with
(loss + λ) s₁ = (loss − λ) s₂ = ν.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gradlab.simulators.articulated.constraints import Rows
from gradlab.simulators.articulated.linear import factor, solve, times

TO_THE_END = 0.99  # share of the way to the nearest corner
FIRMEST = 1e12  # D Jᵢ M⁻¹ Jᵢ' that leaves four digits of M in M + J' D J in float64
NEGLIGIBLE = 1e-26  # of λ s at the start: nothing is left to gain in float64


class Inner(NamedTuple):
    """An iterate; of dry friction `force` is what is left to the lower, then to the upper bound."""

    a: Tensor  # [*, nv]
    force: Tensor  # [*, R + F], positive
    slack: Tensor  # [*, R + F], positive


class Optimum(NamedTuple):
    """An acceleration and what the rows do there."""

    a: Tensor  # [*, nv] [m/s², rad/s²]
    force: Tensor  # [*, R] [N, N m]
    acting: Tensor  # [*, R]: 1 for rows that act, else 0
    firmest: (
        Tensor  # [*, R]: weights up to which a Cholesky factor of M + J' D J is right [kg, kg m²]
    )


def interior(mass: Tensor, smooth: Tensor, rows: Rows, iterations: int) -> Optimum:
    """The minimiser; a constant. In float64, whatever the dtype: firm rows need its digits."""
    mass, smooth = mass.double(), smooth.double()
    rows = Rows(*(x.double() for x in rows))
    there = _both(rows, rows.weight > 0)
    root = factor(mass)
    now, norm = _start(mass, smooth, rows, rows.weight > 0, root)
    count = there.sum(-1, keepdim=True).clamp(min=1)
    least = NEGLIGIBLE * (now.force * now.slack).amax(-1, keepdim=True)
    for _ in range(iterations):
        now = _improved(now, mass, smooth, rows, there, count, least)
    force = torch.where(rows.weight > 0, _signed(rows, now.force), 0.0)
    # force and slack in like units: one of them is at rounding
    size = _both(rows, norm)
    follows = there & (now.force * size > now.slack / size)
    acting = follows[..., : norm.shape[-1]]
    if rows.loss.shape[-1]:
        first = rows.one_sided
        between = acting[..., first:] & follows[..., norm.shape[-1] :]
        acting = torch.cat((acting[..., :first], between), -1)
    return Optimum(now.a, force, acting.to(force.dtype), FIRMEST / norm.square())


def _both(rows: Rows, x: Tensor) -> Tensor:
    """Of every row [*, R] to every product [*, R + F]: that of dry friction twice."""
    return torch.cat((x, x[..., rows.one_sided :]), -1)


def _signed(rows: Rows, x: Tensor) -> Tensor:
    """λ [*, R] of the distances to its bounds [*, R + F]."""
    first = rows.one_sided
    if not rows.loss.shape[-1]:
        return x
    return torch.cat((x[..., :first], x[..., first : rows.weight.shape[-1]] - rows.loss), -1)


def _joined(rows: Rows, x: Tensor, sign: float) -> Tensor:
    """Of every product [*, R + F] to every row: the second of dry friction added, by a sign."""
    if not rows.loss.shape[-1]:
        return x
    first, count = rows.one_sided, rows.weight.shape[-1]
    return torch.cat((x[..., :first], x[..., first:count] + sign * x[..., count:]), -1)


def _parted(rows: Rows, push: Tensor) -> Tensor:
    """Change of the distances to both bounds [*, R + F] with that of the forces."""
    return torch.cat((push, -push[..., rows.one_sided :]), -1)


def _start(
    mass: Tensor, smooth: Tensor, rows: Rows, there: Tensor, root: Tensor
) -> tuple[Inner, Tensor]:
    """The acceleration without constraints, every row as far off its corner as it may have to go.

    Beside it the norms √(Jᵢ M⁻¹ Jᵢ') of the rows [kg^-½, kg^-½/m].
    """
    joint = rows.joint.expand(*mass.shape[:-2], *rows.joint.shape)
    jacobian = torch.cat(
        (rows.contact.expand(*mass.shape[:-2], *rows.contact.shape[-2:]), joint), -2
    )
    half = torch.linalg.solve_triangular(root, jacobian.mT, upper=False)
    norm = half.square().sum(-2).sqrt()
    norm = torch.where(there & (norm > 0), norm, 1.0)
    a = solve(mass, root, smooth)
    violation = torch.where(there, (rows.along(a) - rows.reference).abs() / norm, 0.0)
    size = violation.amax(-1, keepdim=True).clamp(min=1e-12)
    force, slack = torch.where(there, size / norm, 1.0), torch.where(there, size * norm, 1.0)
    middle = rows.loss.expand(*force.shape[:-1], -1)  # without force, in the middle of the bounds
    force = torch.cat((force[..., : rows.one_sided], middle, middle), -1)
    return Inner(a, force, _both(rows, slack)), norm


def _improved(
    now: Inner,
    mass: Tensor,
    smooth: Tensor,
    rows: Rows,
    there: Tensor,
    count: Tensor,
    least: Tensor,
) -> Inner:
    """One iteration; the same as before where nothing is left to gain,
    or nothing can be in float64.
    """
    a, force, slack = now
    real = rows.weight > 0
    soft = torch.where(real, 1 / torch.where(real, rows.weight, 1.0), 0.0)
    gap = torch.where(there, force * slack, 0.0).sum(-1, keepdim=True) / count
    acted = _signed(rows, force)
    unmet = rows.along(a) - rows.reference + acted * soft - _joined(rows, slack, -1.0)
    firm = torch.where(real, 1 / (soft + _joined(rows, slack / force, 1.0)), 0.0)
    bend, _ = rows.curvature(firm, rows.reference)
    root = factor(mass + bend)
    right = smooth - times(mass, a) + rows.onto(torch.where(real, acted, 0.0))

    def direction(product: Tensor) -> Inner:
        """Of a linear system whose third part is s Δλ + λ Δs = −product."""
        wanted = -_joined(rows, product / force, -1.0) - unmet
        da = solve(mass, root, right + rows.onto(firm * wanted))
        push = _parted(rows, torch.where(real, firm * (wanted - rows.along(da)), 0.0))
        return Inner(da, push, torch.where(there, (-product - slack * push) / force, 0.0))

    step = direction(force * slack)
    share = _to_corner(now, step).clamp(max=1.0)
    product = (force + share * step.force) * (slack + share * step.slack)
    left = torch.where(there, product, 0.0).sum(-1, keepdim=True) / count
    centre = (left / torch.where(gap > 0, gap, 1.0)).clamp(0.0, 1.0) ** 3 * gap
    step = direction(force * slack + step.force * step.slack - centre)
    share = (TO_THE_END * _to_corner(now, step)).clamp(max=1.0)
    useful = (gap > least) & step.a.isfinite().all(-1, keepdim=True)
    return Inner(*(torch.where(useful, x + share * d, x) for x, d in zip(now, step, strict=True)))


def _to_corner(now: Inner, step: Inner) -> Tensor:
    """How many steps until a force or a slack is 0: [*, 1]."""
    ends = [
        torch.where(d < 0, -x / torch.where(d < 0, d, -1.0), torch.inf).amin(-1, keepdim=True)
        for x, d in ((now.force, step.force), (now.slack, step.slack))
    ]
    return torch.minimum(*ends)
