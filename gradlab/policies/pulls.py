"""From the cotangents of recorded policy calls to gradients of the parameters.

A call maps x = (observation, carry) to y = (z, next carry), and a sample's gradient is
g_i = Σ_k (∂f_θ(x_ik)/∂θ)ᵀ λ_ik. Two ways there: a perceptron's from the inputs and cotangents of
its layers, any other network's by `vmap(vjp)` over the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.per_sample import TILE_NUMBERS, Layer, PerSample
from gradlab.policies.factors import Calls, Factors, Probes
from gradlab.policies.head import GaussianHead
from gradlab.policies.networks import Buffers, Params
from gradlab.policies.products import DENSE_NUMBERS, LayerProducts, layer_inner

Output = tuple[Tensor, Tensor | None]  # z and the next carry


@runtime_checkable
class Pull(Protocol):
    """All that recorded calls ask of a policy: to be recorded, and to become gradients."""

    def probes(self, params: Params, calls: int) -> Probes:
        """Fresh leaves of a batch of calls; expanded, so that they take no memory."""
        ...

    def probed(
        self, params: Params, buffers: Buffers, obs: Tensor, carry: Tensor | None, probes: Probes
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """z and the next carry through the probes, and what `collect` needs beside x."""
        ...

    def collect(
        self,
        params: Params,
        buffers: Buffers,
        recorded: Sequence[Tensor],
        layers: Sequence[Tensor],
        output: Float[Tensor, "N K ny"],
    ) -> Calls:
        """Calls from x with what `probed` recorded, and from the gradients of the probes."""
        ...

    def per_sample(self, params: Params, buffers: Buffers, calls: Calls) -> Params:
        """Every sample's gradient {name: [N, *param]}."""
        ...

    def mean(self, params: Params, buffers: Buffers, calls: Calls) -> Params:
        """The mean over samples {name: [*param]}, without a gradient of one sample."""
        ...

    def products(self, params: Params, buffers: Buffers, calls: Calls) -> PerSample:
        """The same gradients, formed some samples at a time."""
        ...

    def inner(self, params: Params, buffers: Buffers, a: Calls, b: Calls) -> Float[Tensor, " N"]:
        """⟨g_i, h_i⟩ in float64."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A feed-forward network whose parameters are weights, biases and elementwise factors."""

    @property
    def bias(self) -> bool: ...

    def probes(self, params: Params, calls: int) -> tuple[Tensor, ...]: ...

    def probed(
        self, params: Params, buffers: Buffers, obs: Tensor, probes: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]: ...

    def collect(
        self,
        params: Params,
        buffers: Buffers,
        obs: Tensor,
        recorded: Sequence[Tensor],
        cotangents: Sequence[Tensor],
    ) -> Factors: ...


