"""Gaussian policies whose network is a perceptron."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from gradlab.foundation.arguments import layer_sizes, whole
from gradlab.policies.head import GaussianHead
from gradlab.policies.identity import subclass_identity
from gradlab.policies.normalised import Normalised
from gradlab.policies.perceptron import Perceptron
from gradlab.policies.policy import Policy
from gradlab.policies.pulls import CallPull, Layered, LayerPull, Pull

OPTIONAL = ("layer_norm", "normalise", "orthogonal")  # settings say so only where they are on


@dataclass(frozen=True)
class GaussianPolicy(Policy):
    """A Gaussian policy whose mean (and log std) is a multilayer perceptron of the observation.

    `std="state"` makes the log std a second half of the network's output, bounded smoothly to
    `log_std_range`; `"global"` is one learned vector; a number is a fixed standard deviation.
    `squash` applies tanh to the latent (ABPT eq. 11). `hidden=()` is a linear policy. `layer_norm`
    normalises each hidden layer after its activation (SHAC). `normalise` standardises observations
    by the problem's buffers, which change nothing until it is given some. `orthogonal` is a
    perceptron's start with orthogonal matrices.
    """

    observation_dim: int = 0  # 0: that of the problem which the policy is given to
    action_dim: int = 0
    hidden: tuple[int, ...] = (64, 64)
    squash: bool = True
    std: Literal["state", "global"] | float = "state"
    initial_std: float = 0.3  # at initialisation, for learned stds [1]
    log_std_range: tuple[float, float] = (-5.0, 1.0)  # for std="state"
    activation: str = "elu"
    bias: bool = True
    head_gain: float = 0.1  # scale of the last layer at initialisation [1]
    input_gain: float = 1.0  # scale of the first layer at initialisation, for small inputs [1]
    layer_norm: bool = False
    normalise: bool = False
    orthogonal: bool = False

    def __post_init__(self) -> None:
        for name in ("observation_dim", "action_dim"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))
        object.__setattr__(self, "hidden", layer_sizes(self.hidden))
        head = GaussianHead(
            self.action_dim, self.squash, self.std, self.initial_std, self.log_std_range
        )
        network = Perceptron(
            self.observation_dim,
            head.input_dim,
            self.hidden,
            self.activation,
            self.bias,
            self.head_gain,
            self.input_gain,
            self.layer_norm,
            self.orthogonal,
        )
        object.__setattr__(self, "head", head)
        normalised = Normalised(network, self.observation_dim) if self.normalise else network
        object.__setattr__(self, "network", normalised)

    def sized(self, observation_dim: int, action_dim: int) -> GaussianPolicy:
        sizes = self.observation_dim or observation_dim, self.action_dim or action_dim
        if sizes == (self.observation_dim, self.action_dim):
            return self
        return replace(self, observation_dim=sizes[0], action_dim=sizes[1])

    @cached_property
    def pull(self) -> Pull:
        """By the layers, unless a subclass calls something else than the perceptron."""
        own = inspect.getattr_static(self, "apply") is not Policy.apply
        network = self.network
        inner = network.network if type(network) is Normalised else network
        if own or type(inner) is not Perceptron or type(self.head) is not GaussianHead:
            return CallPull(self.apply, (self.output_dim, self.carry_dim))
        assert isinstance(network, Layered)
        return LayerPull(network, self.head)

    @property
    def summary(self) -> str:
        sizes = self.observation_dim, *self.hidden, self.action_dim
        return f"{type(self).__name__} {'-'.join(map(str, sizes))}"

    def settings(self) -> dict[str, Any]:
        """What this policy is, as JSON values by name, however the class keeps them.

        The identities of artefacts are taken from it: a file made for these settings stays valid.
        """
        return {
            "kind": "gaussian perceptron",
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "bias": self.bias,
            "head_gain": self.head_gain,
            "input_gain": self.input_gain,
            "squash": self.squash,
            "std": self.std,
            "initial_std": self.initial_std,
            "log_std_range": list(self.log_std_range),
            # only where they are chosen: settings from before they existed stay what they were
            **{name: True for name in OPTIONAL if getattr(self, name)},
            **subclass_identity(self, GaussianPolicy),
        }


def LinearPolicy(
    observation_dim: int,
    action_dim: int,
    std: Literal["global"] | float = 0.1,
    bias: bool = True,
    initial_std: float = 0.1,
) -> GaussianPolicy:
    """An unsquashed Gaussian policy with mean W o + b and a fixed or learned global std."""
    return GaussianPolicy(
        observation_dim,
        action_dim,
        hidden=(),
        squash=False,
        std=std,
        bias=bias,
        initial_std=initial_std,
    )
