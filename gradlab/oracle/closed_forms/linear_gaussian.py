"""Linear Gaussian policies as plain matrices, one copy per call, in float64.

Closed forms treat θ as T separate parameters, θ_k for call k, so that every g_k = ∂J/∂θ_k is known
and ∇J = Σ_k g_k.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.policies.policy import Policy


class LinearGaussian(NamedTuple):
    """A policy N(W o + b, diag(exp(log_std))²) at each of T calls,
    or a gradient with respect to it.
    """

    weight: Float[Tensor, "T nu no"]
    bias: Float[Tensor, "T nu"]
    log_std: Float[Tensor, "T nu"]

    @property
    def std(self) -> Float[Tensor, "T nu"]:
        return self.log_std.exp()

    @property
    def gain(self) -> Float[Tensor, "T nu columns"]:
        """[W b], which acts on the observation with a 1 appended."""
        return torch.cat([self.weight, self.bias[..., None]], dim=-1)


def read(policy: Policy, params: dict[str, Tensor], calls: int) -> LinearGaussian:
    """The policy's parameters repeated for each call, detached, float64 on the CPU.

    Raises `BadValue` unless the policy is a `LinearPolicy`.
    """
    if not isinstance(policy, GaussianPolicy):
        raise BadValue(f"closed forms need a linear policy, got {policy.summary}; try LinearPolicy")
    if policy.hidden or policy.squash or policy.std == "state" or policy.normalise:
        raise BadValue(
            "closed forms need a linear unsquashed policy with fixed or global std, got "
            f"hidden={policy.hidden}, squash={policy.squash}, std={policy.std!r}, "
            f"normalise={policy.normalise}; try LinearPolicy"
        )
    policy.check(params)
    exact = {name: value.detach().to("cpu", torch.float64) for name, value in params.items()}
    nu = policy.action_dim
    weight = exact["layers.0.weight"]
    bias = exact.get("layers.0.bias", torch.zeros(nu, dtype=torch.float64))
    if isinstance(policy.std, str):
        log_std = exact["log_std"]
    else:
        log_std = torch.full((nu,), math.log(policy.std), dtype=torch.float64)
    return LinearGaussian(*(part.expand(calls, *part.shape) for part in (weight, bias, log_std)))


def write(policy: Policy, gradient: LinearGaussian) -> dict[str, Tensor]:
    """The same numbers under the policy's parameter names, only the parameters that it learns."""
    every = {
        "layers.0.weight": gradient.weight,
        "layers.0.bias": gradient.bias,
        "log_std": gradient.log_std,
    }
    return {name: every[name] for name in policy.shapes()}
