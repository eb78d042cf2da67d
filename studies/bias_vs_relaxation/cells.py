"""What `bias_vs_relaxation` measures: one cell per policy and estimator."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import estimators
import gradlab
from estimators.base import Estimator
from gradlab.critics.fitted import FittedCritic
from gradlab.foundation.errors import Missing
from gradlab.foundation.placement import wait_for
from gradlab.gradients.sampling import noise_stream
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import (
    Moments,
    OracleGradient,
    compare,
)
from gradlab.statistics.parts import ALL, parts
from gradlab.statistics.saving import from_tensors
from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from studies.bias_vs_relaxation.config import BATCH, EXACT, SWEPT, Config, check
from studies.bias_vs_relaxation.truths import (
    HARD,
    PAIRED,
    critic_artefact,
    critic_name,
    pair_of,
    target_artefact,
    target_name,
    targets_of,
    truth_artefact,
    truth_name,
    window_of,
)
from studies.shared import stages

MEASURED = ("seconds_per_sample", "cost_over_fog", "mse_equal_cost")


# ------------------------------------------------------------------------------------ artefacts


def artefacts(config: Config) -> Iterator[Artefact]:
    """Truths, and the policies and critics of the flights (known-answer problems have theirs)."""
    for task in config.tasks:
        known = task in stages.KNOWN
        policies = () if known else (_policies(config, task),)
        yield from policies
        names = tuple(artefact.name for artefact in policies)
        sampling = {"stderr": config.oracle_stderr, "samples": config.oracle_samples}
        for stage in _stages(config, task):
            yield from (
                critic_artefact(task, stage, fit, names) for fit in _fits(config, task) if names
            )
            yield from (
                truth_artefact(task, stage, w, names, sampling) for w in (HARD, *config.widths)
            )
            if not known:
                yield target_artefact(task, stage, config.windows, names, sampling)


def _policies(config: Config, task: str) -> Artefact:
    training = config.train_width, config.learning_rate
    return stages.policies(task, 0, config.stages, *training)


def _stages(config: Config, task: str) -> tuple[int, ...]:
    return (0,) if task in stages.KNOWN else config.stages


def _fits(config: Config, task: str) -> tuple[str, ...]:
    return (EXACT,) if task in stages.KNOWN else config.critic_fits


# ---------------------------------------------------------------------------------------- cells


def cells(config: Config) -> Iterator[Cell]:
    """One cell per policy and estimator (and critic, window or width)."""
    check(config)
    for task in config.tasks:
        known = task in stages.KNOWN
        for stage in _stages(config, task):
            truths = [truth_name(task, stage, width) for width in (HARD, *config.widths)]
            policies = [] if known else [stages.policies_name(task)]
            for name, choices in _choices(config, task):
                payload = {"task": task, "stage": stage, **choices}
                fit = choices.get("fit")
                critic = [] if known or fit is None else [critic_name(task, stage, fit)]
                targets = [] if known else [target_name(task, stage)]
                needs = (*policies, *critic, *truths, *targets)
                yield Cell(
                    f"{file_name(task)}-{stage}/{name}", payload, needs, 0.5 if known else 3.0
                )


def _choices(config: Config, task: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A name and the payload of every cell of one policy."""
    problem, fits = stages.problem_of(task), _fits(config, task)
    if any(name in config.estimators for name in PAIRED):
        windows = dict.fromkeys(window_of(problem, share) for share in config.windows)
        for form, n, fit in itertools.product(config.forms, windows, fits):
            choices = {"estimator": "pair", "form": form, "fit": fit, "window": n}
            yield f"nstep-abpt-{form}-{n}-{fit}", choices
    for name in config.estimators:
        if name in SWEPT:
            for width in config.widths:
                yield f"{name}-{width:g}", {"estimator": name, "width": width}
        elif name not in PAIRED and _reads_critic(name, problem):
            for fit in fits:
                yield f"{file_name(name)}-{fit}", {"estimator": name, "fit": fit}
        elif name not in PAIRED:
            yield file_name(name), {"estimator": name}


