"""Networks that see standardised observations; the statistics are buffers, passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.policies.factors import Factors
from gradlab.policies.networks import Buffers, Described, Network, Params, Sized
from gradlab.policies.pulls import Layered

LEAST = 1e-5  # variance by which at least a coordinate is divided [its unit²]
MEAN, VARIANCE, COUNT = (f"observation.{name}" for name in ("mean", "variance", "count"))


@dataclass(frozen=True)
class Normalised:
    """The network inside, at (observation − mean)/√variance of its buffers.

    The first buffers are 0 and 1, which changes nothing; `observed` gives those of observations,
    and `problem.replace(buffers=...)` puts them into use. They are constants: no gradient is by
    them.
    """

    network: Network
    observation_dim: int = 0  # 0: that of the problem which the policy is given to

    @property
    def carry_dim(self) -> int:
        """That of the network inside."""
        return self.network.carry_dim

    def sized(self, observation_dim: int, output_dim: int) -> Normalised:
        """A copy for these sizes."""
        inner = self.network
        if isinstance(inner, Sized):
            inner = inner.sized(observation_dim, output_dim)
        return replace(self, network=inner, observation_dim=observation_dim)

    def settings(self) -> dict[str, Any]:
        """What it is, as JSON values by name."""
        if not isinstance(self.network, Described):
            raise BadValue(f"{type(self.network).__name__} has no settings(); give it one")
        return {"kind": "normalised", "network": self.network.settings()}

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str
    ) -> Params:
        """Those of the network inside."""
        return self.network.init(generator, dtype=dtype, device=device)

    def buffers(self, *, dtype: torch.dtype, device: torch.device | str) -> Buffers:
        """A mean of 0 and a variance of 1, of 0 observations; then those of the network inside."""
        like = {"dtype": dtype, "device": device}
        own = {
            MEAN: torch.zeros(self.observation_dim, **like),
            VARIANCE: torch.ones(self.observation_dim, **like),
            COUNT: torch.zeros((), **like),
        }
        return {**own, **self.network.buffers(dtype=dtype, device=device)}

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "*batch no"],
        carry: Float[Tensor, "*batch nc"] | None,
    ) -> tuple[Float[Tensor, "*batch nh"], Float[Tensor, "*batch nc"] | None]:
        """The network inside at the standardised observation."""
        return self.network.apply(params, buffers, standard(buffers, obs), carry)

    # what follows is asked only if the network inside knows its layers

    @property
    def bias(self) -> bool:
        """That of the network inside."""
        return self._layers.bias

    @property
    def _layers(self) -> Layered:
        assert isinstance(self.network, Layered)
        return self.network

    def probes(self, params: Params, calls: int) -> tuple[Tensor, ...]:
        """Those of the network inside."""
        return self._layers.probes(params, calls)

    def probed(
        self, params: Params, buffers: Buffers, obs: Tensor, probes: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Those of the network inside, at the standardised observation."""
        return self._layers.probed(params, buffers, standard(buffers, obs), probes)

    def collect(
        self,
        params: Params,
        buffers: Buffers,
        obs: Tensor,
        recorded: Sequence[Tensor],
        cotangents: Sequence[Tensor],
    ) -> Factors:
        """Those of the network inside: its first layer has seen the standardised observation."""
        inputs = standard(buffers, obs)
        return self._layers.collect(params, buffers, inputs, recorded, cotangents)


def standard(buffers: Buffers, obs: Float[Tensor, "*batch no"]) -> Float[Tensor, "*batch no"]:
    """(observation − mean)/√variance, with a variance of at least `LEAST`."""
    return (obs - buffers[MEAN]) * buffers[VARIANCE].clamp(min=LEAST).rsqrt()


def standardisation(buffers: Buffers) -> str:
    """By which statistics observations are standardised, in words; "" where they are not.

    Parameters that were trained with other statistics are another policy here, and nothing in the
    parameters tells: so it is said wherever a policy is described.
    """
    if MEAN not in buffers:
        return ""
    if not bool(buffers[MEAN].any()) and bool((buffers[VARIANCE] == 1).all()):
        return (
            "observations standardised by the first statistics, mean 0 and variance 1 "
            "(problem.replace(buffers=...) gives others)"
        )
    seen = int(buffers[COUNT])
    whose = f"statistics of {seen:,} observations" if seen else "statistics that were given"
    return f"observations standardised by {whose}"


def observed(buffers: Buffers, obs: Float[Tensor, "*batch no"]) -> Buffers:
    """New buffers: mean and variance of the observations so far and of these, all weighted alike.

    Buffers of a network inside stay. Sums are taken in float64.
    """
    rows = obs.detach().reshape(-1, obs.shape[-1]).double()
    old = {name: buffers[name].double() for name in (MEAN, VARIANCE, COUNT)}
    count = old[COUNT] + len(rows)
    share = len(rows) / count
    gap = rows.mean(0) - old[MEAN]
    within = (1 - share) * old[VARIANCE] + share * rows.var(0, correction=0)
    new = {
        MEAN: old[MEAN] + share * gap,
        VARIANCE: within + share * (1 - share) * gap.square(),
        COUNT: count,
    }
    return {**buffers, **{name: value.to(buffers[name]) for name, value in new.items()}}
