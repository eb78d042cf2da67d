"""The problems of `horizon`: linear-quadratic, smooth and stiff, and a flight; their critics."""

from __future__ import annotations

from collections.abc import Mapping

import torch

import gradlab
from gradlab.critics.fitted import Fit, FittedCritic
from gradlab.foundation.errors import UnknownName
from gradlab.oracle import closed_forms
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.simulators.point_mass import PointMass
from gradlab.statistics import OracleGradient
from gradlab.statistics.saving import from_tensors
from gradlab.study import Saved
from studies.shared import stages

STAGE = 60  # success rate of the flight's policy [%]
HORIZON = 32  # of the linear-quadratic problems [steps]
SPRINGS = {"lq": 0.0, "lq-stiff": 1.6}  # stiffness over mass of a spring to the origin [1/s²]
FLIGHT = "racing"
TASKS = (*SPRINGS, FLIGHT)
EXACT, FITTED = "exact", "fitted"
FIT = Fit(steps=1500, episodes=4000, batch=256, hidden=(64, 64), held_out=512)

Params = dict[str, torch.Tensor]
Needs = Mapping[str, Saved]


def problem_of(task: str) -> Problem:
    """The problem of a task, without a critic. Raises `UnknownName`.

    The stiff one has a spring that is integrated explicitly, as a stiff contact is: what one step
    perturbs is larger after the next.
    """
    if task not in TASKS:
        raise UnknownName("task", task, TASKS)
    if task == FLIGHT:
        return stages.problem_of(task)
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
    closed = a + b @ problem.reference["layers.0.weight"]
    return float(torch.linalg.eigvals(closed).abs().max())


def critics_of(task: str) -> tuple[str, ...]:
    """The critics there are: the flight has no exact one."""
    return (FITTED,) if task == FLIGHT else (EXACT, FITTED)


def policy_of(task: str, needs: Needs) -> Params:
    """A skewed one, or the committed one of the flight."""
    if task == FLIGHT:
        return stages.read_policy(needs[f"policies/{task}"], STAGE)
    return problem_of(task).reference


def truth_of(task: str, needs: Needs) -> OracleGradient:
    """∇J: by closed form, or the committed large sample."""
    if task == FLIGHT:
        saved = needs[f"truths/{task}"]
        return from_tensors(saved.tensors, saved.metadata, "|")
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
    saved = needs[f"critics/{task}"]
    return FittedCritic.of(dict(saved.tensors), saved.metadata).critic(problem_of(task))
