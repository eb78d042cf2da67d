"""Per-sample gradients: factored (calls and cotangents) or dense, with one set of read-outs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradlab.foundation.arguments import got, whole
from gradlab.foundation.display import Facts, Shown, leaves
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.per_sample import PerSample
from gradlab.foundation.reading import numbers, same, true
from gradlab.foundation.tensors import positions
from gradlab.gradients.averages import Averages
from gradlab.gradients.grouping import replicates
from gradlab.policies.factors import Calls, Factors
from gradlab.policies.policy import Policy
from gradlab.policies.pulls import LayerPull
from gradlab.statistics.accumulating import Accumulator
from gradlab.statistics.moments import BLOCKS, Moments, check_pilot, check_stream
from gradlab.statistics.rows import Chunk, DenseRows, summed, walked

KEPT_NUMBERS = 2**26  # of layer factors of several chunks; beyond, they are made anew [1]


class GradientSamples(Shown, Averages):
    """N samples of a gradient estimate; means and norms come from here, never from an estimator.

    Sums and scalings of samples are samples. `*` takes a number or one weight per sample [N].
    """

    group: int  # samples that looked at each other; 1: they are independent

    @abstractmethod
    def grouped(self, group: int) -> GradientSamples:
        """The same samples, known to be dependent within groups of `group`."""

    @abstractmethod
    def __len__(self) -> int: ...

    def per_sample(self, chunk_size: int | None = None) -> dict[str, Tensor]:
        """Every sample's gradient: {name: [N, *param]}."""
        if chunk_size is not None:
            chunk_size = whole("chunk_size", chunk_size)
        parts = list(self.chunks(chunk_size))
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @abstractmethod
    def chunks(self, chunk_size: int | None = None) -> Iterator[dict[str, Tensor]]:
        """`per_sample` in pieces of at most `chunk_size` samples."""

    @abstractmethod
    def mean(self) -> dict[str, Tensor]:
        """The mean over samples: {name: [*param]}."""

    @abstractmethod
    def squared_norms(self) -> Float[Tensor, " N"]:
        """‖g_i‖² over all parameters."""

    @abstractmethod
    def inner(self, other: GradientSamples) -> Float[Tensor, " N"]:
        """⟨g_i, h_i⟩ with another estimator's samples of the same episodes."""

    @abstractmethod
    def prepared(self) -> GradientSamples:
        """The same samples with all that does not depend on what is read from them."""

    @abstractmethod
    def products(self) -> PerSample:
        """The same gradients, formed some samples of one layer at a time."""

    @abstractmethod
    def rows(self, begin: int, end: int) -> GradientSamples:
        """Samples begin..end−1."""

    def __getitem__(self, samples: slice) -> GradientSamples:
        """`samples[i:j]`: as `rows`, with the ends of a slice of a list. Steps are refused."""
        if not isinstance(samples, slice) or samples.step not in (None, 1):
            raise BadValue(
                f"samples take a slice without a step, got {got(samples)}; try samples[0:1]"
            )
        begin, end, _ = samples.indices(len(self))
        return self.rows(begin, max(begin, end))

    @abstractmethod
    def group_means(self, size: int) -> GradientSamples:
        """The mean of each group of `size` consecutive samples, as N/size samples."""

    def moments(
        self,
        chunk_size: int | None = None,
        start: int = 0,
        pilot: Mapping[str, Tensor] | None = None,
        per_parameter: bool = False,
    ) -> Moments:
        """Float64 statistics of these samples; `start` is the global index of the first one.

        Where the estimator looked across samples (`group` > 1) the replicates are the means of
        groups; `start` and `chunk_size` are then whole groups. No [N, P] is formed. `per_parameter`
        keeps the second moments of every parameter, for `m2` and `stderr`.
        """
        size = len(self) if chunk_size is None else whole("chunk_size", chunk_size)
        check_pilot(pilot)
        total = Accumulator()
        for begin in range(0, len(self), size):
            part = self.rows(begin, min(begin + size, len(self)))
            check_stream(len(part), start + begin, self.group)
            chunk = part.summed(start + begin, pilot, per_parameter=per_parameter)
            pilot = chunk.pilot
            total.add(chunk)
        return Moments(**total.sums(), group=self.group)

    def summed(
        self,
        start: int = 0,
        pilot: Mapping[str, Tensor] | None = None,
        *,
        lost: Bool[Tensor, " n"] | None = None,
        per_parameter: bool = False,
        look: bool = True,
    ) -> Chunk:
        """What `moments` adds up, of n replicates: whole groups of `group`, the first sample having
        global index `start`. Without a `look` at whether samples are lost the host reads nothing:
        the sums stand where all of `squares` is finite."""
        part, first = replicates(self), start // self.group
        if not look:
            return walked(part, first, pilot, BLOCKS, per_parameter=per_parameter)
        return summed(part, first, pilot, BLOCKS, lost=lost, per_parameter=per_parameter)

    def __add__(self, other: GradientSamples) -> GradientSamples:
        if not isinstance(other, GradientSamples):
            raise BadValue(f"only samples can be added to samples, got {type(other).__name__}")
        if len(self) != len(other):
            raise BadShape(f"cannot add {len(self)} samples to {len(other)}; use the same noise")
        if isinstance(self, Factored) and isinstance(other, Factored) and self.same_policy(other):
            if self.same_calls(other):  # what cancels does so here, before anything is squared
                total = self.with_cotangent(self.cotangent + other.cotangent)
                return total.grouped(math.lcm(self.group, other.group))
            return Factored(
                self.policy,
                self.params,
                torch.cat([self.obs, other.obs], dim=1),
                torch.cat([self.cotangent, other.cotangent], dim=1),
                torch.cat([self.steps, other.steps]),
                # no factors of the parts: two estimators may all but cancel, and factors from two
                # passes through the policy, rounded apart, would leave their rounding in the
                # difference
                group=math.lcm(self.group, other.group),
                buffers=self.buffers,
            )
        a, b = self.per_sample(), other.per_sample()
        return Dense({name: a[name] + b[name] for name in a}, math.lcm(self.group, other.group))

    @abstractmethod
    def __mul__(self, weight: float | Tensor) -> GradientSamples: ...

    def __rmul__(self, weight: float | Tensor) -> GradientSamples:
        return self * weight


