"""What `critic_quality` measures: per critic its quality, and the bias of what reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import estimators
from estimators.base import Estimator
from estimators.mixtures.sources import Same
from gradlab.critics.fitted import FittedCritic
from gradlab.critics.fitting import fit_critic
from gradlab.critics.pairs import OutputPairs, given_by, judge, output_pairs
from gradlab.critics.quality import Estimate
from gradlab.oracle import ORACLE_SEED
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval, OracleGradient
from gradlab.statistics.parts import ALL
from gradlab.study import Artefact, Cell, Saved, file_name, seed_for
from gradlab.study.tables import flat
from studies.critic_quality.config import GROUP, PAIRED, Config, check
from studies.critic_quality.fits import EXACT, Setting, fit_in, settings
from studies.critic_quality.tasks import (
    KNOWN,
    STAGE,
    Needs,
    Params,
    exact_critic,
    is_own,
    policies_name,
    policy_of,
    problem_of,
    truth_name,
    truth_of,
)
from studies.shared.borrowed import borrowed
from studies.shared.guests import measured
from studies.shared.tasks import (
    TRUTH_WIDTH,
    policy_artefacts,
    policy_names,
    sampler,
    truth_artefact,
)

CHUNK = 512  # episodes at once
NORMAL = 1.96  # standard errors in half a 95 % interval


# ------------------------------------------------------------------------------------ artefacts


def artefacts(config: Config) -> Iterator[Artefact]:
    """Policies, truths, critics, and pairs of actions to judge critics by."""
    check(config)
    for task in config.tasks:
        known, policies = task in KNOWN, _policies(task, config)
        yield from _policy_and_truth(task, config)
        count = config.pairs if known else config.flight_pairs
        payload = {"task": task, "count": count, "width": None if known else TRUTH_WIDTH}
        if is_own(task):
            payload |= {"stage": config.stage, "estimator": config.truth}
        yield Artefact(pairs_name(task), sample_pairs, payload, policies, 1.0 if known else 60.0)
        for setting in settings(config):
            payload = {"task": task, **setting.payload()}
            if is_own(task):
                payload |= {"stage": config.stage}
            cost = 1 + setting.fit.steps / 500
            yield Artefact(critic_name(task, setting), build_critic, payload, policies, cost)


def _policies(task: str, config: Config) -> tuple[str, ...]:
    """The artefact with the policies of a task, if there is one."""
    if task in KNOWN:
        return ()
    return policy_names(task, config.stage if is_own(task) else STAGE)


def _policy_and_truth(task: str, config: Config) -> Iterator[Artefact]:
    """Those of flights come with the repository."""
    if is_own(task):
        training = config.train_width, config.learning_rate
        yield from policy_artefacts(task, [config.stage], *training)
        yield truth_artefact(truth_name(task), task, config.stage, config.sampling)
    elif task not in KNOWN:
        yield borrowed(policies_name(task), f"policies/{task}")
        yield borrowed(truth_name(task), f"truths/{task}-{STAGE}-hard")


def critic_name(task: str, setting: Setting) -> str:
    return f"critics/{file_name(task)}-{setting.name}"


def pairs_name(task: str) -> str:
    return f"pairs/{file_name(task)}"


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A Q critic of the hard task, fitted to what the policy, or a staler one, does."""
    payload = artefact.payload
    task, stage = payload["task"], payload.get("stage", STAGE)
    params = policy_of(task, needs, payload["staleness"], stage)
    fitted = fit_critic(problem_of(task), params, fit_in(dict(payload)))
    return Saved(fitted.params, fitted.metadata)


