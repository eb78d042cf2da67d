"""The rows of `throughput`, and what its words and figures read out of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study.tables import UNKNOWN, grouped, read

STREAM_LIMIT = 1536.0  # of the peak memory of a stream [MiB]
STREAM_GROWTH = 1.05  # what counts as no higher: the allocator's own jitter [1]
LABELS = {
    "batched": "batched backward",
    "batched_compiled": "batched backward, compiled",
    "pullback": "pullback",
    "pullback_compiled": "pullback, compiled",
    "vmap": "vmap(grad)",
    "jax": "JAX jit(vmap(grad))",
    "jax_unrolled": "JAX, unrolled",
    "jax_unrolled_8": "JAX, unrolled by 8",
    "pullback_graph": "pullback, one graph",
    "moments_graph": "pullback and statistics, one graph",
    "brax_generalized_unrolled_8": "Brax generalized, unrolled by 8",
    "limit": "limit by bandwidth and rate",
    "mujoco": "MuJoCo's C step, one thread",
    "moments": "pullback and statistics",
    "moments_compiled": "pullback and statistics, compiled",
    "pullback_checkpoint": "pullback, checkpointed",
    "pullback_compiled_checkpoint": "pullback, compiled, checkpointed",
    "brax_generalized": "Brax generalized jit(vmap(grad))",
    "brax_spring": "Brax spring jit(vmap(grad))",
    "forward": "forward",
    "forward_compiled": "forward, compiled",
    "brax_generalized_forward": "Brax generalized, forward",
    "brax_spring_forward": "Brax spring, forward",
}


@dataclass(frozen=True)
class Race:
    """One contender of one race."""

    problem: str
    samples: int  # N
    horizon: int  # T [steps]
    contender: str
    device: str
    threads: int
    status: str  # ok, or why it was left out
    rounds: int | None = None
    clock: str | None = None  # wall or cpu
    ms_median: float = math.nan  # [ms]
    ms_min: float = math.nan  # [ms]
    samples_per_second: float = math.nan  # [1/s]
    first_call_seconds: float = math.nan  # [s]
    peak_mib: float = math.nan  # [MiB]
    load: float = math.nan  # of the machine
    # medians of paired ratios of times over those of yardsticks [1]
    over_batched: Interval = UNKNOWN
    over_vmap: Interval = UNKNOWN
    over_jax: Interval = UNKNOWN
    over_jax_unrolled: Interval = UNKNOWN
    over_jax_unrolled_8: Interval = UNKNOWN
    over_limit: Interval = UNKNOWN
    over_brax_generalized: Interval = UNKNOWN
    over_brax_generalized_unrolled_8: Interval = UNKNOWN
    over_brax_spring: Interval = UNKNOWN
    over_brax_generalized_forward: Interval = UNKNOWN
    over_brax_spring_forward: Interval = UNKNOWN

    @property
    def size(self) -> tuple[int, int]:
        """Steps in all, then episodes."""
        return self.samples * self.horizon, self.samples

    @property
    def steps_per_second(self) -> float:
        """Environment steps of all episodes [1/s]."""
        return self.samples_per_second * self.horizon

    @property
    def bytes_per_sample(self) -> float:
        """What a call needs on top of what is held, for each sample [B]."""
        return self.peak_mib * 2**20 / self.samples

    def time_over(self, other: str) -> Interval:
        """Time over that of a yardstick."""
        return getattr(self, f"over_{other}")

    def speed_over(self, other: str) -> Interval:
        """Speed over that of a yardstick."""
        middle, low, high = self.time_over(other)
        return Interval(1 / middle, 1 / high, 1 / low)


@dataclass(frozen=True)
class Combination:
    """One combination of estimators beside its parts."""

    problem: str
    samples: int  # N
    horizon: int  # T [steps]
    contender: str  # its name
    device: str
    threads: int
    rounds: int
    clock: str  # wall or cpu
    ms_median: float  # with statistics [ms]
    over_parts: Interval  # median of paired ratios of its time over the sum of its parts' [1]
    load: float = math.nan  # of the machine


@dataclass(frozen=True)
class Stream:
    """One stream of samples into moments."""

    problem: str
    samples: int
    horizon: int  # [steps]
    device: str
    threads: int
    samples_per_second: float  # [1/s]
    peak_mib: float  # of the whole process [MiB]


def races_of(rows: pd.DataFrame) -> list[Race]:
    """Every contender of every race, also those that were left out."""
    return read(Race, rows, kind="race")


def done(races: Iterable[Race]) -> list[Race]:
    """Those that ran."""
    return [race for race in races if race.status == "ok"]


def streams_of(rows: pd.DataFrame) -> list[Stream]:
    """The streams, the shortest first."""
    return sorted(read(Stream, rows, kind="stream"), key=lambda stream: stream.samples)


def combinations_of(rows: pd.DataFrame) -> list[Combination]:
    """The combinations, the dearest beside its parts last."""
    found = read(Combination, rows, kind="combination")
    return sorted(found, key=lambda one: one.over_parts.estimate)


def largest_races(races: Iterable[Race]) -> list[Race]:
    """The rows of each problem's largest race: most steps in all, then most episodes."""
    return [
        race
        for here in grouped(races, lambda race: race.problem).values()
        for race in here
        if race.size == max(one.size for one in here)
    ]


def growth_of_memory(streams: list[Stream]) -> tuple[float, float, bool]:
    """How many times as long the longest stream is as the shortest, how many times its peak, and
    whether that is flat and below the limit."""
    short, long = streams[0], streams[-1]
    growth = long.peak_mib / short.peak_mib
    flat = growth <= STREAM_GROWTH and long.peak_mib < STREAM_LIMIT
    return long.samples / short.samples, growth, flat
