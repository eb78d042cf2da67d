"""What `horizon` measures: per task, critic and window the estimators, and AGPO's theorem."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import estimators
from estimators.base import Estimator
from estimators.mixtures.sources import Same
from gradlab.critics.fitting import fit_critic
from gradlab.foundation.placement import wait_for
from gradlab.gradients.sampling import noise_stream
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.parts import ALL
from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from studies.horizon.config import CHUNK, GROUP, Config, check
from studies.horizon.tasks import (
    FITTED,
    STAGE,
    Needs,
    Params,
    critic_name,
    critic_of,
    critics_of,
    fit_of,
    is_own,
    is_sampled,
    policy_of,
    problem_of,
    truth_name,
    truth_of,
)
from studies.horizon.theorem import bound_rows
from studies.shared.borrowed import borrowed
from studies.shared.guests import blamed, measured
from studies.shared.stages import policies_name
from studies.shared.tasks import policy_artefacts, policy_names, truth_artefact

MEASURED = ("processor_seconds",)
TIMED = 3  # runs of each estimator, taking turns
TIMED_EPISODES = 128


# ------------------------------------------------------------------------------------ artefacts


def artefacts(config: Config) -> Iterator[Artefact]:
    """Fitted critics, and what else is not exact; flights have theirs from the repository."""
    check(config)
    for task in config.tasks:
        if is_own(task):
            training = config.train_width, config.learning_rate
            yield from policy_artefacts(task, [config.stage], *training)
            yield truth_artefact(truth_name(task), task, config.stage, config.sampling)
        elif is_sampled(task):
            yield borrowed(policies_name(task), f"policies/{task}")
            yield borrowed(truth_name(task), f"truths/{task}-{STAGE}-hard")
            yield borrowed(critic_name(task), f"critics/{task}-{STAGE}-full")
            continue
        if FITTED in config.critics:
            payload = {"task": task, "settings": fit_of(task).settings()}
            if is_own(task):
                payload |= {"stage": config.stage}
            yield Artefact(critic_name(task), build_critic, payload, _policies(task, config), 5.0)


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """The fitted critic of a linear-quadratic problem under its skewed policy, or of a user's."""
    task, stage = artefact.payload["task"], artefact.payload.get("stage", STAGE)
    fitted = fit_critic(problem_of(task), policy_of(task, needs, stage), fit_of(task))
    return Saved(fitted.params, fitted.metadata)


def _policies(task: str, config: Config) -> tuple[str, ...]:
    """The artefact with the policies of a task, if there is one."""
    if not is_sampled(task):
        return ()
    return policy_names(task, config.stage if is_own(task) else STAGE)


# ---------------------------------------------------------------------------------------- cells


def cells(config: Config) -> Iterator[Cell]:
    """One per task, critic and window."""
    check(config)
    for task in config.tasks:
        sampled = is_sampled(task)
        for critic in critics_of(task):
            if critic not in config.critics:
                continue
            needs = (*_policies(task, config), *([truth_name(task)] if sampled else []))
            if critic == FITTED:
                needs = (*needs, critic_name(task))
            for window in (n for n in config.windows if n <= problem_of(task).horizon):
                payload = {"task": task, "critic": critic, "window": window}
                cost = (6.0 if sampled else 2.0) + 0.1 * window
                yield Cell(f"{file_name(task)}/{critic}-{window}", payload, needs, cost)


class Bench(NamedTuple):
    """A task with a critic."""

    task: str
    critic: str
    problem: Problem
    params: Params
    truth: OracleGradient
    episodes: int
    seed: int


def run_cell(config: Config, cell: Cell, needs: Needs) -> Iterator[dict[str, Any]]:
    """Rows of the tiled estimators, then of the theorem."""
    task, critic = cell.payload["task"], cell.payload["critic"]
    bench = Bench(
        task,
        critic,
        problem_of(task).replace(critic=critic_of(task, critic, needs)),
        policy_of(task, needs, config.stage),
        truth_of(task, needs),
        config.flight_samples if is_sampled(task) else config.samples,
        seed_for(config.seed, "samples", task),
    )
    shared = {**cell.payload, "horizon": bench.problem.horizon}
    for row in (*_singles(config, bench, cell.payload["window"]), *_bounds(config, bench, cell)):
        yield {**shared, **row}


def _bounds(config: Config, bench: Bench, cell: Cell) -> Iterator[dict[str, Any]]:
    pilot = seed_for(config.seed, "pilot", bench.task)
    return bound_rows(
        bench.task, bench.critic, bench.problem, bench.params, cell.payload["window"],
        (bench.episodes, bench.seed), (config.pilot, pilot), config.judged,
    )  # fmt: skip


def _singles(config: Config, bench: Bench, window: int) -> Iterator[dict[str, Any]]:
    """Every estimator over tiled windows against ∇J, on the same episodes."""
    named = {name: tiled(name, window) for name in config.estimators}
    where = bench.problem, bench.params
    found = measured(named, *where, bench.episodes, bench.seed, chunk_size=CHUNK)
    seconds = processor_seconds(named, *where)
    reports = found.compare(bench.truth, batch=GROUP, only=lambda part: part == ALL)
    for name, report in reports.items():
        cost = named[name].cost(bench.problem)
        yield {
            "kind": "single",
            "estimator": name,
            **report.overall.flat(),
            "truth": report.truth,
            "truth_relative_stderr": report.truth_relative_stderr,
            "environment_steps": cost.environment_steps,
            "processor_seconds": seconds[name],
        }


def tiled(name: str, window: int) -> Estimator:
    """An estimator that aims at ∇J, in windows of this length."""
    if name == "nstep":
        return estimators.NStep(window, starts="tiled")
    if name == "abpt":
        return estimators.ABPT(window, zero_step="all")
    if name == "agpo":
        return estimators.AGPO(window, starts="tiled", source=Same(GROUP))
    return estimators.make(name, window=window)


def processor_seconds(
    named: Mapping[str, Estimator], problem: Problem, params: Params
) -> dict[str, float]:
    """Processor time per sample [s]: medians of runs on the same episodes, taking turns."""
    (noise,) = noise_stream(problem, TIMED_EPISODES, 0, TIMED_EPISODES)
    times: dict[str, list[float]] = {name: [] for name in named}
    for turn in range(TIMED + 1):
        for name, one in named.items():
            wait_for(problem.device)
            begin = time.process_time()
            with blamed(name, problem.name):
                one(problem, params, noise).squared_norms()
            wait_for(problem.device)
            if turn:  # the first run also pays for what a process does once
                times[name].append((time.process_time() - begin) / noise.count)
    return {name: statistics.median(known) for name, known in times.items()}
