"""The long form of what `empirical_bias` found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from gradlab.statistics import Interval
from gradlab.statistics.formatting import format_interval
from gradlab.study import text
from gradlab.study.tables import grouped
from studies.empirical_bias.answer import benchmark, biases, ends, line
from studies.empirical_bias.methods import label
from studies.empirical_bias.rows import NOTABLE, Point, Run, Score, Sweep, scores
from studies.empirical_bias.statistics import replicates_needed
from studies.empirical_bias.toys import TOYS

ROUNDING = 1e-12  # of a relative MSE
LEGEND = (
    "Intervals are 95 %. A bias is notable where its size, with intervals long enough for all points and\n"
    f"methods of a toy at once (Bonferroni), is above {NOTABLE:.0%} of the largest derivative along the coordinate;\n"
    "it is ruled out where all of its intervals are below. Single run: where 95 % of plain runs end, of which a\n"
    "published end is one. MSE, variance and bias of the benchmark are those of an update (a batch of N),\n"
    "relative to the exact gradient. Needed: batches or runs that tell two methods apart with a\n"
    "probability of 95 % at a level of 5 %."
)


def summarise(table: pd.DataFrame) -> str:
    """Ends, expectations along coordinates, and the benchmark."""
    runs, sweeps, found = Run.all(table), Sweep.all(table), scores(table)
    parts = [LEGEND, " ".join([*biases(sweeps), *ends(runs), *benchmark(found)])]
    parts.append(text.titled("1. Ends of ascents with a coordinate", map(_end, _exact(runs))))
    parts.append(text.titled("2. All ascents", _gains(runs)))
    parts.append(text.titled("3. Bias by toy and method", _biases(sweeps)))
    parts.append(text.titled("4. Along the coordinates", map(_point, _points(sweeps))))
    for (problem, size), group in grouped(found, lambda s: (s.problem, s.batch)).items():
        parts.append(text.titled(f"5. Benchmark: {problem}, N = {size}", map(_score, group)))
    return "\n\n".join(parts)


def _exact(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if TOYS[run.toy].exact]


def _end(run: Run) -> dict[str, str]:
    """A line of the answer's table, and where exact expectations lead."""
    return {**line(run), "by expectation": f"{run.flow.end:.4f}" if run.flow else ""}


def _gains(runs: Sequence[Run]) -> Iterator[dict[str, str]]:
    """What runs gained, and how many of them tell a method from PG."""
    for toy, group in grouped(runs, lambda run: run.toy).items():
        reference = next((run for run in group if run.method == "pg"), None)
        for run in group:
            gains = Interval(*(end - run.begin for end in run.objective))
            yield {
                "toy": toy,
                "method": label(run.method),
                "updates": f"{run.updates:,}",
                "gain": text.signed(gains),
                "runs that tell it from PG": _runs_needed(run, reference),
                "weight of FOG": text.decimal(run.weight) if math.isfinite(run.weight) else "",
                "not finite": f"{sum(look.nonfinite for look in run.looks)}",
            }


def _runs_needed(run: Run, reference: Run | None) -> str:
    if reference is None or run.method == "pg" or len(run.gains) != len(reference.gains):
        return ""
    apart = torch.tensor(run.gains) - torch.tensor(reference.gains)
    return needed(replicates_needed(apart.double()))


def needed(interval: Interval) -> str:
    """A number of batches or runs; empty where nothing tells two apart yet."""
    if math.isinf(interval.high):
        return f"more than {interval.low:,.0f}" if math.isfinite(interval.low) else "unknown"
    return f"{interval.estimate:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]"


def _biases(sweeps: Sequence[Sweep]) -> Iterator[dict[str, str]]:
    for sweep in sweeps:
        for name, points in sweep.methods.items():
            worst = max(points, key=lambda p: sweep.reach(p).estimate)
            biased = sweep.biased(name)
            verdict = "ruled out" if sweep.unbiased(name) else "cannot be told"
            size = Interval(*(end / sweep.scale for end in sweep.reach(worst)))
            yield {
                "toy": sweep.toy,
                "method": label(name),
                "notable bias": f"at {len(biased)} of {len(points)}" if biased else verdict,
                "largest, of the largest derivative": format_interval(*size),
                "at": f"{worst.coordinate:g}",
            }


def _points(sweeps: Sequence[Sweep]) -> Iterator[Point]:
    for sweep in sweeps:
        yield from sweep.points


def _point(point: Point) -> dict[str, str]:
    return {
        "toy": point.toy,
        "at": f"{point.coordinate:g}",
        "method": label(point.method),
        "truth": f"{point.truth:.4g} ± {point.truth_reach:.2g}",
        "expectation": text.signed(point.expectation),
        "bias": text.signed(point.bias),
        "median batch": text.signed(point.median),
        "variance of an episode": f"{point.variance}",
        "weight of FOG": text.decimal(point.weight.estimate) if point.weight.estimate >= 0 else "",
    }


def _score(score: Score) -> dict[str, str]:
    other = score.source not in ("", "same")
    return {
        "rule": label(score.rule),
        "weights from": score.source,
        "baseline": score.baseline,
        "relative bias": f"{score.relative_bias}",
        "variance": f"{score.variance}",
        "MSE": f"{score.mse}",
        "less that of PG": text.signed(score.over_pg),
        "batches needed": _batches(score),
        "less that of same": text.signed(score.over_same) if other else "",
    }


def _batches(score: Score) -> str:
    """Batches that tell a variant from PG, unless it is PG or does exactly what PG does."""
    if score.variant == "pg/shared":
        return ""
    ends = score.over_pg.high - score.over_pg.low
    return "is PG here" if ends < ROUNDING else needed(score.needed)
