"""Streams of episodes whose memory does not grow with their number.

Noise comes in blocks of fixed size, each with a generator of its own, so that results depend on
neither the chunk size nor how far an earlier stream went.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.generators import generator
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
    begin = whole("begin", begin, 0)
    held: list[Noise] = []
    position = begin
    block, first = divmod(begin, NOISE_BLOCK)
    while position < count:
        want = min(chunk_size, count - position)
        while sum(part.count for part in held) < want:
            drawn = problem.draw(NOISE_BLOCK, block_generator(seed, block))
            held.append(drawn.rows(first, NOISE_BLOCK))
            block, first = block + 1, 0
        joined = concatenate(held) if len(held) > 1 else held[0]
        yield joined.rows(0, want)
        held = [joined.rows(want, joined.count)]
        position += want
