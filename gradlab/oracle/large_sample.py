"""Truths from many episodes of an unbiased estimator."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from gradlab.foundation.arguments import number
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.gradients.sampling import Sampler, noise_stream
from gradlab.oracle.base import ORACLE_SEED, Params
from gradlab.problems.problem import Problem
from gradlab.statistics.moments import BLOCKS, Moments
from gradlab.statistics.streams import Stream
from gradlab.statistics.truth import OracleGradient

Progress = Callable[[OracleGradient], None]
PILOT = 2**40  # first episode of pilots, in the stream of the truth and far beyond its end
MARGIN = 1.1  # more episodes than the pilot asks for
LEAST = 5  # means of replicates that `compare` needs


@dataclass(frozen=True)
class LargeSample:
    """The mean of an unbiased estimator over as many episodes as precision asks for.

    How many that is, is decided before any of them is drawn, by a pilot of other episodes of the
    same stream that is then thrown away: with √(tr Σ/n)/‖g*‖ = r after n pilot episodes,

        N = ⌈1.1 n (r/until_relative_stderr)²⌉, at most max_count.

    The pilot doubles until r is at most three times what is wanted, or n an eighth of `max_count`
    (then N is `max_count`). Since
    N knows nothing of the N episodes, their mean and its debiased length are unbiased; to stop when
    the estimate itself looks precise keeps the long ones. `relative_stderr` says what was reached,
    which the margin of a tenth puts below `until_relative_stderr` most of the time. Memory is that
    of one chunk. Means of `replicate` consecutive samples are what enters the statistics: the same
    mean and the same error, for a fraction of the work on dense gradients; at least 64 of them are
    drawn, so that `compare` has its blocks. With `until_relative_stderr=0` there is no pilot, and N
    is `max_count`.
    """

    estimator: Sampler
    until_relative_stderr: float = 0.05
    max_count: int = 1_000_000
    batch: int = 8192  # of the first pilot, and episodes between two calls of `progress`
    chunk_size: int = 512
    replicate: int = 16
    seed: int = ORACLE_SEED

    def __call__(
        self, problem: Problem, params: Params, progress: Progress | None = None
    ) -> OracleGradient:
        """The truth; `progress` is called with the truth so far after each batch, pilot apart."""
        return self.targets(problem, params, {"": None}, progress)[""]

    def targets(
        self,
        problem: Problem,
        params: Params,
        weightings: Mapping[str, Tensor | None],
        progress: Progress | None = None,
    ) -> dict[str, OracleGradient]:
        """Several targets Σ_k w_k g_k from the same episodes: {name: w [T], or None for all ones}.

        Needs an estimator whose samples are policy calls with known time steps, each call's part
        an unbiased sample of g_k (PG, FOG on continuous problems, Split). Precision is judged by
        the first target. Raises `BadValue` if the samples cannot be weighted.
        """
        size = math.lcm(self.replicate, self.estimator.group)
        number("until_relative_stderr", self.until_relative_stderr, "try 0.05")
        if not weightings or not self.until_relative_stderr >= 0 or self.max_count < LEAST * size:
            raise BadValue(
                "LargeSample needs at least one target, until_relative_stderr >= 0 and max_count >= "
                f"{LEAST * size} ({LEAST} means of {size} episodes), got {len(weightings)} targets, "
                f"{self.until_relative_stderr} and {self.max_count}; a smaller replicate asks for less"
            )
        for name, weights in weightings.items():
            if weights is not None and tuple(weights.shape) != (problem.horizon,):
                raise BadShape(
                    f"call weights should be [{problem.horizon}], one per policy call, "
                    f"got {list(weights.shape)} for target {name!r}; try estimator.call_weights(problem)"
                )
        begin = time.perf_counter()
        run = _Run(self.estimator, problem, params, weightings, self.seed, size, self.chunk_size)
        batch = _up(max(min(self.batch, self.max_count), LEAST * size), size)
        count = self._count(run, batch, size)
        totals: dict[str, Moments] = {}
        truths: dict[str, OracleGradient] = {}
        for start in range(0, count, batch):
            run.extend(totals, start, min(start + batch, count))
            label = f"{self.estimator.label} x {min(start + batch, count)}"
            seconds = time.perf_counter() - begin
            truths = {
                name: OracleGradient.sampled(total, label, seconds)
                for name, total in totals.items()
            }
            if progress is not None:
                progress(next(iter(truths.values())))
        return truths

    def _count(self, run: _Run, batch: int, size: int) -> int:
        """N of the docstring, in whole groups, by a pilot that nothing else sees."""
        most, least = _up(self.max_count, size), min(BLOCKS * size, _up(self.max_count, size))
        if self.until_relative_stderr == 0:
            return most
        first, origin = next(iter(run.weightings)), _up(PILOT, size)
        totals: dict[str, Moments] = {}
        done, goal = 0, _up(min(max(batch, BLOCKS * size), max(most // 8, LEAST * size)), size)
        while True:
            run.extend(totals, origin + done, origin + goal)
            reached = OracleGradient.sampled(totals[first], "pilot").relative_stderr
            times = reached / self.until_relative_stderr
            done, goal = goal, 2 * goal
            if times <= 3:
                return min(max(_up(math.ceil(MARGIN * done * times**2), size), least), most)
            if goal > most / 8:
                return most


@dataclass(frozen=True)
class _Run:
    """What the episodes of a large sample have in common."""

    estimator: Sampler
    problem: Problem
    params: Params
    weightings: Mapping[str, Tensor | None]
    seed: int
    size: int  # samples in one mean
    chunk_size: int

    def extend(self, totals: dict[str, Moments], begin: int, end: int) -> None:
        """Add episodes begin..end−1 of the stream to the statistics of every target."""
        chunk = _up(self.chunk_size, self.size)
        for noise in noise_stream(self.problem, end, self.seed, chunk, begin=begin):
            samples = self.estimator(self.problem, self.params, noise)
            drawn = Stream(self.seed, begin, begin + noise.count, self.problem.name)
            for name, weights in self.weightings.items():
                means = _weighted(samples, weights).group_means(self.size)
                pilot = totals[name].pilot if name in totals else None
                piece = means.moments(None, begin // self.size, pilot, per_parameter=True)
                piece = dataclasses.replace(piece, streams=(drawn,))
                totals[name] = totals[name].merge(piece) if name in totals else piece
            begin += noise.count


def _up(count: int, size: int) -> int:
    """The least multiple of `size` that is not below `count`."""
    return math.ceil(count / size) * size


def _weighted(samples: GradientSamples, weights: Tensor | None) -> GradientSamples:
    if weights is None:
        return samples
    if not isinstance(samples, Factored):
        raise BadValue(
            "only samples made of policy calls have call weights; use an estimator with "
            'engine="pullback", such as Split or PG'
        )
    return samples.weight_steps(weights.to(samples.cotangent))
