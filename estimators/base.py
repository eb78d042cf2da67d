"""What an estimator is, and the algebra that makes every combination of estimators one.

An estimator maps (problem, params, noise) to per-sample gradients. Most are a scalar surrogate per
sample; write your own by subclassing `SurrogateEstimator` and giving it two methods:

    @dataclass(frozen=True)
    class MyEstimator(SurrogateEstimator):
        def surrogate(self, problem, policy, noise):
            path = rollout(problem, policy, noise)
            return evaluate(problem, path).value.sum(-1)

        def call_weights(self, problem):
            return torch.ones(problem.horizon)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import check_params, got, number, whole
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.memo import Memo
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.gradients.captured import sampled
from gradlab.gradients.engines import Context, Engine, check_independent, per_sample_gradients
from gradlab.gradients.samples import GradientSamples, concatenate
from gradlab.gradients.sampling import sharing_order
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Cost:
    """What one sample costs, so that estimators can be compared at equal cost.

    Costs add up to that of a sum: a rollout of the episode that one part `runs` for itself, or
    `reads` as constants, is not run again for another that reads one of this length.
    """

    environment_steps: float  # simulator steps per sample [steps]
    backward_passes: float  # passes back through a whole episode per sample [1]
    runs: frozenset[int] = frozenset()  # lengths of rollouts from the start, among those steps
    reads: frozenset[int] = frozenset()

    def __add__(self, other: Cost) -> Cost:
        runs = self.runs | other.runs
        shared = (self.reads & (other.runs | other.reads)) | (other.reads & self.runs)
        return Cost(
            self.environment_steps + other.environment_steps - sum(shared),
            self.backward_passes + other.backward_passes,
            runs,
            (self.reads | other.reads) - runs,
        )


class Estimator(ABC):
    """Maps (problem, params, noise) to `GradientSamples`; closed under `+` and `*`."""

    @property
    def group(self) -> int:
        """Statistical batch of an estimator that looks across samples; 1: rows are independent."""
        return 1

    @property
    def label(self) -> str:
        """A short name for tables and figures."""
        return type(self).__name__

    @abstractmethod
    def check(self, problem: Problem) -> None:
        """Raise `Missing` or `BadValue` if this problem lacks what the estimator requires."""

    @abstractmethod
    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        """w_k: with exact critics on a smooth problem the expectation is Σ_k w_k ∂J/∂θ_k."""

    @abstractmethod
    def cost(self, problem: Problem) -> Cost:
        """Environment steps and backward passes per sample."""

    @abstractmethod
    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        """Gradient samples of one chunk, made of whole groups.

        `context` is that of a part of a combination: hand it to whatever finds gradients.
        """

    def __call__(
        self, problem: Problem, params: Params, noise: Noise, chunk_size: int | None = None
    ) -> GradientSamples:
        """One gradient sample per row of `noise`, also under `torch.no_grad` and `inference_mode`.

        `chunk_size` bounds memory and changes nothing else; it is rounded down to whole groups.
        Raises `BadShape` for noise or parameters of another problem.
        """
        self.check_call(problem, params, noise)
        group = self.group
        size = noise.count
        if chunk_size is not None:
            size = max(group, whole("chunk_size", chunk_size) // group * group)
        with differentiating():
            params, noise = ordinary(params), ordinary(noise)
            starts = range(0, noise.count, size)
            chunks = [noise.rows(i, min(i + size, noise.count)) for i in starts]
            parts = [sampled(self, problem, params, chunk) for chunk in chunks]
            return concatenate(parts).grouped(group)

    def sharing(
        self, problem: Problem, params: Params, noise: Noise, memo: Memo
    ) -> GradientSamples:
        """The samples of a call, with the rollouts that `memo` knows; it gets those it does not.

        The numbers are those of a call to the last bit (of compiled code up to its rounding).
        """
        self.check_call(problem, params, noise)
        with differentiating():
            samples = self.sample(problem, ordinary(params), ordinary(noise), Context(memo))
            return samples.grouped(self.group)

    def check_call(self, problem: Problem, params: Params, noise: Noise) -> None:
        """Raise unless the estimator can run on this problem, its parameters and its noise.

        `BadShape` for noise or parameters of another problem and for call weights of a wrong shape,
        `BadValue` unless the noise holds whole groups, and what `check` raises.
        """
        self.check(problem)
        problem.check_noise(noise)
        problem.policy.check(params, problem.dtype)
        check_params(params, problem.device)
        call_weights_of(self, problem)
        check_groups(self.label, self.group, noise)

    def __add__(self, other: Estimator) -> Estimator:
        return Sum(self, _summand(other))

    def __radd__(self, other: Any) -> Estimator:
        return _summand(other) + self

    def __sub__(self, other: Estimator) -> Estimator:
        return Sum(self, Scaled(_summand(other), -1.0))

    def __rsub__(self, other: Any) -> Estimator:
        return _summand(other) - self

    def __neg__(self) -> Estimator:
        return Scaled(self, -1.0)

    def __truediv__(self, divisor: float) -> Estimator:
        if number("the divisor of an estimator", divisor) == 0:
            raise BadValue("the divisor of an estimator should not be 0")
        return Scaled(self, 1.0 / float(divisor))

    def __mul__(self, factor: float) -> Estimator:
        return Scaled(self, number("the factor of an estimator", factor))

    def __rmul__(self, factor: float) -> Estimator:
        return self * factor


def call_weights_of(estimator: Estimator, problem: Problem) -> Float[Tensor, " T"]:
    """The call weights of an estimator. Raises `BadShape` unless it has one per policy call."""
    weights = estimator.call_weights(problem)
    if not isinstance(weights, Tensor):
        raise BadShape(
            f"{estimator.label}.call_weights should be a tensor, one number per policy call, got "
            f"{got(weights)}; try torch.ones(problem.horizon)"
        )
    if tuple(weights.shape) != (problem.horizon,):
        raise BadShape(
            f"{estimator.label}.call_weights should be one number per policy call, "
            f"[{problem.horizon}] here, got {list(weights.shape)}; try "
            "torch.ones(problem.horizon)"
        )
    return weights


def check_groups(who: str, group: int, noise: Noise) -> None:
    """Raise `BadValue` unless the noise holds whole groups of `group` episodes."""
    if noise.count % group:
        raise BadValue(
            f"{who} looks across groups of {group} samples, got {noise.count} samples; "
            f"draw a multiple of {group}"
        )


def _summand(other: Any) -> Estimator:
    """The other part of a sum, if it is one."""
    if not isinstance(other, Estimator):
        raise BadValue(
            f"only estimators can be added to an estimator, got {got(other)}; "
            "try 2.0 * FOG() for a multiple, FOG() + PG() for a sum"
        )
    return other


@dataclass(frozen=True)
class SurrogateEstimator(Estimator):
    """An estimator given by a scalar per sample whose gradient is one sample of the estimate."""

    engine: Engine = field(default="pullback", kw_only=True)

    @abstractmethod
    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        """One number per sample, for any leading batch shape."""

    def check(self, problem: Problem) -> None:
        """Nothing is required unless a subclass says so."""

    def cost(self, problem: Problem) -> Cost:
        """One rollout and one backward pass through it."""
        return Cost(problem.horizon, 1)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        def value(problem: Problem, policy: BoundPolicy, noise: Noise, given: Any) -> Tensor:
            return self.surrogate(problem, policy, noise)

        return _samples(self, self.engine, value, problem, params, noise, (), context)


@dataclass(frozen=True)
class TwoPassEstimator(Estimator):
    """A surrogate that needs constants found by a first pass over the whole chunk.

    The first pass runs without gradients and may look across the samples of a group; what it
    returns enters the surrogate as constants, row by row, in every engine.
    """

    engine: Engine = field(default="pullback", kw_only=True)

    @abstractmethod
    def first_pass(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> tuple[Tensor, ...]:
        """Constants for each sample: a NamedTuple of tensors with a leading N."""

    @abstractmethod
    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, given: Any
    ) -> Float[Tensor, "*batch"]:
        """One number per sample, for any leading batch shape."""

    def check(self, problem: Problem) -> None:
        """Nothing is required unless a subclass says so."""

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        policy = problem.bind(params, memo=context.memo).frozen
        with torch.no_grad():
            given = self.first_pass(problem, policy, noise)
        return _samples(self, self.engine, self.surrogate, problem, params, noise, given, context)


CHECKED: set[tuple] = set()  # classes and hashes of what was seen to be independent


def _key(estimator: Estimator, *shape: Any) -> tuple:
    """The same for equal estimators on problems of one shape; options without a hash do not count.

    The class is in it by itself: the hash of a dataclass is that of (some of) its fields alone.
    """
    kind = type(estimator)
    try:
        return kind, hash((estimator, *shape))
    except TypeError:
        return kind, hash(shape)


def _samples(
    estimator: Estimator,
    engine: Engine,
    surrogate: Callable[[Problem, BoundPolicy, Noise, Any], Tensor],
    problem: Problem,
    params: Params,
    noise: Noise,
    given: Any,
    context: Context,
) -> GradientSamples:
    """Gradients of a surrogate; the first time, the first samples are checked not to couple."""
    if engine != "pullback":
        plain = partial(surrogate, problem.eager)
        return per_sample_gradients(plain, problem.eager, params, noise, given, engine)
    key = _key(estimator, type(problem.task), problem.policy, problem.horizon)
    count = max(2, estimator.group)
    if noise.count >= count and key not in CHECKED:
        few = type(given)(*(part[:count] for part in given)) if given else ()
        first = partial(surrogate, problem.eager)
        check_independent(first, problem, params, noise.rows(0, count), few)
        CHECKED.add(key)
    whole_batch = partial(surrogate, problem)
    return per_sample_gradients(whole_batch, problem, params, noise, given, engine, context)


def samples_of(
    parts: Sequence[Estimator],
    problem: Problem,
    params: Params,
    noise: Noise,
    context: Context,
    layers: bool,
) -> list[GradientSamples]:
    """Samples of every part, in order, of the same episodes; what they have in common is run once.

    `context` is that of the combination itself, which may be a part of another. With `layers=False`
    it will not ask its parts for their layer factors.
    """
    within = Context(Memo() if context.memo is None else context.memo, layers)
    samples: dict[int, GradientSamples] = {}
    for i in sharing_order(parts, problem):
        samples[i] = parts[i].sample(problem, params, noise, within).grouped(parts[i].group)
    return [samples[i] for i in range(len(parts))]


@dataclass(frozen=True)
class Sum(Estimator):
    """a + b on the same episodes."""

    first: Estimator
    second: Estimator

    @property
    def group(self) -> int:
        return math.lcm(self.first.group, self.second.group)

    @property
    def label(self) -> str:
        return f"{self.first.label} + {self.second.label}"

    def check(self, problem: Problem) -> None:
        self.first.check(problem)
        self.second.check(problem)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return call_weights_of(self.first, problem) + call_weights_of(self.second, problem)

    def cost(self, problem: Problem) -> Cost:
        return self.first.cost(problem) + self.second.cost(problem)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        parts = self.first, self.second
        first, second = samples_of(parts, problem, params, noise, context, layers=False)
        return first + second


@dataclass(frozen=True)
class Scaled(Estimator):
    """factor · a."""

    part: Estimator
    factor: float

    @property
    def group(self) -> int:
        return self.part.group

    @property
    def label(self) -> str:
        return f"{self.factor:g} {self.part.label}"

    def check(self, problem: Problem) -> None:
        self.part.check(problem)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return self.factor * self.part.call_weights(problem)

    def cost(self, problem: Problem) -> Cost:
        return self.part.cost(problem)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        context = context._replace(layers=False)
        return self.factor * self.part.sample(problem, params, noise, context)


def check_window(window: int, problem: Problem, who: str) -> None:
    """Raise `BadValue` unless 1 <= window <= horizon."""
    if not isinstance(window, int) or not 1 <= window <= problem.horizon:
        raise BadValue(
            f"{who} needs a whole window between 1 and the horizon {problem.horizon}, got {window}; "
            f"try window={max(1, problem.horizon // 2)}"
        )
