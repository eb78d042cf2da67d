"""A Gaussian policy over any network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from gradlab.foundation.arguments import got, whole
from gradlab.foundation.errors import BadValue
from gradlab.policies.head import GaussianHead
from gradlab.policies.identity import subclass_identity
from gradlab.policies.networks import Described, Network, Sized
from gradlab.policies.policy import Policy


@dataclass(frozen=True)
class NetworkPolicy(Policy):
    """A Gaussian policy over any `Network`, such as one of your own.

    The head's fields are those of `GaussianPolicy`: the network gives the mean of every action, and
    with `std="state"` its log std behind it. `sizes` may be 0 until a problem gives them.
    """

    network: Network
    observation_dim: int = 0  # 0: that of the problem which the policy is given to
    action_dim: int = 0
    squash: bool = True
    std: Literal["state", "global"] | float = "global"
    initial_std: float = 0.3  # at initialisation, for learned stds [1]
    log_std_range: tuple[float, float] = (-5.0, 1.0)  # for std="state"

    def __post_init__(self) -> None:
        if not isinstance(self.network, Network):
            raise BadValue(
                f"network should be a gradlab.Network, got {got(self.network)}; "
                "try gradlab.ModulePolicy for a torch.nn.Module"
            )
        try:
            hash(self.network)
        except TypeError:
            raise BadValue(
                f"{type(self.network).__name__} should be hashable, a value that does not change; "
                "try @dataclass(frozen=True)"
            ) from None
        for name in ("observation_dim", "action_dim"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))
        head = GaussianHead(
            self.action_dim, self.squash, self.std, self.initial_std, self.log_std_range
        )
        object.__setattr__(self, "head", head)

    def sized(self, observation_dim: int, action_dim: int) -> NetworkPolicy:
        sizes = self.observation_dim or observation_dim, self.action_dim or action_dim
        if sizes == (self.observation_dim, self.action_dim):
            return self
        found = replace(self, observation_dim=sizes[0], action_dim=sizes[1])
        if not isinstance(self.network, Sized):
            return found
        return replace(found, network=self.network.sized(sizes[0], found.head.input_dim))

    def settings(self) -> dict[str, Any]:
        if not isinstance(self.network, Described):
            raise BadValue(
                f"{type(self.network).__name__} does not say what it is; give it a method "
                "settings() that returns JSON values by name"
            )
        return {
            "kind": "gaussian network",
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
            "network": self.network.settings(),
            "squash": self.squash,
            "std": self.std,
            "initial_std": self.initial_std,
            "log_std_range": list(self.log_std_range),
            **subclass_identity(self, NetworkPolicy),
        }

    @property
    def summary(self) -> str:
        return f"{type(self.network).__name__} {self.observation_dim}-{self.action_dim}"