def _reads_critic(name: str, problem: Problem) -> bool:
    try:
        estimators.make(name).check(problem)
    except Missing:
        return True
    return False


@dataclass(frozen=True)
class Bench:
    """A policy on its task with the truths to judge against."""

    problem: Problem  # hard, with the cell's critic
    params: dict[str, Tensor]
    truths: dict[float, OracleGradient]  # by width; HARD is ∇J of the hard task
    targets: dict[str, OracleGradient]  # Σ w_k g_k of the hard task, by name
    described: dict[str, Any]  # columns that all rows of the cell share


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of one estimator, or of N-step and ABPT on the same rollouts."""
    bench = _bench(config, cell, needs)
    seed = seed_for(config.seed, "samples", cell.payload["task"], cell.payload["stage"])
    if cell.payload["estimator"] == "pair":
        form, window = cell.payload["form"], cell.payload["window"]
        yield from _pair_rows(config, bench, form, window, seed)
        return
    name, width = cell.payload["estimator"], cell.payload.get("width")
    estimator = _make(name, width)
    found = _measured({name: estimator}, config, bench, seed)
    described = {"estimator": name, "form": "-", "window": None, "width": width}
    # relaxing the estimator belongs to experiment B alone
    experiments = "B" if name in SWEPT else "AB"
    yield from _rows(bench, estimator, found[name], found.seconds[name], described, "", experiments)


def _make(name: str, width: float | None) -> Estimator:
    if width is not None:
        return estimators.make(name, width=width)
    if name == "pg":
        return estimators.PG(baseline="loo", group_size=BATCH)
    return estimators.make(name)


def _bench(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Bench:
    task, stage, fit = cell.payload["task"], cell.payload["stage"], cell.payload.get("fit")
    problem = stages.problem_of(task)
    truths = {
        width: from_tensors(saved.tensors, saved.metadata, "|")
        for width in (HARD, *config.widths)
        for saved in (needs[truth_name(task, stage, width)],)
    }
    targets = targets_of(needs, task, stage, config.windows)
    quality: dict[str, float | None] = dict.fromkeys(QUALITY)
    if task in stages.KNOWN:
        params = stages.known_policy(task)
        rate = stages.success_rate(problem, params, problem.task.events[0].name)
        critic = None if fit is None else closed_forms.solve(problem, params).critic
    else:
        policies = needs[stages.policies_name(task)]
        params = stages.read_policy(policies, stage)
        rate = policies.metadata[str(stage)]["success_rate"]
        critic = None
        if fit is not None:
            kept = needs[critic_name(task, stage, fit)]
            fitted = FittedCritic.of(dict(kept.tensors), kept.metadata)
            critic = fitted.critic(problem)
            found = fitted.quality["q"]
            values = (found.overall.value, found.at_start.value, *found.ceiling_at_start)
            quality = dict(zip(QUALITY, values, strict=True))
    described = {
        "task": task,
        "stage": stage,
        "success_rate": rate,
        "critic_fit": fit or "-",
        "horizon": problem.horizon,
        **quality,
    }
    return Bench(problem.replace(critic=critic), params, truths, targets, described)


# explained variance of the return: overall, at t = 0, and the most that is possible there
QUALITY = (
    "critic_quality",
    "critic_quality_start",
    "critic_ceiling_start",
    "critic_ceiling_start_stderr",
)


CHUNK = 500  # episodes; whole batches of 100


def _measured(
    named: Mapping[str, Estimator], config: Config, bench: Bench, seed: int
) -> gradlab.Measurement:
    where = bench.problem, bench.params
    return gradlab.measure(named, *where, config.samples, seed, chunk_size=CHUNK)


def _pair_rows(
    config: Config, bench: Bench, form: str, window: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of N-step and ABPT on the same episodes, and of the difference of their biases."""
    pair = pair_of(form, window)
    found = _measured(dict(zip(PAIRED, pair, strict=True)), config, bench, seed)
    for k, name in enumerate(PAIRED):
        described = {"estimator": name, "form": form, "window": window, "width": None}
        # tiled windows aim at the whole gradient
        target = f"{name}-{window}" if form == "published" else ""
        yield from _rows(bench, pair[k], found[name], found.seconds[name], described, target, "AB")
    for width, truth in bench.truths.items():
        report = found.compare_pair(PAIRED[1], PAIRED[0], truth, only=_reported)
        for row in report.rows.values():
            yield {
                "kind": "pair",
                "experiment": "A",
                **bench.described,
                "estimator": "abpt-nstep",
                "form": form,
                "window": window,
                "width": None,
                "truth_width": width,
                **row.flat(),
            }


