"""Graphs without a GPU: what a captured run did is done again, on the very same memory.

As in a graph of a GPU, decisions of Python are part of what was captured, inputs are what their
memory holds, outputs are overwritten by the next replay, and nothing may ask for a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradlab.foundation.errors import Unavailable
from tests.helpers.capture import DATA_SHAPES, WAITS


class Recorder(TorchDispatchMode):
    """Operations of a run, the backward pass included, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS | DATA_SHAPES:
            raise Unavailable(f"{name} waits for the device while a graph is captured")
        out = func(*args, **kwargs)
        known = {place(part) for part in _tensors((args, kwargs))}
        fresh = [part for part in _tensors(out) if place(part) not in known]
        self.operations.append((func, args, kwargs, fresh if len(fresh) else []))
        return out


@dataclass
class FakeReplay:
    """Every operation once more; what it makes goes to where it was made when captured."""

    operations: list[tuple[Any, tuple, dict, list[Tensor]]]
    released: bool = False
    count: int = 0

    def replay(self) -> None:
        assert not self.released, "a graph that was released is replayed"
        self.count += 1
        with torch.no_grad():
            for func, args, kwargs, fresh in self.operations:
                known = {place(part) for part in _tensors((args, kwargs))}
                again = [p for p in _tensors(func(*args, **kwargs)) if place(p) not in known]
                if len(again) == len(fresh):  # views of what is there are there already
                    for old, new in zip(fresh, again, strict=True):
                        old.copy_(new)

    def release(self) -> None:
        self.released = True

    def outside(self) -> set[int]:
        """Places of the memory that it reads and does not make."""
        made: set[int] = set()
        found: set[int] = set()
        for func, args, kwargs, fresh in self.operations:
            given = _tensors((args, kwargs))
            if func._schema.name == "aten::lift_fresh" and not given[0].ndim:
                made.add(place(given[0]))  # a single number is handed over with the kernel
            found |= {place(part) for part in given} - made
            made |= {place(part) for part in fresh}
        return found - {0}


@dataclass
class FakeBackend:
    """Captures on the CPU, in place of `gradlab.foundation.graphs.Cuda`."""

    compiles: bool = False
    replays: list[FakeReplay] = field(default_factory=list)

    def check(self, device: torch.device) -> None:
        assert device.type == "cpu"

    def warm(self, work: Callable[[], Any]) -> Any:
        return work()

    def capture(self, work: Callable[[], Any]) -> tuple[Any, FakeReplay]:
        with Recorder() as recorder:
            output = work()
        self.replays.append(FakeReplay(recorder.operations))
        return output, self.replays[-1]


def _tensors(tree: Any) -> list[Tensor]:
    return [part for part in tree_leaves(tree) if isinstance(part, Tensor)]


def place(part: Tensor) -> int:
    return part.untyped_storage().data_ptr()
