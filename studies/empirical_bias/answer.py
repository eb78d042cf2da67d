"""What `empirical_bias` answers first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.empirical_bias.methods import label
from studies.empirical_bias.rows import NOTABLE, Run, Score, Sweep, scores

QUESTION = (
    "Which estimators are biased on the toys of the AoBG paper, where do they lead, and do rules and "
    "tests that adapt mend it?"
)
ADAPTIVE = ("aobg", "aobg_strict", "ivwh", "ivw", "best", "best_unbiased", "ddcg", "jump")


def answer(table: pd.DataFrame) -> Answer:
    """Where ascents end, which methods are biased, and what the benchmark says."""
    runs, sweeps, found = Run.all(table), Sweep.all(table), scores(table)
    parts = [*ends(runs), *biases(sweeps), *benchmark(found)]
    return Answer(
        question=QUESTION,
        answer=" ".join(parts),
        rests_on=_rests_on(runs, sweeps, found),
        would_change=(
            "Larger batches, with which AoBG's bound lets first order in (--sizes, paper preset); another γ, which "
            "is in units of the gradient; random starts, which DDCG's test takes for jumps; other toys of "
            "one's own."
        ),
        table=pd.DataFrame([line(run) for run in runs if math.isfinite(run.best)]),
    )


def ends(runs: Sequence[Run]) -> Iterator[str]:
    """FOG's and PG's ends beside what is published and what exact expectations do."""
    for toy, group in grouped(runs, lambda run: run.toy).items():
        known = {run.method: run for run in group if run.flow}
        if not {"fog", "pg"} <= set(known):
            continue
        said = " and ".join(f"by {label(name)} {_end(known[name])}" for name in ("fog", "pg"))
        yield f"On {toy} {known['fog'].updates:,} updates {said}."


def _end(run: Run) -> str:
    assert run.flow is not None
    published = "" if run.published is None else f"published {run.published:.4f}, "
    return (
        f"end at {text.signed(run.end)} rad ({published}by exact expectation {run.flow.end:.4f}) "
        f"with {run.objective.estimate / run.flow.best:.0%} of the best return"
    )


def biases(sweeps: Sequence[Sweep]) -> Iterator[str]:
    """By method: on which toys it has a notable bias, on which none can be, on which it is open."""
    if not sweeps:
        return
    names = list(dict.fromkeys(name for sweep in sweeps for name in sweep.methods))
    seen = {name: [s.toy for s in sweeps if s.biased(name)] for name in names}
    free = {name: [s.toy for s in sweeps if s.unbiased(name)] for name in names}
    yield (
        f"Along the coordinates a notable bias is seen of {_where(seen)}, and is ruled out of "
        f"{_where(free)}."
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
            f"{label(rule)} on {sum(score.biased for score in rows)}"
            for rule, rows in grouped(same, lambda score: score.rule).items()
        ]
        yield (
            f"Benchmark, N = {size}: of {len(problems)} problems the relative bias is above 10 % with "
            f"{', '.join(counts)}."
        )
        yield from _another_batch(group)


def _another_batch(group: Sequence[Score]) -> Iterator[str]:
    """Whether weights from another batch give another MSE."""
    pilots = [s for s in group if s.source == "pilot"]
    less = [s for s in pilots if s.over_same.high < 0]
    more = [s for s in pilots if s.over_same.low > 0]
    yield (
        f"With Var f and weights from another batch instead of the same, the MSE is lower in {len(less)} of "
        f"{len(pilots)} cases, higher in {len(more)}, and not told apart in "
        f"{len(pilots) - len(less) - len(more)}."
    )


def line(run: Run) -> dict[str, str]:
    """One method on one toy, of the table."""
    flow = run.flow
    return {
        "toy": run.toy,
        "method": label(run.method),
        "ends at [rad]": text.signed(run.end),
        "published": published(run),
        "by expectation": f"{flow.end:.4f}" if flow else "",
        "J over the best": text.two_decimals(_over(run.objective, run.best)),
        "weight of FOG": text.decimal(run.weight) if math.isfinite(run.weight) else "",
    }


def published(run: Run) -> str:
    """The published end, and whether it agrees; empty where there is none."""
    if run.published is None:
        return ""
    return f"{run.published:.4f} {'agrees' if run.agrees else 'differs'}"


def _over(interval: Interval, by: float) -> Interval:
    return Interval(*(end / by for end in interval))


def _rests_on(runs: Sequence[Run], sweeps: Sequence[Sweep], found: Sequence[Score]) -> str:
    trials = sorted({len(run.lasts) for run in runs})
    counts = sorted({p.batches for s in sweeps for p in s.points})
    batches = sorted({score.batches for score in found})
    said = (
        f"{_range(trials)} runs of each ascent, {_range(counts)} batches per expectation; a bias is notable if "
        f"its size, with intervals for all of a toy's at once, is above {NOTABLE:.0%} of the largest "
        f"derivative. Truths: quadrature for one decision, differences on common episodes for "
        f"many steps. Benchmark: {_range(batches)} batches against closed forms."
    )
    return said


def _range(values: Sequence[int]) -> str:
    if not values:
        return "no"
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
