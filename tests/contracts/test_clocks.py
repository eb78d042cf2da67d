"""A task that counts time counts the simulator's, however a problem is put together."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.problems.problem import Problem
from gradlab.simulators.base import Timed
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.tasks.tracking import Tracking

FASTER = 0.01  # [s]


def made() -> dict[str, Problem]:
    """Tracking at 100 Hz, in the ways that `make` offers."""
    return {
        "option": gradlab.make("tracking", dt=FASTER),
        "simulator": gradlab.make("tracking", simulator=Quadrotor(dt=FASTER)),
        "task": gradlab.make("tracking", task=Tracking(dt=FASTER)),
        "both": gradlab.make("tracking", task=Tracking(dt=FASTER), simulator=Quadrotor(dt=FASTER)),
    }


@pytest.mark.parametrize("way", ["option", "simulator", "task", "both"])
def test_the_target_keeps_the_time_of_the_flight(way: str) -> None:
    """After 50 steps of 0.01 s the target has gone half a turn per second for half a second."""
    problem = made()[way]
    assert problem.simulator.dt == problem.task.dt == FASTER
    state, memory, *_ = problem.start(problem.draw(1, torch.Generator().manual_seed(0)))
    ahead = problem.task.observe(state, memory, torch.tensor(50.0))[0, :3] * 10 + state[0, :3]
    torch.testing.assert_close(ahead, torch.tensor([3.0, 1.5, 2.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", gradlab.names())
def test_parts_of_every_problem_agree(name: str) -> None:
    problem = gradlab.make(name)
    if isinstance(problem.task, Timed) and isinstance(problem.simulator, Timed):
        assert problem.task.dt == pytest.approx(problem.simulator.dt, rel=1e-9)
        again = gradlab.make(name, simulator=problem.simulator)
        assert again.task.dt == pytest.approx(problem.simulator.dt, rel=1e-9)


def test_parts_that_disagree_are_refused_with_advice_that_works() -> None:
    problem, simulator = gradlab.make("tracking"), Quadrotor(dt=FASTER)
    with pytest.raises(BadValue, match=r"steps of 0\.02 s .* steps of 0\.01 s"):
        problem.replace(simulator=simulator)
    with pytest.raises(BadValue, match=r"task=dataclasses\.replace"):
        gradlab.make("tracking", task=Tracking(), simulator=simulator)
    task = dataclasses.replace(problem.task, dt=simulator.dt)
    assert problem.replace(simulator=simulator, task=task).task.dt == FASTER
