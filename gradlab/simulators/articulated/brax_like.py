"""The contact of Brax's `generalized` pipeline: MuJoCo's rows, a solver that is stopped early."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.simulators.articulated.constraints import constrained, rows_of
from gradlab.simulators.articulated.contact import Dynamics
from gradlab.simulators.articulated.model import Model


@dataclass(frozen=True)
class BraxLike:
    """The constraints of Brax's `generalized` pipeline,
    unconverged and differentiated through its iterations.

    Rows and weights are those of `Convex` with margins of zero and hard masks; of each joint's two
    limits only the violated one acts. With A = J M⁻¹ J' + R and b = J M⁻¹ (other forces) − r the
    forces minimise ½ ‖A x + b‖² over x >= 0: not MuJoCo's ½ x'A x + b'x, though both have the same
    minimum where A x + b = 0 can be met. Accelerated projected gradients with backtracking (FISTA),
    from x = 0, stopped after `iterations` or at a residual of 1e-3; everything is differentiated
    but the step sizes.
    Source: google/brax, brax/generalized/constraint.py, and jaxopt's ProximalGradient. M⁻¹ is exact
    here, where Brax iterates.

    Non-smooth places: those of `Convex`, and the projection at every iteration.

    Raises `BadValue` for fewer than one iteration or fewer than no halvings of the step.
    """

    iterations: int = 4
    halvings: int = 15  # of the step size in one line search

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.halvings < 0:
            raise BadValue(
                f"BraxLike: expected iterations >= 1 and halvings >= 0, got {self.iterations}, "
                f"{self.halvings}; try BraxLike(4, 15)"
            )

    def check(self, model: Model, dt: float) -> None:
        """Raise `BadValue` for dry friction, which Brax does not have; every step [s] will do."""
        if model.frictions:
            raise BadValue(
                f"BraxLike: {model.name} has dry friction (frictionloss) in {len(model.frictions)} "
                "of its degrees of freedom; expected none, try contact=Convex()"
            )

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        if not constrained(model):
            return torch.zeros_like(now.qvel)
        # no margins, and time constants as they are
        rows = rows_of(model, now._replace(dt=0.0), margins=False)
        exists = rows.weight > 0
        resistance = torch.where(exists, 1 / torch.where(exists, rows.weight, 1.0), 0.0)
        joint = rows.joint.expand(*now.qvel.shape[:-1], *rows.joint.shape)
        jacobian = torch.cat((rows.contact, joint), -2) * exists.unsqueeze(-1)
        root, _ = torch.linalg.cholesky_ex(now.mass)
        right = torch.cat((jacobian.mT, now.smooth.unsqueeze(-1)), -1)
        half = torch.linalg.solve_triangular(root, right, upper=False)
        square = half[..., :-1].mT @ half  # J M⁻¹ (J', forces)
        offset = square[..., -1] - exists * rows.reference
        matrix = square[..., :-1] + torch.diag_embed(resistance)
        push = _projected(matrix, offset, self.iterations, self.halvings)
        return (push.unsqueeze(-2) @ jacobian).squeeze(-2)


def _projected(matrix: Tensor, offset: Tensor, iterations: int, halvings: int) -> Tensor:
    """FISTA on ½ ‖A x + b‖² over x >= 0, as jaxopt 0.8 does it: [*, R]."""
    eps = torch.finfo(offset.dtype).eps
    scales = 0.5 ** torch.arange(halvings + 1, dtype=offset.dtype, device=offset.device)
    x = y = torch.zeros_like(offset)
    size = torch.ones_like(offset[..., :1])
    going = torch.ones_like(offset[..., :1], dtype=torch.bool)
    t = 1.0
    for _ in range(iterations):
        rest = _residual(matrix, y, offset)
        slope = (rest.unsqueeze(-2) @ matrix).squeeze(-2)
        # all steps of the line search at once, as constants; the first that decreases enough
        at, down, a, b = (z.detach() for z in (y, slope, matrix, offset))
        sizes = (size * scales).unsqueeze(-1)
        move = (at.unsqueeze(-2) - sizes * down.unsqueeze(-2)).relu() - at.unsqueeze(-2)
        there = (at.unsqueeze(-2) + move) @ a.mT + b.unsqueeze(-2)
        gain = 0.5 * (there.square().sum(-1) - rest.detach().square().sum(-1, keepdim=True))
        bound = (move * down.unsqueeze(-2)).sum(-1) + 0.5 * move.square().sum(-1) / sizes.squeeze(
            -1
        )
        fine = sizes.squeeze(-1) * (gain - bound) <= eps
        pick = torch.where(fine.any(-1), fine.to(torch.uint8).argmax(-1), halvings)
        taken = sizes.squeeze(-1).gather(-1, pick.unsqueeze(-1))
        following = (y - taken * slope).relu()
        later = 0.5 * (1 + math.sqrt(1 + 4 * t * t))
        ahead = following + (t - 1) / later * (following - x)
        x, y = torch.where(going, following, x), torch.where(going, ahead, y)
        size = torch.where(taken <= 1e-6, 1.0, 2 * taken)
        t = later
        slope = (_residual(a, x.detach(), b).unsqueeze(-2) @ a).squeeze(-2)
        error = torch.linalg.vector_norm(
            (x.detach() - slope).relu() - x.detach(), dim=-1, keepdim=True
        )
        going = going & (error > 1e-3)
    return x


def _residual(matrix: Tensor, x: Tensor, offset: Tensor) -> Tensor:
    return (matrix @ x.unsqueeze(-1)).squeeze(-1) + offset
