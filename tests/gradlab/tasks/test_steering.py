"""Problems on the contact toys: what weights are, costs by hand, gradients by quadrature."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import estimators
import gradlab
from gradlab import oracle
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.tasks import OpenLoop, Rally

WEIGHT = "layers.0.weight"


def made(name: str, **options: Any) -> Problem:
    return gradlab.make(name, dtype=torch.float64, **options)


def returns(problem: Problem, inputs: torch.Tensor) -> torch.Tensor:
    """The return of inputs [T], by a loop of its own."""
    task, state = problem.task, torch.tensor((0.0, 1.0, 0.0, 0.0), dtype=torch.float64)
    assert isinstance(task, OpenLoop)
    total = torch.zeros((), dtype=torch.float64)
    for u in inputs:
        state = problem.simulator.step(state, u[None], state[:0])
        x1, x2, v1, v2 = state.unbind()
        total = total - (0.1 * (x1 - 1) ** 2 + 10 * (x2 - 2) ** 2 + 0.1 * (v1**2 + v2**2) + u**2)
    return total


def test_the_weights_of_pushing_are_its_inputs() -> None:
    """FOG of one episode is the derivative of a plain loop by its inputs."""
    problem = made("pushing", horizon=6)
    noise = problem.draw(1, torch.Generator().manual_seed(0))
    params = {WEIGHT: torch.linspace(-0.5, 2.0, 6, dtype=torch.float64)[None]}
    inputs = (params[WEIGHT][0] + 0.1 * noise.action[0, :, 0]).requires_grad_()
    expected = returns(problem, inputs)
    (slope,) = torch.autograd.grad(expected, inputs)
    found = estimators.FOG()(problem, params, noise).mean()[WEIGHT][0]
    torch.testing.assert_close(found, slope, rtol=1e-12, atol=1e-12)
    value = evaluate(problem, gradlab.rollout(problem, problem.bind(params), noise)).value.sum()
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["pushing", "friction"])
def test_one_shared_input_has_the_sum_of_all_gradients(name: str) -> None:
    each, one = made(name, horizon=5), made(name, horizon=5, clock=False)
    noise = each.draw(3, torch.Generator().manual_seed(1))
    steps = {WEIGHT: torch.full((1, 5), 0.3, dtype=torch.float64)}
    shared = {WEIGHT: torch.full((1, 1), 0.3, dtype=torch.float64)}
    for estimator in (estimators.FOG(), estimators.PG()):
        total = estimator(each, steps, noise).per_sample()[WEIGHT].sum(-1)
        found = estimator(one, shared, noise).per_sample()[WEIGHT][..., 0]
        torch.testing.assert_close(found, total, rtol=1e-10, atol=1e-10)


def test_the_gradient_of_smooth_pushing_by_quadrature() -> None:
    """Through the contact, over the noise of two steps: FOG and PG expect the same."""
    problem = made("pushing", horizon=2, sharpness=20.0)
    params = {WEIGHT: torch.tensor([[3.0, -1.0]], dtype=torch.float64)}
    fog, pg = (
        oracle.Quadrature(estimator, nodes=32)(problem, params).mean[WEIGHT]
        for estimator in (estimators.FOG(), estimators.PG())
    )
    torch.testing.assert_close(fog, pg, rtol=1e-9, atol=1e-9)
    assert fog[0, 0].abs() > 1e-3


def test_one_step_of_friction_in_closed_form() -> None:
    """From rest nothing drags: x1' = h²u/m, v1' = h u/m; the gradient is that at the mean."""
    problem = made("friction", horizon=1)
    params = {WEIGHT: torch.tensor([[0.7]], dtype=torch.float64)}
    found = oracle.Quadrature(estimators.PG(), nodes=16)(problem, params).mean[WEIGHT]
    place, speed = 0.005**2 / 0.1, 0.005 / 0.1
    slope = -2 * (0.1 * (place * 0.7 - 2) * place + 0.1 * speed**2 * 0.7 + 0.7)
    torch.testing.assert_close(
        found, torch.tensor([[slope]], dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_friction_jumps_once_the_masses_part_and_not_before() -> None:
    """At a small push they stay together; at a large one they part at different times."""
    for push, jumps in ((0.05, False), (0.5, True)):
        problem = made("friction", clock=False)
        params = {WEIGHT: torch.tensor([[push]], dtype=torch.float64)}
        found = gradlab.testing.detect_jump(problem, params, count=64, level=1e-3).found
        assert bool(found) == jumps


def test_what_tennis_pays_and_when() -> None:
    problem = made("tennis", horizon=3)
    noise = problem.draw(8, torch.Generator().manual_seed(2))
    path = gradlab.rollout(problem, problem.bind(problem.reference), noise)
    value = evaluate(problem, path).value
    cost = 0.001 * path.action.square().sum(-1)
    torch.testing.assert_close(value[:, :2], -cost[:, :2], rtol=1e-12, atol=0)
    x, y, vx, vy = path.state[:, -1, :4].unbind(-1)
    end = 100 * (x**2 + (y - 2.5) ** 2) + 10 * (vx**2 + vy**2)
    torch.testing.assert_close(value[:, 2], -end - cost[:, 2], rtol=1e-12, atol=0)


def test_starts_of_tennis() -> None:
    """Wide: x uniform on ±2 m; the ball flies towards the origin, but for its noise."""
    for start, spread in (("wide", 2 / 3**0.5), ("narrow", 0.2)):
        task = Rally(start=start)  # pyright: ignore[reportArgumentType]
        drawn = task.draw_initial(20_000, torch.Generator().manual_seed(0))
        state, _ = task.initial(drawn)
        mean = 0.0 if start == "wide" else 1.0
        assert float(state[:, 0].mean()) == pytest.approx(mean, abs=5 * spread / 20_000**0.5)
        assert float(state[:, 0].std()) == pytest.approx(spread, rel=0.03)
        drift = 0.03 if start == "wide" else 0.01
        rest = state[:, 2:4] + 0.2 * state[:, :2]
        torch.testing.assert_close(rest, drift * drawn[:, 2:4], rtol=0, atol=1e-12)


def test_reference_is_where_the_paper_starts() -> None:
    for name, horizon, first in (("pushing", 200, 0.1), ("friction", 400, 0.0)):
        problem = made(name)
        assert problem.horizon == horizon
        assert torch.equal(
            problem.reference[WEIGHT], torch.full((1, horizon), first, dtype=torch.float64)
        )
    assert not made("tennis").reference[WEIGHT].any()
