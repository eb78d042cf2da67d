"""The problems of `horizon`: linear-quadratic, smooth and stiff, flights, and a user's; their
critics."""

from __future__ import annotations

from collections.abc import Mapping

import torch

import gradlab
from gradlab.critics.fitted import FULL, Fit, FittedCritic
from gradlab.foundation.errors import UnknownName
from gradlab.oracle import closed_forms
from gradlab.problems import known_answers
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.simulators.point_mass import PointMass
from gradlab.statistics import OracleGradient
from gradlab.study import Saved, file_name
from studies.shared import tasks

STAGE = 60  # success rate of a flight's policy [%]
HORIZON = 32  # of the linear-quadratic problems [steps]
SPRINGS = {"lq": 0.0, "lq-stiff": 1.6}  # stiffness over mass of a spring to the origin [1/s²]
FLIGHTS = ("racing", "landing", "hovering")  # policies, critics and truths are committed
TASKS = (*SPRINGS, *FLIGHTS)
EXACT, FITTED = "exact", "fitted"
FIT = Fit(steps=1500, episodes=4000, batch=256, hidden=(64, 64), held_out=512)

Params = dict[str, torch.Tensor]
Needs = Mapping[str, Saved]


def problem_of(task: str) -> Problem:
    """The problem of a task, one of `TASKS` or any of a user's, without a critic.

    The stiff one has a spring that is integrated explicitly, as a stiff contact is: what one step
    perturbs is larger after the next. Raises `UnknownName`.
    """
    if task not in SPRINGS and task in known_answers.BUILDERS:
        raise UnknownName("task", task, TASKS)
    if task not in SPRINGS:
        return tasks.problem_of(task)
    problem = gradlab.make("lq", horizon=HORIZON, dtype=torch.float64)
    simulator = problem.simulator
    assert isinstance(simulator, PointMass)
    dt, stiffness = simulator.transition[0][2], SPRINGS[task]
    rows = [list(row) for row in simulator.transition]
    for axis in (0, 1):
        rows[axis + 2][axis] -= dt * stiffness
    sprung = PointMass(tuple(map(tuple, rows)), simulator.control, simulator.process_std)
    return problem.replace(name=task, simulator=sprung)


def growth(task: str) -> float:
    """Spectral radius of a linear problem's step under its policy: above 1 it grows [1]."""
    problem = problem_of(task)
    simulator = problem.simulator
    assert isinstance(simulator, PointMass)
    a, b = (torch.tensor(m, dtype=torch.float64) for m in (simulator.transition, simulator.control))
    closed = a + b @ problem.reference["layers.0.weight"].cpu()
    return float(torch.linalg.eigvals(closed).abs().max())


def is_own(task: str) -> bool:
    """Whether it is a task of a user's: its truth and its critic are made here."""
    return task not in TASKS


def is_sampled(task: str) -> bool:
    """Whether its truth is sampled: that of linear-quadratic problems is exact."""
    return task not in SPRINGS


def critics_of(task: str) -> tuple[str, ...]:
    """The critics there are: where the truth is sampled there is no exact one."""
    return (FITTED,) if is_sampled(task) else (EXACT, FITTED)


def fit_of(task: str) -> Fit:
    """How a critic is fitted: on a user's task as those of the flights were."""
    return FULL if is_own(task) else FIT


def truth_name(task: str) -> str:
    return f"truths/{file_name(task)}"


def critic_name(task: str) -> str:
    return f"critics/{file_name(task)}"


def policy_of(task: str, needs: Needs, stage: int = STAGE) -> Params:
    """A skewed one, the committed one of a flight, or that of a user's task."""
    if task in SPRINGS:
        return problem_of(task).reference
    return tasks.policy_of(task, stage if is_own(task) else STAGE, needs)


def truth_of(task: str, needs: Needs) -> OracleGradient:
    """∇J: by closed form, or a large sample."""
    if is_sampled(task):
        return tasks.read_truth(needs[truth_name(task)])
    problem = problem_of(task)
    exact = closed_forms.solve(problem, problem.reference).gradient
    return OracleGradient.exact(exact, "closed form")


def exact_critic(task: str) -> Critic:
    """Of a linear-quadratic problem."""
    problem = problem_of(task)
    critic = closed_forms.solve(problem, problem.reference).critic
    assert critic is not None
    return critic


def critic_of(task: str, critic: str, needs: Needs) -> Critic:
    """The exact one, or the fitted one out of its artefact."""
    if critic == EXACT:
        return exact_critic(task)
    saved = needs[critic_name(task)]
    return FittedCritic.of(dict(saved.tensors), saved.metadata).critic(problem_of(task))
