"""A device that no machine lacks: tensors of the CPU that say they are elsewhere.

Inside `pretended()` the device "meta" has numbers. What would fail on a GPU fails there: a tensor
of the host that meets one of the device, and numpy. Copies from one to the other are as on a GPU,
and so are single numbers and indices of the host, which torch takes along.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from gradlab.foundation import tensors

DEVICE = "meta"
COPIES = {"_to_copy", "copy_", "copy", "index", "index_put_", "index_put", "_index_put_impl_"}


class Elsewhere(Tensor):
    """A tensor with its numbers on the CPU and its name elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Self:
        return Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner.detach()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.inner})"

    def tolist(self) -> Any:  # torch has none for classes of tensors
        return self.inner.tolist()

    def new_tensor(self, data: Any, dtype: Any = None, **more: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=DEVICE, **more)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _There(TorchDispatchMode):
    """What is made there, and what is brought there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in given if isinstance(x, Elsewhere)]
    wanted = kwargs.get("device")
    if not there and (wanted is None or torch.device(wanted).type != DEVICE):
        return func(*args, **kwargs)
    name = func._schema.name.removeprefix("aten::")
    host = [x for x in given if not isinstance(x, Elsewhere) and x.ndim and x.numel()]
    if there and host and name not in COPIES:
        raise RuntimeError(
            f"a tensor of the host {tuple(host[0].shape)} meets one of the device in {name}"
        )
    inner = tree_map_only(Elsewhere, lambda x: x.inner, (args, kwargs))
    if wanted is not None:
        inner[1]["device"] = "cpu"
    out = func(*inner[0], **inner[1])
    if wanted is not None and torch.device(wanted).type != DEVICE:
        return out
    if name == "copy_" and not isinstance(args[0], Elsewhere):
        return args[0]
    wrapped = tree_map_only(Tensor, Elsewhere, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


@contextmanager
def pretended() -> Iterator[None]:
    """Inside, tensors may be put on `DEVICE` and are calculated with."""
    made = {"tensor": torch.tensor, "as_tensor": torch.as_tensor}

    def brought(make: Any) -> Any:
        def maker(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if device is None or torch.device(device).type != DEVICE:
                return make(*args, device=device, **kwargs)
            return make(*args, **kwargs).to(device)

        return maker

    fused = optimizer._get_fused_kernels_supported_devices
    for name, make in made.items():
        setattr(torch, name, brought(make))
    optimizer._get_fused_kernels_supported_devices = lambda: [*fused(), DEVICE]
    _forget_constants()
    try:
        # a compiler knows nothing of the numbers that a "meta" has here
        with torch.compiler.set_stance("force_eager"), _There():
            yield
    finally:
        optimizer._get_fused_kernels_supported_devices = fused
        for name, make in made.items():
            setattr(torch, name, make)
        _forget_constants()


def _forget_constants() -> None:
    """Constants are kept by device, and those of a "meta" without numbers are others."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()  # what is frozen is not among the objects
    for kept in gc.get_objects():
        if type(kept) is functools._lru_cache_wrapper and kept.__module__ == tensors.__name__:
            kept.cache_clear()
    if frozen:
        gc.freeze()
