"""Policies, critics and truths of the cases, as artefacts: those that come with the repository, and
others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gradlab.critics.fitted import FULL
from gradlab.critics.fitting import fit_critic
from gradlab.study import Artefact, Saved
from studies.leaderboard.cases import KNOWN, Case, policy_of, problem_of
from studies.leaderboard.config import Config
from studies.shared import stages, tasks
from studies.shared.borrowed import COMMITTED, borrowed
from studies.shared.tasks import UNTRAINED


def cases_of(config: Config) -> list[Case]:
    """Every task with every policy; known-answer problems have one."""
    return [
        Case(task, stage)
        for task in config.tasks
        for stage in ((UNTRAINED,) if task in KNOWN else config.stages)
    ]


def artefacts_of(config: Config) -> Iterator[Artefact]:
    """Policies, critics and truths: those that come with the repository, and others."""
    for task in config.tasks:
        if task in stages.FLIGHTS:
            yield borrowed(stages.policies_name(task), f"policies/{task}")
        elif task not in KNOWN:
            training = config.train_width, config.learning_rate
            yield from tasks.policy_artefacts(task, config.stages, *training)
    for case in cases_of(config):
        if not case.known:
            yield _critic_artefact(case)
            yield _truth_artefact(case, config)


def _critic_artefact(case: Case) -> Artefact:
    (name,) = case.critic
    source = f"critics/{case.task}-{case.stage}-full"
    if (COMMITTED / f"{source}.safetensors").exists():
        return borrowed(name, source)
    payload = {"task": case.task, "stage": case.stage, "settings": FULL.settings()}
    return Artefact(name, build_critic, payload, case.policy, cost=60.0)


def _truth_artefact(case: Case, config: Config) -> Artefact:
    (name,) = case.truth
    source = f"truths/{case.task}-{case.stage}-hard"
    if (COMMITTED / f"{source}.safetensors").exists():
        return borrowed(name, source)
    return tasks.truth_artefact(name, case.task, case.stage, config.sampling)


def build_critic(artefact: Artefact, needs: Mapping[str, Saved]) -> Saved:
    """A Q critic fitted to the hard task under the policy."""
    case = case_in(artefact)
    problem = problem_of(case.task)
    fitted = fit_critic(problem, policy_of(case, problem, needs), FULL)
    return Saved(fitted.params, fitted.metadata)


def case_in(artefact: Artefact) -> Case:
    """The case that an artefact is of."""
    return Case(artefact.payload["task"], artefact.payload["stage"])