def _rows(weight: float | Tensor, like: Tensor) -> float | Tensor:
    """A weight broadcast over a [N, ...] tensor."""
    if isinstance(weight, Tensor) and weight.ndim == 1:
        return weight.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))
    return weight


def _check_groups(count: int, size: int) -> None:
    if size < 1 or count % size:
        raise BadShape(f"{count} samples do not make whole groups of {size}")


@dataclass(frozen=True, repr=False)
class Factored(GradientSamples):
    """Samples as policy calls: g_i = Σ_k (∂f_θ(o_ik)/∂θ)ᵀ λ_ik.

    Linear combinations and per-step weights act on the cotangents λ and cost nothing. The engine
    hands over the factors of every layer as well; steps, groups and chunks keep them, and new
    cotangents have theirs computed when needed, in one pass through the policy for all terms.
    """

    policy: Policy
    params: dict[str, Tensor]
    obs: Float[Tensor, "N K nx"]  # and the carry of a recurrent policy behind it
    cotangent: Float[Tensor, "N K ny"]  # of z, and of the next carry behind it
    steps: Int[Tensor, " K"]  # time step of each call; −1 where unknown
    known: Factors | None = field(default=None, compare=False, repr=False)
    group: int = 1
    buffers: dict[str, Tensor] = field(default_factory=dict)

    def facts(self) -> Facts:
        return {
            "samples": f"{len(self):,}",
            "policy calls each": str(self.obs.shape[1]),
            "parameters": leaves(self.params),
            "group": str(self.group),
            "dtype": str(self.cotangent.dtype),
        }

    def grouped(self, group: int) -> Factored:
        return replace(self, group=group)

    def __len__(self) -> int:
        return self.obs.shape[0]

    def chunks(self, chunk_size: int | None = None) -> Iterator[dict[str, Tensor]]:
        size = chunk_size or len(self)
        for begin in range(0, len(self), size):
            part = self.rows(begin, begin + size)
            yield self.policy.pull.per_sample(self.params, self.buffers, part.calls)

    def mean(self) -> dict[str, Tensor]:
        return self._remembered() or self.policy.pull.mean(self.params, self.buffers, self.calls)

    def prepared(self) -> Factored:
        return replace(self, known=self.factors()) if self.layered else self

    def products(self) -> PerSample:
        return self.policy.pull.products(self.params, self.buffers, self.calls)

    @property
    def calls(self) -> Calls:
        """What the policy's pull takes."""
        return Calls(self.obs, self.cotangent, self.known)

    @property
    def layered(self) -> bool:
        """Whether the policy's layers are known, so that there are `factors`."""
        return isinstance(self.policy.pull, LayerPull)

    @property
    def bias(self) -> bool:
        """Whether the known layers have biases."""
        return isinstance(self.policy.pull, LayerPull) and self.policy.pull.network.bias

    def factors(self) -> Factors:
        """Inputs and cotangents of every layer. Raises `BadValue` unless `layered`."""
        pull = self.policy.pull
        if not isinstance(pull, LayerPull):
            raise BadValue(
                f"the layers of {self.policy.summary} are not known, so its samples have no factors; "
                "try per_sample()"
            )
        return pull.factors(self.params, self.buffers, self.calls)

    def squared_norms(self) -> Float[Tensor, " N"]:
        return self.inner(self)

    def inner(self, other: GradientSamples) -> Float[Tensor, " N"]:
        if not isinstance(other, Factored) or not self.same_policy(other):
            return Dense(self.per_sample()).inner(other)
        mine = self.calls
        theirs = mine if other is self else other.calls
        return self.policy.pull.inner(self.params, self.buffers, mine, theirs)

    def __mul__(self, weight: float | Tensor) -> Factored:
        return self.with_cotangent(self.cotangent * _rows(weight, self.cotangent))

    def weight_steps(self, weights: Float[Tensor, " T"] | Float[Tensor, "N T"]) -> Factored:
        """Multiply every call by the weight of its time step."""
        if true((self.steps < 0).any()):
            raise BadValue(
                "per-step weights need to know the time step of every policy call; "
                "pass steps= when the surrogate calls the policy"
            )
        return self.with_cotangent(self.cotangent * weights[..., self.steps, None])

    def at_step(self, step: int) -> Factored:
        """The calls of one time step alone."""
        keep = positions((k for k, t in enumerate(numbers(self.steps)) if t == step), self.obs)
        obs, cotangent = self.obs[:, keep], self.cotangent[:, keep]
        known = None if self.known is None else self.known.calls(keep)
        return replace(self, obs=obs, cotangent=cotangent, steps=self.steps[keep], known=known)

    def rows(self, begin: int, end: int) -> Factored:
        obs, cotangent = self.obs[begin:end], self.cotangent[begin:end]
        known = None if self.known is None else self.known.rows(begin, end)
        return self._sharing(replace(self, obs=obs, cotangent=cotangent, known=known), begin)

    def group_means(self, size: int) -> Factored:
        _check_groups(len(self), size)
        return Factored(
            self.policy,
            self.params,
            self.obs.unflatten(0, (-1, size)).flatten(1, 2),
            self.cotangent.unflatten(0, (-1, size)).flatten(1, 2) / size,
            self.steps.repeat(size),
            self.known and self.known.grouped(size),
            math.lcm(self.group, size) // size,
            self.buffers,
        )

    def same_policy(self, other: Factored) -> bool:
        """Whether both are calls of the same policy with the very same parameters."""
        mine, theirs = self.buffers, other.buffers
        return (
            self.policy == other.policy
            and self.params is other.params
            and mine.keys() == theirs.keys()
            and all(value is theirs[name] for name, value in mine.items())
        )

    def same_calls(self, other: Factored) -> bool:
        """Whether both are policy calls at the same observations, in the same order."""
        return same(self.steps, other.steps) and same(self.obs, other.obs)

    def with_cotangent(self, cotangent: Float[Tensor, "N K nz"]) -> Factored:
        """The same calls with other cotangents."""
        return replace(self, cotangent=cotangent, known=None)


