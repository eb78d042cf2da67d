"""The long form of what `throughput` found: races, the largest ones, combinations, streams."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from gradlab.study import text
from gradlab.study.tables import grouped
from studies.throughput.rows import (
    LABELS,
    STREAM_LIMIT,
    Race,
    Stream,
    combinations_of,
    done,
    growth_of_memory,
    largest_races,
    races_of,
    streams_of,
)

PEERS = (
    "jax", "jax_unrolled", "jax_unrolled_8", "brax_generalized", "brax_generalized_unrolled_8", "brax_spring",
    "brax_generalized_forward", "brax_spring_forward",
)  # fmt: skip


def summarise(rows: pd.DataFrame) -> str:
    """The table of races, how the largest on each problem came out, combinations, streams."""
    races = races_of(rows)
    parts = [
        _table(races),
        *_skipped(races),
        "",
        *_verdicts(done(races)),
        "",
        *_combinations(rows),
        "",
        *_streams(rows),
    ]
    return "\n".join(parts).strip()


def _table(races: list[Race]) -> str:
    if not races:
        return ""
    header = (
        "problem", "N", "T", "contender", "ms", "ms min", "samples/s", "x batched", "x vmap", "peak MiB",
        "first call s",
    )  # fmt: skip
    return text.columns([header, *map(_line, done(races))], str.rjust)


def _line(race: Race) -> list[str]:
    numbers = (
        (race.ms_median, ".1f"), (race.ms_min, ".1f"), (race.samples_per_second, ",.0f"),
        (race.over_batched.estimate, ".2f"), (race.over_vmap.estimate, ".3f"),
        (race.peak_mib, ".1f"), (race.first_call_seconds, ".1f"),
    )  # fmt: skip
    cells = ["" if math.isnan(number) else format(number, style) for number, style in numbers]
    return [race.problem, f"{race.samples}", f"{race.horizon}", race.contender, *cells]


def _skipped(races: list[Race]) -> list[str]:
    reasons = dict.fromkeys((r.contender, r.status) for r in races if r.status != "ok")
    return [f"left out: {contender} ({reason})" for contender, reason in reasons]


def _verdicts(races: list[Race]) -> Iterator[str]:
    """One sentence per problem, on its largest race."""
    for problem, at in grouped(largest_races(races), lambda race: race.problem).items():
        said = [
            _said(race, at) for race in at if race.contender.startswith(("pullback", "forward"))
        ]
        if any(said):
            where = f"{problem}, N={at[0].samples}, T={at[0].horizon}"
            yield f"{where} (machine load {at[0].load:.1f}). {'; '.join(filter(None, said))}."


def _said(race: Race, beside: list[Race]) -> str:
    """Medians of paired ratios with their 95 % intervals."""
    others, forward = {other.contender for other in beside}, race.contender.startswith("forward")
    facts = []
    if "batched" in others and not forward:
        facts.append(f"{text.ratio(race.over_batched)} of the time of a batched backward pass")
    for other in ("vmap", *PEERS):
        if other in others and other.endswith("_forward") == forward:
            facts.append(f"{text.ratio(race.speed_over(other))} times as fast as {LABELS[other]}")
    if "limit" in others and not forward:
        facts.append(f"{text.ratio(race.over_limit)} times the {LABELS['limit']}")
    return f"{LABELS[race.contender]}: {', '.join(facts)}" if facts else ""


def _combinations(rows: pd.DataFrame) -> list[str]:
    """A line each: what it costs beside its parts, each of which has its own rollout there."""
    found = combinations_of(rows)
    if not found:
        return []
    first = found[0]
    lines = [("combination", "ms", "x sum of its parts")]
    lines += [(one.contender, f"{one.ms_median:.1f}", text.ratio(one.over_parts)) for one in found]
    where = f"{first.problem}, N={first.samples}, T={first.horizon}"
    title = f"combinations, with statistics ({where}, machine load {first.load:.1f})"
    return [title, text.columns(lines, str.rjust)]


def _streams(rows: pd.DataFrame) -> Iterator[str]:
    streams: list[Stream] = streams_of(rows)
    for stream in streams:
        yield (
            f"stream of {stream.samples:,} samples ({stream.problem}, T={stream.horizon}): peak "
            f"{stream.peak_mib:.0f} MiB, {stream.samples_per_second:,.0f} samples/s"
        )
    if len(streams) > 1:
        factor, growth, flat = growth_of_memory(streams)
        yield (
            f"memory does {'not grow' if flat else 'GROW'}: {growth:.3f} times as much for "
            f"{factor:.0f} times the samples (limit {STREAM_LIMIT:.0f} MiB)"
        )
