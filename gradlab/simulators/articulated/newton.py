"""Newton's method with an exact line search for MuJoCo's convex problem; `convex.py` says which."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradlab.simulators.articulated.constraints import Rows
from gradlab.simulators.articulated.linear import factor, solve, times

PAIRED = 64  # rows up to which a line search over pairs is the faster one (docs/performance.md)


def newton(mass: Tensor, smooth: Tensor, rows: Rows, iterations: int) -> Tensor:
    """The acceleration after so many iterations: [*, nv]."""
    # from the minimiser over the rows that act where nothing accelerates: one iteration less than
    # from that without constraints
    bend, push = rows.derivatives(-rows.reference)
    a = solved(mass + bend, smooth - push)
    slack = rows.along(a) - rows.reference
    pull = times(mass, a) - smooth
    for _ in range(iterations):
        bend, push = rows.derivatives(slack)
        step = solved(mass + bend, -pull - push)
        along, heavy = rows.along(step), times(mass, step)
        curve, slope = (torch.stack((heavy, pull), -2) * step.unsqueeze(-2)).sum(-1).unbind(-1)
        share = searched(rows, curve, slope, slack, along).unsqueeze(-1)
        a, slack, pull = a + share * step, slack + share * along, pull + share * heavy
    return a


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    return solve(matrix, factor(matrix), right)


def searched(rows: Rows, curvature: Tensor, slope: Tensor, slack: Tensor, along: Tensor) -> Tensor:
    """`line_search` over all rows.

    What dry friction costs is piecewise quadratic too: with w = loss/D its derivative is
    D min(x − w, 0) − D min(x + w, 0) + loss, that of two one-sided rows and a slope.
    """
    if not rows.loss.shape[-1]:
        return line_search(curvature, slope, slack, along, rows.weight)
    first = rows.one_sided
    heavy, apart, way = rows.weight[..., first:], slack[..., first:], along[..., first:]
    wide = rows.loss / heavy
    slack = torch.cat((slack[..., :first], apart - wide, apart + wide), -1)
    weight = torch.cat((rows.weight, -heavy), -1)
    slope = slope + (way * rows.loss).sum(-1)
    return line_search(curvature, slope, slack, torch.cat((along, way), -1), weight)


def line_search(
    curvature: Tensor, slope: Tensor, slack: Tensor, along: Tensor, weight: Tensor
) -> Tensor:
    """The minimiser of slope x + ½ curvature x² + ½ Σ D min(slack + x along, 0)², exactly: [*].

    Its derivative is continuous, rises and is linear between the places where a row starts or stops
    acting; the minimum is on the piece after the last place at which the derivative is still
    negative.
    """
    acts = (slack < 0) | ((slack == 0) & (along < 0))
    later = (slack * along < 0) & (weight != 0)  # rows that start or stop acting on the way
    place = torch.where(later, -slack / torch.where(later, along, 1.0), torch.inf).detach()
    line = torch.stack((curvature, slope), -1)
    # rounding differs, the result does not: pairs are fused into one kernel by a compiler, and grow
    # with the square of their number
    piece = _piece_of_pairs if slack.shape[-1] <= PAIRED else _piece_of_sorted
    bend, tilt = piece(line, slack, along, weight, acts, later, place).unbind(-1)
    # a step so small that its square underflows is Newton's own
    large = bend > math.sqrt(torch.finfo(bend.dtype).tiny)
    return torch.where(large, -tilt / torch.where(large, bend, 1.0), 1.0)


def _piece_of_pairs(
    line: Tensor, slack: Tensor, along: Tensor, weight: Tensor,
    acts: Tensor, later: Tensor, place: Tensor,
) -> Tensor:  # fmt: skip
    """Curvature and slope of the piece with the minimum [*, 2]:
    the derivative at every place anew.
    """
    pulled = weight * along
    at = torch.where(later, place, 0.0).unsqueeze(-1)
    pull = pulled.unsqueeze(-2) * (slack.unsqueeze(-2) + at * along.unsqueeze(-2)).clamp(max=0.0)
    falls = (pull.sum(-1) + line[..., :1] * at.squeeze(-1) + line[..., 1:]).detach() < 0
    last = torch.where(later & falls, place, 0.0).amax(-1, keepdim=True)
    weighty = torch.where(acts ^ (later & (place <= last)), pulled, 0.0)
    return line + torch.stack(((weighty * along).sum(-1), (weighty * slack).sum(-1)), -1)


def _piece_of_sorted(
    line: Tensor, slack: Tensor, along: Tensor, weight: Tensor,
    acts: Tensor, later: Tensor, place: Tensor,
) -> Tensor:  # fmt: skip
    """Curvature and slope of the piece with the minimum [*, 2]:
    the places passed in their order.
    """
    place, order = place.sort(-1)
    # curvature and slope of each row, and the sign with which it comes in at its place
    pulled = weight * along
    terms = torch.stack((pulled * along, pulled * slack), -2)
    signs = ((later & ~acts).to(weight) - (later & acts).to(weight)).unsqueeze(-2)
    gains = (terms * signs).gather(-1, order.unsqueeze(-2).expand_as(terms)).cumsum(-1)
    start = (terms * acts.unsqueeze(-2)).sum(-1) + line
    before = start.unsqueeze(-1) + torch.nn.functional.pad(gains, (1, 0))
    # the derivative at the end of each piece; the last one has no end
    falls = before[..., 0, :-1] * place + before[..., 1, :-1] < 0
    piece = falls.sum(-1, keepdim=True).unsqueeze(-2)
    return before.gather(-1, piece.expand(*before.shape[:-1], 1)).squeeze(-1)
