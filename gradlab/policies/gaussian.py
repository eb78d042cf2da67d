"""Gaussian policies, bound policies and the factors of their gradients.

A policy maps an observation to an output z = (mean, log std) of a Gaussian latent u; the executed
action is tanh(u) or u itself. Parameters enter an episode only through z, which is what makes the
pullback engine possible: see `gradlab/gradients/engines.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.foundation.arguments import (
    check_device,
    check_dtype,
    check_generator,
    check_params,
    got,
    number,
    whole,
)
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.memo import Memo
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.policies.factors import Call, Factors, LinearFactor, Probes

ACTIVATIONS = {"elu": F.elu, "tanh": torch.tanh, "silu": F.silu, "relu": F.relu}


@dataclass(frozen=True)
class GaussianPolicy:
    """A Gaussian policy whose mean (and log std) is a multilayer perceptron of the observation.

    `std="state"` makes the log std a second half of the network's output, bounded smoothly to
    `log_std_range`; `"global"` is one learned vector; a number is a fixed standard deviation.
    `squash` applies tanh to the latent (ABPT eq. 11). `hidden=()` is a linear policy.
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

    def __post_init__(self) -> None:
        for name in ("observation_dim", "action_dim"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str):
            raise BadValue(
                f"hidden should be the sizes of the layers, got {got(self.hidden)}; "
                "try hidden=(64, 64), or hidden=() for a linear policy"
            )
        sizes = tuple(whole("a size in hidden", size) for size in self.hidden)
        object.__setattr__(self, "hidden", sizes)
        if self.activation not in ACTIVATIONS:
            raise BadValue(
                f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}"
            )
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

    def sized(self, observation_dim: int, action_dim: int) -> GaussianPolicy:
        """This policy, or a copy with these sizes where it has none."""
        sizes = self.observation_dim or observation_dim, self.action_dim or action_dim
        if sizes == (self.observation_dim, self.action_dim):
            return self
        return replace(self, observation_dim=sizes[0], action_dim=sizes[1])

    @property
    def output_dim(self) -> int:
        """Length of z: mean and log std [2·nu]."""
        return 2 * self.action_dim

    @property
    def _layers(self) -> list[tuple[str, int, int]]:
        head = self.action_dim * (2 if self.std == "state" else 1)
        sizes = [self.observation_dim, *self.hidden, head]
        return [(f"layers.{i}", a, b) for i, (a, b) in enumerate(itertools.pairwise(sizes))]

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
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, size_in, size_out in self._layers:
            shapes[f"{name}.weight"] = (size_out, size_in)
            if self.bias:
                shapes[f"{name}.bias"] = (size_out,)
        if self.std == "global":
            shapes["log_std"] = (self.action_dim,)
        return shapes

    def init(
        self,
        generator: torch.Generator,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Fresh parameters: weights N(0, 1/fan-in), zero biases.

        The first layer's weights are multiplied by `input_gain`, the last one's by `head_gain`.

        Drawn in float64 on the CPU and then cast, so that every dtype starts from the same numbers.
        """
        check_generator(generator)
        check_dtype(dtype)
        check_device(device)
        if not (self.observation_dim and self.action_dim):
            raise BadValue(
                "this policy has no sizes yet; use the one of a problem, problem.policy, or "
                "GaussianPolicy(observation_dim, action_dim)"
            )
        params: dict[str, Tensor] = {}
        first, last = self._layers[0][0], self._layers[-1][0]
        for name, shape in self.shapes().items():
            if name.endswith(".weight"):
                gain = self.input_gain if name.startswith(first) else 1.0
                gain *= self.head_gain if name.startswith(last) else 1.0
                value = torch.randn(shape, generator=generator, dtype=torch.float64)
                value = value * (gain / math.sqrt(shape[1]))
            elif name == "log_std":
                value = torch.full(shape, math.log(self.initial_std), dtype=torch.float64)
            else:
                value = torch.zeros(shape, dtype=torch.float64)
            params[name] = value.to(device=device, dtype=dtype)
        return params

    def check(self, params: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
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
        self, params: dict[str, Tensor], obs: Float[Tensor, "*batch no"]
    ) -> Float[Tensor, "*batch nz"]:
        """z = (mean, log std) at an observation."""
        return self._forward(params, obs, None)[0]

    def probes(self, params: dict[str, Tensor], calls: int) -> Probes:
        """Fresh leaves for `probed`. They are expanded, and take no memory."""
        biases: list[Tensor] = []
        for name, _, size in self._layers:
            bias = params.get(f"{name}.bias")
            bias = params[f"{name}.weight"].new_zeros(size) if bias is None else bias.detach()
            biases.append(bias.expand(calls, size).requires_grad_())
        z = biases[0].new_zeros(()).expand(calls, self.output_dim)
        return Probes(tuple(biases), z.requires_grad_())

    def probed(
        self, params: dict[str, Tensor], obs: Float[Tensor, "calls no"], probes: Probes
    ) -> tuple[Float[Tensor, "calls nz"], tuple[Tensor, ...]]:
        """`apply` through the probes, and the inputs of every layer but the first, as constants."""
        z, inputs = self._forward(params, obs, probes.biases)
        return z + probes.z, tuple(hidden.detach() for hidden in inputs[1:])

    def _forward(
        self, params: dict[str, Tensor], obs: Tensor, biases: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """z, and every layer's input."""
        act = ACTIVATIONS[self.activation]
        layers = self._layers
        inputs, out = [obs], obs
        for i, (name, _, _) in enumerate(layers):
            weight = params[f"{name}.weight"]
            if biases is None:
                out = F.linear(inputs[-1], weight, params.get(f"{name}.bias"))
            else:
                out = torch.addmm(biases[i], inputs[-1], weight.mT)
            if i + 1 < len(layers):
                inputs.append(act(out))
        return self._output(params, out), inputs

    def _output(self, params: dict[str, Tensor], head: Tensor) -> Tensor:
        if self.std == "state":
            mean, raw = head.chunk(2, dim=-1)
            low, high = self.log_std_range
            centre = math.atanh(2 * (math.log(self.initial_std) - low) / (high - low) - 1)
            log_std = low + (high - low) * 0.5 * (1 + torch.tanh(raw + centre))
        elif self.std == "global":
            mean, log_std = head, params["log_std"].expand(head.shape)
        else:
            mean, log_std = head, torch.full_like(head, math.log(self.std))
        return torch.cat([mean, log_std], dim=-1)

    def factors(
        self,
        params: dict[str, Tensor],
        obs: Float[Tensor, "N K no"],
        cotangent: Float[Tensor, "N K nz"],
    ) -> Factors:
        """Inputs and cotangents of every layer, by one backward pass through the network."""
        shape = obs.shape[:2]
        with differentiating():
            flat = ordinary(obs).detach().flatten(0, 1)
            fixed = {name: value.detach() for name, value in ordinary(params).items()}
            probes = self.probes(fixed, flat.shape[0])
            z, inputs = self.probed(fixed, flat, probes)
            grads = torch.autograd.grad(z, probes.biases, ordinary(cotangent).flatten(0, 1))
        return self.collect(
            [hidden.unflatten(0, shape) for hidden in (flat, *inputs)],
            [grad.unflatten(0, shape) for grad in grads],
            cotangent,
        )

    def collect(
        self, inputs: list[Tensor], cotangents: list[Tensor], cotangent: Float[Tensor, "N K nz"]
    ) -> Factors:
        """Factors from the inputs and cotangents of every layer [N, K, ·], and that of z."""
        names = [name for name, _, _ in self._layers]
        linear = [LinearFactor(*row) for row in zip(names, inputs, cotangents, strict=True)]
        direct = {"log_std": cotangent[..., self.action_dim :]} if self.std == "global" else {}
        return Factors(linear, direct)

    def latent(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch nu"]:
        """u = mean + std·ε, the reparameterised sample before squashing."""
        mean, log_std = z.chunk(2, dim=-1)
        return mean + log_std.exp() * eps

    def action(self, latent: Float[Tensor, "*batch nu"]) -> Float[Tensor, "*batch nu"]:
        """The executed action of a latent."""
        return torch.tanh(latent) if self.squash else latent

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
        mean, log_std = z.chunk(2, dim=-1)
        scaled = (latent - mean) * torch.exp(-log_std)
        return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def log_prob_held(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density at the latent that ε gives at this very z, held constant:
        ∇ of it is the score.

        The score is ε/std and ε² − 1 at any std; `log_prob` would read ε from latent − mean, which
        a small std rounds away. Raises `BadValue` where a subclass has a density of its own.
        """
        self._check_density("log_prob_held")
        mean, log_std = z.chunk(2, dim=-1)
        held_mean, held_log_std = z.detach().chunk(2, dim=-1)
        scaled = (held_mean - mean) * torch.exp(-log_std) + torch.exp(held_log_std - log_std) * eps
        return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def log_prob_action(
        self, z: Float[Tensor, "*batch nz"], eps: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """Log density of the action that ε gives, moving with z;
        minus it is a sample of the entropy.

        Raises `BadValue` where a subclass has a density of its own.
        """
        self._check_density("log_prob_action")
        log_std = z.chunk(2, dim=-1)[1]
        log_prob = (-0.5 * eps.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        if not self.squash:
            return log_prob
        latent = self.latent(z, eps)
        # log(1 − tanh²u) without cancellation
        jacobian = 2 * (math.log(2) - latent - F.softplus(-2 * latent))
        return log_prob - jacobian.sum(-1)

    def _check_density(self, who: str) -> None:
        """Raise if a subclass changed the latent's law and left `who` as it is here."""
        for name in ("latent", "log_prob"):
            if getattr(type(self), name) is not getattr(GaussianPolicy, name):
                raise BadValue(
                    f"{type(self).__name__} has its own {name}, so {who} of a Gaussian is not its "
                    f"density; override {who} as well"
                )

    def bind(self, params: dict[str, Tensor]) -> BoundPolicy:
        """The policy as a function of the observation alone."""
        return BoundPolicy(self, params)


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


@dataclass(frozen=True)
class BoundPolicy:
    """A policy with its parameters: what a surrogate sees.

    Calling it at observations gives z, and the policy's functions of z are its own. `frozen` is the
    same policy with constant parameters, for critic tails and for rollouts whose gradient is not
    wanted. With a `tape` (the pullback engine) every call goes through probes and is recorded.
    With a `memo` its rollouts are remembered for the others that have the same one.
    """

    policy: GaussianPolicy
    params: dict[str, Tensor]
    tape: list[Call] | None = field(default=None, compare=False)
    memo: Memo | None = field(default=None, compare=False)

    def __call__(
        self, obs: Float[Tensor, "*batch no"], steps: int | Sequence[int] | None = None
    ) -> Float[Tensor, "*batch nz"]:
        """z at the observations; `steps` says which time steps the calls belong to."""
        probes = self.probes(obs)
        if probes is None:
            return self.policy.apply(self.params, obs)
        z, inputs = self.policy.probed(self.constants, obs.flatten(0, -2), probes)
        self.record(obs, inputs, probes, steps)
        return z.unflatten(0, obs.shape[:-1])

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
        return BoundPolicy(self.policy, self.constants, memo=self.memo)

    @cached_property
    def constants(self) -> dict[str, Tensor]:
        """The parameters without a gradient: what recorded calls compute with."""
        return {name: value.detach() for name, value in self.params.items()}

    def probes(self, like: Tensor) -> Probes | None:
        """Probes of a call with the leading shape of `like`, if recording."""
        if self.tape is None:
            return None
        return self.policy.probes(self.constants, math.prod(like.shape[:-1]))

    def record(
        self,
        obs: Tensor,
        inputs: tuple[Tensor, ...],
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
        self.tape.append(Call((obs.detach().flatten(0, -2), *inputs), probes, tuple(steps)))
