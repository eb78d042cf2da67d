"""A policy: a network and a Gaussian head; bound to parameters, a function of the observation.

The executed action is a function of a Gaussian latent, whose mean and log std z are the policy's
output. Parameters enter an episode only through calls of the policy, which is what makes the
pullback engine possible: see `gradlab/gradients/engines.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import check_device, check_dtype, check_generator, check_params
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.memo import Memo
from gradlab.policies.factors import Call, Probes
from gradlab.policies.head import GaussianHead
from gradlab.policies.networks import Buffers, Network, Params, shapes_of
from gradlab.policies.pulls import CallPull, Pull


class Policy(ABC):
    """A network with a Gaussian head; what is learned and what is remembered are arguments.

    Subclasses say which network and which head; a method that they override (another squashing,
    another law of the latent) counts in every engine.
    """

    observation_dim: int
    action_dim: int
    network: Network
    head: GaussianHead

    @abstractmethod
    def sized(self, observation_dim: int, action_dim: int) -> Policy:
        """This policy, or a copy with these sizes where it has none."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What this policy is, as JSON values by name, however the class keeps them.

        The identities of artefacts are taken from it: a file made for these settings stays valid.
        """

    @property
    def summary(self) -> str:
        """One line for tables."""
        return f"{type(self).__name__} {self.observation_dim}-{self.action_dim}"

    @property
    def output_dim(self) -> int:
        """Length of z: mean and log std [2·nu]."""
        return self.head.output_dim

    @property
    def carry_dim(self) -> int:
        """Numbers that a recurrent policy hands to its next call; 0: feed-forward."""
        return self.network.carry_dim

    @cached_property
    def pull(self) -> Pull:
        """From recorded calls to gradients."""
        return CallPull(self.apply, (self.output_dim, self.carry_dim))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter."""
        return {**shapes_of(self.network), **self.head.shapes()}

    def init(
        self,
        generator: torch.Generator,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Params:
        """Fresh parameters: the network's own, and a std of `initial_std` where one is learned.

        The same numbers in every dtype and on every device.
        """
        check_generator(generator)
        check_dtype(dtype)
        check_device(device)
        if not (self.observation_dim and self.action_dim):
            raise BadValue(
                "this policy has no sizes yet; use the one of a problem, problem.policy, or "
                f"{type(self).__name__}(observation_dim=..., action_dim=...)"
            )
        own = self.network.init(generator, dtype=dtype, device=device)
        return {**own, **self.head.init(dtype=dtype, device=device)}

    def buffers(
        self, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Buffers:
        """The network's first buffers, {} for most; a problem holds those in use."""
        return self.network.buffers(dtype=dtype, device=device)

    def check(self, params: Params, dtype: torch.dtype | None = None) -> None:
        """Raise `BadShape` unless names, shapes (and the dtype, if given) are as they should be."""
        check_params(params)
        expected = self.shapes()
        came = {name: tuple(value.shape) for name, value in params.items()}
        if came != expected:
            names = [n for n in {**expected, **came} if expected.get(n) != came.get(n)]
            first = names[0]
            raise BadShape(
                f"parameters do not fit the policy: {first} should be {expected.get(first, 'absent')}, "
                f"got {came.get(first, 'absent')} ({len(names)} differ); "
                "check hidden sizes and the task's observation"
            )
        for name, value in params.items():
            if dtype is not None and value.dtype != dtype:
                raise BadShape(
                    f"parameters should be {dtype} like the problem, {name} is {value.dtype}; "
                    "try problem.init(generator)"
                )

    def apply(
        self,
        params: Params,
        buffers: Buffers,
        obs: Float[Tensor, "*batch no"],
        carry: Float[Tensor, "*batch nc"] | None,
    ) -> tuple[Float[Tensor, "*batch nz"], Float[Tensor, "*batch nc"] | None]:
        """z = (mean, log std) at an observation, and the next carry (None: feed-forward)."""
        given, after = self.network.apply(params, buffers, obs, carry)
        return self.head.output(params, given), after

    def latent(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch nu"]:
        """u = mean + std·ε, the reparameterised sample before squashing."""
        return self.head.latent(z, eps)

    def action(self, latent: Float[Tensor, "*batch nu"]) -> Float[Tensor, "*batch nu"]:
        """The executed action of a latent."""
        return self.head.action(latent)

    def mean_action(self, z: Float[Tensor, "*batch nz"]) -> Float[Tensor, "*batch nu"]:
        """The executed action of the mean latent, the μ(s) of PG's Q(s, μ(s)) baseline."""
        return self.action(z.chunk(2, dim=-1)[0])

    def log_prob(
        self, z: Float[Tensor, "*batch nz"], latent: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of any latent; for one that was sampled at z, `log_prob_held` is exact.

        The tanh's Jacobian does not depend on the parameters, so this has the same score as the
        density of the action.
        """
        return self.head.log_prob(z, latent)

    def log_prob_held(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density at the latent that ε gives at this very z, held constant:
        ∇ of it is the score.

        The score is ε/std and ε² − 1 at any std; `log_prob` would read ε from latent − mean, which
        a small std rounds away. Raises `BadValue` where a subclass has a density of its own.
        """
        self._check_density("log_prob_held")
        return self.head.log_prob_held(z, eps)

    def log_prob_action(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of the action that ε gives, moving with z;
        minus it is a sample of the entropy.

        Raises `BadValue` where a subclass has a density of its own.
        """
        self._check_density("log_prob_action")
        return self.head.log_prob_action(z, eps)

    def _check_density(self, who: str) -> None:
        """Raise if a subclass changed the latent's law and left `who` as it is here."""
        for name in ("latent", "log_prob"):
            if getattr(type(self), name) is not getattr(Policy, name):
                raise BadValue(
                    f"{type(self).__name__} has its own {name}, so {who} of a Gaussian is not its "
                    f"density; override {who} as well"
                )

    def bind(self, params: Params, buffers: Buffers | None = None) -> BoundPolicy:
        """The policy as a function of the observation alone; by default with its first buffers."""
        if buffers is None:
            like = next(iter(params.values()))
            buffers = self.buffers(dtype=like.dtype, device=like.device)
        return BoundPolicy(self, params, buffers)


@dataclass(frozen=True)
class BoundPolicy:
    """A policy with its parameters and buffers: what a surrogate sees.

    Calling it at observations gives z, and the policy's functions of z are its own. `frozen` is the
    same policy with constant parameters, for critic tails and for rollouts whose gradient is not
    wanted. With a `tape` (the pullback engine) every call goes through probes and is recorded.
    With a `memo` its rollouts are remembered for the others that have the same one.
    """

    policy: Policy
    params: Params
    buffers: Buffers = field(default_factory=dict)
    tape: list[Call] | None = field(default=None, compare=False)
    memo: Memo | None = field(default=None, compare=False)

    def __call__(
        self,
        obs: Float[Tensor, "*batch no"],
        steps: int | Sequence[int] | None = None,
        carry: Float[Tensor, "*batch nc"] | None = None,
    ) -> Float[Tensor, "*batch nz"]:
        """z at the observations; `steps` says which time steps the calls belong to.

        A recurrent policy needs what it remembers at each of them, such as `path.carry`. Raises
        `BadValue` without.
        """
        return self.advance(obs, steps, carry)[0]

    def over(
        self,
        obs: Float[Tensor, "*batch T no"],
        steps: Sequence[int] | None = None,
        carry: Float[Tensor, "*batch nc"] | None = None,
    ) -> Float[Tensor, "*batch T nz"]:
        """z at observations in time: a recurrent policy goes through them one after another.

        It begins with `carry`, by default as at the beginning of an episode. For a feed-forward
        policy this is a call.
        """
        if not self.policy.carry_dim:
            return self(obs, steps)
        if carry is None:
            carry = obs.new_zeros((*obs.shape[:-2], self.policy.carry_dim))
        outputs = []
        for t, now in enumerate(obs.unbind(-2)):
            z, carry = self.advance(now, None if steps is None else steps[t], carry)
            outputs.append(z)
        return torch.stack(outputs, dim=-2)

    def advance(
        self,
        obs: Float[Tensor, "*batch no"],
        steps: int | Sequence[int] | None = None,
        carry: Float[Tensor, "*batch nc"] | None = None,
    ) -> tuple[Float[Tensor, "*batch nz"], Float[Tensor, "*batch nc"] | None]:
        """z as of a call, and the next carry (None: feed-forward)."""
        if not self.policy.carry_dim:
            carry = None
        elif carry is None:
            raise BadValue(
                "what a recurrent policy does depends on what it remembers; try policy.over(obs) "
                "for observations in time, or carry=path.carry[..., :-1, :]"
            )
        probes = self.probes(obs)
        if probes is None:
            return self.policy.apply(self.params, self.buffers, obs, carry)
        flat = obs.flatten(0, -2), None if carry is None else carry.flatten(0, -2)
        pull = self.policy.pull
        z, after, recorded = pull.probed(self.constants, self.buffers, *flat, probes)
        self.record(obs, carry, recorded, probes, steps)
        shape = obs.shape[:-1]
        return z.unflatten(0, shape), None if after is None else after.unflatten(0, shape)

    def latent(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch nu"]:
        """The sampled latent at z; see the policy's `latent`."""
        return self.policy.latent(z, eps)

    def action(self, latent: Float[Tensor, "*batch nu"]) -> Float[Tensor, "*batch nu"]:
        """The executed action of a latent."""
        return self.policy.action(latent)

    def mean_action(self, z: Float[Tensor, "*batch nz"]) -> Float[Tensor, "*batch nu"]:
        """The executed action of the mean latent at z."""
        return self.policy.mean_action(z)

    def log_prob(
        self, z: Float[Tensor, "*batch nz"], latent: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of any latent at z; see the policy's `log_prob`."""
        return self.policy.log_prob(z, latent)

    def log_prob_held(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density at the latent of ε, held constant: its gradient is the score."""
        return self.policy.log_prob_held(z, eps)

    def log_prob_action(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of the action of ε, moving with z: minus it is a sample of the entropy."""
        return self.policy.log_prob_action(z, eps)

    @property
    def frozen(self) -> BoundPolicy:
        """The same policy; its parameters are constants and its calls are not recorded."""
        return BoundPolicy(self.policy, self.constants, self.buffers, memo=self.memo)

    @cached_property
    def constants(self) -> Params:
        """The parameters without a gradient: what recorded calls compute with."""
        return {name: value.detach() for name, value in self.params.items()}

    def probes(self, like: Tensor) -> Probes | None:
        """Probes of a call with the leading shape of `like`, if recording."""
        if self.tape is None:
            return None
        return self.policy.pull.probes(self.constants, math.prod(like.shape[:-1]))

    def record(
        self,
        obs: Float[Tensor, "*batch no"],
        carry: Float[Tensor, "*batch nc"] | None,
        recorded: tuple[Tensor, ...],
        probes: Probes | None,
        steps: int | Sequence[int] | None,
    ) -> None:
        """Remember a call at observations [N, no] or [N, K', no] that went through `probes`."""
        if self.tape is None or probes is None:
            return
        count = math.prod(obs.shape[1:-1])
        if steps is None:
            steps = [-1] * count
        elif isinstance(steps, int):
            steps = [steps]
        if len(steps) != count:
            raise BadShape(
                f"a policy call at {count} observations per sample got {len(steps)} steps"
            )
        inputs = obs.detach() if carry is None else torch.cat([obs, carry], dim=-1).detach()
        self.tape.append(Call((inputs.flatten(0, -2), *recorded), probes, tuple(steps)))