@dataclass(frozen=True)
class LayerPull:
    """The pull of a network whose layers are known: outer products, and Gram matrices of them."""

    network: Layered
    head: GaussianHead

    def probes(self, params: Params, calls: int) -> Probes:
        layers = self.network.probes(params, calls)
        return Probes(layers, _zeros(layers[0], calls, self.head.output_dim))

    def probed(
        self, params: Params, buffers: Buffers, obs: Tensor, carry: Tensor | None, probes: Probes
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        given, recorded = self.network.probed(params, buffers, obs, probes.layers)
        return self.head.output(params, given) + probes.output, carry, recorded

    def collect(
        self,
        params: Params,
        buffers: Buffers,
        recorded: Sequence[Tensor],
        layers: Sequence[Tensor],
        output: Float[Tensor, "N K ny"],
    ) -> Calls:
        obs, *hidden = recorded
        linear, direct = self.network.collect(params, buffers, obs, hidden, layers)
        return Calls(obs, output, Factors(linear, {**direct, **self.head.direct(output)}))

    def factors(self, params: Params, buffers: Buffers, calls: Calls) -> Factors:
        """Inputs and cotangents of every layer: those known, or by one pass of the network."""
        if calls.known is not None:
            return calls.known
        shape = calls.inputs.shape[:2]
        with differentiating():
            flat = ordinary(calls.inputs).detach().flatten(0, 1)
            fixed = {name: value.detach() for name, value in ordinary(params).items()}
            kept = ordinary(buffers)
            probes = self.probes(fixed, flat.shape[0])
            z, _, hidden = self.probed(fixed, kept, flat, None, probes)
            grads = torch.autograd.grad(z, probes.layers, ordinary(calls.cotangent).flatten(0, 1))
            found = self.collect(
                fixed,
                kept,
                [part.unflatten(0, shape) for part in (flat, *hidden)],
                [grad.unflatten(0, shape) for grad in grads],
                calls.cotangent,
            )
        assert found.known is not None
        return found.known

    def per_sample(self, params: Params, buffers: Buffers, calls: Calls) -> Params:
        products = self.products(params, buffers, calls)
        leaves: Params = {}
        for k in range(len(params)):
            leaves |= products.form(k, slice(None), None)
        return leaves

    def mean(self, params: Params, buffers: Buffers, calls: Calls) -> Params:
        return self.products(params, buffers, calls).mean()

    def products(self, params: Params, buffers: Buffers, calls: Calls) -> LayerProducts:
        factors = self.factors(params, buffers, calls)
        return LayerProducts(factors, {name: tuple(value.shape) for name, value in params.items()})

    def inner(self, params: Params, buffers: Buffers, a: Calls, b: Calls) -> Float[Tensor, " N"]:
        mine = self.factors(params, buffers, a)
        theirs = mine if b is a else self.factors(params, buffers, b)
        total = torch.zeros(len(a.inputs), dtype=torch.float64, device=a.inputs.device)
        for x, y in zip(mine.linear, theirs.linear, strict=True):
            total = total + layer_inner(x, y, self.network.bias)
        for name in mine.direct:
            x, y = mine.direct[name].sum(1).double(), theirs.direct[name].sum(1)
            total = total + (x * y).sum(-1)
        return total


@dataclass(frozen=True)
class CallPull:
    """The pull of any policy that is a function: a vector-Jacobian product of its calls."""

    apply: Callable[[Params, Buffers, Tensor, Tensor | None], Output]
    sizes: tuple[int, int]  # of z and of the carry

    def probes(self, params: Params, calls: int) -> Probes:
        like = next(iter(params.values()))
        return Probes((), _zeros(like, calls, sum(self.sizes)))

    def probed(
        self, params: Params, buffers: Buffers, obs: Tensor, carry: Tensor | None, probes: Probes
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        z, after = self.apply(params, buffers, obs, carry)
        change, change_after = probes.output.split(self.sizes, dim=-1)
        return z + change, None if after is None else after + change_after, ()

    def collect(
        self,
        params: Params,
        buffers: Buffers,
        recorded: Sequence[Tensor],
        layers: Sequence[Tensor],
        output: Float[Tensor, "N K ny"],
    ) -> Calls:
        return Calls(recorded[0], output)

    def per_sample(self, params: Params, buffers: Buffers, calls: Calls) -> Params:
        count, each = calls.inputs.shape[:2]
        if not count * each:
            return {n: value.new_zeros(count, *value.shape) for n, value in params.items()}

        def one(inputs: Tensor, cotangent: Tensor) -> Params:
            pulled = torch.func.vjp(lambda own: self._output(own, kept, inputs), fixed)
            return pulled[1](cotangent)[0]

        with differentiating():
            fixed = {name: value.detach() for name, value in ordinary(params).items()}
            kept = ordinary(buffers)
            return torch.func.vmap(one)(ordinary(calls.inputs), ordinary(calls.cotangent))

    def mean(self, params: Params, buffers: Buffers, calls: Calls) -> Params:
        count, each = calls.inputs.shape[:2]
        if not count * each:
            return {name: torch.zeros_like(value) for name, value in params.items()}
        with differentiating():
            fixed = ordinary(params)
            leaves = {name: value.detach().requires_grad_() for name, value in fixed.items()}
            flat = ordinary(calls.inputs).flatten(0, 1)
            output = self._output(leaves, ordinary(buffers), flat)
            grads = torch.autograd.grad(
                output, list(leaves.values()), ordinary(calls.cotangent).flatten(0, 1) / count,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        return dict(zip(leaves, grads, strict=True))

    def products(self, params: Params, buffers: Buffers, calls: Calls) -> CallProducts:
        return CallProducts(self, params, buffers, calls)

    def inner(self, params: Params, buffers: Buffers, a: Calls, b: Calls) -> Float[Tensor, " N"]:
        numbers = max(1, sum(value.numel() for value in params.values()))
        size, count = max(1, DENSE_NUMBERS // numbers), len(a.inputs)
        pieces = [torch.zeros(0, dtype=torch.float64, device=a.inputs.device)]
        for begin in range(0, count, size):
            part = slice(begin, begin + size)
            x = self.per_sample(params, buffers, Calls(a.inputs[part], a.cotangent[part]))
            y = x
            if b is not a:
                y = self.per_sample(params, buffers, Calls(b.inputs[part], b.cotangent[part]))
            rows = [(leaf.double() * y[n]).reshape(len(leaf), -1).sum(1) for n, leaf in x.items()]
            pieces.append(torch.stack(rows).sum(0))
        return torch.cat(pieces)

    def _output(
        self, params: Params, buffers: Buffers, inputs: Float[Tensor, "*batch nx"]
    ) -> Float[Tensor, "*batch ny"]:
        """y at x."""
        carry_dim = self.sizes[1]
        if not carry_dim:
            return self.apply(params, buffers, inputs, None)[0]
        obs, carry = inputs[..., :-carry_dim], inputs[..., -carry_dim:]
        z, after = self.apply(params, buffers, obs, carry)
        assert after is not None
        return torch.cat([z, after], dim=-1)


@dataclass(frozen=True)
class CallProducts:
    """Gradients of N samples that are pulled back a few samples at a time, all leaves together."""

    pull: CallPull
    params: Params
    buffers: Buffers
    calls: Calls
    tile_numbers: int = (
        8 * TILE_NUMBERS
    )  # launching a product for few samples costs more than memory

    def __len__(self) -> int:
        return len(self.calls.inputs)

    @property
    def like(self) -> Tensor:
        """A tensor of the gradients' dtype, on their device."""
        return self.calls.cotangent

    def layers(self) -> Sequence[Layer]:
        """All leaves at once."""
        return [{name: tuple(value.shape) for name, value in self.params.items()}]

    def form(self, layer: int, samples: slice, centre: Mapping[str, Tensor] | None) -> Params:
        """g_i, less a centre if there is one: {leaf: [n, *param]} of some samples."""
        some = Calls(self.calls.inputs[samples], self.calls.cotangent[samples])
        leaves = self.pull.per_sample(self.params, self.buffers, some)
        return leaves if centre is None else {n: x - centre[n] for n, x in leaves.items()}

    def mean(self) -> Params:
        """The mean over samples: {leaf: [*param]}."""
        return self.pull.mean(self.params, self.buffers, self.calls)


def _zeros(like: Tensor, *shape: int) -> Tensor:
    """A leaf of zeros that takes no memory."""
    return like.new_zeros(()).expand(*shape).requires_grad_()
