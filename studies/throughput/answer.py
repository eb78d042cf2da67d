"""What `throughput` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.throughput.rows import (
    LABELS,
    Race,
    Stream,
    combinations_of,
    done,
    growth_of_memory,
    largest_races,
    races_of,
    streams_of,
)

ENGINES = ("pullback", "pullback_compiled", "pullback_graph")
STATISTICS = ("moments", "moments_compiled", "moments_graph")
FORWARD = ("forward", "forward_compiled")
CONTACT = {
    "ant": "compliant", "ant_50ms": "compliant", "ant_fresh": "compliant", "ant_convex": "convex",
}  # fmt: skip


def answer(rows: pd.DataFrame) -> Answer:
    """What per-sample gradients cost beside one backward pass of the mean, in the largest races."""
    races, streams = done(races_of(rows)), streams_of(rows)
    ours = [race for race in largest_races(races) if race.contender in ENGINES]
    return Answer(
        question="What do per-sample gradients cost in time and memory, beside one ordinary backward pass?",
        answer=" ".join([*_cost(ours), *_combined(rows), *_memory(streams)])
        or "Nothing was measured that could answer it: ask for the pullback engine.",
        rests_on=_rests_on(races, streams),
        would_change=_would_change(races),
        table=_table(races),
    )


def _cost(ours: list[Race]) -> Iterator[str]:
    """The range over the problems, and where its ends are."""
    beside = {
        "batched": "the time of a batched backward pass of the mean",
        "vmap": "the time of vmap(grad)",
    }
    for engine in ENGINES:
        for other, words in beside.items():
            known = [
                (race.time_over(other), race.problem) for race in ours if race.contender == engine
            ]
            known = [(time, problem) for time, problem in known if not math.isnan(time.estimate)]
            if known:
                ends = sorted(known, key=lambda one: one[0].estimate)
                some = ends[:1] if len(ends) == 1 else [ends[0], ends[-1]]
                sizes = " to ".join(text.ratio(time) for time, _ in some)
                where = " and ".join(problem for _, problem in some)
                yield f"{LABELS[engine].capitalize()}: {sizes} times {words} ({where})."


def _combined(rows: pd.DataFrame) -> Iterator[str]:
    """The range over the combinations, and where its ends are."""
    found = combinations_of(rows)
    if found:
        ends = [found[0]] if len(found) == 1 else [found[0], found[-1]]
        sizes = " to ".join(text.ratio(one.over_parts) for one in ends)
        names = " and ".join(one.contender for one in ends)
        yield f"A combination of estimators, with statistics: {sizes} times the sum of its parts ({names})."


def _memory(streams: list[Stream]) -> Iterator[str]:
    if len({stream.samples for stream in streams}) > 1:
        factor, growth, flat = growth_of_memory(streams)
        verdict = "does not grow" if flat else "grows"
        yield f"Peak memory of a stream {verdict} with its length ({growth:.2f} times for {factor:.0f} times the samples)."


def _rests_on(races: list[Race], streams: list[Stream]) -> str:
    if not (races or streams):
        return "The times of combinations and of their parts, in turns."
    first = (races or streams)[0]
    where = f"One machine, device {first.device}, {first.threads} thread(s), float32"
    if not races:
        return f"{where}; one stream per length."
    loads = [race.load for race in races]
    return (
        f"{where}. Ratios are medians over {races[0].rounds} rounds ({races[0].clock} clock), each round "
        f"running every contender once, with 95 % intervals from order statistics; machine load "
        f"{min(loads):.1f} to {max(loads):.1f}."
    )


def _would_change(races: list[Race]) -> str:
    """The same ratio in the smallest race, where fixed costs weigh most."""
    engine = [race for race in races if race.contender == "pullback"]
    small = min(engine, key=lambda race: race.samples * race.horizon, default=None)
    if small is None or math.isnan(small.over_batched.estimate):
        return "Another machine or device, more threads, or smaller batches."
    return (
        "Another machine or device, more threads, or smaller batches, where fixed costs weigh more: at "
        f"N = {small.samples}, T = {small.horizon} on {small.problem} the pullback engine takes "
        f"{text.ratio(small.over_batched)} times a batched backward pass."
    )


def _table(races: list[Race]) -> pd.DataFrame:
    """A line for each problem; what nobody ran there has no column."""
    largest = grouped(largest_races(races), lambda race: race.problem)
    lines = [_yardstick(*one) for one in largest.items()]
    names = {name for line in lines for name, cell in line.items() if cell}
    whole = dict.fromkeys(name for line in lines for name in line if name in names)
    return pd.DataFrame([{name: line.get(name, "") for name in whole} for line in lines])


def _yardstick(problem: str, here: list[Race]) -> dict[str, str]:
    """The fastest engine of each kind in a problem's largest race."""
    gradients, statistics, forward, mujoco = (
        max(
            (race for race in here if race.contender in names),
            key=lambda race: race.samples_per_second,
            default=None,
        )
        for names in (ENGINES, STATISTICS, FORWARD, ("mujoco",))
    )
    line = {
        "problem": problem,
        "contact": CONTACT.get(problem, "none"),
        "N x T": f"{here[0].samples} x {here[0].horizon}",
        "gradients/s": "" if gradients is None else f"{gradients.samples_per_second:,.0f}",
        "with statistics/s": "" if statistics is None else f"{statistics.samples_per_second:,.0f}",
        "steps/s": "" if gradients is None else f"{gradients.steps_per_second:,.0f}",
        "forward steps/s": "" if forward is None else f"{forward.steps_per_second:,.0f}",
        "MuJoCo C steps/s": "" if mujoco is None else f"{mujoco.steps_per_second:,.0f}",
    }
    if gradients is not None:
        size = gradients.bytes_per_sample / 1024
        line |= {
            "time / batched": text.ratio(gradients.over_batched),
            "time / limit": text.ratio(gradients.over_limit),
            "KiB/sample": "" if math.isnan(size) else f"{size:,.0f}",
        }
    return line
