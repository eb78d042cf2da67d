"""Value networks: small MLPs as pure functions of a dict of tensors.

    inputs = (observation, flags of one-time events, time to go (T − t)/T [, executed action])
    value  = centre_t + scale_t · MLP((inputs − centre)/scale)

The statistics are parameters too (never trained), so a checkpoint holds everything. Per-time output
statistics leave the network the part that depends on the state, and make the value exactly 0 at T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.foundation.errors import BadValue
from gradlab.policies.perceptron import ACTIVATIONS
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import View

SMOOTH = ("silu", "tanh", "elu")  # ∇_a Q must exist and be continuous
Params = dict[str, Tensor]


def features(view: View, flags: tuple[int, ...], horizon: int) -> Float[Tensor, "*batch nf"]:
    """Observation, the columns `flags` of the events that have happened, and (T − t)/T."""
    to_go = ((horizon - view.step) / horizon)[..., None]
    return torch.cat([view.obs, view.events[..., list(flags)], to_go], dim=-1)


@dataclass(frozen=True)
class ValueNetwork:
    """One value function of a finite horizon: a Q or a V, single or twin.

    `inputs` counts features (and the action, for a Q). With `members=2` two networks are fitted
    side by side and their values reduced by "min" or "mean".
    """

    inputs: int
    horizon: int  # T [steps]
    hidden: tuple[int, ...] = (128, 128)
    members: int = 1
    reduction: Literal["min", "mean"] = "min"
    activation: str = "silu"

    def __post_init__(self) -> None:
        if self.activation not in SMOOTH:
            raise BadValue(
                f"a critic's activation must be smooth, got {self.activation!r}; try one of {SMOOTH}"
            )
        if self.reduction not in ("min", "mean"):
            raise BadValue(f"reduction must be 'min' or 'mean', got {self.reduction!r}")

    @property
    def _layers(self) -> list[tuple[str, int, int]]:
        sizes = [self.inputs, *self.hidden, 1]
        return [(f"layers.{i}", a, b) for i, (a, b) in enumerate(pairwise(sizes))]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, statistics included."""
        shapes: dict[str, tuple[int, ...]] = {
            "input.centre": (self.inputs,),
            "input.scale": (self.inputs,),
            "output.centre": (self.horizon + 1,),
            "output.scale": (self.horizon + 1,),
        }
        for member in range(self.members):
            for name, size_in, size_out in self._layers:
                shapes[f"members.{member}.{name}.weight"] = (size_out, size_in)
                shapes[f"members.{member}.{name}.bias"] = (size_out,)
        return shapes

    def init(
        self,
        generator: torch.Generator,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Params:
        """Fresh parameters: He-scaled normal weights, a last layer ten times smaller, zero biases.

        Statistics are centre 0 and scale 1, and 0 at T. Drawn in float64 on the CPU, then cast.
        """
        params: Params = {}
        last = self._layers[-1][0]
        for name, shape in self.shapes().items():
            if name.endswith(".weight"):
                gain = 0.1 if f".{last}." in name else math.sqrt(2)
                value = torch.randn(shape, generator=generator, dtype=torch.float64)
                value = value * (gain / math.sqrt(shape[1]))
            elif name.endswith(".scale"):
                value = torch.ones(shape, dtype=torch.float64)
                if name == "output.scale":
                    value[-1] = 0.0
            else:
                value = torch.zeros(shape, dtype=torch.float64)
            params[name] = value.to(device=device, dtype=dtype)
        return params

    def is_trained(self, name: str) -> bool:
        """Whether gradient descent changes this parameter (statistics stay as they are)."""
        return name.startswith("members.")

    def each(
        self, params: Params, inputs: Float[Tensor, "*batch ni"], step: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch members"]:
        """Every member's value at time `step` of 0..T."""
        standard = (inputs - params["input.centre"]) / params["input.scale"]
        values = torch.cat([self._member(params, i, standard) for i in range(self.members)], dim=-1)
        # an embedding is an index that also works for a single step under vmap
        table = torch.stack([params["output.centre"], params["output.scale"]], dim=-1)
        centre, scale = F.embedding(step.long(), table).unbind(-1)
        return centre[..., None] + scale[..., None] * values

    def apply(
        self, params: Params, inputs: Float[Tensor, "*batch ni"], step: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """The value: its members reduced to one."""
        values = self.each(params, inputs, step)
        return values.amin(-1) if self.reduction == "min" else values.mean(-1)

    def _member(self, params: Params, member: int, standard: Tensor) -> Tensor:
        act = ACTIVATIONS[self.activation]
        hidden = standard
        layers = self._layers
        for i, (name, _, _) in enumerate(layers):
            prefix = f"members.{member}.{name}"
            hidden = F.linear(hidden, params[f"{prefix}.weight"], params[f"{prefix}.bias"])
            if i + 1 < len(layers):
                hidden = act(hidden)
        return hidden


def expected_value(
    q: Callable[[View, Tensor], Tensor], policy: BoundPolicy, eps: Float[Tensor, "M nu"]
) -> Callable[[View], Tensor]:
    """V(s) = E_a Q(s, a) over M fixed standard normal draws (ABPT eq. 15 with κ = 0).

    The policy's parameters are constants; its dependence on the observation is not.
    """
    frozen = policy.frozen

    def v(view: View) -> Float[Tensor, "*batch"]:
        axis, lead = view.step.dim(), (*view.step.shape, len(eps))
        many = View(*(p.unsqueeze(axis).expand(*lead, *p.shape[axis:]) for p in view))
        latent = frozen.policy.latent(frozen(many.obs), eps.expand(*lead, eps.shape[-1]))
        return q(many, frozen.policy.action(latent)).mean(-1)

    return v
