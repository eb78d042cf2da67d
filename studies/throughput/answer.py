"""What `throughput` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from gradlab.study import Answer
from studies.throughput.report import LABELS, Record, growth_of_memory, largest_races

ENGINES = ("pullback", "pullback_compiled")
BESIDE = {  # column of the table: (other contender, is it a speed?)
    "time / batched backward": ("batched", False),
    "speed / vmap(grad)": ("vmap", True),
    "speed / JAX": ("jax", True),
}


def answer(rows: pd.DataFrame) -> Answer:
    """What per-sample gradients cost beside one backward pass of the mean, in the largest races."""
    records = rows.to_dict("records")
    races = [row for row in records if row["kind"] == "race" and row["status"] == "ok"]
    ours = [row for row in largest_races(races) if row["contender"] in ENGINES]
    streams = [row for row in records if row["kind"] == "stream"]
    said = [*_cost(ours), *_memory(streams)]
    return Answer(
        question="What do per-sample gradients cost in time and memory, beside one ordinary backward pass?",
        answer=" ".join(said)
        or "Nothing was measured that could answer it: ask for the pullback engine.",
        rests_on=_rests_on(races, streams),
        would_change=_would_change(races),
        table=pd.DataFrame([_line(row) for row in ours]),
    )


def _cost(ours: list[Record]) -> Iterator[str]:
    """The range over the problems, and where its ends are."""
    for engine in ENGINES:
        mine = [row for row in ours if row["contender"] == engine]
        for column, words in (
            ("over_batched", "the time of a batched backward pass of the mean"),
            ("over_vmap", "the time of vmap(grad)"),
        ):
            known = [row for row in mine if not math.isnan(row.get(column, math.nan))]
            if known:
                ends = sorted(known, key=lambda row: row[column])
                some = ends[:1] if len(ends) == 1 else [ends[0], ends[-1]]
                sizes = " to ".join(_interval(row, column) for row in some)
                where = " and ".join(row["problem"] for row in some)
                yield f"{LABELS[engine].capitalize()}: {sizes} times {words} ({where})."


def _memory(streams: list[Record]) -> Iterator[str]:
    if len({row["samples"] for row in streams}) > 1:
        factor, growth, flat = growth_of_memory(streams)
        verdict = "does not grow" if flat else "grows"
        yield f"Peak memory of a stream {verdict} with its length ({growth:.2f} times for {factor:.0f} times the samples)."


def _rests_on(races: list[Record], streams: list[Record]) -> str:
    first = (races or streams)[0]
    where = f"One machine, device {first['device']}, {first['threads']} thread(s), float32"
    if not races:
        return f"{where}; one stream per length."
    loads = [row["load"] for row in races]
    return (
        f"{where}. Ratios are medians over {int(first['rounds'])} rounds ({first['clock']} clock), each round "
        f"running every contender once, with 95 % intervals from order statistics; machine load "
        f"{min(loads):.1f} to {max(loads):.1f}."
    )


def _would_change(races: list[Record]) -> str:
    """The same ratio in the smallest race, where fixed costs weigh most."""
    small = sorted(
        (row for row in races if row["contender"] == "pullback"),
        key=lambda row: row["samples"] * row["horizon"],
    )
    if not small or math.isnan(small[0].get("over_batched", math.nan)):
        return "Another machine or device, more threads, or smaller batches."
    row = small[0]
    return (
        "Another machine or device, more threads, or smaller batches, where fixed costs weigh more: at "
        f"N = {row['samples']}, T = {row['horizon']} on {row['problem']} the pullback engine takes "
        f"{_interval(row, 'over_batched')} times a batched backward pass."
    )


def _line(row: Record) -> dict[str, str]:
    line = {
        "problem": row["problem"],
        "N x T": f"{row['samples']} x {row['horizon']}",
        "engine": LABELS[row["contender"]],
        "samples/s": f"{row['samples_per_second']:,.0f}",
    }
    for header, (other, inverse) in BESIDE.items():
        line[header] = _interval(row, f"over_{other}", inverse)
    return {**line, "peak MiB": _whole(row["peak_mib"])}


def _interval(row: Record, column: str, inverse: bool = False) -> str:
    """A ratio with its interval; empty where it was not measured."""
    middle, low, high = (row.get(f"{column}{end}", math.nan) for end in ("", "_low", "_high"))
    if math.isnan(middle):
        return ""
    if inverse:
        middle, low, high = 1 / middle, 1 / high, 1 / low
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _whole(value: float) -> str:
    return "" if math.isnan(value) else "< 1" if value < 1 else f"{value:.0f}"
