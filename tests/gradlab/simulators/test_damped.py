"""Damped bodies: steps by hand, in the order of the source, and their derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.simulators.damped import DampedBlock, DampedMass, HeldAction, wrapped


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


NONE = f64()


def test_a_mass_is_damped_then_pushed_then_moved_then_clamped() -> None:
    body = DampedMass()
    after = body.step(f64(0.2, 0.999, 0.6, 3.0), f64(1.0, -0.5), NONE)
    vx, vy = 0.6 * (1 - 5 / 60) + 5 / 60, 3.0 * (1 - 5 / 60) - 2.5 / 60
    assert 0.999 + vy / 60 > 1  # the second axis hits the edge and keeps its velocity
    torch.testing.assert_close(after, f64(0.2 + vx / 60, 1.0, vx, vy), rtol=1e-14, atol=0)


def test_a_mass_on_a_line_is_that_of_the_first_task() -> None:
    body = DampedMass(dims=1, dt=0.1, force=1.0, damping=0.5, limit=None)
    after = body.step(f64(3.0, 0.4), f64(0.7), NONE)
    velocity = 0.4 + (0.7 - 0.5 * 0.4) * 0.1
    torch.testing.assert_close(after, f64(3.0 + 0.1 * velocity, velocity), rtol=1e-14, atol=0)


def test_a_block_turns_within_a_turn() -> None:
    body = DampedBlock()
    state, action = f64(0.1, -0.2, 3.1, 0.3, -0.6, 2.0), f64(0.5, -0.1, 0.2)
    after = body.step(state, action, NONE)
    velocity = f64(
        0.3 * (1 - 5 / 60) + 0.5 * 5 / 0.1 / 60,
        -0.6 * (1 - 5 / 60) - 0.1 * 5 / 0.1 / 60,
        2.0 * (1 - 3 / 60) + 0.2 * 0.2 / 1.95e-4 / 60,
    )
    pose = state[:3] + velocity / 60
    assert pose[2] > math.pi
    expected = torch.cat([pose - f64(0, 0, 2 * math.pi), velocity])
    torch.testing.assert_close(after, expected, rtol=1e-14, atol=0)
    turn = body.step(f64(*6 * [0.0]), f64(0, 0, 1), NONE)[5]
    assert float(turn) == pytest.approx(17.1, abs=0.01)
    far = body.step(f64(0.249, 0, 0, 2.0, 0, 0), f64(0, 0, 0), NONE)
    assert float(far[0]) == 0.25 and float(far[3]) > 0  # stopped by the clamp, not by a force


@pytest.mark.parametrize("body", [DampedMass(), DampedBlock()], ids=lambda b: type(b).__name__)
def test_derivatives_are_those_of_differences(body: DampedMass | DampedBlock) -> None:
    held = HeldAction(body)
    generator = torch.Generator().manual_seed(0)
    state = 0.1 * torch.randn(held.state_dim, generator=generator, dtype=torch.float64)
    action = 0.5 * torch.randn(held.action_dim, generator=generator, dtype=torch.float64)

    def step(x: Tensor, u: Tensor) -> Tensor:
        return held.step(x, u, NONE)

    assert torch.autograd.gradcheck(step, (state.requires_grad_(), action.requires_grad_()))


def test_an_angle_that_wraps_keeps_its_slope() -> None:
    angle = f64(-7.0, -math.pi, 3.0, 3.2).requires_grad_()
    around = wrapped(angle)
    (slope,) = torch.autograd.grad(around.sum(), angle)
    assert torch.equal(slope, torch.ones_like(slope))
    assert ((around >= -math.pi) & (around < math.pi)).all()
    torch.testing.assert_close(around.sin(), angle.sin())


def test_actions_are_clamped_and_held() -> None:
    held = HeldAction(DampedMass())
    start = held.start(f64(0, 0, 0, 0))
    assert torch.equal(start, torch.zeros(6, dtype=torch.float64))
    action = f64(1.5, -0.25).requires_grad_()
    after = held.step(start, action, NONE)
    assert torch.equal(after[4:], f64(1.0, -0.25))
    assert torch.equal(after[:4], DampedMass().step(start[:4], f64(1.0, -0.25), NONE))
    (slope,) = torch.autograd.grad(after.sum(), action)
    assert float(slope[0]) == 0 and float(slope[1]) > 1


@pytest.mark.parametrize(
    "wrong", [{"mass": 0.0}, {"dt": -1.0}, {"limit": 0.0}], ids=lambda w: next(iter(w))
)
def test_sizes_must_be_positive(wrong: dict[str, float]) -> None:
    with pytest.raises(BadValue, match="positive"):
        DampedMass(**wrong)  # pyright: ignore[reportArgumentType]
