"""Finds on a CPU what a GPU would wait for: host numbers, shapes that depend on data, copies."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

ROOT = Path(__file__).parents[2]
PACKAGES = ("gradlab/", "estimators/")
# the second line: on a GPU each asks within itself whether it came out well
WAITS = {
    "_local_scalar_dense", "item", "equal", "is_nonzero", "allclose",
    "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq", "linalg_pinv",
    "linalg_matrix_exp",
}  # fmt: skip
DATA_SHAPES = {
    "nonzero", "nonzero_numpy", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive",
    "repeat_interleave",
}  # fmt: skip
FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor}
ON_HOST = {
    torch.ones, torch.zeros, torch.full, torch.empty, torch.arange, torch.linspace, torch.eye,
    torch.rand, torch.randn, torch.randint,
}  # fmt: skip
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.cpu}


class Found(NamedTuple):
    """Something that a GPU would wait for, or that a captured graph could not have."""

    what: str
    file: str
    function: str


class _Calls(TorchFunctionMode):
    """What Python calls: a tensor made of host numbers, a list as an index, a tensor to the host.

    A tensor that is made without saying where is one of the host: it may not meet another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[Found] = set()
        self.host = WeakTensorKeyDictionary()

    def hit(self, what: str) -> None:
        frame = sys._getframe()
        while frame is not None:
            name = _place(frame.f_code.co_filename)
            if name.startswith(PACKAGES):
                self.found.add(Found(what, name, frame.f_code.co_name))
                return
            frame = frame.f_back

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if func in ON_HOST:
            if kwargs.get("device") is None:
                self.host[out] = True
            return out
        if func in FROM_DATA or func in TO_HOST:
            self.hit(name)
        elif func in INDEXING:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list | tuple) or _is_mask(part) for part in index):
                self.hit("a list or a mask as an index")
        self._meet(name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)], out)
        return out

    def _meet(self, name: str, given: list[Tensor], out: Any) -> None:
        host = [x for x in given if x in self.host]
        if not host:
            return
        if len(host) == len(given):
            for part in tree_leaves(out):
                if isinstance(part, Tensor):
                    self.host[part] = True
        elif any(x.ndim for x in host):  # a single number is handed over with the kernel
            self.hit(f"a tensor of the host in {name}")


class _Operations(TorchDispatchMode):
    """What it comes to, the backward pass included."""

    def __init__(self, hit: Callable[[str], None]) -> None:
        super().__init__()
        self.hit = hit

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS or name in DATA_SHAPES:
            self.hit(name)
        return func(*args, **(kwargs or {}))


@functools.cache
def _place(file: str) -> str:
    """A file of the repository from its root; of others their name."""
    path = Path(file)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _is_mask(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dtype == torch.bool


@contextmanager
def watched():
    """The set of what is found inside, by file and function of the packages."""
    calls = _Calls()
    with calls, _Operations(calls.hit):
        yield calls.found
