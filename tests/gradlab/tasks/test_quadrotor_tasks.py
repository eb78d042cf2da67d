"""Hovering, tracking, landing and racing against numbers worked out by hand and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.tasks.base import Task, Transition
from gradlab.tasks.flight import collision_margin
from gradlab.tasks.hovering import Hovering
from gradlab.tasks.landing import Landing
from gradlab.tasks.racing import GATES, Racing
from gradlab.tasks.tracking import Tracking

TASKS: dict[str, Task] = {
    "hovering": Hovering(),
    "hovering with success": Hovering(success_event=True),
    "tracking": Tracking(),
    "landing": Landing(),
    "racing": Racing(),
    "racing course": Racing(gates=4),
    "racing by velocity": Racing(gates=4, reward="velocity"),
}


def make_state(
    position: tuple[float, ...] = (0.0, 0.0, 1.0),
    attitude: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0),
    velocity: tuple[float, ...] = (0.0, 0.0, 0.0),
    rates: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> torch.Tensor:
    return torch.tensor([*position, *attitude, *velocity, *rates], dtype=torch.float64)


def random_states(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(n, 13, generator=generator, dtype=torch.float64)
    raw[:, 3:7] /= raw[:, 3:7].norm(dim=1, keepdim=True)
    raw[:, :3] += torch.tensor([2.0, 0.0, 1.5])
    return raw


def memory_of(task: Task, *gates: float) -> torch.Tensor:
    """[len(gates), nm]."""
    return torch.tensor(gates, dtype=torch.float64)[:, None][:, : task.memory_dim]


def reward(task: Task, states: torch.Tensor, gate: float = 0.0, first: int = 0) -> torch.Tensor:
    """Dense reward of consecutive states [T, 13] (after steps first, first+1, ...)."""
    length = len(states)
    steps = torch.arange(first, first + length, dtype=states.dtype)
    memory = memory_of(task, *[gate] * length)
    terms = task.terms(landed(states, memory, steps))
    return torch.stack(list(terms.values())).sum(0)


def landed(states: torch.Tensor, memory: torch.Tensor, steps: torch.Tensor) -> Transition:
    """Steps that end in these states; where they began and the action are of no account."""
    return Transition(states, states[..., :4], states, memory, steps)


def margins(task: Task, states: torch.Tensor, gate: float = 0.0) -> torch.Tensor:
    steps = torch.arange(len(states), dtype=states.dtype)
    return task.margins(landed(states, memory_of(task, *[gate] * len(states)), steps))


def observe(task: Task, state: torch.Tensor, gate: float = 0.0, step: float = 0.0) -> np.ndarray:
    memory = memory_of(task, gate)[0]
    return task.observe(state, memory, torch.tensor(step, dtype=torch.float64)).numpy()


def flight_reward(state: np.ndarray, target: tuple[float, ...] | np.ndarray) -> float:
    """Facts, restated with numpy."""
    level = np.array([1, 0, 0, 0])
    return (
        0.1
        - 0.1 / 9 * np.linalg.norm(state[:3] - np.array(target))
        - 1e-5 * np.linalg.norm(state[3:7] - level)
        - 0.002 * np.linalg.norm(state[7:10])
        - 0.002 * np.linalg.norm(state[10:])
    )


# --- contracts ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_shapes_and_any_batch(name: str) -> None:
    task = TASKS[name]
    noise = task.draw_initial(6, torch.Generator().manual_seed(0))
    assert noise.shape == (6, task.initial_dim) and noise.dtype == torch.float64
    coordinates, memory = task.initial(noise)
    assert coordinates.shape == (6, 13) and memory.shape == (6, task.memory_dim)
    obs = task.observe(coordinates, memory, torch.tensor(3.0))
    assert obs.shape == (6, task.observation_dim)
    state = random_states(6 * 5, seed=1).view(6, 5, 13)
    held = memory[:, None].expand(6, 5, -1)
    steps = torch.arange(5.0)
    terms = task.terms(landed(state, held, steps))
    assert all(term.shape == (6, 5) for term in terms.values())
    found = task.margins(landed(state, held, steps))
    assert found.shape == (6, 5, len(task.events))

    # one episode, several batch dimensions and vmap give the same numbers
    def everything(s: torch.Tensor, m: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dense = torch.stack(list(task.terms(landed(s, m, steps)).values())).sum(0)
        after = task.advance(landed(s[..., 0, :], m[..., 0, :], steps[0]))
        looked = task.observe(s[..., 0, :], m[..., 0, :], steps[0])
        return dense, task.margins(landed(s, m, steps)), after, looked

    whole = everything(state, held)
    mapped = torch.vmap(everything)(state, held)
    single = [torch.stack(x) for x in zip(*map(everything, state, held), strict=True)]
    split = everything(state.view(2, 3, 5, 13), held.reshape(2, 3, 5, -1))
    for i, part in enumerate(whole):
        torch.testing.assert_close(mapped[i], part, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(single[i], part, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(split[i].reshape(part.shape), part, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", TASKS)
def test_rotor_speeds_are_ignored_and_dtype_is_kept(name: str) -> None:
    task = TASKS[name]
    simulator = Quadrotor(motor_lag=True)
    coordinates, memory = task.initial(
        task.draw_initial(4, torch.Generator().manual_seed(0)).float()
    )
    long = simulator.start(coordinates)
    step = torch.tensor(0.0)
    obs = task.observe(long, memory, step)
    assert obs.dtype == torch.float32
    torch.testing.assert_close(obs, task.observe(coordinates, memory, step))
    path, held, steps = long[:, None], memory[:, None], torch.zeros(1)
    terms = task.terms(landed(path, held, steps))
    body = coordinates[:, None]
    short = task.terms(landed(body, held, steps))
    for key, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, short[key])
    assert task.margins(landed(path, held, steps)).dtype == torch.float32


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_zero_norms(name: str, dtype: torch.dtype) -> None:
    """At spawn velocity, rates and attitude error are exactly zero; also exactly on the target."""
    task = TASKS[name]
    noise = task.draw_initial(3, torch.Generator().manual_seed(0)).to(dtype)
    spawned, memory = task.initial(noise)
    for target in ((1.0, 0.0, 1.5), (2.0, 0.0, 2.5), (4.5, 0.0, 2.0), (4.0, 4.0, 1.0), (2, 0, 0)):
        on_target = spawned.clone()
        on_target[:, :3] = torch.tensor(target, dtype=dtype)
        for state in (spawned, on_target):

            def score(s: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
                s, m, steps = s[None], m[None], torch.zeros(1, dtype=dtype)
                dense = torch.stack(list(task.terms(landed(s, m, steps)).values())).sum()
                obs = task.observe(s[0], m[0], steps[0]).sum()
                return dense + obs + task.margins(landed(s, m, steps)).sigmoid().sum()

            gradient = torch.vmap(torch.func.grad(score))(state, memory)
            assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", TASKS)
def test_gradients_match_finite_differences(name: str) -> None:
    task = TASKS[name]
    state, memory = random_states(1, seed=2), memory_of(task, 1.0)
    steps = torch.zeros(1, dtype=torch.float64)

    def score(s: torch.Tensor) -> torch.Tensor:
        dense = torch.stack(list(task.terms(landed(s, memory, steps)).values())).sum()
        return (
            dense
            + task.observe(s, memory, steps[0]).sin().sum()
            + task.margins(landed(s, memory, steps)).sum()
        )

    gradient = torch.func.grad(score)(state)[0]
    for i in range(13):
        shift = torch.zeros_like(state)
        shift[0, i] = 1e-6
        slope = (score(state + shift) - score(state - shift)) / 2e-6
        assert float(gradient[i]) == pytest.approx(float(slope), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", TASKS)
def test_detached_parts_pass_no_gradient(name: str) -> None:
    task = TASKS[name]
    state, memory = random_states(1, seed=3), memory_of(task, 0.0)
    steps = torch.zeros(1, dtype=torch.float64)

    def score(s: torch.Tensor, which: Task) -> torch.Tensor:
        dense = torch.stack(list(which.terms(landed(s, memory, steps)).values())).sum()
        return dense + which.margins(landed(s, memory, steps)).sum()

    full = torch.func.grad(score)(state, task)[0]
    for part, place in {
        "position": slice(0, 3),
        "attitude": slice(3, 7),
        "velocity": slice(7, 10),
        "rates": slice(10, 13),
    }.items():
        cut = task.with_detached(part)
        assert score(state, cut) == score(state, task)
        gradient = torch.func.grad(score)(state, cut)[0]
        kept = torch.ones(13, dtype=torch.bool)
        kept[place] = False
        assert bool((gradient[place] == 0).all())
        torch.testing.assert_close(gradient[kept], full[kept])
    with pytest.raises(UnknownName, match="velocity"):
        task.with_detached("velocit")


# --- hovering -------------------------------------------------------------------------------


def test_hovering_observation_and_reward_by_hand() -> None:
    state = make_state((2.0, -1.0, 0.5), (0.8, 0.6, 0.0, 0.0), (3.0, 0.0, -4.0), (0.0, 2.0, 0.0))
    expected = [-0.1, 0.1, 0.1, 0.8, 0.6, 0, 0, 0.3, 0, -0.4, 0, 0.2, 0]
    np.testing.assert_allclose(observe(Hovering(), state), expected, atol=1e-15)
    # distance √3 m, attitude error √(0.2² + 0.6²) = √0.4, speed 5 m/s, rate 2 rad/s
    value = 0.1 - 0.1 / 9 * math.sqrt(3) - 1e-5 * math.sqrt(0.4) - 0.01 - 0.004
    assert float(reward(Hovering(), state[None])) == pytest.approx(value, abs=1e-15)


def test_hovering_reward_is_at_most_a_tenth() -> None:
    target = make_state((1.0, 0.0, 1.5))
    assert float(reward(Hovering(), target[None])) == pytest.approx(0.1, abs=1e-16)
    assert float(reward(Hovering(), random_states(500, seed=4)).max()) < 0.1


def test_hovering_success_needs_both_place_and_speed() -> None:
    task = Hovering(success_event=True)
    assert [(e.name, e.bonus, e.terminates, e.switches) for e in task.events] == [
        ("success", 20.0, False, False),
        ("collision", 0.0, True, False),
    ]
    assert [e.name for e in Hovering().events] == ["collision"]
    states = torch.stack(
        [
            make_state((1.0, 0.1, 1.5), velocity=(0.0, 0.0, 0.15)),
            make_state((1.0, 0.5, 1.5)),
            make_state((1.0, 0.0, 1.5), velocity=(0.6, 0.0, 0.0)),
        ]
    )
    np.testing.assert_allclose(margins(task, states)[:, 0], [0.5, -1.0, -1.0], atol=1e-14)


@pytest.mark.parametrize(
    ("position", "margin"),
    [
        ((1.0, 0.0, 1.5), (0.1 - 1.5) / 0.3),
        ((1.0, 0.0, 0.1), 0.0),
        ((1.0, 0.0, 0.04), 0.2),
        ((1.0, 0.0, 6.97), 0.07 / 0.3),
        ((-4.9, 0.0, 3.0), 0.0),
        ((17.97, 0.0, 3.0), 0.07 / 0.3),
        ((0.0, 9.97, 3.0), 0.07 / 0.3),
        ((0.0, -10.2, 3.0), 1.0),
        ((0.0, 0.0, -0.5), 2.0),
    ],
)
def test_collision_margin(position: tuple[float, ...], margin: float) -> None:
    """Positive within 0.1 m of a face of [−5,18] x [−10,10] x [0,7] m, or outside; per 0.3 m."""
    found = collision_margin(torch.tensor(position, dtype=torch.float64))
    assert float(found) == pytest.approx(margin, abs=1e-12)


@pytest.mark.parametrize(
    ("task", "mean", "half"),
    [
        (Hovering(), (1.0, 0.0, 1.5), (2.0, 2.0, 1.0)),
        (Tracking(), (4.5, 0.0, 2.0), (0.2, 0.2, 0.2)),
        (Landing(), (2.0, 0.0, 2.5), (1.0, 1.0, 1.0)),
        (Racing(), (2.0, 2.0, 1.0), (0.2, 0.2, 0.2)),
        (Racing(first_gate=1), (6.0, 2.0, 1.5), (0.2, 0.2, 0.2)),
        (
            Landing(spawn_mean=(2.0, 0.5, 0.8), spawn_half_range=(0, 0.1, 0.3)),
            (2, 0.5, 0.8),
            (0, 0.1, 0.3),
        ),
    ],
)
def test_spawn_range(task: Task, mean: tuple[float, ...], half: tuple[float, ...]) -> None:
    """4,000 uniform draws come within 1 % of both ends but for a chance of e^−20 each."""
    noise = task.draw_initial(4000, torch.Generator().manual_seed(5))
    state, _ = task.initial(noise)
    centre, reach = np.array(mean), np.array(half)
    scaled = (state[:, :3].numpy() - centre) / np.where(reach > 0, reach, 1)
    assert np.abs(scaled).max() <= 1 + 1e-12
    np.testing.assert_allclose(scaled.max(0), reach > 0, atol=0.01)
    np.testing.assert_allclose(scaled.min(0), -1.0 * (reach > 0), atol=0.01)
    rest = torch.tensor([1.0] + [0.0] * 9, dtype=torch.float64).expand(4000, 10)
    assert torch.equal(state[:, 3:], rest)


# --- tracking -------------------------------------------------------------------------------


def test_tracking_target_runs_around_its_circle() -> None:
    """Half a turn per second: after 0.5 s at (3, 1.5, 2), after 1 s at (1.5, 0, 2)."""
    task = Tracking()
    found = task.target(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    expected = [[4.5, 0, 2], [3, 1.5, 2], [1.5, 0, 2]]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_tracking_observation_previews_one_second() -> None:
    task = Tracking()
    state = make_state((1.0, 2.0, 3.0), velocity=(1.0, 2.0, 3.0))
    obs = observe(task, state, step=25.0)  # t = 0.5 s
    angles = math.pi * (0.5 + 0.1 * np.arange(10))
    points = np.stack([3 + 1.5 * np.cos(angles), 1.5 * np.sin(angles), 2 + 0 * angles], axis=1)
    np.testing.assert_allclose(obs[:30].reshape(10, 3), (points - [1, 2, 3]) / 10, atol=1e-14)
    np.testing.assert_allclose(obs[30:], [1, 0, 0, 0, 0.1, 0.2, 0.3, 0, 0, 0], atol=1e-15)


def test_tracking_rewards_the_target_of_the_time_reached() -> None:
    """Step t reaches time (t+1)·0.02 s."""
    states = random_states(4, seed=6)
    found = reward(Tracking(), states, first=7)
    for i, state in enumerate(states.numpy()):
        angle = math.pi * 0.02 * (7 + i + 1)
        target = (3 + 1.5 * math.cos(angle), 1.5 * math.sin(angle), 2.0)
        assert float(found[i]) == pytest.approx(flight_reward(state, target), abs=1e-14)


# --- landing --------------------------------------------------------------------------------


def landing_reward(state: np.ndarray) -> float:
    """Facts, restated piecewise with numpy."""
    z, u = state[2], -state[9]
    limit = np.clip(z, 0.05, 1)
    spread = 2 * np.clip(z, 0.05, 1)
    away = np.hypot(state[0] - 2, state[1])
    exponent = u / limit if u <= limit else 5 - 4 * u / limit
    down = 0.1 * (1.2**exponent - 1) / 0.2
    return down + 0.1 * (1.2 ** (1 - away / spread) - 1) / 0.2


def test_landing_reward() -> None:
    states = random_states(300, seed=7)
    states[:100, 2] *= 0.1  # below the lower clip and under ground as well
    states[100:200, 2] = 0.05 + 0.95 * torch.rand(100, generator=torch.Generator().manual_seed(8))
    found = reward(Landing(), states)
    expected = [landing_reward(state) for state in states.numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert float(found.max()) < 0.2
    best = make_state((2.0, 0.0, 0.5), velocity=(0.0, 0.0, -0.5))
    assert float(reward(Landing(), best[None])) == pytest.approx(0.2, abs=1e-15)


def test_landing_observation_looks_at_a_point_above_the_mark() -> None:
    obs = observe(Landing(), make_state((1.0, 1.0, 1.5)))
    np.testing.assert_allclose(obs[:3], [0.1, -0.1, 0.1], atol=1e-15)


def test_landing_events() -> None:
    task = Landing()
    assert [(e.name, e.bonus, e.terminates) for e in task.events] == [
        ("success", 20.0, True),
        ("collision", -0.1, True),
    ]
    down = (0.0, 0.0, -0.06)  # margin 0.8
    cases = [
        ((2.0, 0.0, 0.15), down, 0.25),  # height
        ((2.0, 0.0, 0.2), down, 0.0),
        ((2.24, 0.0, 0.05), down, 0.2),  # x
        ((2.0, -0.21, 0.05), down, 0.3),  # y
        ((2.0, -0.6, 0.05), down, -1.0),
        ((2.0, 0.0, 0.05), (0.0, 0.18, -0.24), 0.0),  # speed
        ((2.0, 0.0, 2.5), (0.0, 0.0, 0.0), (0.2 - 2.5) / 0.2),
    ]
    states = torch.stack([make_state(p, velocity=v) for p, v, _ in cases])
    found = margins(task, states)
    np.testing.assert_allclose(found[:, 0], [margin for *_, margin in cases], atol=1e-12)
    np.testing.assert_allclose(found[:, 1], collision_margin(states[:, :3]))
    # between 0.1 and 0.2 m a drone can land without having crashed
    assert bool(found[0, 0] > 0) and bool(found[0, 1] < 0)


def test_landing_can_treat_its_normalisers_as_constants() -> None:
    """Values agree; the derivative with respect to height is then zero, and is not otherwise."""
    states = random_states(20, seed=9)
    states[:, 2] = 0.1 + 0.8 * torch.rand(20, generator=torch.Generator().manual_seed(10))
    heights = {}
    for cut in (False, True):
        task = Landing(detach_normalisers=cut)
        leaf = states.clone().requires_grad_()
        value = reward(task, leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        heights[cut] = (value, gradient)
    assert torch.equal(heights[False][0], heights[True][0])
    assert bool((heights[True][1][:, 2] == 0).all())
    assert bool((heights[False][1][:, 2] != 0).all())
    torch.testing.assert_close(heights[True][1][:, 7:10], heights[False][1][:, 7:10])


# --- racing ---------------------------------------------------------------------------------


def test_racing_observation_shows_two_gates() -> None:
    state = make_state((1.0, 1.0, 1.0), velocity=(1.0, 0.0, 0.0))
    course = Racing(gates=4)
    for gate in range(4):
        pair = np.array([GATES[gate], GATES[(gate + 1) % 4]]) - 1.0
        obs = observe(course, state, gate=gate)
        np.testing.assert_allclose(obs[:6].reshape(2, 3), pair / 10, atol=1e-15)
        alone = observe(Racing(first_gate=gate), state)
        np.testing.assert_allclose(alone, obs, atol=1e-15)
    np.testing.assert_allclose(obs[6:], [1, 0, 0, 0, 0.1, 0, 0, 0, 0, 0], atol=1e-15)


def test_racing_switches_after_the_step_that_passes() -> None:
    """The memory before the step names the old gate; the reward of that step is for the new one."""
    course = Racing(gates=4)
    near, far = (4.0, 4.15, 1.0), (4.0, 3.5, 1.0)
    states = torch.stack([make_state(far), make_state(near)])
    found = margins(course, states, gate=0)
    np.testing.assert_allclose(found[:, 0], [1 - 0.5 / 0.3, 0.5], atol=1e-12)
    step = torch.tensor(0.0)
    after = course.advance(landed(states, memory_of(course, 0.0, 0.0), step))
    assert after.tolist() == [[0.0], [1.0]]
    dense = reward(course, states, gate=0)
    expected = [flight_reward(s.numpy(), GATES[g]) for s, g in zip(states, (0, 1), strict=True)]
    np.testing.assert_allclose(dense, expected, atol=1e-14)
    # the observation of a step is made before it, with the old memory
    np.testing.assert_allclose(observe(course, states[1], gate=0)[:3], [0, -0.015, 0], atol=1e-12)
    last = make_state(GATES[3])[None]
    assert course.advance(landed(last, memory_of(course, 3.0), step)).tolist() == [[0.0]]


def test_one_gate_has_no_switch() -> None:
    task = Racing()
    near = make_state((4.0, 4.1, 1.0))[None]
    assert task.memory_dim == 0
    assert task.advance(landed(near, memory_of(task, 0.0), torch.tensor(0.0))).shape == (1, 0)
    expected = flight_reward(near[0].numpy(), GATES[0])
    assert float(reward(task, near)) == pytest.approx(expected, abs=1e-14)
    events = [(e.name, e.bonus, e.terminates, e.switches) for e in task.events]
    assert events == [("passed", 20.0, False, False), ("collision", 0.0, True, False)]
    assert [e.switches for e in Racing(gates=4).events] == [True, False]


def test_racing_by_velocity() -> None:
    """Approach 3 m/s along x and 4 m/s across, 2 m before the gate; then faster than 15 m/s."""
    task = Racing(reward="velocity")
    x, y, z = GATES[0]
    states = torch.stack(
        [
            make_state((x - 2, y, z), velocity=(3.0, 0.0, 4.0), rates=(0.0, 5.0, 0.0)),
            make_state((x - 2, y, z), velocity=(20.0, 0.0, 0.0)),
            make_state((x + 2, y, z), velocity=(20.0, 0.0, 0.0)),
            make_state((x, y, z), velocity=(3.0, 0.0, 4.0)),
        ]
    )
    expected = [0.02 * 3 - 0.02 * 4 / 3 - 0.001 * 5, 0.02 * 15, -0.02 * 20, -0.02 * 5]
    np.testing.assert_allclose(reward(task, states), expected, atol=1e-14)
    assert task.events[0].bonus == 5.0


@pytest.mark.parametrize("quirk", [False, True])
def test_racing_first_gate_by_position(quirk: bool) -> None:
    course = Racing(gates=4, vendor_quirks=quirk)
    noise = course.draw_initial(2000, torch.Generator().manual_seed(11))
    state, memory = course.initial(noise)
    x, y = state[:, 0], state[:, 1]
    for gate, box in enumerate(
        ((x < 4) & (y > 0), (x > 4) & (y > 0), (x > 4) & (y <= 0), (x < 4) & (y <= 0))
    ):
        assert bool(box.any())
        expected = 1 if quirk and gate == 2 else gate
        assert bool((memory[box, 0] == expected).all())
    # four boxes with chance 1/4 each: 500 ± 19.4, at 5 standard errors
    share = ((x < 4) & (y > 1)).sum()
    assert abs(int(share) - 500) < 97
    fixed = Racing(gates=4, first_gate=2).initial(noise)[1]
    assert bool((fixed == 2).all())


def test_a_course_flown_gate_by_gate() -> None:
    """Teleported from gate to gate for two rounds, each pass moves the memory on by one."""
    course = Racing(gates=4)
    memory = memory_of(course, 0.0)[0]
    for k in range(8):
        state = make_state(GATES[k % 4])
        assert float(margins(course, state[None], gate=float(memory))[0, 0]) == pytest.approx(1.0)
        memory = course.advance(landed(state, memory, torch.tensor(float(k))))
        assert float(memory) == (k + 1) % 4


# --- bad input ------------------------------------------------------------------------------


def test_bad_input_gets_one_line() -> None:
    cases = [
        (UnknownName, lambda: Hovering(detached=("speed",))),
        (BadValue, lambda: Hovering(spawn_half_range=(1.0, -1.0, 1.0))),
        (BadValue, lambda: Tracking(dt=0.0)),
        (BadValue, lambda: Racing(gates=2)),
        (BadValue, lambda: Racing(first_gate=4)),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)
