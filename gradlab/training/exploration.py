"""What keeps a policy exploring, and what keeps it near: its entropy, and its divergence from what
it was before.

Both are sums over the steps of a segment in which an episode is alive, beside its return.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadValue
from gradlab.policies.policy import BoundPolicy
from gradlab.training.optimiser import Adam, Tensors
from gradlab.training.schedule import Schedule, at


@runtime_checkable
class Soft(Protocol):
    """An estimator with an entropy bonus of its own; a frozen dataclass."""

    @property
    def entropy(self) -> float:
        """κ of the bonus [reward/nat]."""
        ...


@dataclass(frozen=True)
class Temperature:
    """A coefficient κ that follows the entropy H: after each update log κ goes down by H − H̄.

    So κ grows while the policy varies less than the target H̄ (SAC's rule, by its own Adam).
    """

    initial: float = 1.0  # κ at first [reward/nat]
    optimiser: Adam = field(default_factory=lambda: Adam(5e-3))

    def __post_init__(self) -> None:
        if not number("initial", self.initial) > 0:
            raise BadValue(f"initial should be positive, got {self.initial}; try 1.0")

    def init(self) -> tuple[Tensors, Tensors]:
        """log κ and the memory of its optimiser; both stay on the CPU."""
        first = {"log": torch.tensor(self.initial, dtype=torch.float64).log()}
        return first, self.optimiser.init(first)


@dataclass(frozen=True)
class Entropy:
    """κ·H of the policy, a sample of H being −log π(a|s) at the noise of the segment.

    `where="bonus"`: Σ_t alive_t κ H(π(·|s_t)) is added to a segment's return with its states as
    constants. Any estimator can have it. It is the gradient of no objective: that an action leads
    to states of more entropy is not seen. `where="estimator"`: κ is the `entropy` of the estimator.
    `FOG` then differentiates Σ γ^t (r_t + κ H_t) through the states as well (SAPO), exact for the
    objective with entropy wherever FOG is for the return; `ABPT`, `NStep` and `QG` have it in their
    values alone, V = Q + κ H (ABPT eq. 15).

    `targets` puts it into the critic's TD(λ): V is then that of r + κ H, and Q that of r now and
    r + κ H later. Without it, an estimator that reads the critic does not see later entropy.
    `normalised` is SAPO's H̃ = (H + |H̄|)/(2 |H̄|), with H̄ = `target` times the number of actions,
    which is also where a `Temperature` leads to.
    """

    coefficient: float | Schedule | Temperature = 0.01  # κ [reward/nat]
    where: Literal["bonus", "estimator"] = "bonus"
    targets: bool = False
    normalised: bool = False
    target: float = -0.5  # H̄ per action: SAPO's; SAC has −1 [nat]

    def __post_init__(self) -> None:
        if self.where not in ("bonus", "estimator"):
            raise BadValue(f"where should be 'bonus' or 'estimator', got {self.where!r}")
        given = self.coefficient
        if not isinstance(given, Schedule | Temperature) and number("coefficient", given) < 0:
            raise BadValue(f"coefficient should be at least 0, got {given}; try 0.01")
        if number("target", self.target) == 0 and self.normalised:
            raise BadValue("a normalised entropy needs a target that is not 0; try target=-0.5")

    def now(self, temperature: Tensors, done: float, actions: int) -> Bonus:
        """What an entropy is worth when the fraction `done` of the training is over."""
        given = self.coefficient
        if isinstance(given, Temperature):
            value = float(temperature["log"].exp())
        else:
            value = at(given, done)
        if not self.normalised:
            return Bonus(value, 0.0)
        return Bonus(value / (2 * abs(self.target) * actions), value / 2)

    def followed(
        self, temperature: Tensors, memory: Tensors, entropy: float, actions: int, done: float
    ) -> tuple[Tensors, Tensors]:
        """log κ and its memory after an update whose policy had this mean entropy [nat]."""
        if not isinstance(self.coefficient, Temperature):
            return temperature, memory
        slope = torch.tensor(entropy - self.target * actions, dtype=torch.float64)
        optimiser = self.coefficient.optimiser
        return optimiser.step(temperature, {"log": slope}, memory, done)[:2]


class Bonus(NamedTuple):
    """slope·H + offset, what an entropy H is worth."""

    slope: float  # [reward/nat]
    offset: float  # [reward]

    def of(
        self, policy: BoundPolicy, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Of a sample of the entropy at the policy's output z, moving with it."""
        return self.offset - self.slope * policy.log_prob_action(z, eps)


@dataclass(frozen=True)
class KLPenalty:
    """−c·Σ_t alive_t KL at the segment's states, constants, between the policy and its past.

    The past is the policy before the last update, with the statistics of observations of now; where
    a segment is used again (`Reuse`), the policy that ran it. `direction="forward"` is
    KL(past‖now), "reverse" KL(now‖past): AGPO does not say which it has. The gradient of either
    pulls back towards the past, and is 0 where nothing has changed.
    """

    coefficient: float = 0.3  # c [reward/nat]
    direction: Literal["forward", "reverse"] = "forward"

    def __post_init__(self) -> None:
        if number("coefficient", self.coefficient) < 0:
            raise BadValue(f"coefficient should be at least 0, got {self.coefficient}; try 0.3")
        if self.direction not in ("forward", "reverse"):
            raise BadValue(f"direction should be 'forward' or 'reverse', got {self.direction!r}")

    def of(
        self, past: Float[Tensor, "*batch nz"], now: Float[Tensor, "*batch nz"]
    ) -> Float[Tensor, "*batch"]:
        """c·KL between two outputs of a Gaussian policy."""
        pair = (past, now) if self.direction == "forward" else (now, past)
        return self.coefficient * divergence(*pair)


def divergence(
    first: Float[Tensor, "*batch nz"], second: Float[Tensor, "*batch nz"]
) -> Float[Tensor, "*batch"]:
    """KL(first‖second) of two Gaussians z = (mean, log std) [nat]; that of their actions, since
    squashing is one to one.
    """
    (mean, log_std), (other, log_other) = first.chunk(2, dim=-1), second.chunk(2, dim=-1)
    moved = ((mean - other) * torch.exp(-log_other)).square()
    ratio = log_std - log_other
    return 0.5 * (torch.expm1(2 * ratio) - 2 * ratio + moved).sum(-1)


def summed(worth: Float[Tensor, "N L"], alive: Bool[Tensor, "N L"]) -> Float[Tensor, ""]:
    """The mean over episodes of sums over the steps in which they are alive."""
    return torch.where(alive, worth, 0.0).sum(-1).mean()
