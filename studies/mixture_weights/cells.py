"""What `mixture_weights` measures: a cell per task, pair of parts and number of samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from estimators.mixtures import Weights
from estimators.mixtures.weights import Level
from gradlab.gradients.samples import GradientSamples
from gradlab.gradients.sampling import noise_stream
from gradlab.problems.known_answers import PRESETS as KNOWN
from gradlab.statistics import Moments, OracleGradient, compare
from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from gradlab.study.tables import flat
from studies.mixture_weights import effects
from studies.mixture_weights.benches import (
    ANT,
    CHUNK,
    FLIGHTS,
    Bench,
    artefacts_of,
    bench_of,
    needs_of,
    problem_of,
    runs,
    unbiased,
)
from studies.mixture_weights.config import LEAST_PAIRS, Config, check
from studies.mixture_weights.weighing import CROSS, PILOT, RULES, SAME, SOURCES, weights_by_source

COSTS = {**dict.fromkeys(FLIGHTS, 3.0), ANT: 10.0}


def artefacts(config: Config) -> Iterator[Artefact]:
    """Policies and truths, committed ones where there are, and references without a truth."""
    check(config)
    for task in config.tasks:
        yield from artefacts_of(
            task, _pairs(config, task), config.horizon, config.reference_episodes
        )


def cells(config: Config) -> Iterator[Cell]:
    """One per task, pair of parts and N."""
    check(config)
    for task in config.tasks:
        for pair, size in itertools.product(_pairs(config, task), config.sizes):
            if _count(config, task, size) < 2 * LEAST_PAIRS * size:
                continue  # too few groups for an interval
            payload = {"task": task, "pair": pair, "size": size}
            key = f"{file_name(task)}/{file_name(pair)}-{size}"
            yield Cell(key, payload, needs_of(task, pair), COSTS.get(task, 1.0))


def _pairs(config: Config, task: str) -> list[str]:
    problem = problem_of(task, config.horizon)
    return [pair for pair in config.parts if runs(pair, task, problem)]


# ---------------------------------------------------------------------------------------- cells


@dataclass
class Errors:
    """What one way of weighing makes of every group of N episodes, in units of the truth."""

    along: list[Tensor] = field(default_factory=list)  # ⟨mean of a group, g*⟩/‖g*‖² − 1
    squared: list[Tensor] = field(default_factory=list)  # ‖mean of a group − g*‖²/‖g*‖²
    moments: Moments | None = None  # of pairs of groups

    def add(self, mixed: GradientSamples, size: int, truth: OracleGradient) -> None:
        """Take in the mixed samples of some whole pairs of groups."""
        means = {name: x.double().cpu() for name, x in mixed.group_means(size).per_sample().items()}
        length = truth.squared_norm
        along = sum((means[n] * x).flatten(1).sum(1) for n, x in truth.mean.items())
        apart = sum((means[n] - x).flatten(1).square().sum(1) for n, x in truth.mean.items())
        assert isinstance(along, Tensor) and isinstance(apart, Tensor)
        start = 2 * sum(len(some) for some in self.along)
        self.along.append((along / length - 1).unflatten(0, (-1, 2)).mean(1))
        self.squared.append(((apart - truth.error()) / length).unflatten(0, (-1, 2)).mean(1))
        pilot = None if self.moments is None else self.moments.pilot
        found = Moments.of(means, start, pilot, group=2)
        self.moments = found if self.moments is None else self.moments.merge(found)

    def replicates(self) -> tuple[np.ndarray, np.ndarray]:
        """Along and squared of every pair of groups."""
        return torch.cat(self.along).cpu().numpy(), torch.cat(self.squared).cpu().numpy()


Key = tuple[str, str, str]  # rule, level, source


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Errors of every way of weighing, and what they differ by on the same episodes."""
    task, pair, size = (cell.payload[name] for name in ("task", "pair", "size"))
    bench = bench_of(task, pair, config.horizon, needs)
    count = _count(config, task, size)
    found = _measured(config, bench, size, count, seed_for(config.seed, task, "episodes"))
    shared = {
        "task": task, "pair": pair, "size": size, "unbiased": unbiased(pair, task),
        "known": task in KNOWN or task in FLIGHTS, "horizon": bench.problem.horizon,
    }  # fmt: skip
    error = _along_error(bench.truth)
    for (rule, level, source), errors in found.items():
        yield {
            **shared, "kind": "error", "rule": rule, "level": level, "source": source,
            "episodes": count, "truth": bench.truth.name,
            "truth_relative_stderr": bench.truth.relative_stderr,
            **_error_row(errors, bench.truth, error),
        }  # fmt: skip
    replicates = {key: errors.replicates() for key, errors in found.items()}
    ways = _ways(config, bench.problem.horizon)
    for (rule, level), name, effect in _contrasts(ways, replicates):
        yield {
            **shared, "kind": "contrast", "rule": rule, "level": level, "contrast": name,
            **flat("value", effect.interval), "p_value": effect.p_value,
        }  # fmt: skip


