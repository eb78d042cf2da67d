"""One policy with many parameters at once: points of a plane, seeds of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.policies.networks import Buffers, Params
from gradlab.policies.policy import Policy


@dataclass(frozen=True)
class StackedPolicy(Policy):
    """The policy inside with parameters [points, *shape] at observations [points, N, no].

    Only its calls are mapped over points; what they feed sees more episodes.
    """

    inner: Policy

    def __post_init__(self) -> None:
        for name in ("observation_dim", "action_dim", "network", "head"):
            object.__setattr__(self, name, getattr(self.inner, name))

    def sized(self, observation_dim: int, action_dim: int) -> StackedPolicy:
        return StackedPolicy(self.inner.sized(observation_dim, action_dim))

    def settings(self) -> dict[str, Any]:
        return {"kind": "stacked", "inner": self.inner.settings()}

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "points N no"],
        carry: Float[Tensor, "points N nc"] | None,
    ) -> tuple[Float[Tensor, "points N nz"], Float[Tensor, "points N nc"] | None]:
        """z and the next carry of every point."""
        at = 0 if carry is not None else None

        def one(params: Params, obs: Tensor, carry: Tensor | None) -> tuple[Tensor, ...]:
            z, after = self.inner.apply(params, buffers, obs, carry)
            return (z,) if after is None else (z, after)

        z, *after = torch.func.vmap(one, in_dims=(0, 0, at))(params, obs, carry)
        return z, after[0] if after else None

    def latent(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch nu"]:
        return self.inner.latent(z, eps)

    def action(self, latent: Float[Tensor, "*batch nu"]) -> Float[Tensor, "*batch nu"]:
        return self.inner.action(latent)

    def log_prob(
        self, z: Float[Tensor, "*batch nz"], latent: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        return self.inner.log_prob(z, latent)

    def log_prob_held(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        return self.inner.log_prob_held(z, eps)

    def log_prob_action(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        return self.inner.log_prob_action(z, eps)
