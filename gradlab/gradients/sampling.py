"""Streams of episodes whose memory does not grow with their number.

Noise comes in blocks of fixed size, each with a generator of its own, so that results depend on
neither the chunk size nor how far an earlier stream went.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.generators import generator
from gradlab.foundation.memo import Memo
from gradlab.foundation.noise import Noise, concatenate
from gradlab.gradients.samples import GradientSamples
from gradlab.problems.problem import Problem

NOISE_BLOCK = 1024  # episodes per generator


@runtime_checkable
class Sampler(Protocol):
    """What sampling needs of an estimator."""

    @property
    def group(self) -> int:
        """Samples that look at each other; 1: rows are independent."""
        ...

    @property
    def label(self) -> str:
        """A short name for tables."""
        ...

    def __call__(
        self, problem: Problem, params: dict[str, Tensor], noise: Noise
    ) -> GradientSamples: ...


@runtime_checkable
class Passes(Protocol):
    """What sharing needs of a cost."""

    @property
    def backward_passes(self) -> float:
        """Passes back through a whole episode per sample [1]."""
        ...


@runtime_checkable
class SharingSampler(Sampler, Protocol):
    """A sampler that runs no rollout anew that others have run on the same episodes."""

    def cost(self, problem: Problem) -> Passes:
        """What a sample costs."""
        ...

    def sharing(
        self, problem: Problem, params: dict[str, Tensor], noise: Noise, memo: Memo
    ) -> GradientSamples:
        """The same samples as a call gives, with the rollouts that `memo` knows; it gets others."""
        ...


def sharing_order(samplers: Sequence[Sampler], problem: Problem) -> list[int]:
    """Indices in the order in which most rollouts are shared.

    Whoever differentiates through the simulator runs it himself, and comes first: his path serves
    those to whom states are constants, and theirs could not serve him.
    """

    def through(i: int) -> float:
        one = samplers[i]
        return one.cost(problem).backward_passes if isinstance(one, SharingSampler) else 0.0

    return sorted(range(len(samplers)), key=through, reverse=True)


def block_generator(seed: int, block: int) -> torch.Generator:
    """The generator of noise block number `block` of the stream `seed`."""
    return generator("noise", seed, block)


def noise_stream(
    problem: Problem, count: int, seed: int, chunk_size: int = NOISE_BLOCK, begin: int = 0
) -> Iterator[Noise]:
    """Episodes begin..count−1 of the infinite stream `seed`, in chunks of `chunk_size`.

    The same episode has the same noise whatever the chunk size, `begin` or `count`.
    """
    count, chunk_size = whole("count", count), whole("chunk_size", chunk_size)
    begin, seed = whole("begin", begin, 0), whole("seed", seed, 0)
    held: list[Noise] = []
    position = begin
    block, first = divmod(begin, NOISE_BLOCK)
    while position < count:
        want = min(chunk_size, count - position)
        lacking = want - sum(part.count for part in held)
        if lacking > 0:
            more = -(-(first + lacking) // NOISE_BLOCK)
            blocks = [block_generator(seed, block + k) for k in range(more)]
            drawn = problem.draw_blocks(NOISE_BLOCK, blocks)
            held.append(drawn.rows(first, drawn.count))
            block, first = block + more, 0
        joined = concatenate(held) if len(held) > 1 else held[0]
        yield joined.rows(0, want)
        held = [joined.rows(want, joined.count)]
        position += want
