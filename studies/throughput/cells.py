"""What `throughput` measures: one cell per race, per combination and per stream."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from gradlab.foundation import placement
from gradlab.study import Cell, Saved
from gradlab.study.tables import flat
from studies.shared.medians import median_interval
from studies.throughput.combinations import GROUP
from studies.throughput.config import Config, check
from studies.throughput.stopwatch import Mixing, Race, Stream, separately

YARDSTICKS = (
    "batched",
    "vmap",
    "jax",
    "jax_unrolled",
    "jax_unrolled_8",
    "limit",
    "brax_generalized",
    "brax_generalized_unrolled_8",
    "brax_spring",
    "brax_generalized_forward",
    "brax_spring_forward",
)
MEASURED = (
    "ms_median", "ms_min", "samples_per_second", "first_call_seconds", "peak_mib", "load",
    *(f"over_{name}{end}" for name in (*YARDSTICKS, "parts") for end in ("", "_low", "_high")),
)  # fmt: skip


def cells(config: Config) -> Iterator[Cell]:
    """One race per problem, N and T, one per combination, and one stream per length."""
    check(config)
    for problem in config.problems:
        for samples in config.samples:
            for horizon in config.horizons:
                payload = {"problem": problem, "samples": samples, "horizon": horizon}
                key = f"race/{problem}/N{samples}/T{horizon}"
                yield Cell(key, payload, cost=5 + samples * horizon * config.repeats / 10_000)
    for name in config.combinations:
        yield Cell(f"combination/{name}", {"combination": name}, cost=15)
    for count in config.stream_counts:
        yield Cell(f"stream/{count}", {"count": count}, cost=5 + count / 50_000)


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """The rows of a race (one per contender), of a combination or of a stream (one)."""
    with _alone():
        if "count" in cell.payload:
            yield _stream_row(config, cell.payload["count"])
        elif "combination" in cell.payload:
            yield _combination_row(config, cell.payload["combination"])
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
            device=placement.device(),
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
                ratios |= flat(f"over_{other}", median_interval(pairs, extremes=True))
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


def _combination_row(config: Config, name: str) -> dict[str, Any]:
    groups = -(-max(config.samples) // GROUP)
    task = Mixing(
        config.combination_problem,
        name,
        groups * GROUP,
        max(config.horizons),
        config.hidden,
        config.repeats,
        config.clock,
        config.threads,
        placement.device(),
        config.seed,
    )
    result = separately(task)
    whole, *parts = result["seconds"].values()
    ratios = [a / sum(each) for a, *each in zip(whole, *parts, strict=True)]
    return {
        "kind": "combination",
        "problem": task.problem,
        "samples": task.samples,
        "horizon": task.horizon,
        "contender": name,
        **_conditions(config),
        "status": "ok",
        "rounds": config.repeats,
        "clock": config.clock,
        "ms_median": 1e3 * statistics.median(whole),
        "load": result["load"],
        **flat("over_parts", median_interval(ratios, extremes=True)),
    }


def _conditions(config: Config) -> dict[str, Any]:
    """What a time depends on beside the setting."""
    return {"device": placement.device(), "threads": config.threads}


def _stream_row(config: Config, count: int) -> dict[str, Any]:
    result = separately(
        Stream(
            config.stream_problem,
            count,
            config.stream_chunk,
            config.stream_horizon,
            config.stream_hidden,
            config.threads,
            placement.device(),
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


@contextmanager
def _alone() -> Iterator[None]:
    """Waits until no other cell of this study is being timed on this machine."""
    with FileLock(Path(tempfile.gettempdir()) / "gradlab-throughput.lock"):
        yield
