"""Gradients in whatever mode the caller is: under `torch.no_grad` and `torch.inference_mode` too.

Tensors made under inference mode can take no part in autograd, now or later, so they are copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def differentiating() -> Iterator[None]:
    """Ordinary autograd, whatever the mode around it."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def ordinary(tensors: Any) -> Any:
    """A tensor, or a dict or (named) tuple of them: the same object,
    or one without inference tensors.
    """
    flat = list(tensors.values()) if isinstance(tensors, Mapping) else tensors
    if isinstance(flat, Tensor):
        return _copied(flat) if flat.is_inference() else tensors
    if not any(part.is_inference() for part in flat):
        return tensors
    if isinstance(tensors, Mapping):
        return {name: ordinary(part) for name, part in tensors.items()}
    parts = [ordinary(part) for part in flat]
    kind = type(tensors)
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)


def _copied(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return tensor.clone()
