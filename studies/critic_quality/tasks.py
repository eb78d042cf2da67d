"""The problems and policies on which critics are judged, and the truths to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

import gradlab
from gradlab.foundation.errors import UnknownName
from gradlab.oracle import closed_forms
from gradlab.oracle.closed_forms import Answer
from gradlab.problems import known_answers
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.study import Saved, file_name
from studies.shared import stages, tasks

STAGE = 60  # success rate of a flight's policy [%]
OLDER = 10  # and of the one that its stale critics come from [%]
HORIZON = 8  # of known-answer problems [steps]
KNOWN: dict[str, dict[str, Any]] = {
    "lq": {},
    "gate": {"process_std": 0.1},  # [m]; without it an exact Q would miss a part of the gradient
}
FLIGHTS = ("racing", "landing", "hovering")  # their truths come with the repository
TASKS = (*KNOWN, *FLIGHTS)

Params = dict[str, torch.Tensor]
Needs = Mapping[str, Saved]


def problem_of(task: str) -> Problem:
    """The hard problem of a task: one of `TASKS`, or any of a user's. Raises `UnknownName`."""
    if task in KNOWN:
        return gradlab.make(task, horizon=HORIZON, dtype=torch.float64, **KNOWN[task])
    if task in known_answers.BUILDERS:
        raise UnknownName("task", task, TASKS)
    return tasks.problem_of(task)


def is_own(task: str) -> bool:
    """Whether it is a task of a user's: its truth is sampled here."""
    return task not in TASKS


def policies_name(task: str) -> str:
    return stages.policies_name(task)


def truth_name(task: str) -> str:
    return f"truths/{file_name(task)}"


def policy_of(task: str, needs: Needs, staleness: float = 0.0, stage: int = STAGE) -> Params:
    """The policy that is judged, or one so far on the straight line back to an older one [1].

    Older is the policy that succeeds in 10 % of episodes instead of 60 %; on known-answer problems
    the one whose mean is 0 everywhere, with the same noise; on a task of a user's one without
    training.
    """
    if task in KNOWN:
        now = problem_of(task).reference
        older = {n: p if n == "log_std" else torch.zeros_like(p) for n, p in now.items()}
    elif is_own(task):
        now, older = tasks.policy_of(task, stage, needs), tasks.older_policy(task, stage)
    else:
        saved = needs[policies_name(task)]
        now, older = (stages.read_policy(saved, stage) for stage in (STAGE, OLDER))
    return {name: (1 - staleness) * now[name] + staleness * older[name] for name in now}


@cache
def solved(task: str) -> Answer:
    """Exact numbers of a known-answer problem under the policy that is judged."""
    problem = problem_of(task)
    return closed_forms.solve(problem, problem.reference)


def exact_critic(task: str) -> Critic:
    """The exact one of a known-answer problem."""
    critic = solved(task).critic
    assert critic is not None
    return critic


def truth_of(task: str, needs: Needs) -> OracleGradient:
    """∇J of the policy that is judged: by closed form, or a large sample."""
    if task in KNOWN:
        return OracleGradient.exact(solved(task).gradient, "closed form")
    return tasks.read_truth(needs[truth_name(task)])
