"""The multilayer perceptron: a network whose layers' gradients are known without its own help."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.foundation.errors import BadValue
from gradlab.policies.factors import Factors, LinearFactor
from gradlab.policies.networks import Buffers, Params

ACTIVATIONS = {"elu": F.elu, "tanh": torch.tanh, "silu": F.silu, "relu": F.relu}


@dataclass(frozen=True)
class Perceptron:
    """Linear layers with an activation between them. `hidden=()` is a linear map.

    `layer_norm` normalises each hidden layer after its activation, with a learned gain and shift,
    as SHAC does. `orthogonal` starts with orthogonal matrices instead of normal ones, times √2 in
    hidden layers and `head_gain` in the last, as PPO's usual code does.
    """

    observation_dim: int
    output_dim: int
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "elu"
    bias: bool = True
    head_gain: float = 0.1  # scale of the last layer at initialisation [1]
    input_gain: float = 1.0  # scale of the first layer at initialisation, for small inputs [1]
    layer_norm: bool = False
    orthogonal: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise BadValue(
                f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}"
            )

    @property
    def carry_dim(self) -> int:
        """It remembers nothing."""
        return 0

    @property
    def _layers(self) -> list[tuple[str, int, int]]:
        sizes = [self.observation_dim, *self.hidden, self.output_dim]
        return [(f"layers.{i}", a, b) for i, (a, b) in enumerate(itertools.pairwise(sizes))]

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str
    ) -> Params:
        """Weights N(0, 1/fan-in) or orthogonal, zero biases, gains of 1.

        Drawn in float64 on the CPU and then cast.
        """
        params: Params = {}
        layers = self._layers
        for i, (name, size_in, size_out) in enumerate(layers):
            gain = self.input_gain if i == 0 else 1.0
            gain *= self.head_gain if i + 1 == len(layers) else 1.0
            weight = torch.randn(size_out, size_in, generator=generator, dtype=torch.float64)
            if self.orthogonal:
                gain *= 1.0 if i + 1 == len(layers) else math.sqrt(2.0)
                params[f"{name}.weight"] = gain * _orthogonal(weight)
            else:
                params[f"{name}.weight"] = weight * (gain / math.sqrt(max(size_in, 1)))
            if self.bias:
                params[f"{name}.bias"] = torch.zeros(size_out, dtype=torch.float64)
            if self.layer_norm and i + 1 < len(layers):
                params[f"norms.{i}.weight"] = torch.ones(size_out, dtype=torch.float64)
                params[f"norms.{i}.bias"] = torch.zeros(size_out, dtype=torch.float64)
        return {name: value.to(device=device, dtype=dtype) for name, value in params.items()}

    def buffers(self, *, dtype: torch.dtype, device: torch.device | str) -> Buffers:
        """It has none."""
        return {}

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "*batch no"],
        carry: Tensor | None,
    ) -> tuple[Float[Tensor, "*batch nh"], Tensor | None]:
        """The last layer's output."""
        return self._forward(params, obs, None)[0], carry

    def probes(self, params: Params, calls: int) -> tuple[Float[Tensor, "calls out"], ...]:
        """Fresh leaves for `probed`: every bias, then every norm's shift; expanded, so that they
        take no memory."""
        biases: list[Tensor] = []
        for name, _, size in self._layers:
            bias = params.get(f"{name}.bias")
            bias = params[f"{name}.weight"].new_zeros(size) if bias is None else bias.detach()
            biases.append(bias.expand(calls, size).requires_grad_())
        shifts = [params[name].detach() for name in self._shifts]
        return (*biases, *(shift.expand(calls, len(shift)).requires_grad_() for shift in shifts))

    def probed(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "calls no"],
        probes: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "calls nh"], tuple[Tensor, ...]]:
        """`apply` through the probes; the inputs of every layer but the first, then the hidden
        layers before their norm's gain and shift, as constants."""
        out, inputs, units = self._forward(params, obs, probes)
        return out, tuple(hidden.detach() for hidden in (*inputs[1:], *units))

    def collect(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "N K no"],
        recorded: Sequence[Float[Tensor, "N K hidden"]],
        cotangents: Sequence[Float[Tensor, "N K out"]],
    ) -> Factors:
        """Factors from what `probed` returned and the gradients of the probes."""
        names = [name for name, _, _ in self._layers]
        count = len(names)
        inputs, units = [obs, *recorded[: count - 1]], recorded[count - 1 :]
        linear = [LinearFactor(*row) for row in zip(names, inputs, cotangents[:count], strict=True)]
        direct: dict[str, Tensor] = {}
        for name, unit, cotangent in zip(self._shifts, units, cotangents[count:], strict=True):
            direct[name.replace("bias", "weight")] = cotangent * unit
            direct[name] = cotangent
        return Factors(linear, direct)

    @property
    def _shifts(self) -> list[str]:
        """Names of the norms' shifts."""
        return [f"norms.{i}.bias" for i in range(len(self.hidden))] if self.layer_norm else []

    def _forward(
        self, params: Params, obs: Tensor, probes: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The output, every layer's input, and what gains and shifts of norms act on."""
        act = ACTIVATIONS[self.activation]
        layers = self._layers
        inputs, units, out = [obs], [], obs
        for i, (name, _, _) in enumerate(layers):
            weight = params[f"{name}.weight"]
            if probes is None:
                out = F.linear(inputs[-1], weight, params.get(f"{name}.bias"))
            else:
                out = torch.addmm(probes[i], inputs[-1], weight.mT)
            if i + 1 == len(layers):
                break
            hidden = act(out)
            if self.layer_norm:
                units.append(F.layer_norm(hidden, hidden.shape[-1:]))
                gain = params[f"norms.{i}.weight"]
                shift = params[f"norms.{i}.bias"] if probes is None else probes[len(layers) + i]
                hidden = torch.addcmul(shift, units[-1], gain)
            inputs.append(hidden)
        return out, inputs, units


def _orthogonal(normal: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """Orthonormal rows, or columns where there are fewer, uniformly distributed (Saxe et al. 2014).

    Q of a QR decomposition, with the signs that make its law that of Haar.
    """
    tall = normal if normal.shape[0] >= normal.shape[1] else normal.mT
    q, r = torch.linalg.qr(tall)
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q)
    return q if tall is normal else q.mT.contiguous()
