"""Unit quaternions (w, x, y, z) and the rotations they stand for, body to world.

Every function takes any leading batch shape and is a polynomial of its arguments, so its gradient
is finite everywhere, at the identity and at zero rates in particular.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def multiply(
    left: Float[Tensor, "*batch 4"], right: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4"]:
    """Hamilton product left ⊗ right: the rotation `right` followed by `left`."""
    w, x, y, z = left.unbind(-1)
    s, a, b, c = right.unbind(-1)
    return torch.stack(
        (
            w * s - x * a - y * b - z * c,
            w * a + x * s + y * c - z * b,
            w * b - x * c + y * s + z * a,
            w * c + x * b - y * a + z * s,
        ),
        dim=-1,
    )


def matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrix of a unit quaternion; |q|² times a rotation for any other."""
    w, x, y, z = quaternion.unbind(-1)
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def derivative(
    quaternion: Float[Tensor, "*batch 4"], rates: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4"]:
    """q̇ = ½ q ⊗ (0, ω), with the angular velocity ω in body axes [rad/s]."""
    pure = torch.cat((torch.zeros_like(rates[..., :1]), rates), dim=-1)
    return 0.5 * multiply(quaternion, pure)
