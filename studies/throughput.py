"""How fast are per-sample gradients, and how much memory do they take?

Every cell races the gradient engines against each other on one problem, number of samples N and
horizon T: FOG through both engines, with and without a compiled step, beside one ordinary batched
backward pass of the mean (the yardstick) and a JAX twin where jax is installed. In every round each
contender runs once, so that ratios come from neighbours in time. A second kind of cell streams
samples into `Moments` and reads the peak memory of its process.

Cells take turns whatever --jobs is: two races at once would only slow each other.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from gradlab.foundation.errors import BadValue, Unavailable, UnknownName
from gradlab.study import Cell, Saved, cli
from studies.stopwatch import CLOCKS, CONTENDERS, PROBLEMS, Race, Stream, separately
from studies.throughput_answer import answer
from studies.throughput_report import plot, summarise

__all__ = ["MINUTES", "PRESETS", "Config", "answer", "cells", "plot", "run_cell", "summarise"]

YARDSTICKS = (
    "batched",
    "vmap",
    "jax",
    "jax_unrolled",
    "brax_generalized",
    "brax_spring",
    "brax_generalized_forward",
    "brax_spring_forward",
)
MEASURED = (
    "ms_median", "ms_min", "samples_per_second", "first_call_seconds", "peak_mib", "load",
    *(f"over_{name}{end}" for name in YARDSTICKS for end in ("", "_low", "_high")),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    problems: tuple[str, ...] = ("hovering", "lq")
    """Simulators to differentiate: hovering (Euler), hovering_rk4 (four sub-steps), racing, lq, ant
    (compliant contact, dFlex's constants, five sub-steps), ant_fresh (mass matrix at every
    sub-step), ant_50ms (Brax's control period, 10 sub-steps), ant_convex (Brax's ant, MuJoCo's
    contact problem)."""
    contenders: tuple[str, ...] = ("batched", "pullback", "pullback_compiled", "vmap", "jax")
    """Who races: these, batched_compiled, jax_unrolled, whose compilation takes a minute,
    pullback_checkpoint and pullback_compiled_checkpoint (each step run again in the backward pass),
    forward and forward_compiled (no gradient), and on the ant brax_generalized, brax_spring and
    their _forward."""
    samples: tuple[int, ...] = (64, 256)
    """Episodes per call N."""
    horizons: tuple[int, ...] = (8, 32)
    """Steps per episode T."""
    hidden: tuple[int, ...] = (256, 128, 64)
    """Hidden layers of the policy."""
    repeats: int = 7
    """Rounds per race."""
    clock: str = "wall"
    """wall, or cpu: time of the process on a core,
    which is steadier when others use the machine.
    """
    threads: int = 1
    """Threads of torch and of XLA."""
    device: str = "cpu"
    """cpu or cuda."""
    stream_counts: tuple[int, ...] = (100_000, 1_000_000)
    """Lengths of the streams whose peak memory is measured; none to leave them out."""
    stream_problem: str = "lq"
    """Problem of the streams."""
    stream_horizon: int = 4
    """Steps per episode of the streams."""
    stream_hidden: tuple[int, ...] = (32,)
    """Hidden layers of the streams' policy."""
    stream_chunk: int = 1024
    """Samples in memory at once."""
    seed: int = 0
    """Seed of parameters and noise."""


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "problems": ("hovering",),
        "contenders": ("batched", "pullback", "vmap"),
        "samples": (32,),
        "horizons": (4,),
        "hidden": (32, 32),
        "repeats": 3,
        "stream_counts": (2048, 8192),
        "jobs": 1,
    },
    "default": {"jobs": 1},
    "paper": {
        "problems": ("hovering", "hovering_rk4", "racing", "lq", "ant", "ant_50ms", "ant_convex"),
        "contenders": tuple(CONTENDERS),
        "samples": (16, 64, 256, 1024),
        "horizons": (8, 32, 96),
        "repeats": 21,
        "stream_problem": "hovering",
        "stream_horizon": 8,
        "stream_hidden": (64, 64),
        "jobs": 1,
    },
}
MINUTES = {"smoke": 1}  # of the presets that were timed, on two free cores


def cells(config: Config) -> Iterator[Cell]:
    """One race per problem, N and T, and one stream per length."""
    _check(config)
    for problem in config.problems:
        for samples in config.samples:
            for horizon in config.horizons:
                payload = {"problem": problem, "samples": samples, "horizon": horizon}
                key = f"race/{problem}/N{samples}/T{horizon}"
                yield Cell(key, payload, cost=5 + samples * horizon * config.repeats / 10_000)
    for count in config.stream_counts:
        yield Cell(f"stream/{count}", {"count": count}, cost=5 + count / 50_000)


