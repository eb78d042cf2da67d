"""What `throughput` makes of its rows: a table, a verdict in words, a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

Record = dict[Any, Any]

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
    "pullback_checkpoint": "pullback, checkpointed",
    "pullback_compiled_checkpoint": "pullback, compiled, checkpointed",
    "brax_generalized": "Brax generalized jit(vmap(grad))",
    "brax_spring": "Brax spring jit(vmap(grad))",
    "forward": "forward",
    "forward_compiled": "forward, compiled",
    "brax_generalized_forward": "Brax generalized, forward",
    "brax_spring_forward": "Brax spring, forward",
}
BRAX = ("brax_generalized", "brax_spring", "brax_generalized_forward", "brax_spring_forward")


def summarise(rows: pd.DataFrame) -> str:
    """The table of races, how the largest race on each problem came out, and the streams."""
    records = rows.to_dict("records")
    races = [row for row in records if row["kind"] == "race"]
    streams = sorted(
        (row for row in records if row["kind"] == "stream"), key=lambda row: row["samples"]
    )
    parts = [_table(races), *_skipped(races), "", *_verdicts(races), "", *_streams(streams)]
    return "\n".join(parts).strip()


def _table(races: list[Record]) -> str:
    if not races:
        return ""
    columns: dict[str, tuple[str, str]] = {
        "problem": ("problem", ""), "samples": ("N", ""), "horizon": ("T", ""),
        "contender": ("contender", ""), "ms_median": ("ms", ".1f"), "ms_min": ("ms min", ".1f"),
        "samples_per_second": ("samples/s", ",.0f"), "over_batched": ("x batched", ".2f"),
        "over_vmap": ("x vmap", ".3f"), "peak_mib": ("peak MiB", ".1f"),
        "first_call_seconds": ("first call s", ".1f"),
    }  # fmt: skip
    lines = [[header for header, _ in columns.values()]]
    for row in races:
        if row["status"] == "ok":
            lines.append([_cell(row.get(name), f) for name, (_, f) in columns.items()])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )


def _cell(value: Any, style: str) -> str:
    """A number in the column's style; nothing for a ratio that does not exist."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else format(value, style)


def _skipped(races: list[Record]) -> list[str]:
    reasons = {(row["contender"], row["status"]): None for row in races if row["status"] != "ok"}
    return [f"left out: {contender} ({reason})" for contender, reason in reasons]


def _verdicts(races: list[Record]) -> Iterator[str]:
    """One sentence per problem, on its largest race."""
    largest = largest_races([row for row in races if row["status"] == "ok"])
    for problem in dict.fromkeys(row["problem"] for row in largest):
        at = [row for row in largest if row["problem"] == problem]
        ours = ("pullback", "forward")
        said = [_said(row, at) for row in at if row["contender"].startswith(ours)]
        if said := [text for text in said if text]:
            where = f"{problem}, N={at[0]['samples']}, T={at[0]['horizon']}"
            yield f"{where} (machine load {at[0]['load']:.1f}). {'; '.join(said)}."


def largest_races(done: list[Record]) -> list[Record]:
    """The rows of each problem's largest race: most steps in all, then most episodes."""
    largest: list[Record] = []
    for problem in dict.fromkeys(row["problem"] for row in done):
        here = [row for row in done if row["problem"] == problem]
        size = max((row["samples"] * row["horizon"], row["samples"]) for row in here)
        largest += [r for r in here if (r["samples"] * r["horizon"], r["samples"]) == size]
    return largest


def _said(row: Record, beside: list[Record]) -> str:
    """Medians of paired ratios with their 95 % intervals."""
    others = [other["contender"] for other in beside]
    facts = []
    if "batched" in others and not row["contender"].startswith("forward"):
        facts.append(f"{_ratio(row, 'batched')} of the time of a batched backward pass")
    forward = row["contender"].startswith("forward")
    for other in ("vmap", "jax", "jax_unrolled", *BRAX):
        if other in others and other.endswith("_forward") == forward:
            facts.append(f"{_ratio(row, other, inverse=True)} times as fast as {LABELS[other]}")
    return f"{LABELS[row['contender']]}: {', '.join(facts)}" if facts else ""


def _ratio(row: Record, other: str, inverse: bool = False) -> str:
    middle, low, high = (row[f"over_{other}{end}"] for end in ("", "_low", "_high"))
    if inverse:
        middle, low, high = 1 / middle, 1 / high, 1 / low
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _streams(streams: list[Record]) -> Iterator[str]:
    for row in streams:
        yield (
            f"stream of {row['samples']:,} samples ({row['problem']}, T={row['horizon']}): peak "
            f"{row['peak_mib']:.0f} MiB, {row['samples_per_second']:,.0f} samples/s"
        )
    if len(streams) > 1:
        factor, growth, flat = growth_of_memory(streams)
        yield (
            f"memory does {'not grow' if flat else 'GROW'}: {growth:.3f} times as much for "
            f"{factor:.0f} times the samples (limit {STREAM_LIMIT:.0f} MiB)"
        )


def growth_of_memory(streams: list[Record]) -> tuple[float, float, bool]:
    """How many times as long the longest stream is as the shortest, how many times its peak, and
    whether that is flat and below the limit."""
    short, *_, long = sorted(streams, key=lambda row: row["samples"])
    growth = long["peak_mib"] / short["peak_mib"]
    flat = growth <= STREAM_GROWTH and long["peak_mib"] < STREAM_LIMIT
    return long["samples"] / short["samples"], growth, flat
