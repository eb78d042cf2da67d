"""What `empirical_bias` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.empirical_bias.methods import label
from studies.empirical_bias.rows import NOTABLE, Run, Score, Sweep, scores, told_apart

QUESTION = (
    "Which estimators are biased on the toys of the AoBG paper, where do they lead, and do rules and "
    "tests that adapt mend it?"
)
ADAPTIVE = ("aobg", "aobg_strict", "ivwh", "ivw", "best", "best_unbiased", "ddcg", "jump")


def answer(table: pd.DataFrame) -> Answer:
    """Which methods are biased, where ascents end, and what the benchmark says."""
    runs, sweeps, found = Run.all(table), Sweep.all(table), scores(table)
    parts = [*biases(sweeps), *ends(runs), *benchmark(found)]
    return Answer(
        question=QUESTION,
        answer=" ".join(parts),
        rests_on=_rests_on(runs, sweeps, found),
        would_change=(
            "Larger batches, with which AoBG's bound lets first order in (--sizes); another γ, which is in units of "
            "the gradient; random starts, which DDCG's test takes for jumps."
        ),
        table=pd.DataFrame([line(run) for run in runs if math.isfinite(run.best)]),
    )


def ends(runs: Sequence[Run]) -> Iterator[str]:
    """FOG's and PG's ends beside what is published and what exact expectations do."""
    for toy, group in grouped(runs, lambda run: run.toy).items():
        known = {run.method: run for run in group if run.flow}
        if not {"fog", "pg"} <= set(known):
            continue
        said = " and ".join(f"{_end(known[name])} by {label(name)}" for name in ("fog", "pg"))
        yield f"{known['fog'].updates:,} updates on {toy} end at {said}."


def _end(run: Run) -> str:
    assert run.flow is not None
    published = "" if run.published is None else f" (published {run.published:.4f})"
    return (
        f"{three_decimals(run.end)} rad{published} with {run.objective.estimate / run.flow.best:.0%} of "
        "the best return"
    )


def biases(sweeps: Sequence[Sweep]) -> Iterator[str]:
    """By method: on which toys it has a notable bias, on which none can be, on which it is open."""
    if not sweeps:
        return
    names = list(dict.fromkeys(name for sweep in sweeps for name in sweep.methods))
    seen = {name: [s.toy for s in sweeps if s.biased(name)] for name in names}
    free = {name: [s.toy for s in sweeps if s.unbiased(name)] for name in names}
    yield (
        f"A notable bias is seen of {_where(seen)}, and is ruled out of {_where(free)}{_worst(sweeps)}."
    )


def _worst(sweeps: Sequence[Sweep]) -> str:
    """The bias that is the largest for sure, over the largest derivative of its toy."""
    sizes = {
        (sweep.toy, point.method): Interval(*(end / sweep.scale for end in sweep.reach(point)))
        for sweep in sweeps
        for point in sorted(sweep.points, key=lambda p: sweep.reach(p).low)
    }
    (toy, name), size = max(sizes.items(), key=lambda item: item[1].low)
    if size.low <= NOTABLE:
        return ""
    return (
        f"; the largest, that of {label(name)} on {toy}, is {text.two_decimals(size)} of the largest "
        "derivative there"
    )


def _where(toys: Mapping[str, Sequence[str]]) -> str:
    """Names by the toys on which something holds: those that share them together."""
    shared = grouped([name for name, where in toys.items() if where], lambda n: tuple(toys[n]))
    parts = [
        f"{', '.join(map(label, names))} ({', '.join(where)})" for where, names in shared.items()
    ]
    return "; ".join(parts) or "none"


def benchmark(found: Sequence[Score]) -> Iterator[str]:
    """By rule, on how many problems it is biased, and what another batch for the weights does."""
    for size, group in grouped(found, lambda score: score.batch).items():
        problems = list(dict.fromkeys(score.problem for score in group))
        same = [s for s in group if s.source == "same" and s.baseline == "shared"]
        counts = [
            (sum(score.biased for score in rows), label(rule))
            for rule, rows in grouped(same, lambda score: score.rule).items()
        ]
        said = [
            f"on {count} with {', '.join(name for _, name in rules)}"
            for count, rules in grouped(counts, lambda one: one[0]).items()
        ]
        yield (
            f"Benchmark, N = {size}: of {len(problems)} problems the relative bias is above 10 % "
            f"{', '.join(said)}."
        )
        yield from _another_batch(group)


def _another_batch(group: Sequence[Score]) -> Iterator[str]:
    """Whether weights from another batch give another MSE."""
    sides = list(told_apart([s for s in group if s.source == "pilot"]))
    yield (
        f"With Var f and weights from another batch instead of the same, the MSE is lower in {sides.count(-1)} of "
        f"{len(sides)} cases, higher in {sides.count(1)}, and not told apart in {sides.count(0)}."
    )


def line(run: Run) -> dict[str, str]:
    """One method on one toy, of the table."""
    single = run.single
    return {
        "toy": run.toy,
        "method": label(run.method),
        "ends at [rad]": three_decimals(run.end),
        "single run": f"{single.low:.3f}-{single.high:.3f}" if run.flow else "",
        "published": published(run),
        "J/best": text.two_decimals(_over(run.objective, run.best)),
    }


def three_decimals(interval: Interval) -> str:
    """Of an angle [rad]."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval)


def published(run: Run) -> str:
    """The published end, and whether it agrees; empty where there is none."""
    if run.published is None:
        return ""
    said = {True: " agrees", False: " differs", None: ""}[run.agrees]
    return f"{run.published:.4f}{said}"


def _over(interval: Interval, by: float) -> Interval:
    return Interval(*(end / by for end in interval))


def _rests_on(runs: Sequence[Run], sweeps: Sequence[Sweep], found: Sequence[Score]) -> str:
    trials = sorted({len(run.lasts) for run in runs})
    counts = sorted({p.batches for s in sweeps for p in s.points})
    batches = sorted({score.batches for score in found})
    said = (
        f"{_range(trials)} runs of each ascent, {_range(counts)} batches per expectation, {_range(batches)} in the "
        f"benchmark. A bias is notable if its size, with intervals for all of a toy's at once, is above {NOTABLE:.0%} "
        "of the largest derivative. Truths: closed forms and quadrature, for many steps differences on "
        "common episodes. A published end is of one run, and agrees if it is among 95 % of single runs."
    )
    lost = pd.DataFrame([{"nonfinite": p.nonfinite} for s in sweeps for p in s.points])
    return " ".join([said, *(text.lost("Batches", lost) if len(lost) else [])])


def _range(values: Sequence[int]) -> str:
    if not values:
        return "no"
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
