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
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from gradlab.foundation.arguments import got, whole
from gradlab.foundation.display import Facts, Shown
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.memo import Memo
from gradlab.foundation.noise import Noise
from gradlab.foundation.placement import wait_for
from gradlab.gradients import captured
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
    With `compile="graph"` they are those of whole chunks, statistics included; nothing is shared.
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
    runs = _Runs(named, order, problem, captured.uncaptured(problem), params, share)
    with tqdm(total=count - begin, unit="episode", disable=progress is not True) as bar:
        for noise in chunks:
            clocked = not several or (position > begin and noise.count == size)
            timed += noise.count if clocked else 0
            if not several and position == begin and not problem.compile:
                runs.warm_up(noise, count - begin)
            done = runs.replayed(noise, position, centres) if noise.count == size else None
            sums, spent = done or runs.run(noise, position, centres, lost)
            for name, chunk in sums.items():
                centres[name] = chunk.pilot  # cast once
                totals[name].add(chunk)
                seconds[name] += sum(spent[name]) * clocked
                shared[name] += spent[name].saved * clocked
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


class Spent(NamedTuple):
    """Time for the gradients of a chunk."""

    own: float  # [s]
    saved: float = 0.0  # on rollouts that another estimator ran [s]


Done = tuple[dict[str, Chunk], dict[str, Spent]]  # by name


@dataclass(frozen=True)
class _Runs:
    """Who runs, in which order, on what."""

    named: Mapping[str, Sampler]
    order: Sequence[str]
    problem: Problem
    plain: Problem  # the same, where nothing is captured
    params: Params
    share: bool

    def warm_up(self, noise: Noise, count: int) -> None:
        """Runs every estimator on a few of the episodes, if they are few beside `count`.

        torch's own generator, which an estimator of a user may draw from, is left as it was.
        """
        used = noise.initial.device
        for name in self.order:
            few = max(2, self.named[name].group)
            if few <= WARM_AT_MOST * count and few <= noise.count:
                with torch.random.fork_rng([used] if used.type == "cuda" else []):
                    self._samples(name, noise.rows(0, few), Memo()).prepared()

    def replayed(self, noise: Noise, position: int, centres: Mapping[str, Params]) -> Done | None:
        """Sums over a chunk by replays of whole graphs; None where nothing is captured, or samples
        that are not finite must be looked for."""
        if self.problem.compile != "graph":
            return None
        sums: dict[str, Chunk] = {}
        spent: dict[str, Spent] = {}
        for name in self.order:
            wait_for(noise.action.device)
            start, centre = time.perf_counter(), centres.get(name)
            chunk = captured.summed(
                self.named[name], self.problem, self.params, noise, position, centre
            )
            if chunk is None:
                return None
            wait_for(noise.action.device)
            sums[name], spent[name] = chunk, Spent(time.perf_counter() - start)
        return sums, spent

    def run(
        self,
        noise: Noise,
        position: int,
        centres: Mapping[str, Params],
        lost: dict[str, int],
    ) -> Done:
        """Sums over a chunk, without the samples that any estimator lost; `lost` is added to."""
        samples: dict[str, GradientSamples] = {}
        spent: dict[str, Spent] = {}
        memo = Memo()
        for name in self.order:
            wait_for(noise.action.device)
            before, start = memo.saved, time.perf_counter()
            some = self._samples(name, noise, memo if self.share else None)
            samples[name] = some.prepared()
            wait_for(noise.action.device)
            spent[name] = Spent(time.perf_counter() - start, memo.saved - before)
        return _summed(samples, centres, position, lost), spent

    def _samples(self, name: str, noise: Noise, memo: Memo | None) -> GradientSamples:
        one = self.named[name]
        if memo is not None and isinstance(one, SharingSampler):
            return one.sharing(self.plain, self.params, noise, memo)
        return one(self.plain, self.params, noise)


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