def sample_pairs(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """Pairs of actions with the true ∇_u Q: exact, or what two futures say."""
    payload = artefact.payload
    task = payload["task"]
    problem = problem_of(task)
    params = policy_of(task, needs, stage=payload.get("stage", STAGE))
    drawn = payload["count"], seed_for(ORACLE_SEED, artefact.name)
    if task in KNOWN:
        pairs = output_pairs(problem, params, estimators.FOG(), *drawn)
        pairs = given_by(problem, exact_critic(task), pairs)
    else:
        pairs = output_pairs(problem, params, sampler(payload.get("estimator", "split")), *drawn)
    return Saved({name: part.contiguous() for name, part in pairs._asdict().items()}, {})


# ---------------------------------------------------------------------------------------- cells


def cells(config: Config) -> Iterator[Cell]:
    """One per task and critic."""
    check(config)
    for task in config.tasks:
        known = task in KNOWN
        shared = (pairs_name(task),)
        if not known:
            shared = (*_policies(task, config), truth_name(task), *shared)
        for setting in settings(config):
            payload = {"task": task, "factor": setting.factor, "level": setting.level}
            needs = (*shared, critic_name(task, setting))
            yield Cell(f"{file_name(task)}/{setting.name}", payload, needs, 1.0 if known else 6.0)
        if known:
            yield Cell(f"{task}/{EXACT}", {"task": task, "factor": EXACT, "level": ""}, shared)


class Bench(NamedTuple):
    """A task with the critic of a cell."""

    task: str
    problem: Problem
    params: Params
    truth: OracleGradient
    described: dict[str, Any]


def run_cell(config: Config, cell: Cell, needs: Needs) -> Iterator[dict[str, Any]]:
    """What the critic is worth, in every row; then every estimator, and ABPT less N-step."""
    task = cell.payload["task"]
    problem, params = problem_of(task), policy_of(task, needs, stage=config.stage)
    critic = _critic(cell, needs, problem)
    described = {**cell.payload, **_quality(problem, critic, needs[pairs_name(task)])}
    with_critic = problem.replace(critic=critic)
    bench = Bench(task, with_critic, params, truth_of(task, needs), described)
    yield from _rows(config, bench)


def _critic(cell: Cell, needs: Needs, problem: Problem) -> Critic:
    if cell.payload["factor"] == EXACT:
        return exact_critic(cell.payload["task"])
    kept = needs[next(name for name in cell.needs if name.startswith("critics/"))]
    return FittedCritic.of(dict(kept.tensors), kept.metadata).critic(problem)


def _quality(problem: Problem, critic: Critic, saved: Saved) -> dict[str, Any]:
    """Cosine and relative length of ∇_u Q̂, in every row of the critic."""
    pairs = OutputPairs(**saved.tensors)
    found = judge(problem, critic, pairs)
    return {
        "horizon": problem.horizon,
        "pairs": len(pairs.weight),
        **flat("cosine_of_critic", _interval(found.cosine, -1.0, 1.0)),
        **flat("length_of_critic", _interval(found.relative_norm, 0.0, math.inf)),
    }


def _interval(found: Estimate, least: float, most: float) -> Interval:
    reach = NORMAL * found.stderr
    ends = (min(max(x, least), most) for x in (found.value - reach, found.value + reach))
    return Interval(min(max(found.value, least), most), *ends)


def _rows(config: Config, bench: Bench) -> Iterator[dict[str, Any]]:
    count = config.samples if bench.task in KNOWN else config.flight_samples
    seed = seed_for(config.seed, "samples", bench.task)
    horizon = bench.problem.horizon
    windows = sorted({max(1, round(share * horizon)) for share in config.windows})
    for window in windows:
        named: dict[str, Estimator] = {
            "nstep": estimators.NStep(window, starts="tiled"),
            "abpt": estimators.ABPT(window, zero_step="all"),
        }
        if window == windows[0]:
            named |= {name: _make(name, window) for name in config.estimators}
        found = measured(named, bench.problem, bench.params, count, seed, chunk_size=CHUNK)
        shared = {**bench.described, "window": window, "truth": bench.truth.name}
        for name, report in found.compare(bench.truth, batch=GROUP, only=_all).items():
            cost = named[name].cost(bench.problem)
            yield {
                "kind": "single",
                **shared,
                "estimator": name,
                **report.overall.flat(),
                "truth_relative_stderr": report.truth_relative_stderr,
                "environment_steps": cost.environment_steps,
            }
        pair = found.compare_pair(PAIRED[1], PAIRED[0], bench.truth, only=_all).overall
        yield {"kind": "pair", **shared, "estimator": "abpt-nstep", **pair.flat()}


def _make(name: str, window: int) -> Estimator:
    if name == "agpo":
        return estimators.AGPO(window, starts="tiled", source=Same(GROUP))
    return estimators.make(name)


def _all(part: str) -> bool:
    return part == ALL
