"""Contact toys: identities, steps computed by hand, and what is continuous."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gradlab.simulators.toys import Dragging, Paddle, Pushing

NOTHING = torch.zeros(0, dtype=torch.float64)


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(a: torch.Tensor, *numbers: float) -> None:
    torch.testing.assert_close(a, vector(*numbers), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------- two masses


@pytest.mark.parametrize("simulator", [Pushing(kept=1.0), Pushing(kept=1.0, sharpness=10.0)])
@pytest.mark.parametrize("apart", [0.99, 1.2])
def test_a_spring_keeps_momentum(simulator: Pushing, apart: float) -> None:
    state = vector(0.1, 0.1 + apart, 0.3, -0.2)
    after = simulator.step(state, vector(0.0), NOTHING)
    torch.testing.assert_close(after[2:].sum(), state[2:].sum(), rtol=0, atol=1e-12)


def test_friction_keeps_momentum_and_takes_energy() -> None:
    state = vector(0.0, 0.05, 0.3, -0.2)
    after = Dragging().step(state, vector(0.0), NOTHING)
    torch.testing.assert_close(after[2:].sum(), state[2:].sum(), rtol=0, atol=1e-12)
    assert after[2:].square().sum() < state[2:].square().sum()


def test_a_step_of_pushing_by_hand() -> None:
    """10 mm into the spring: 10 N on either, h/m = 0.05 s/kg; beyond its length nothing."""
    simulator = Pushing()
    after = simulator.step(vector(0.0, 0.99, 0.2, 0.1), vector(0.4), NOTHING)
    first, second = 0.99 * 0.2 + 0.05 * (0.4 - 10), 0.99 * 0.1 + 0.05 * 10
    close(after, 0.005 * first, 0.99 + 0.005 * second, first, second)
    after = simulator.step(vector(0.0, 1.01, 0.2, 0.1), vector(0.4), NOTHING)
    first, second = 0.99 * 0.2 + 0.05 * 0.4, 0.99 * 0.1
    close(after, 0.005 * first, 1.01 + 0.005 * second, first, second)


def test_the_smooth_force_is_within_its_bound() -> None:
    """softplus lies above max(z, 0) by at most ln 2/κ, where contact begins."""
    apart = torch.linspace(0.9, 1.1, 201, dtype=torch.float64)[:, None]
    gap = Pushing(sharpness=100.0).force(apart) - Pushing().force(apart)
    assert gap.min() > 0
    assert gap.max() == pytest.approx(1000 * math.log(2) / 100, rel=1e-12)
    assert gap.argmax() == 100


def test_a_step_of_dragging_by_hand() -> None:
    """Half of the slip speed: 1.8 · 0.05 N; beyond it 0.18 N; too far apart nothing."""
    simulator = Dragging()
    for fast, far, force in ((0.05, 0.05, 0.09), (0.3, 0.05, 0.18), (-0.3, -0.05, -0.18)):
        after = simulator.step(vector(0.0, far, fast, 0.0), vector(0.4), NOTHING)
        first, second = fast + 0.05 * (0.4 - force), 0.05 * force
        close(after, 0.005 * first, far + 0.005 * second, first, second)
    after = simulator.step(vector(0.0, 0.1, 0.3, 0.0), vector(0.4), NOTHING)
    close(after, 0.005 * 0.32, 0.1, 0.32, 0.0)


def test_friction_jumps_where_the_masses_part_and_nowhere_else() -> None:
    simulator = Dragging()

    def force(far: float, fast: float) -> float:
        return float(simulator.force(vector(0.0, far, fast, 0.0)))

    assert force(0.1 - 1e-9, 0.3) == pytest.approx(0.18) and force(0.1 + 1e-9, 0.3) == 0
    for fast in (-0.1, 0.0, 0.1):
        assert abs(force(0.05, fast + 1e-9) - force(0.05, fast - 1e-9)) < 1e-8


# --------------------------------------------------------------------------------- ball and paddle


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_reflection_keeps_the_speed_and_turns_the_part_across(angle: float) -> None:
    simulator = Paddle(kept=1.0)
    along = vector(math.cos(angle), math.sin(angle))
    across = vector(-math.sin(angle), math.cos(angle))
    place, speed = 0.1 * along + 0.3 * across, 0.5 * along - 3.0 * across
    state = torch.cat([place, speed, vector(0.0, 0.0, angle)])
    after = simulator.step(state, vector(0.0, 0.0, 0.0), NOTHING)
    torch.testing.assert_close(after[2:4] @ along, speed @ along, rtol=0, atol=1e-12)
    torch.testing.assert_close(after[2:4] @ across, -speed @ across, rtol=0, atol=1e-12)


def test_the_time_of_impact_by_hand() -> None:
    """From 0.3 m at −4 m/s the ball is at 0.2 m, its reach, after half a step, and back after one.

    The published 1e-5 in the denominator moves that by 1e-5 of a step's way and less.
    """
    state = vector(0.0, 0.3, 0.0, -4.0, 0.0, 0.0, 0.0)
    still = vector(0.0, 0.0, 0.0)
    after = Paddle(kept=1.0).step(state, still, NOTHING)
    torch.testing.assert_close(after[:4], vector(0.0, 0.3, 0.0, 4.0), rtol=0, atol=2e-5)
    plain = Paddle(kept=1.0, impact=False).step(state, still, NOTHING)
    close(plain, 0.0, 0.1, 0.0, 4.0, 0.0, 0.0, 0.0)
    softer = Paddle(restitution=0.8).step(state, still, NOTHING)
    assert float(softer[3]) == pytest.approx(3.2)


def test_the_place_after_a_step_is_continuous_in_the_time_of_the_hit() -> None:
    """And without the time of impact as well; the velocity jumps."""
    at_reach = 0.2 + 0.05 * 2.0  # from where the ball just reaches the paddle within the step
    still = vector(0.0, 0.0, 0.0)
    before, after = (
        Paddle().step(vector(0.0, at_reach + d, 0.0, -2.0, 0.0, 0.0, 0.0), still, NOTHING)
        for d in (1e-7, -1e-7)
    )
    assert float(before[3]) == pytest.approx(0.999 * -2.0) and float(after[3]) == pytest.approx(2.0)
    torch.testing.assert_close(before[:2], after[:2], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("x", "hits"), [(0.94, True), (0.96, False), (-0.94, True)])
def test_a_ball_beside_the_paddle_flies_on_and_slows_down(x: float, hits: bool) -> None:
    after = Paddle().step(vector(x, 0.3, 0.0, -4.0, 0.0, 0.0, 0.0), vector(0, 0, 0), NOTHING)
    assert float(after[3]) == pytest.approx(4.0 if hits else 0.999 * -4.0)
    if not hits:
        close(after[:2], x, 0.1)


def test_a_paddle_that_hits_stands_still() -> None:
    move = vector(0.2, -0.1, 0.4)
    hit = Paddle().step(vector(0.0, 0.3, 0.0, -4.0, 0.0, 0.0, 0.0), move, NOTHING)
    close(hit[4:], 0.0, 0.0, 0.0)
    away = Paddle().step(vector(0.0, 2.0, 0.0, -4.0, 0.0, 0.0, 0.0), move, NOTHING)
    close(away[4:], 0.01, -0.005, 0.02)


def test_the_angle_that_counts_is_the_next_one() -> None:
    """A quarter turn within the step: the ball is reflected sideways."""
    turn = vector(0.0, 0.0, math.pi / 2 / 0.05)
    after = Paddle(kept=1.0).step(vector(0.1, 0.1, -2.0, 0.5, 0.0, 0.0, 0.0), turn, NOTHING)
    torch.testing.assert_close(after[2:4], vector(2.0, 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("simulator", [Pushing(), Dragging(), Paddle()])
def test_any_batch_and_independent_rows(simulator: Pushing | Dragging | Paddle) -> None:
    draws = torch.Generator().manual_seed(0)
    like = {"generator": draws, "dtype": torch.float64}
    state = 0.3 * torch.randn(5, 3, simulator.state_dim, **like)
    action = torch.randn(5, 3, simulator.action_dim, **like)
    noise = torch.zeros(5, 3, 0, dtype=torch.float64)
    after = simulator.step(state, action, noise)
    for i, j in ((0, 0), (4, 2)):
        alone = simulator.step(state[i, j], action[i, j], NOTHING)
        torch.testing.assert_close(after[i, j], alone, rtol=0, atol=1e-14)
    assert dataclasses.is_dataclass(simulator) and hash(simulator) is not None