def _count(config: Config, task: str, size: int) -> int:
    """Episodes, in whole pairs of groups."""
    if task in KNOWN:
        return config.known_groups * size
    most = config.ant_episodes if task == ANT else config.flight_episodes
    return min(config.flight_groups, most // size // 2 * 2) * size


def _ways(config: Config, horizon: int) -> list[tuple[str, Level]]:
    """The first rule at all levels, and the others at the first; of one decision at that alone."""
    first, *others = config.rules
    levels = cast("tuple[Level, ...]", config.levels if horizon > 1 else config.levels[:1])
    return [*((first, level) for level in levels), *((rule, levels[0]) for rule in others)]


def _measured(config: Config, bench: Bench, size: int, count: int, seed: int) -> dict[Key, Errors]:
    """Errors by way of weighing, all of the same samples."""
    problem, params = bench.problem, bench.params
    pair = 2 * size
    chunk = max(CHUNK // pair, 1) * pair
    found: dict[Key, Errors] = {}
    for noise in noise_stream(problem, count, seed, chunk):
        parts = [part(problem, params, noise).prepared() for part in bench.parts]
        for rule, level in _ways(config, problem.horizon):
            weights = weights_by_source(RULES[rule], level, parts, size, problem.horizon)
            for source in SOURCES:
                mixed = _mix(weights[source], parts)
                found.setdefault((rule, level, source), Errors()).add(mixed, size, bench.truth)
    return found


def _mix(weights: Weights, parts: Sequence[GradientSamples]) -> GradientSamples:
    return weights.mix([part.grouped(1) for part in parts])


def _error_row(errors: Errors, truth: OracleGradient, along_error: float) -> dict[str, Any]:
    along, squared = errors.replicates()
    assert errors.moments is not None
    row = compare(errors.moments, truth, batch=2, only=lambda part: part == "all").overall
    length = truth.squared_norm
    return {
        "replicates": len(along),
        **flat("along", effects.mean(along, along_error).interval),
        **flat("mse", effects.mean(squared).interval),
        **flat("relative_bias", row.relative_bias),
        **flat("variance", type(row.variance)(*(end / length for end in row.variance))),
        "nonfinite": row.nonfinite,
        "status": row.status,
    }


def _along_error(truth: OracleGradient) -> float:
    """Standard error of the truth's length along itself, relative."""
    if truth.moments is None:
        return 0.0
    blocks = truth.moments.block_mean
    along = sum((blocks[n] * x).flatten(1).sum(1) for n, x in truth.mean.items())
    assert isinstance(along, Tensor)
    return float(along.std() / len(along) ** 0.5) / truth.squared_norm


def _contrasts(
    ways: Sequence[tuple[str, Level]], found: Mapping[Key, tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[tuple[str, Level], str, effects.Effect]]:
    """Differences along the truth, and ratios of mean square errors."""
    first_rule, first_level = ways[0]
    for rule, level in ways:
        along, squared = (
            {source: found[rule, level, source][k] for source in SOURCES} for k in (0, 1)
        )
        at = rule, level
        yield at, "shift", effects.mean(along[SAME] - along[PILOT])
        for source in (SAME, PILOT):
            yield at, f"{source}/cross", effects.ratio(squared[source], squared[CROSS])
        if level != first_level:
            reference = found[rule, first_level, CROSS][1]
            yield at, "level", effects.ratio(squared[CROSS], reference)
        if rule != first_rule:
            reference = found[first_rule, level, CROSS][1]
            yield at, "rule", effects.ratio(squared[CROSS], reference)
