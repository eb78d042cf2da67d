"""Quadrotor problems cheap enough for statistics: 16 steps, a linear policy,
events within reach.
"""

from __future__ import annotations

import torch
from torch import Tensor

import gradlab
from gradlab.problems.problem import Problem
from gradlab.tasks.base import Task
from gradlab.tasks.hovering import Hovering
from gradlab.tasks.landing import Landing
from gradlab.tasks.racing import Racing

NEAR = (0.2, 0.2, 0.2)  # half-range of the spawn box [m]
TASKS: dict[str, Task] = {
    "racing": Racing(spawn_means=((4.0, 4.0, 1.35),), spawn_half_range=NEAR),
    "landing": Landing(spawn_mean=(2.0, 0.0, 0.35), spawn_half_range=(0.2, 0.2, 0.15)),
    "hovering": Hovering(
        success_event=True, spawn_mean=(1.1, 0.0, 1.2), spawn_half_range=(0.2, 0.2, 0.1)
    ),
    "course": Racing(gates=4, spawn_means=((4.0, 4.0, 1.35),), spawn_half_range=NEAR, first_gate=0),
}


def flight_problem(name: str, horizon: int = 16) -> tuple[Problem, dict[str, Tensor]]:
    """A float64 problem of `TASKS` and a policy away from symmetry."""
    task = TASKS[name]
    policy = gradlab.GaussianPolicy(
        task.observation_dim, 4, hidden=(), std="global", initial_std=0.3, head_gain=0.3
    )
    problem = gradlab.make(
        "racing" if name == "course" else name,
        task=task,
        horizon=horizon,
        policy=policy,
        dtype=torch.float64,
    )
    return problem, policy.init(torch.Generator().manual_seed(3), dtype=torch.float64)
