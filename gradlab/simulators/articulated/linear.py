"""Small positive definite systems, many at once, with a cheap backward pass.

Differentiating a Cholesky factorisation costs several triangular solves and products; the solution
needs one more solve with the factor at hand: with A x = b and a cotangent v of x, w = A⁻¹v is that
of b and −w x' that of A.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def factor(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Lower Cholesky factor as a constant, for `solve`; NaN where there is none."""
    root, failed = torch.linalg.cholesky_ex(matrix.detach())
    return torch.where(failed[..., None, None] > 0, torch.nan, root)


def solve(
    matrix: Float[Tensor, "*batch n n"],
    root: Float[Tensor, "*batch n n"],
    right: Float[Tensor, "*batch n"],
) -> Float[Tensor, "*batch n"]:
    """x with matrix x = right, given the factor of the matrix;
    differentiable in matrix and right.
    """
    return _Solve.apply(matrix, root, right)


def times(
    matrix: Float[Tensor, "*batch m n"], x: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch m"]:
    """A x."""
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


class _Solve(torch.autograd.Function):
    """A⁻¹b; the factor is a constant that follows from A."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, root: Tensor, right: Tensor) -> Tensor:
        return torch.cholesky_solve(right.unsqueeze(-1), root).squeeze(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        matrix, root, _ = inputs
        ctx.save_for_backward(matrix, root, output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, Tensor]:
        matrix, root, solution = ctx.saved_tensors
        right = solve(matrix, root, grad[0])
        return -right.unsqueeze(-1) * solution.unsqueeze(-2), None, right
