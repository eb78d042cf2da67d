"""The Gaussian head: from a network's output to a distribution of actions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue
from gradlab.policies.networks import Params


@dataclass(frozen=True)
class GaussianHead:
    """z = (mean, log std) of a Gaussian latent u; the executed action is tanh(u), or u itself.

    `std="state"` takes the log std from the second half of the network's output, bounded smoothly
    to `log_std_range`; `"global"` is one learned vector; a number is a fixed standard deviation.
    """

    action_dim: int
    squash: bool = True
    std: Literal["state", "global"] | float = "state"
    initial_std: float = 0.3  # at initialisation, for learned stds [1]
    log_std_range: tuple[float, float] = (-5.0, 1.0)  # for std="state"

    def __post_init__(self) -> None:
        learned = self.std in ("state", "global")
        if not learned and not number("std, if not 'state' or 'global',", self.std) > 0:
            raise BadValue(f"std must be 'state', 'global' or a positive number, got {self.std}")
        if not number("initial_std", self.initial_std) > 0:
            raise BadValue(f"initial_std must be positive, got {self.initial_std}; try 0.3")
        low, high = self.log_std_range
        if self.std == "state" and not low < math.log(self.initial_std) < high:
            raise BadValue(
                f"initial_std={self.initial_std} must lie inside exp{self.log_std_range}"
            )

    @property
    def input_dim(self) -> int:
        """What the network has to give [1]."""
        return self.action_dim * (2 if self.std == "state" else 1)

    @property
    def output_dim(self) -> int:
        """Length of z: mean and log std [2·nu]."""
        return 2 * self.action_dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the head's own parameters."""
        return {"log_std": (self.action_dim,)} if self.std == "global" else {}

    def init(self, *, dtype: torch.dtype, device: torch.device | str) -> Params:
        """The head's own parameters: `initial_std` where the std is one learned vector."""
        return {
            name: torch.full(shape, math.log(self.initial_std), dtype=torch.float64).to(
                device=device, dtype=dtype
            )
            for name, shape in self.shapes().items()
        }

    def output(
        self, params: Params, given: Float[Tensor, "*batch nh"]
    ) -> Float[Tensor, "*batch nz"]:
        """z of the network's output."""
        if self.std == "state":
            mean, raw = given.chunk(2, dim=-1)
            low, high = self.log_std_range
            centre = math.atanh(2 * (math.log(self.initial_std) - low) / (high - low) - 1)
            log_std = low + (high - low) * 0.5 * (1 + torch.tanh(raw + centre))
        elif self.std == "global":
            mean, log_std = given, params["log_std"].expand(given.shape)
        else:
            mean, log_std = given, torch.full_like(given, math.log(self.std))
        return torch.cat([mean, log_std], dim=-1)

    def direct(self, cotangent: Float[Tensor, "N K nz"]) -> dict[str, Float[Tensor, "N K nu"]]:
        """Cotangents of the head's own parameters, call by call."""
        return {name: cotangent[..., self.action_dim :] for name in self.shapes()}

    def latent(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch nu"]:
        """u = mean + std·ε, the reparameterised sample before squashing."""
        mean, log_std = z.chunk(2, dim=-1)
        return mean + log_std.exp() * eps

    def action(self, latent: Float[Tensor, "*batch nu"]) -> Float[Tensor, "*batch nu"]:
        """The executed action of a latent."""
        return torch.tanh(latent) if self.squash else latent

    def log_prob(
        self, z: Float[Tensor, "*batch nz"], latent: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of any latent.

        The tanh's Jacobian does not depend on the parameters, so this has the same score as the
        density of the action.
        """
        mean, log_std = z.chunk(2, dim=-1)
        scaled = (latent - mean) * torch.exp(-log_std)
        return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def log_prob_held(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density at the latent that ε gives at this very z, held constant:
        ∇ of it is the score.

        The score is ε/std and ε² − 1 at any std; `log_prob` would read ε from latent − mean, which
        a small std rounds away.
        """
        mean, log_std = z.chunk(2, dim=-1)
        held_mean, held_log_std = z.detach().chunk(2, dim=-1)
        scaled = (held_mean - mean) * torch.exp(-log_std) + torch.exp(held_log_std - log_std) * eps
        return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def log_prob_action(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of the action that ε gives, moving with z."""
        log_std = z.chunk(2, dim=-1)[1]
        log_prob = (-0.5 * eps.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        if not self.squash:
            return log_prob
        latent = self.latent(z, eps)
        # log(1 − tanh²u) without cancellation
        jacobian = 2 * (math.log(2) - latent - F.softplus(-2 * latent))
        return log_prob - jacobian.sum(-1)