def _check(config: Config) -> None:
    for problem in (*config.problems, config.stream_problem):
        if problem not in PROBLEMS:
            raise UnknownName("problem", problem, PROBLEMS)
    for contender in config.contenders:
        if contender not in CONTENDERS:
            raise UnknownName("contender", contender, CONTENDERS)
    if config.clock not in CLOCKS:
        raise UnknownName("clock", config.clock, CLOCKS)
    if config.device not in ("cpu", "cuda"):
        raise UnknownName("device", config.device, ("cpu", "cuda"))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("expected a CUDA device for --device cuda, and torch finds none; try cpu")
    counts = (*config.samples, *config.horizons, *config.stream_counts)
    if min(*counts, config.repeats, config.threads, config.stream_chunk) < 1:
        raise BadValue("samples, horizons, repeats, threads and stream sizes must be at least 1")


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """The rows of a race (one per contender) or of a stream (one)."""
    with _alone():
        if "count" in cell.payload:
            yield _stream_row(config, cell.payload["count"])
        else:
            yield from _race_rows(config, dict(cell.payload))


def _race_rows(config: Config, setting: dict[str, Any]) -> Iterator[dict[str, Any]]:
    result = separately(
        Race(
            **setting,
            contenders=config.contenders,
            hidden=config.hidden,
            repeats=config.repeats,
            clock=config.clock,
            threads=config.threads,
            device=config.device,
            seed=config.seed,
        )
    )
    for name in config.contenders:
        row = {"kind": "race", **setting, "contender": name, **_conditions(config)}
        if name in result["skipped"]:
            yield {**row, "status": result["skipped"][name]}
            continue
        seconds = result["seconds"][name]
        ratios: dict[str, float] = {}
        for other in YARDSTICKS:
            if other in result["seconds"] and other != name:
                pairs = [a / b for a, b in zip(seconds, result["seconds"][other], strict=True)]
                low, high = median_interval(pairs)
                middle = statistics.median(pairs)
                ratios |= {
                    f"over_{other}": middle,
                    f"over_{other}_low": low,
                    f"over_{other}_high": high,
                }
        yield {
            **row,
            "status": "ok",
            "rounds": config.repeats,
            "clock": config.clock,
            "ms_median": 1e3 * statistics.median(seconds),
            "ms_min": 1e3 * min(seconds),
            "samples_per_second": setting["samples"] / statistics.median(seconds),
            "first_call_seconds": result["first_seconds"][name],
            "peak_mib": result["peak_mib"][name],
            "load": result["load"],
            **ratios,
        }


def _conditions(config: Config) -> dict[str, Any]:
    """What a time depends on beside the setting."""
    return {"device": config.device, "threads": config.threads}


def _stream_row(config: Config, count: int) -> dict[str, Any]:
    result = separately(
        Stream(
            config.stream_problem,
            count,
            config.stream_chunk,
            config.stream_horizon,
            config.stream_hidden,
            config.threads,
            config.device,
            config.seed,
        )
    )
    return {
        "kind": "stream",
        "problem": config.stream_problem,
        "samples": count,
        "horizon": config.stream_horizon,
        "contender": "pullback",
        **_conditions(config),
        "status": "ok",
        "samples_per_second": count / result["seconds"],
        "peak_mib": result["peak_mib"],
    }


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median with at least this probability.

    Free of any distribution: the number of values below the median is binomial(n, ½). With five
    values or fewer the extremes are all there is (94 % for five).
    """
    ordered, n = sorted(values), len(values)
    depth = 0
    while n - 2 * (depth + 1) > 0 and _coverage(n, depth + 1) >= level:
        depth += 1
    return ordered[depth], ordered[n - 1 - depth]


def _coverage(n: int, depth: int) -> float:
    """Probability that the median lies between the order statistics `depth` from either end."""
    return 1 - 2 * sum(math.comb(n, k) for k in range(depth + 1)) / 2**n


@contextmanager
def _alone() -> Iterator[None]:
    """Waits until no other cell of this study is being timed on this machine."""
    with FileLock(Path(tempfile.gettempdir()) / "gradlab-throughput.lock"):
        yield


if __name__ == "__main__":
    cli("studies.throughput")
