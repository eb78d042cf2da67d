"""What `mixture_ratio` measures: cells of SG + QG and of SG + PG for every policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import scipy  # its parts are imported when they are used
from torch import Tensor

from estimators.mixtures import AlphaOrder
from gradlab.critics.fitted import FittedCritic
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import block_generator
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import Artefact, Cell, Saved, seed_for
from gradlab.study.tables import flat
from studies.mixture_ratio import alphas, training
from studies.mixture_ratio.config import Config, check
from studies.rollout_variance import policies as ants
from studies.rollout_variance.policies import Params, Setting
from studies.shared.borrowed import borrowed

CONFIDENCE = 0.95
CRITIC = "critic"  # of cells: SG + QG; the others are SG + PG by window
LEAST = 3  # groups behind an interval
ALL = -1  # of rows that are not of one step


def artefacts(config: Config) -> Iterator[Artefact]:
    """Policies and critics of the trainings, and those of the rollouts."""
    check(config)
    for method in config.methods:
        yield training.training_artefact(method)
        for stage in config.stages:
            yield training.critic_artefact(method, stage)
    settings = [Setting.of(text) for text in config.settings]
    for name in dict.fromkeys(ants.policy_name(setting.preset) for setting in settings):
        yield borrowed(f"rollout/{name}", name, "rollout_variance")
    for setting in settings:
        name = ants.critic_name(setting)
        yield borrowed(f"rollout/{name}", name, "rollout_variance")


def cells(config: Config) -> Iterator[Cell]:
    """Per policy one of SG + QG, and one of SG + PG for each window."""
    check(config)
    parts = (CRITIC, *(f"{window}" for window in config.windows))
    for method in config.methods:
        for stage in config.stages:
            needs = training.training_name(method), training.critic_name(method, stage)
            for part in parts:
                payload = {"method": method, "stage": stage, "part": part}
                yield Cell(f"{method}-{stage}/{part}", payload, needs, 1.0)
    for text in config.settings:
        setting = Setting.of(text)
        names = ants.policy_name(setting.preset), ants.critic_name(setting)
        for part in parts:
            payload = {"method": text, "stage": ALL, "part": part}
            yield Cell(f"{text}/{part}", payload, tuple(f"rollout/{n}" for n in names), 4.0)


class Bench(NamedTuple):
    """A policy that is set up."""

    problem: Problem
    params: Params
    noise: Noise
    size: int  # episodes of a group
    critic: FittedCritic


def run_cell(config: Config, cell: Cell, needs: Mapping[str, Saved]) -> Iterator[dict[str, Any]]:
    """Rows of α: of each group, over groups, by step, and by AoBG's bounds."""
    method, stage, part = (cell.payload[name] for name in ("method", "stage", "part"))
    bench = _bench(config, method, stage, needs)
    shared = {
        "method": method, "stage": stage, "horizon": bench.problem.horizon, "size": bench.size,
    }  # fmt: skip
    if part == CRITIC:
        found = alphas.of_critic(bench.problem, bench.params, bench.noise, bench.size)
        yield {**shared, "kind": "policy", **_policy_row(bench)}
        for name, by_step in found.items():
            mixture = {"mixture": "sg+qg", "variant": name, "window": 1}
            for row in (*_whole_rows(by_step.nanmean(1)), *_step_rows(by_step)):
                yield {**shared, **mixture, **row}
        return
    window = int(part)
    last = window == config.windows[-1]
    orders = [
        AlphaOrder(gamma, False, config.bound, config.failure_probability)
        for gamma in (bounds(config) if last else ())
    ]
    over = alphas.of_score(bench.problem, bench.params, bench.noise, bench.size, window, orders)
    mixture = {"mixture": "sg+pg", "variant": f"h = {window}", "window": window}
    for row in (*_whole_rows(over.whole), *_step_rows(over.steps)):
        yield {**shared, **mixture, **row}
    for (reading, gamma), values in over.bounded.items():
        mixture = {"mixture": "aobg", "variant": reading, "window": window, "gamma": gamma}
        for row in _whole_rows(values):
            yield {**shared, **mixture, **row}


def bounds(config: Config) -> tuple[float, ...]:
    """The γ of AoBG's sweep, with ∞ behind the finite ones [gradient]."""
    return (*(gamma for gamma in config.gammas if math.isfinite(gamma)), math.inf)


def _bench(config: Config, method: str, stage: int, needs: Mapping[str, Saved]) -> Bench:
    """The same episodes at every stage of all trainings."""
    if method in training.METHODS:
        problem, size, groups = training.ant(), config.size, config.groups
        params = training.read_policy(needs[training.training_name(method)], stage)
        critic = ants.read_critic(needs[training.critic_name(method, stage)])
    else:
        setting, size = Setting.of(method), config.rollout_size
        groups = config.rollout_groups
        problem = ants.problem_of(setting)
        params = dict(needs[f"rollout/{ants.policy_name(setting.preset)}"].tensors)
        critic = ants.read_critic(needs[f"rollout/{ants.critic_name(setting)}"])
    problem = problem.replace(critic=critic.critic(problem))
    seed = seed_for(config.seed, "episodes", problem.horizon)
    noise = problem.draw(groups * size, block_generator(seed, 0))
    return Bench(problem, params, noise, size, critic)


def _policy_row(bench: Bench) -> dict[str, Any]:
    """How good the policy is on these episodes, and the critic."""
    seen = ants.episodes_of(bench.problem, bench.params, bench.noise)
    return {
        **ants.described(bench.problem, seen),
        **bench.critic.quality["q"].columns(),
    }


def _whole_rows(values: Tensor) -> Iterator[dict[str, Any]]:
    """α of every group, and over them."""
    for k, value in enumerate(values.tolist()):
        yield {"kind": "group", "group": k, "alpha": value}
    yield {"kind": "alpha", "step": ALL, "groups": len(values), **flat("value", interval(values))}


def _step_rows(by_step: Tensor) -> Iterator[dict[str, Any]]:
    """Of steps at which at least `LEAST` groups have an α."""
    for step, column in enumerate(by_step.unbind(1)):
        values = column[column.isfinite()]
        if len(values) < LEAST:
            continue
        yield {
            "kind": "alpha", "step": step, "groups": len(values), **flat("value", interval(values)),
        }  # fmt: skip


def interval(values: Tensor) -> Interval:
    """The mean of α over independent groups, its interval cut at 0 and 1."""
    middle, low, high = student(values)
    return Interval(middle, max(low, 0.0), min(high, 1.0))


def student(values: Tensor) -> Interval:
    """The mean of independent numbers by Student's law."""
    found = values.double().cpu().numpy()
    middle = float(found.mean())
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1))
    reach *= float(found.std(ddof=1)) / math.sqrt(len(found))
    return Interval(middle, middle - reach, middle + reach)
