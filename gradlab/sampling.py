"""Streams of episodes and of gradient statistics whose memory does not grow with their number.

Noise comes in blocks of fixed size, each with a generator of its own, so that results depend on
neither the chunk size nor how far an earlier stream went.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradlab.arguments import got, whole
from gradlab.errors import BadValue
from gradlab.generators import generator
from gradlab.noise import Noise, concatenate
from gradlab.problem import Problem
from gradlab.samples import GradientSamples
from gradlab.statistics.moments import Moments
from gradlab.statistics.streams import Stream

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


def stream(
    estimator: Sampler,
    problem: Problem,
    params: dict[str, Tensor],
    count: int,
    seed: int,
    chunk_size: int = 256,
    begin: int = 0,
    pilot: dict[str, Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Moments:
    """Moments of episodes begin..count−1: memory is that of one chunk, whatever `count` is.

    An estimator with `group` > 1 is given whole groups and its replicates are group means: `begin`
    and `count` must be multiples of the group, and chunks are rounded up to whole groups.
    `progress` is called with the number of samples done after each chunk. Without a `pilot` the
    mean of the first chunk is used.
    """
    if not isinstance(estimator, Sampler):
        raise BadValue(f"estimator should be an estimator, got {got(estimator)}; try FOG()")
    group = estimator.group
    count, chunk_size = whole("count", count), whole("chunk_size", chunk_size)
    begin = whole("begin", begin, 0)
    if begin % group or count % group:
        raise BadValue(
            f"begin and count must be multiples of the estimator's group of {group}, "
            f"got {begin} and {count}; try count={math.ceil(count / group) * group}"
        )
    chunk_size = math.ceil(chunk_size / group) * group
    total: Moments | None = None
    position = begin
    for noise in noise_stream(problem, count, seed, chunk_size, begin):
        samples = estimator(problem, params, noise)
        piece = samples.moments(start=position, pilot=pilot)
        drawn = Stream(seed, position, position + noise.count, problem.name)
        piece = dataclasses.replace(piece, streams=(drawn,))
        pilot = piece.pilot
        total = piece if total is None else total.merge(piece)
        position += noise.count
        if progress is not None:
            progress(position - begin)
    if total is None:
        raise BadValue(f"an empty stream: begin={begin} is not below count={count}")
    return total
