"""Numbers of a configuration, kept as nested tuples so that configurations are hashable."""

from __future__ import annotations

import torch
from torch import Tensor

Vector = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]


def like(values: Vector | Matrix, tensor: Tensor) -> Tensor:
    """The numbers as a tensor with the dtype and device of another."""
    return torch.tensor(values, dtype=tensor.dtype, device=tensor.device)
