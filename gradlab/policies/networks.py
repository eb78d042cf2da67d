"""What a network is: a pure function from observations to what the Gaussian head takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Params = dict[str, Tensor]
Buffers = dict[str, Tensor]


@runtime_checkable
class Network(Protocol):
    """Parameters enter an episode through `apply` alone, which any leading shape may go into.

    It is a value: frozen, hashable, without tensors that change. What is learned is in `params`,
    what is not (statistics of observations) in `buffers`, both dicts of tensors by name.
    """

    @property
    def carry_dim(self) -> int:
        """Numbers that a recurrent network hands to its next call; 0: feed-forward."""
        ...

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str
    ) -> Params:
        """Fresh parameters."""
        ...

    def buffers(self, *, dtype: torch.dtype, device: torch.device | str) -> Buffers:
        """The first buffers; {} for a network without."""
        ...

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "*batch no"],
        carry: Float[Tensor, "*batch nc"] | None,
    ) -> tuple[Float[Tensor, "*batch nh"], Float[Tensor, "*batch nc"] | None]:
        """The head's input and the next carry; a feed-forward network gets None and returns it."""
        ...


@runtime_checkable
class Sized(Protocol):
    """A network that can be made before the sizes of its problem are known (0 until then)."""

    def sized(self, observation_dim: int, output_dim: int) -> Network: ...


@runtime_checkable
class Described(Protocol):
    """A network that can be part of an artefact's identity."""

    def settings(self) -> dict[str, Any]:
        """What it is, as JSON values by name."""
        ...


@lru_cache(maxsize=64)
def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; nothing may write to the dict."""
    params = network.init(
        torch.Generator().manual_seed(0), dtype=torch.float64, device=torch.device("cpu")
    )
    return {name: tuple(value.shape) for name, value in params.items()}
