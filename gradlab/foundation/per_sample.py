"""What statistics ask of per-sample gradients that nobody holds in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

TILE_NUMBERS = 2**18  # formed at once: a megabyte of float32, in the cache of one core

Layer = Mapping[str, tuple[int, ...]]  # leaves that are formed together: {leaf: shape}


@runtime_checkable
class PerSample(Protocol):
    """Gradients of N samples, of which some samples of one layer are formed at a time."""

    def __len__(self) -> int: ...

    @property
    def like(self) -> Tensor:
        """Any tensor of the gradients' dtype, on their device."""
        ...

    @property
    def tile_numbers(self) -> int:
        """How many numbers are best formed at once."""
        ...

    def layers(self) -> Sequence[Layer]:
        """The leaves, as they are formed together."""
        ...

    def form(
        self, layer: int, samples: slice, centre: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """g_i (less a centre) of some samples and one layer: {leaf: [n, *param]}."""
        ...

    def mean(self) -> dict[str, Tensor]:
        """The mean over samples: {leaf: [*param]}."""
        ...


@runtime_checkable
class ByColumns(PerSample, Protocol):
    """Gradients of which some rows of a parameter are formed for all samples at once."""

    def columns(self, leaf: str, rows: slice) -> Tensor:
        """[N, rows, *rest] of a parameter [first, *rest], in memory of its own; [N] of one without
        dimensions."""
        ...
