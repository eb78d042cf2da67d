"""The pusher and its T: geometry by hand, pushes whose outcome is known, gradients, coverage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import estimators
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.rollouts.outcome import evaluate
from gradlab.simulators.pusher import GYRATION, MIDDLE, PusherT, TShape, distance, into
from gradlab.tasks.base import Transition
from gradlab.tasks.covering import GOAL, Covering


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def played(body: PusherT, state: Tensor, target: tuple[float, float], steps: int) -> Tensor:
    action = f64(*target) / 256 - 1
    for _ in range(steps):
        state = body.step(state, action, state[:0])
    return state


def gap(state: Tensor) -> float:
    return float(distance(into(state[4:], state[:2]), 1e-3)[0]) - 15


def test_middle_and_inertia_are_those_of_cells() -> None:
    cells = torch.tensor(TShape(1.0).cells, dtype=torch.float64)
    assert len(cells) == 6300
    torch.testing.assert_close(cells.mean(0), f64(0, MIDDLE), rtol=0, atol=1e-9)
    # and a square of 1 px has 1/6 px² of its own
    inertia = (cells - f64(0, MIDDLE)).square().sum(-1).mean() + 1 / 6
    assert float(inertia) == pytest.approx(GYRATION, rel=1e-12)


@pytest.mark.parametrize(
    ("point", "wanted", "normal"),
    [
        ((0.0, -7.0), 7.0, (0.0, -1.0)),
        ((70.0, 20.0), 10.0, (1.0, 0.0)),
        ((63.0, -4.0), 5.0, (0.6, -0.8)),
        ((25.0, 80.0), 10.0, (1.0, 0.0)),
        ((0.0, 125.0), 5.0, (0.0, 1.0)),
        ((50.0, 12.0), -10.0, (1.0, 0.0)),
        ((13.0, 90.0), -2.0, (1.0, 0.0)),
    ],
)
def test_distances_and_normals(
    point: tuple[float, float], wanted: float, normal: tuple[float, float]
) -> None:
    found, way = distance(f64(*point), 0.01)
    assert float(found) == pytest.approx(wanted, abs=1e-6)
    torch.testing.assert_close(way, f64(*normal), rtol=0, atol=1e-6)


def test_a_push_through_the_middle_moves_the_t_straight_and_stays_in_touch() -> None:
    state = f64(256, 150, 0, 0, 256, 200, 0)
    after = played(PusherT(width=0.1), state, (256, 300), 5)
    assert abs(gap(after)) < 0.2
    assert float(after[5] - after[1]) == pytest.approx(15, abs=0.2)
    torch.testing.assert_close(after[[4, 6]], f64(256, 0), rtol=0, atol=1e-12)


def test_without_the_pusher_nothing_moves_and_nothing_coasts() -> None:
    state = f64(256, 100, 0, 0, 256, 300, 0.3)
    after = played(PusherT(width=0.1), state, (200, 120), 10)
    assert torch.equal(after[4:], state[4:])
    pushed = played(PusherT(width=0.1), f64(256, 150, 0, 0, 256, 200, 0), (256, 260), 6)
    left = played(PusherT(width=0.1), pushed, (256, 100), 6)
    assert float((left[4:] - pushed[4:]).norm()) < 0.5


def test_a_push_off_the_middle_turns_it_the_way_it_should() -> None:
    """From below at the bar's right end: anticlockwise; at the left end the mirror image."""
    right = played(PusherT(), f64(300, 150, 0, 0, 256, 200, 0), (300, 250), 4)
    left = played(PusherT(), f64(212, 150, 0, 0, 256, 200, 0), (212, 250), 4)
    assert float(right[6]) > 0.1
    assert float(left[6]) == pytest.approx(-float(right[6]), rel=1e-9)
    assert float(left[4] - 256) == pytest.approx(256 - float(right[4]), rel=1e-9)


def test_friction_takes_it_along() -> None:
    """A pusher that leans on the bar while it slides: with friction the T goes with it."""
    state = f64(240, 185, 120, 0, 256, 200, 0)
    moved = {mu: played(PusherT(friction=mu), state, (320, 215), 3)[4] - 256 for mu in (0.0, 1.0)}
    assert float(moved[1.0]) > float(moved[0.0]) + 1.0


@pytest.mark.parametrize(
    "start", [(300, 182, 0, 50, 256, 200, 0.1), (200, 190, 30, 0, 256, 200, 2)]
)
def test_gradients_are_differences(start: tuple[float, ...]) -> None:
    body = PusherT(substeps=4, dt=0.04)
    state, action = f64(*start).requires_grad_(), f64(0.1, 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, u: body.step(x, u, x[:0]), (state, action))


def covered(pose: Tensor, width: float = 0.05) -> float:
    task = Covering(TShape(), width=width)
    state = torch.cat([torch.zeros(4).double(), pose])[None]
    made = Transition(state, state[:, :0], state, state[:, :0], f64(0.0))
    return float(0.95 * (1 + task.margins(made)))


def test_coverage_is_the_area_of_the_intersection() -> None:
    assert covered(f64(*GOAL)) == pytest.approx(1, abs=1e-6)
    assert covered(f64(*GOAL) + f64(200, 0, 0)) < 1e-6
    # shifted by δ along its stem it keeps 6300 − 120 δ of 6300 px²
    for shift in (10.0, 20.0):
        along = shift * f64(-math.sin(math.pi / 4), math.cos(math.pi / 4), 0)
        assert covered(f64(*GOAL) + along) == pytest.approx(1 - 120 * shift / 6300, abs=1e-3)


def test_the_default_width_takes_a_part_of_the_edge() -> None:
    assert covered(f64(*GOAL), width=1.0) == pytest.approx(0.970, abs=5e-4)
    # 1.75 px along the bar leave 1 - 1.75·120/6300 = 0.967 of the area
    along = 1.75 * f64(math.cos(math.pi / 4), math.sin(math.pi / 4), 0)
    assert covered(f64(*GOAL) + along, width=1.0) == pytest.approx(0.951, abs=5e-4)


def test_the_problem_has_a_gradient_where_the_t_is_touched_near_its_goal() -> None:
    problem = gradlab.make("pusher_t", dtype=torch.float64, horizon=4)
    noise = problem.draw(2, torch.Generator().manual_seed(0))
    close = f64(220, 250, GOAL[0] + 4, GOAL[1] - 6, GOAL[2] + 0.1)
    noise = noise._replace(initial=close.expand(2, 5).clone())
    params = problem.init(torch.Generator().manual_seed(0))
    samples = estimators.FOG()(problem, params, noise).per_sample()
    way = {k: torch.ones_like(v) for k, v in params.items()}

    def returns(step: float) -> Tensor:
        bound = problem.bind({k: v + step * way[k] for k, v in params.items()})
        return evaluate(problem, gradlab.rollout(problem, bound, noise)).value.sum(-1)

    slope = sum(((samples[k] * way[k]).flatten(1).sum(1) for k in params), f64(0.0))
    assert float(slope.abs().min()) > 1e-6
    difference = (returns(1e-7) - returns(-1e-7)) / 2e-7
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-6)


def test_mistakes_are_named() -> None:
    with pytest.raises(BadValue, match="width"):
        PusherT(width=0.0)
    with pytest.raises(BadValue, match="stiffness"):
        PusherT(stiffness=1.5)
    with pytest.raises(BadValue, match="friction"):
        PusherT(friction=math.nan)
    with pytest.raises(BadValue, match="substeps"):
        PusherT(substeps=True)
