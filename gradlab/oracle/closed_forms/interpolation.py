"""Fast evaluation of tabulated functions of time and one coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

DEGREE = 9  # with cells a third of the function's length scale, interpolation errs by 1e-14


class PiecewisePolynomial(NamedTuple):
    """f_t(x) on equal cells of an interval, constant beyond its ends; differentiable in x."""

    low: float
    width: float  # of one cell
    coefficients: Float[Tensor, "times cells powers"]  # in the cell's coordinate, −1..1

    def __call__(self, x: Float[Tensor, "*batch"], step: Int[Tensor, "*batch"]) -> Tensor:
        cells = self.coefficients.shape[1]
        place = ((x - self.low) / self.width).clamp(0, cells)
        cell = place.detach().floor().clamp(max=cells - 1)
        local = 2 * (place - cell) - 1
        powers = self.coefficients.to(x)[step, cell.long()]
        value = powers[..., DEGREE]
        for k in range(DEGREE - 1, -1, -1):
            value = value * local + powers[..., k]
        return value


def interpolate(
    functions: list[Callable[[Tensor], Tensor]], low: float, high: float, scale: float
) -> PiecewisePolynomial:
    """Interpolants of smooth functions with a length scale, one per time, on [low, high]."""
    cells = max(1, math.ceil(3 * (high - low) / scale))
    width = (high - low) / cells
    angles = (2 * torch.arange(DEGREE + 1, dtype=torch.float64) + 1) * math.pi / (2 * DEGREE + 2)
    nodes = torch.cos(angles)
    x = low + width * (torch.arange(cells, dtype=torch.float64)[:, None] + 0.5 * (nodes + 1))
    basis = nodes[:, None] ** torch.arange(DEGREE + 1, dtype=torch.float64)
    values = torch.stack([function(x) for function in functions])
    return PiecewisePolynomial(low, width, torch.linalg.solve(basis, values[..., None])[..., 0])
