"""Points, blocks and hands that go to a goal: rewards by hand, starts, cuts, gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.simulators.arm import FR3
from gradlab.tasks.base import Transition
from gradlab.tasks.pose_reaching import PoseReaching, turn_between
from gradlab.tasks.targets import BlockTarget, Navigation, PointTarget

NAMES = ("point_mass_1d", "point_mass_navigate", "push_t", "franka_reach")


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def moved(before: Tensor, after: Tensor, memory: Tensor) -> Transition:
    return Transition(before[None], before[None, :0], after[None], memory[None], f64(0.0))


def reward(task: Any, before: Tensor, after: Tensor, memory: Tensor) -> float:
    return float(sum(task.terms(moved(before, after, memory)).values()))


def made(name: str, **options: Any) -> Problem:
    return gradlab.make(name, dtype=torch.float64, horizon=6, **options)


# ------------------------------------------------------------------------------ rewards by hand


def test_a_point_on_a_line() -> None:
    task, goal = PointTarget(), f64(-0.5)
    after = f64(0.2, 9.0, 1.0)
    assert reward(task, after, after, goal) == pytest.approx(-0.49, rel=1e-14)
    near = f64(-0.46, 0.0, 0.0)
    margin = task.margins(moved(near, near, goal))
    assert float(margin) == pytest.approx(0.2, rel=1e-12)


def test_a_point_among_obstacles() -> None:
    task = Navigation()
    before, after = f64(0, 0, 0, 0, 0.5, -1.0), f64(0.3, 0.1, 0.2, -0.4, 1.0, 0.0)
    memory = f64(0.3, 0.14, 0.32, 0.1, -0.8, -0.8, 0.1, 0.15)
    expected = -0.04 + 0.5 * math.exp(-(0.04**2) / (2 * 0.05**2)) - 0.01 * (0.04 + 0.16)
    expected += -0.001 * (0.25 + 1.0) - 2 * (0.1 - 0.02) ** 2
    assert reward(task, before, after, memory) == pytest.approx(expected, rel=1e-12)
    assert float(task.margins(moved(before, after, memory))) == pytest.approx(1 - 0.04 / 0.03)


def test_a_block() -> None:
    task = BlockTarget()
    before, after = f64(*9 * [0.0]), f64(0.1, 0.0, 3.0, 0, 0, 0, 0.5, 0.0, -1.0)
    memory = f64(0.1, 0.03, -3.0)
    turn = 2 * math.pi - 6  # the short way round
    expected = -0.03 + 0.5 * math.exp(-(0.03**2) / (2 * 0.02**2)) - 0.5 * turn - 0.001 * 1.25
    assert reward(task, before, after, memory) == pytest.approx(expected, rel=1e-12)
    near = f64(0.1, 0.028, -2.96, *6 * [0.0])
    assert float(task.margins(moved(before, near, memory))) == pytest.approx(0.6, rel=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_hand(sign: float) -> None:
    before, after = torch.zeros(14).double(), f64(*FR3.home, 0.1, 0, 0, 0, 0, 0, -0.2)
    hand = FR3.pose(after[:7])
    half = 0.25  # a turn by half a radian about a world axis
    turn = f64(math.cos(half), math.sin(half), 0, 0)
    goal = torch.cat([hand[:3] + f64(0, 0.03, 0.04), sign * _times(turn, hand[3:])])
    d, rho = 0.05, math.sqrt(2 - 2 * math.cos(half))
    without = -0.2 * d + 0.1 * math.exp(-(d**2) / 0.02) - 0.1 * rho - 1e-4 * 0.05
    for bonus in (False, True):
        task = PoseReaching(FR3, turning_bonus=bonus)
        expected = without + bonus * 0.1 * math.exp(-(rho**2) / 0.18)
        assert reward(task, before, after, goal) == pytest.approx(expected, rel=1e-11)
        squared = PoseReaching(FR3, turning_bonus=bonus, squared_turn=True)
        expected = without + 0.1 * (rho - rho**2) + bonus * 0.1 * math.exp(-(rho**4) / 0.18)
        assert reward(squared, before, after, goal) == pytest.approx(expected, rel=1e-11)
    as_written = PoseReaching(FR3, success_distance=0.1, success_turn=0.1, squared_turn=True)
    margin = float(as_written.margins(moved(before, after, goal)))
    assert margin == pytest.approx(1 - rho**2 / 0.1, rel=1e-9)
    strict = PoseReaching(FR3, success_distance=0.1, success_turn=0.5)
    margin = float(strict.margins(moved(before, after, goal)))
    assert margin == pytest.approx(min(1 - 0.5, 1 - rho / 0.5), rel=1e-9)


def _times(one: Tensor, other: Tensor) -> Tensor:
    w, x, y, z = one
    s, v = other[0], other[1:]
    u = torch.stack([x, y, z])
    return torch.cat([(w * s - u @ v)[None], w * v + s * u + torch.linalg.cross(u, v)])


def test_a_turn_of_nothing_has_no_slope_and_no_nan() -> None:
    quaternion = FR3.pose(f64(*FR3.home))[3:].requires_grad_()
    for other in (quaternion.detach(), -quaternion.detach()):
        value = turn_between(quaternion, other)
        (slope,) = torch.autograd.grad(value, quaternion)
        assert float(value.detach()) == 0 and torch.equal(slope, torch.zeros_like(slope))


# -------------------------------------------------------------------------------------- starts


def test_starts_are_where_the_paper_has_them() -> None:
    drawn = Navigation().draw_initial(4000, torch.Generator().manual_seed(0))
    start, goal, one, two, radii = drawn.split((2, 2, 2, 2, 2), dim=-1)
    for part, most in ((start, 0.6), (goal, 0.7), (one, 0.8), (two, 0.8)):
        assert 0.99 * most < float(part.abs().max()) <= most
    for centre in (one, two):
        assert float((centre - goal).norm(dim=-1).min()) >= 0.25
    assert 0.08 <= float(radii.min()) and float(radii.max()) <= 0.15
    block = BlockTarget().draw_initial(4000, torch.Generator().manual_seed(0))
    assert float(block[:, [2, 5]].abs().max()) > 3.13
    assert 0.149 < float(block[:, [0, 1, 3, 4]].abs().max()) <= 0.15
    # a draw of fewer is the beginning of a draw of more, as evaluations need
    fewer = Navigation().draw_initial(10, torch.Generator().manual_seed(0))
    assert fewer.shape == (10, 10)


def test_goals_of_the_hand_are_in_the_box_and_at_most_60_degrees_from_down() -> None:
    task = PoseReaching(FR3)
    joints, position, quaternion = task.draw_initial(4000, torch.Generator().manual_seed(0)).split(
        (7, 3, 4), dim=-1
    )
    assert (position.amin(0) >= f64(0.05, -0.45, 0.2)).all()
    assert (position.amax(0) <= f64(0.7, 0.45, 0.95)).all()
    torch.testing.assert_close(quaternion.norm(dim=-1), torch.ones(4000, dtype=torch.float64))
    x, y = quaternion[:, 1], quaternion[:, 2]
    w, z = quaternion[:, 0], quaternion[:, 3]
    down = -(w * w - x * x - y * y + z * z)  # cosine of the hand's axis and −z
    assert 0.5 - 1e-9 <= float(down.min()) < 0.51 and float(down.max()) > 0.999
    # uniform on the cap: the cosine is uniform in 1/2 to 1, with a standard error of 0.0023
    assert float(down.mean()) == pytest.approx(0.75, abs=0.0115)
    home = torch.tensor(FR3.home, dtype=torch.float64)
    assert (joints[:, home == 0] == 0).all()
    uniform = PoseReaching(FR3, start="joints", goal="joints")
    drawn = uniform.draw_initial(50, torch.Generator().manual_seed(0))
    assert (drawn[:, :7] >= f64(*FR3.lower)).all() and (drawn[:, :7] <= f64(*FR3.upper)).all()
    reach = (drawn[:, 7:10] - f64(0, 0, 0.333)).norm(dim=-1)
    assert float(reach.max()) < 0.316 + 0.384 + 0.088 + 0.2104 + 2 * 0.0825


# ----------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_an_episode_is_its_difference(name: str) -> None:
    """FOG of every episode, through observations, goal and joints, against two returns."""
    problem = made(name)
    params = {k: 20 * v for k, v in problem.init(torch.Generator().manual_seed(0)).items()}
    params["log_std"] = torch.full_like(params["log_std"], -3.0)
    noise = problem.draw(4, torch.Generator().manual_seed(2))
    samples = estimators.FOG()(problem, params, noise).per_sample()
    slow = estimators.FOG(engine="vmap")(problem, params, noise).per_sample()
    generator = torch.Generator().manual_seed(3)
    way = {k: torch.randn(v.shape, generator=generator).double() for k, v in params.items()}

    def returns(step: float) -> Tensor:
        bound = problem.bind({k: v + step * way[k] for k, v in params.items()})
        return evaluate(problem, gradlab.rollout(problem, bound, noise)).value.sum(-1)

    difference = (returns(1e-7) - returns(-1e-7)) / 2e-7
    slope = sum(((samples[k] * way[k]).flatten(1).sum(1) for k in params), f64(0.0))
    torch.testing.assert_close(slope, difference, rtol=2e-5, atol=2e-6)
    for k in params:
        torch.testing.assert_close(samples[k], slow[k], rtol=1e-9, atol=1e-10)


CUTS = {
    "point_mass_1d": {"detach_observations": True},
    "point_mass_navigate": {"detach_observations": True},
    "push_t": {"detach_observations": True},
    "franka_reach": {"detach_joints": True, "detach_hand": True},
}


@pytest.mark.parametrize("name", NAMES)
def test_cuts_change_gradients_and_no_return(name: str) -> None:
    whole, cut = made(name), made(name, **CUTS[name])
    params = {k: 20 * v for k, v in whole.init(torch.Generator().manual_seed(0)).items()}
    noise = whole.draw(4, torch.Generator().manual_seed(2))
    values, slopes = [], []
    for problem in (whole, cut):
        path = gradlab.rollout(problem, problem.bind(params), noise)
        values.append(evaluate(problem, path).value)
        slopes.append(estimators.FOG()(problem, params, noise).mean()["layers.0.weight"])
    assert torch.equal(*values)
    assert float((slopes[0] - slopes[1]).norm()) > 1e-3 * float(slopes[0].norm())


def test_success_ends_an_episode_or_not() -> None:
    for ends in (True, False):
        problem = made("push_t", terminates=ends, success_distance=1.0, success_angle=4.0)
        params = problem.init(torch.Generator().manual_seed(0))
        noise = problem.draw(3, torch.Generator().manual_seed(1))
        result = evaluate(problem, gradlab.rollout(problem, problem.bind(params), noise))
        assert float(result.alive[:, 1:].mean()) == (0.0 if ends else 1.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(BadValue, match="success_distance"):
        Navigation(success_distance=0.0)
