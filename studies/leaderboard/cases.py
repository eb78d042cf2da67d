"""A task with a policy: its problem, critic and truth, as they are set up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradlab.critics.fitted import FittedCritic
from gradlab.oracle import closed_forms
from gradlab.problems import known_answers, registry
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.study import Saved, file_name
from studies.shared import tasks

KNOWN = tuple(known_answers.BUILDERS)

Params = dict[str, torch.Tensor]


def problem_of(task: str) -> Problem:
    """The problem of a task: a flight as the studies set it, a known-answer one in float64.

    Raises `UnknownName` or `Missing` for a task that `gradlab.make` does not know.
    """
    if task in KNOWN:
        return registry.make(task, dtype=torch.float64)
    return tasks.problem_of(task)


@dataclass(frozen=True)
class Case:
    """One task under one policy."""

    task: str
    stage: int  # success rate of the policy [%]; UNTRAINED, also of known-answer problems

    @property
    def known(self) -> bool:
        return self.task in KNOWN

    @property
    def name(self) -> str:
        """Of cells and artefacts."""
        return file_name(self.task) if self.known else f"{file_name(self.task)}-{self.stage}"

    @property
    def policy(self) -> tuple[str, ...]:
        """The artefact with its policy, if there is one."""
        return () if self.known else tasks.policy_names(self.task, self.stage)

    @property
    def critic(self) -> tuple[str, ...]:
        """The artefact with its critic; an exact one needs none."""
        return () if self.known else (f"critics/{self.name}",)

    @property
    def truth(self) -> tuple[str, ...]:
        """The artefact with its truth; a closed form needs none."""
        return () if self.known else (f"truths/{self.name}",)


# ---------------------------------------------------------------------------------- setting up


@dataclass(frozen=True)
class Bench:
    """A case that is set up."""

    case: Case
    problem: Problem  # with its critic, if it is at hand
    params: Params
    truth: OracleGradient | None  # if it is at hand


def policy_of(case: Case, problem: Problem, needs: Mapping[str, Saved]) -> Params:
    """The skewed one of a known-answer problem, a trained one, or a new one."""
    if case.known:
        return problem.reference
    return tasks.policy_of(case.task, case.stage, needs)


def set_up(case: Case, needs: Mapping[str, Saved]) -> Bench:
    """The case with all that is among `needs`."""
    problem = problem_of(case.task)
    params = policy_of(case, problem, needs)
    if case.known:
        answer = closed_forms.solve(problem, params)
        truth = OracleGradient.exact(answer.gradient, "closed form")
        return Bench(case, problem.replace(critic=answer.critic), params, truth)
    truth = _read(needs, case.truth, tasks.read_truth)
    critic = _read(needs, case.critic, lambda kept: _critic_in(kept, problem))
    return Bench(case, problem.replace(critic=critic), params, truth)


def _read(needs: Mapping[str, Saved], names: Iterable[str], reader: Any) -> Any:
    return next((reader(needs[name]) for name in names if name in needs), None)


def _critic_in(kept: Saved, problem: Problem) -> Any:
    return FittedCritic.of(dict(kept.tensors), kept.metadata).critic(problem)
