"""The tasks on which mixtures are measured: a problem, a policy and a reference gradient each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

import estimators
import gradlab
from estimators.base import Estimator
from gradlab.foundation.errors import BadValue
from gradlab.gradients.sampling import block_generator
from gradlab.oracle import ORACLE_SEED, closed_forms
from gradlab.problems.known_answers import PRESETS as KNOWN
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.statistics.saving import from_tensors, to_tensors
from gradlab.study import Artefact, Saved, file_name, seed_for
from studies.rollout_variance import policies as ants
from studies.rollout_variance.policies import Setting
from studies.shared import stages
from studies.shared.borrowed import borrowed

FLIGHTS = ("landing", "racing")  # those with a committed truth
ANT = "ant"
STAGE = 60  # success rate of the flights' policies [%]
SPLIT_WIDTH = 0.02  # near its least variance on landing and racing
LOO = 4  # episodes of PG's leave-one-out baseline beyond known-answer problems
REFERENCE_GROUP = 64  # episodes behind the weights of a reference without a truth
ANT_SETTING = Setting("dflex", "compliant")
CHUNK = 512  # episodes at once

Params = dict[str, torch.Tensor]


class Bench(NamedTuple):
    """A task that is set up."""

    problem: Problem
    params: Params
    parts: tuple[Estimator, ...]
    truth: OracleGradient


def problem_of(task: str, horizon: int) -> Problem:
    """The problem of a task: a known answer, a flight as the studies set it, the ant of
    `rollout_variance` with episodes of `horizon` steps, or any other as `gradlab.make` does.
    """
    if task in KNOWN:
        return gradlab.make(task, dtype=torch.float64)
    if task in FLIGHTS:
        return stages.problem_of(task)
    if task == ANT:
        return ants.problem_of(ANT_SETTING, horizon)
    return gradlab.make(task)


def parts_of(pair: str, task: str) -> tuple[Estimator, ...]:
    """The parts of "fog+pg", by name. Raises `BadValue` for fewer than two."""
    names = pair.split("+")
    if len(names) < 2:
        raise BadValue(f"parts are written as two names with a + between, got {pair!r}; try fog+pg")
    return tuple(_part(name, task) for name in names)


def _part(name: str, task: str) -> Estimator:
    if name == "split":
        return estimators.Split(SPLIT_WIDTH)
    if name == "pg" and task not in KNOWN:
        return estimators.PG(baseline="loo", group_size=LOO)
    return estimators.make(name)


def runs(pair: str, task: str, problem: Problem) -> bool:
    """Whether a pair says anything there: without events `Split` is FOG, and so it is on the ant,
    which does not fall within its short episodes.
    """
    return "split" not in pair.split("+") or (bool(problem.task.events) and task != ANT)


def unbiased(pair: str, task: str) -> bool:
    """Whether parts are known to be unbiased: PG and Split always are, FOG where nothing jumps."""
    names = set(pair.split("+"))
    smooth = task in KNOWN and not problem_of(task, 1).task.events
    return names <= {"pg", "split", *(("fog",) if smooth else ())}


# ------------------------------------------------------------------------------------ artefacts


def artefacts_of(task: str, pairs: list[str], horizon: int, count: int) -> Iterator[Artefact]:
    """The policy and the reference of a task; a known answer has its own."""
    if task in KNOWN:
        return
    if task in FLIGHTS:
        yield borrowed(policy_name(task), f"policies/{task}")
        yield borrowed(truth_name(task, ""), f"truths/{task}-{STAGE}-hard")
        return
    needs: tuple[str, ...] = ()
    if task == ANT:
        yield borrowed(policy_name(task), ants.policy_name(ANT_SETTING.preset), "rollout_variance")
        needs = (policy_name(task),)
    for pair in pairs:
        payload = {"task": task, "pair": pair, "horizon": horizon, "count": count}
        yield Artefact(truth_name(task, pair), sample_reference, payload, needs, 30.0)


def needs_of(task: str, pair: str) -> tuple[str, ...]:
    """Names of the artefacts that a cell reads."""
    if task in KNOWN:
        return ()
    if task in FLIGHTS:
        return policy_name(task), truth_name(task, "")
    return (*([policy_name(task)] if task == ANT else []), truth_name(task, pair))


def policy_name(task: str) -> str:
    return f"policies/{file_name(task)}"


def truth_name(task: str, pair: str) -> str:
    return f"truths/{file_name(task)}{f'-{file_name(pair)}' if pair else ''}"


def params_of(task: str, problem: Problem, needs: Mapping[str, Saved]) -> Params:
    """The skewed policy of a known answer, a trained one, or a new one for tasks of users."""
    if task in KNOWN:
        return problem.reference
    if task in FLIGHTS:
        return stages.read_policy(needs[policy_name(task)], STAGE)
    if task == ANT:
        return dict(needs[policy_name(task)].tensors)
    return problem.init(block_generator(0, -1))


def sample_reference(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """The expectation of the cross-fitted mixture: what weights from elsewhere would give."""
    task, pair = artefact.payload["task"], artefact.payload["pair"]
    count = artefact.payload["count"]
    problem = problem_of(task, artefact.payload["horizon"])
    params = params_of(task, problem, needs)
    mixture = estimators.Mixture(
        parts_of(pair, task), estimators.InverseVariance(), source=estimators.Cross(REFERENCE_GROUP)
    )
    seed = seed_for(ORACLE_SEED, artefact.name)
    moments = gradlab.measure(mixture, problem, params, count, seed, chunk_size=CHUNK).single
    name = f"{mixture.label}, cross-fitted, x {count}"
    truth = OracleGradient.sampled(moments, name)
    return Saved(to_tensors(truth, compact=True), {"name": name, "seconds": 0.0})


def bench_of(task: str, pair: str, horizon: int, needs: Mapping[str, Saved]) -> Bench:
    """Everything that a cell measures with."""
    problem = problem_of(task, horizon)
    params = params_of(task, problem, needs)
    if task in KNOWN:
        exact = closed_forms.solve(problem, params)
        problem = problem.replace(critic=exact.critic)
        truth = OracleGradient.exact(exact.gradient, "closed form")
    else:
        flight = task in FLIGHTS
        saved = needs[truth_name(task, "" if flight else pair)]
        truth = from_tensors(saved.tensors, saved.metadata, "|" if flight else "")
    return Bench(problem, params, parts_of(pair, task), truth)