@dataclass(frozen=True, repr=False)
class Dense(GradientSamples):
    """Samples as one tensor per parameter, [N, *param]."""

    leaves: dict[str, Tensor]
    group: int = 1

    def facts(self) -> Facts:
        first = next(iter(self.leaves.values()))
        return {
            "samples": f"{len(self):,}",
            "parameters": leaves({name: leaf[0] for name, leaf in self.leaves.items()}),
            "group": str(self.group),
            "dtype": str(first.dtype),
        }

    def grouped(self, group: int) -> Dense:
        return replace(self, group=group)

    def __len__(self) -> int:
        return next(iter(self.leaves.values())).shape[0]

    def chunks(self, chunk_size: int | None = None) -> Iterator[dict[str, Tensor]]:
        size = chunk_size or len(self)
        for begin in range(0, len(self), size):
            yield self.rows(begin, begin + size).leaves

    def prepared(self) -> Dense:
        return self

    def products(self) -> DenseRows:
        return DenseRows(self.leaves)

    def rows(self, begin: int, end: int) -> Dense:
        rows = {name: leaf[begin:end] for name, leaf in self.leaves.items()}
        return self._sharing(Dense(rows, self.group), begin)

    def mean(self) -> dict[str, Tensor]:
        return self._remembered() or {name: leaf.mean(0) for name, leaf in self.leaves.items()}

    def group_means(self, size: int) -> Dense:
        _check_groups(len(self), size)
        means = {n: leaf.unflatten(0, (-1, size)).mean(1) for n, leaf in self.leaves.items()}
        return Dense(means, math.lcm(self.group, size) // size)

    def squared_norms(self) -> Float[Tensor, " N"]:
        return self.inner(self)

    def inner(self, other: GradientSamples) -> Float[Tensor, " N"]:
        theirs = self.leaves if other is self else other.per_sample()
        return torch.stack(
            [(a.double() * theirs[n]).reshape(len(self), -1).sum(1) for n, a in self.leaves.items()]
        ).sum(0)

    def __mul__(self, weight: float | Tensor) -> Dense:
        scaled = {name: leaf * _rows(weight, leaf) for name, leaf in self.leaves.items()}
        return Dense(scaled, self.group)


def concatenate(parts: list[GradientSamples]) -> GradientSamples:
    """Samples of consecutive chunks of episodes, as one; their layer factors are kept if few."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if isinstance(first, Factored) and all(isinstance(p, Factored) for p in parts):
        factored = [p for p in parts if isinstance(p, Factored)]
        known = [p.known for p in factored if p.known is not None]
        few = len(known) == len(parts) and sum(k.numbers for k in known) <= KEPT_NUMBERS
        return Factored(
            first.policy,
            first.params,
            torch.cat([p.obs for p in factored]),
            torch.cat([p.cotangent for p in factored]),
            first.steps,
            Factors.joined(known) if few else None,
            first.group,
            first.buffers,
        )
    dense = [p.per_sample() for p in parts]
    return Dense({name: torch.cat([d[name] for d in dense]) for name in dense[0]}, first.group)
