"""What a policy's gradient is made of: its calls, the inputs and cotangents of its layers,
and the leaves behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class LinearFactor(NamedTuple):
    """One layer of one batch of calls.

    The weight gradient of sample i is Σ_k cotangent_ik ⊗ input_ik.
    """

    layer: str  # parameters are "<layer>.weight" and "<layer>.bias"
    input: Float[Tensor, "N K in"]
    cotangent: Float[Tensor, "N K out"]


class Factors(NamedTuple):
    """Everything needed to form per-sample gradients, norms and inner products of a policy."""

    linear: list[LinearFactor]
    direct: dict[str, Float[Tensor, "N K size"]]  # parameters that are part of z themselves

    def map(self, function: Callable[[Tensor], Tensor]) -> Factors:
        """`function` of every tensor."""
        linear = [LinearFactor(a, function(x), function(c)) for a, x, c in self.linear]
        return Factors(linear, {name: function(c) for name, c in self.direct.items()})

    def rows(self, begin: int, end: int) -> Factors:
        """Samples begin..end−1."""
        return self.map(lambda part: part[begin:end])

    def calls(self, keep: Int[Tensor, " k"]) -> Factors:
        """Some of the calls of every sample, by their numbers."""
        return self.map(lambda part: part[:, keep])

    def grouped(self, size: int) -> Factors:
        """The mean of every `size` samples: their calls side by side, each divided by `size`."""

        def beside(part: Tensor) -> Tensor:
            return part.unflatten(0, (-1, size)).flatten(1, 2)

        linear = [LinearFactor(a, beside(x), beside(c) / size) for a, x, c in self.linear]
        return Factors(linear, {name: beside(c) / size for name, c in self.direct.items()})

    @property
    def numbers(self) -> int:
        """How many numbers these are."""
        tensors = [part for _, x, c in self.linear for part in (x, c)]
        return sum(part.numel() for part in (*tensors, *self.direct.values()))

    @classmethod
    def joined(cls, parts: Sequence[Factors]) -> Factors:
        """The samples of several, one after another."""
        linear = [
            LinearFactor(
                rows[0].layer,
                torch.cat([x for _, x, _ in rows]),
                torch.cat([c for _, _, c in rows]),
            )
            for rows in zip(*(part.linear for part in parts), strict=True)
        ]
        names = parts[0].direct
        return cls(
            linear, {name: torch.cat([part.direct[name] for part in parts]) for name in names}
        )


class Probes(NamedTuple):
    """Leaves of one batch of calls, whose gradients are what a pullback to the parameters needs.

    A bias with one copy per call has the gradient of its layer's output.
    """

    layers: tuple[Float[Tensor, "calls out"], ...]  # biases of every known layer, expanded
    output: Float[Tensor, "calls ny"]  # zeros, added to y = (z, next carry)


class Call(NamedTuple):
    """A recorded policy call of the pullback engine."""

    inputs: tuple[Tensor, ...]  # x = (observation, carry) [N·K', nx], then what layers recorded
    probes: Probes
    steps: tuple[int, ...]  # time step of each of the K' calls; −1 where unknown


class Calls(NamedTuple):
    """K policy calls of each of N samples, and what the samples' numbers change by with each."""

    inputs: Float[Tensor, "N K nx"]  # x = (observation, carry)
    cotangent: Float[Tensor, "N K ny"]  # of y = (z, next carry)
    known: Factors | None = None  # the layers' factors, where they were found on the way
