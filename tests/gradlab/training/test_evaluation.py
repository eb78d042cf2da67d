"""How near a policy is to what it pursues: the distance that the reward sees, step by step."""

from __future__ import annotations

import math

import pytest
import torch

import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.rollouts.outcome import evaluate, values_by_term
from gradlab.rollouts.rollout import rollout
from gradlab.tasks.base import Pursuing
from gradlab.training.evaluation import distances_to_goal


@pytest.mark.parametrize("task", ["hovering", "tracking"])
def test_distances_are_those_of_the_reward(task: str) -> None:
    problem = gradlab.make(task, horizon=12, dtype=torch.float64).replace(discount=1.0)
    params = problem.init(torch.Generator().manual_seed(0))
    found = distances_to_goal(problem, params, last=5, episodes=6, deterministic=False)
    noise = problem.draw(6, generator("evaluation", 0, 0))
    path = rollout(problem, problem.bind(params), noise)
    result = evaluate(problem, path)
    position = values_by_term(problem, path, result)["position"]  # −0.1/9 of the distance
    torch.testing.assert_close(found, -90.0 * position[:, -5:], rtol=1e-12, atol=1e-12)


def test_the_goal_of_tracking_runs_around_its_circle() -> None:
    """Half a turn after a second: 50 steps."""
    task = gradlab.make("tracking").task
    assert isinstance(task, Pursuing)
    goal = task.goal(torch.tensor([0.0, 25.0, 50.0], dtype=torch.float64))
    expected = torch.tensor([[4.5, 0.0, 2.0], [3.0, 1.5, 2.0], [1.5, 0.0, 2.0]])
    torch.testing.assert_close(goal, expected.double(), rtol=0, atol=1e-12)


def test_who_collided_is_infinitely_far() -> None:
    """One of two spawn heights is in the floor's margin: no step of such an episode is near."""
    problem = gradlab.make(
        "hovering", horizon=4, spawn_mean=(1.0, 0.0, 0.1), spawn_half_range=(0.0, 0.0, 0.09)
    )
    params = problem.init(torch.Generator().manual_seed(0))
    found = distances_to_goal(problem, params, last=4, episodes=64)
    low = problem.draw(64, generator("evaluation", 0, 0)).initial[:, 2] < -0.1
    high = problem.draw(64, generator("evaluation", 0, 0)).initial[:, 2] > 0.1
    assert low.sum() > 10 and (found[low] == math.inf).all()
    assert high.sum() > 10 and bool(found[high][:, 0].isfinite().all())


def test_what_has_no_goal_is_refused_in_one_line() -> None:
    landing, hovering = gradlab.make("landing", horizon=4), gradlab.make("hovering", horizon=4)
    params = landing.init(torch.Generator().manual_seed(0))
    for problem, last, words in ((landing, 2, "hovering or tracking"), (hovering, 5, "at most")):
        with pytest.raises(BadValue, match=words) as caught:
            distances_to_goal(problem, params, last=last)
        assert "\n" not in str(caught.value)
