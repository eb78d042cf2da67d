"""Policies that remember: a gated recurrent unit made of linear layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.foundation.arguments import layer_sizes, whole
from gradlab.foundation.errors import BadValue
from gradlab.policies.composed import NetworkPolicy
from gradlab.policies.networks import Buffers, Network, Params
from gradlab.policies.normalised import Normalised
from gradlab.policies.perceptron import ACTIVATIONS


def RecurrentPolicy(
    carry_dim: int = 64,
    hidden: tuple[int, ...] = (),
    *,
    activation: str = "elu",
    squash: bool = True,
    std: Literal["state", "global"] | float = "state",
    initial_std: float = 0.3,
    log_std_range: tuple[float, float] = (-5.0, 1.0),
    normalise: bool = False,
) -> NetworkPolicy:
    """A Gaussian policy over a `GRU`; the other options are those of `GaussianPolicy`.

    What it remembers begins as zeros and travels in rollouts and `Moment`s (`carry`).
    """
    network: Network = GRU(carry_dim, hidden, activation)
    if normalise:
        network = Normalised(network)
    return NetworkPolicy(
        network, squash=squash, std=std, initial_std=initial_std, log_std_range=log_std_range
    )


@dataclass(frozen=True)
class GRU:
    """Hidden layers, one gated recurrent cell and a linear layer that reads its state.

    The equations are those of `torch.nn.GRUCell` (Cho et al. 2014), whose own code fails under
    `torch.func.vmap`.
    """

    carry_dim: int = 64
    hidden: tuple[int, ...] = ()  # layers before the cell
    activation: str = "elu"
    head_gain: float = 0.1  # scale of the last layer at initialisation [1]
    observation_dim: int = 0  # 0: that of the problem which the policy is given to
    output_dim: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "carry_dim", whole("carry_dim", self.carry_dim))
        object.__setattr__(self, "hidden", layer_sizes(self.hidden))
        if self.activation not in ACTIVATIONS:
            raise BadValue(
                f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}"
            )

    def sized(self, observation_dim: int, output_dim: int) -> GRU:
        """A copy for these sizes."""
        return replace(self, observation_dim=observation_dim, output_dim=output_dim)

    def settings(self) -> dict[str, Any]:
        """What it is, as JSON values by name."""
        return {"kind": "gru", **asdict(self), "hidden": list(self.hidden)}

    def _layers(self) -> Iterator[tuple[str, int, int]]:
        sizes = [self.observation_dim, *self.hidden]
        for i, (size_in, size_out) in enumerate(itertools.pairwise(sizes)):
            yield f"layers.{i}", size_in, size_out
        yield "cell.input", sizes[-1], 3 * self.carry_dim
        yield "cell.carry", self.carry_dim, 3 * self.carry_dim
        yield "head", self.carry_dim, self.output_dim

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str
    ) -> Params:
        """Weights N(0, 1/fan-in), zero biases; drawn in float64 on the CPU and then cast."""
        params: Params = {}
        for name, size_in, size_out in self._layers():
            gain = self.head_gain if name == "head" else 1.0
            weight = torch.randn(size_out, size_in, generator=generator, dtype=torch.float64)
            params[f"{name}.weight"] = weight * (gain / math.sqrt(max(size_in, 1)))
            params[f"{name}.bias"] = torch.zeros(size_out, dtype=torch.float64)
        return {name: value.to(device=device, dtype=dtype) for name, value in params.items()}

    def buffers(self, *, dtype: torch.dtype, device: torch.device | str) -> Buffers:
        """It has none."""
        return {}

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "*batch no"],
        carry: Float[Tensor, "*batch nc"] | None,
    ) -> tuple[Float[Tensor, "*batch nh"], Float[Tensor, "*batch nc"]]:
        """The head's input and the cell's next state."""
        assert carry is not None

        def linear(name: str, value: Tensor) -> Tensor:
            return F.linear(value, params[f"{name}.weight"], params[f"{name}.bias"])

        value = obs
        for i in range(len(self.hidden)):
            value = ACTIVATIONS[self.activation](linear(f"layers.{i}", value))
        reset, update, new = linear("cell.input", value).chunk(3, dim=-1)
        kept_reset, kept_update, kept_new = linear("cell.carry", carry).chunk(3, dim=-1)
        candidate = torch.tanh(new + torch.sigmoid(reset + kept_reset) * kept_new)
        share = torch.sigmoid(update + kept_update)
        after = (1 - share) * candidate + share * carry
        return linear("head", after), after