def _rows(
    bench: Bench,
    estimator: Estimator,
    moments: Moments,
    seconds: float,
    described: Mapping[str, Any],
    target: str,
    experiments: str,
) -> Iterator[dict[str, Any]]:
    """Rows of one estimator against every truth (A) and against the hard one (B)."""
    cost = estimator.cost(bench.problem)
    cost_over_fog = _cost_over_fog(estimator, bench)
    halves = moments.split()
    for width in bench.truths if "A" in experiments else (HARD,):
        truth = bench.truths[width]
        aim = bench.targets[target] if width == HARD else None
        report = compare(moments, truth, aim, batch=BATCH, only=_reported)
        odd = _odd_bias(halves[1], truth) if described["estimator"] in SWEPT else {}
        for part, row in report.rows.items():
            squared_bias, variance = row.squared_bias.estimate, row.variance.estimate
            columns = {
                **bench.described,
                **described,
                "label": estimator.label,
                "truth_width": width,
                **row.flat(),
                "mse_even": _mse(halves[0], truth, part),
                "mse_odd": _mse(halves[1], truth, part),
                **{f"relative_bias_odd{end}": odd.get(part, {}).get(end) for end in ENDS},
                "truth": report.truth,
                "truth_relative_stderr": report.truth_relative_stderr,
                "environment_steps": cost.environment_steps,
                "backward_passes": cost.backward_passes,
                "seconds_per_sample": seconds,
                "cost_over_fog": cost_over_fog,
                "mse_equal_cost": variance * cost_over_fog / BATCH + max(squared_bias, 0.0),
            }
            for experiment in experiments:
                if experiment == "A" or width == HARD:
                    yield {"kind": "single", "experiment": experiment, **columns}


ENDS = ("", "_low", "_high")


def _odd_bias(moments: Moments, truth: OracleGradient) -> dict[str, dict[str, float]]:
    """Relative bias by part on the half that chooses no width."""
    rows = compare(moments, truth, batch=BATCH, only=_reported).rows
    return {part: dict(zip(ENDS, row.relative_bias, strict=True)) for part, row in rows.items()}


def _mse(moments: Moments, truth: OracleGradient, part: str) -> float:
    """tr Σ/B plus the debiased squared bias (at least 0), without an interval."""
    names = parts(moments.mean)[part]
    gap = sum(float((moments.mean[n] - truth.mean[n]).square().sum()) for n in names)
    variance = moments.variance(part)
    bias = gap - variance / moments.count - truth.error(part)
    return variance * moments.group / BATCH + max(bias, 0.0)


def _cost_over_fog(estimator: Estimator, bench: Bench) -> float:
    """Time per sample over FOG's, medians of interleaved runs on the same episodes."""
    (noise,) = noise_stream(bench.problem, 2 * BATCH, 0, CHUNK)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TIMED):
        for mine in (True, False):
            wait_for(bench.problem.device)
            begin = time.perf_counter()
            (estimator if mine else estimators.FOG())(bench.problem, bench.params, noise).mean()
            wait_for(bench.problem.device)
            times[mine].append(time.perf_counter() - begin)
    return statistics.median(times[True]) / statistics.median(times[False])


TIMED = 3  # runs of each in a comparison of costs


def _reported(part: str) -> bool:
    """Everything together and whole layers; single leaves are left out of the table."""
    return part == ALL or not part.endswith((".weight", ".bias"))
