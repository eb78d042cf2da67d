"""Several estimators on the same episodes: streamed, timed, and comparable in pairs.

Memory is that of one chunk of samples and of 64 gradients in float64 for each estimator, whatever
the number of samples is: gradients are formed a few at a time (`gradlab/statistics/rows.py`).
Mixtures by layer or parameter, evolution strategies and the engines vmap and loop have [chunk, P].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from gradlab.foundation.arguments import got, whole
from gradlab.foundation.display import Facts, Shown
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.memo import Memo
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import GradientSamples
from gradlab.gradients.sampling import Sampler, SharingSampler, noise_stream, sharing_order
from gradlab.problems.problem import Problem
from gradlab.statistics.accumulating import Accumulator
from gradlab.statistics.comparing import compare
from gradlab.statistics.moments import Moments, check_pilot
from gradlab.statistics.pairs import CrossMoments, compare_pair
from gradlab.statistics.report import PairReport, Report
from gradlab.statistics.rows import Chunk, lost_rows
from gradlab.statistics.streams import Stream
from gradlab.statistics.truth import OracleGradient

CHUNK = 256  # episodes in memory at once

Params = dict[str, torch.Tensor]


@dataclass(frozen=True, repr=False)
class Measurement(Shown):
    """What k estimators gave on the same episodes, by name: for `compare` and `compare_pair`.

    An estimator to which states are constants (PG, QG) takes the path of a rollout that another one
    has run, and is charged for it as if it had run it: `seconds` do not depend on who else was
    measured, and `shared` is the part of them that was not spent again. So the measurement took the
    sum of `seconds` less the sum of `shared`, for each episode that was timed. A rollout that
    somebody differentiates through takes longer than one for the states alone: what is taken is
    charged at most too high. `measure(..., share=False)` runs every estimator alone.

    `seconds` leave out what a process does once (imports, compilation, first memory), so that they
    do not depend on the order. With two or more full chunks they are those of the full chunks after
    the first, compiled or not, and nothing runs twice. With fewer, and nothing compiled, every
    estimator first runs untimed on a group of its episodes (2 at least), if that is at most 1 % of
    them. Other measurements are timed as they are, with the warm-up: take a larger `count`.
    """

    moments: dict[str, Moments]
    seconds: dict[str, float]  # per timed episode, for the gradients of all samples [s]
    lost: dict[str, int]  # samples that were not finite in this very estimator
    shared: dict[str, float]  # of `seconds`, those of rollouts that another estimator ran [s]

    def facts(self) -> Facts:
        return {
            name: f"{part.count * part.group:,} samples, {1e3 * self.seconds[name]:.3g} ms each"
            + (f" ({1e3 * self.shared[name]:.2g} of it shared)" if self.shared[name] else "")
            + (f", {self.lost[name]} not finite" if self.lost[name] else "")
            for name, part in self.moments.items()
        }

    def __getitem__(self, name: str) -> Moments:
        """The statistics of one estimator. Raises `UnknownName`."""
        if name not in self.moments:
            raise UnknownName("estimator of this measurement", name, self.moments)
        return self.moments[name]

    @property
    def single(self) -> Moments:
        """The statistics of the only estimator. Raises `BadValue` if there are several."""
        if len(self.moments) != 1:
            raise BadValue(
                f"expected a measurement of one estimator, got {len(self.moments)}; "
                f"try [{next(iter(self.moments))!r}]"
            )
        return next(iter(self.moments.values()))

    def pair(self, first: str, second: str) -> CrossMoments:
        """The statistics of two estimators on the same episodes. Raises `UnknownName`."""
        return CrossMoments(self[first], self[second])

    def compare(
        self, truth: OracleGradient, target: OracleGradient | None = None, **options: Any
    ) -> dict[str, Report]:
        """`gradlab.compare` of every estimator with one truth; the reports share its error."""
        return {
            name: compare(part, truth, target, **options) for name, part in self.moments.items()
        }

    def compare_pair(
        self, first: str, second: str, truth: OracleGradient, **options: Any
    ) -> PairReport:
        """`gradlab.compare_pair` of two of them. Raises `UnknownName`, and `BadShape` where one
        looks at groups of samples and the other does not."""
        return compare_pair(self.pair(first, second), truth, **options)


def measure(
    estimators: Sampler | Sequence[Sampler] | Mapping[str, Sampler],
    problem: Problem,
    params: Params,
    count: int,
    seed: int,
    *,
    chunk_size: int = CHUNK,
    begin: int = 0,
    pilots: Mapping[str, Params] | None = None,
    progress: bool | Callable[[int], None] = False,
    share: bool = True,
) -> Measurement:
    """Moments of estimators on the same episodes, begin..count−1 of the stream `seed`.

    Names are the estimators' labels, or the keys of a mapping. A sample that one estimator loses (a
    NaN or an infinity) is left out of all, so that every two are on the same samples. An estimator
    with `group` > 1 has the means of its groups as replicates: `begin` and `count` must be whole
    groups of every estimator, and chunks are rounded up to that. `progress` shows a bar, or is
    called with the number of episodes done after each chunk. Without `pilots` (a point near each
    mean) the mean of the first chunk is used. With `share` a rollout that several estimators need
    is run once where it can be, and nothing else changes (see `Measurement` for the time). Raises
    `BadValue` for equal labels, broken groups or an empty stream.
    """
    named = named_samplers(estimators)
    group = math.lcm(*(one.group for one in named.values()))
    count, chunk_size = whole("count", count), whole("chunk_size", chunk_size)
    begin = whole("begin", begin, 0)
    if begin % group or count % group:
        raise BadValue(
            f"begin and count must be multiples of the estimator's group of {group}, "
            f"got {begin} and {count}; try count={math.ceil(count / group) * group}"
        )
    if begin >= count:
        raise BadValue(f"an empty stream: begin={begin} is not below count={count}")
    names = list(named)
    order = [names[i] for i in sharing_order(list(named.values()), problem)]
    centres = dict(pilots or {})
    for centre in centres.values():
        check_pilot(centre)
    totals = {name: Accumulator() for name in named}
    seconds, shared = dict.fromkeys(named, 0.0), dict.fromkeys(named, 0.0)
    lost = dict.fromkeys(named, 0)
    position, timed = begin, 0
    size = math.ceil(chunk_size / group) * group
    several = (count - begin) // size > 1  # full chunks
    chunks = noise_stream(problem, count, seed, size, begin)
    with tqdm(total=count - begin, unit="episode", disable=progress is not True) as bar:
        for noise in chunks:
            samples: dict[str, GradientSamples] = {}
            memo = Memo()
            clocked = not several or (position > begin and noise.count == size)
            timed += noise.count if clocked else 0
            for name in order:
                if not several and position == begin and not problem.compile:
                    _warm_up(named[name], problem, params, noise, count - begin)
                before = memo.saved
                _finish(noise)
                start = time.perf_counter()
                some = _samples(named[name], problem, params, noise, memo if share else None)
                samples[name] = some.prepared()
                _finish(noise)
                spent, saved = time.perf_counter() - start, memo.saved - before
                seconds[name] += (spent + saved) * clocked
                shared[name] += saved * clocked
            for name, chunk in _summed(samples, centres, position, lost).items():
                centres[name] = chunk.pilot  # cast once
                totals[name].add(chunk)
            position += noise.count
            bar.update(noise.count)
            if any(lost.values()):
                bar.set_postfix_str(f"not finite: {max(lost.values())}")
            if callable(progress):
                progress(position - begin)
    streams = (Stream(seed, begin, count, problem.name),)
    moments = {
        name: Moments(**totals[name].sums(), group=one.group, streams=streams)
        for name, one in named.items()
    }
    seconds, shared = ({name: s / timed for name, s in one.items()} for one in (seconds, shared))
    return Measurement(moments, seconds, lost, shared)


WARM_AT_MOST = 0.01  # of the episodes are run twice


def _finish(noise: Noise) -> None:
    """A GPU is told what to do long before it has done it: a clock must wait for it."""
    if noise.action.is_cuda:
        torch.cuda.synchronize(noise.action.device)


def _warm_up(one: Sampler, problem: Problem, params: Params, noise: Noise, count: int) -> None:
    """Runs an estimator on a few of the episodes, if they are few beside `count`.

    torch's own generator, which an estimator of a user may draw from, is left as it was.
    """
    few = max(2, one.group)
    if few <= WARM_AT_MOST * count and few <= noise.count:
        used = noise.initial.device
        with torch.random.fork_rng([used] if used.type == "cuda" else []):
            _samples(one, problem, params, noise.rows(0, few), Memo()).prepared()


def _samples(
    one: Sampler, problem: Problem, params: Params, noise: Noise, memo: Memo | None
) -> GradientSamples:
    if memo is not None and isinstance(one, SharingSampler):
        return one.sharing(problem, params, noise, memo)
    return one(problem, params, noise)


def named_samplers(
    estimators: Sampler | Sequence[Sampler] | Mapping[str, Sampler],
) -> dict[str, Sampler]:
    """The estimators by name.

    Raises `BadValue` for none, for equal labels and for anything else.
    """
    if isinstance(estimators, Mapping):
        named = {name: _checked(one) for name, one in estimators.items()}
    elif isinstance(estimators, Sequence) and not isinstance(estimators, str):
        several = [_checked(one) for one in estimators]
        labels = [one.label for one in several]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise BadValue(
                f"expected estimators with different labels, got {twice[0]!r} twice; "
                'try a mapping, measure({"a": ..., "b": ...}, ...)'
            )
        named = dict(zip(labels, several, strict=True))
    else:
        one = _checked(estimators)
        named = {one.label: one}
    if not named:
        raise BadValue(f"expected at least one estimator, got {got(estimators)}; try [FOG()]")
    return named


def _checked(one: object) -> Sampler:
    if isinstance(one, type):
        raise BadValue(f"expected an estimator, got the class {one.__name__}; try {one.__name__}()")
    if not isinstance(one, Sampler):
        raise BadValue(f"estimator should be an estimator, got {got(one)}; try FOG()")
    return one


def _summed(
    samples: Mapping[str, GradientSamples],
    centres: Mapping[str, Params],
    position: int,
    lost: dict[str, int],
) -> dict[str, Chunk]:
    """Sums over one chunk, without the samples that any estimator lost; `lost` is added to."""
    chunks = {name: one.summed(position, centres.get(name)) for name, one in samples.items()}
    if not bool(torch.stack([chunk.lost.any() for chunk in chunks.values()]).any()):
        return chunks
    rows = {name: lost_rows(one.products()) for name, one in samples.items()}
    for name, mine in rows.items():
        lost[name] += int(mine.sum())
    out = torch.stack(list(rows.values())).any(0)
    return {
        name: one.summed(position, centres.get(name), lost=out.unflatten(0, (-1, one.group)).any(1))
        for name, one in samples.items()
    }
