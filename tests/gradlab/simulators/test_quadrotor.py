"""The quadrotor against an independent integration of its equations, closed forms and balances."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.spatial.transform import Rotation

from gradlab.foundation.errors import BadShape, BadValue, UnknownName
from gradlab.simulators.drones import DRONES, GRAVITY, Drone
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.simulators.quadrotor_tables import tables_of

ROOT = Path(__file__).parents[3]
NAMES = tuple(DRONES)
VARIANTS = [
    Quadrotor(drone=drone, actions=actions, integrator=integrator, motor_lag=lag, substeps=2)
    for drone, actions, integrator, lag in itertools.product(
        NAMES, ("thrust", "bodyrate"), ("euler", "rk4"), (False, True)
    )
]
from tests.helpers.forked import run_code


def identify(simulator: Quadrotor) -> str:
    lag = "lag" if simulator.motor_lag else "direct"
    return f"{simulator.drone}-{simulator.actions}-{simulator.integrator}-{lag}"


def random_state(simulator: Quadrotor, n: int, seed: int) -> torch.Tensor:
    """Flying, tumbling states, float64, rotors at hover speed."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(n, 13, generator=generator, dtype=torch.float64)
    raw[:, 3:7] /= raw[:, 3:7].norm(dim=1, keepdim=True)
    raw[:, 7:10] *= 3
    return simulator.start(raw)


def random_action(n: int, seed: int, low: float = -0.3, high: float = 0.3) -> torch.Tensor:
    """Actions for which no rotor of a slowly turning drone saturates."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, 4, generator=generator, dtype=torch.float64)


def step(simulator: Quadrotor, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return simulator.step(state, action, state[..., :0])


def equations(
    drone: Drone, thrusts: np.ndarray, drag: bool
) -> Callable[[float, np.ndarray], np.ndarray]:
    """The equations of motion in numpy and scipy, sharing no code with the simulator."""
    reach = drone.arm_length / np.sqrt(2)
    x, y = reach * np.array([1, 1, -1, -1]), reach * np.array([1, -1, -1, 1])
    spin = np.array([1, -1, 1, -1])
    inertia = np.diag(drone.inertia)

    def derivative(_: float, s: np.ndarray) -> np.ndarray:
        w, i, j, k = s[3:7]
        velocity, rates = s[7:10], s[10:13]
        turn = Rotation.from_quat([i, j, k, w])
        force = np.array([0, 0, thrusts.sum()])
        if drag:
            air = turn.inv().apply(velocity)
            force = force - np.array(drone.linear_drag) * air
            force = force - np.array(drone.quadratic_drag) * np.abs(air) * air
        # r × F with F along z is (y F, −x F, 0); the reaction torque of a rotor is about z
        torque = np.array([y @ thrusts, -x @ thrusts, drone.torque_ratio * (spin @ thrusts)])
        p, q, r = rates
        kinematics = 0.5 * np.array([[0, -p, -q, -r], [p, 0, r, -q], [q, -r, 0, p], [r, q, -p, 0]])
        acceleration = turn.apply(force) / drone.mass - np.array([0, 0, GRAVITY])
        angular = np.linalg.solve(inertia, torque - np.cross(rates, inertia @ rates))
        return np.concatenate([velocity, kinematics @ s[3:7], acceleration, angular])

    return derivative


def commanded(drone: Drone, action: np.ndarray) -> np.ndarray:
    share = drone.mass * GRAVITY / 4
    thrusts = share * (drone.thrust_offset + drone.thrust_gain * action)
    return np.clip(thrusts, 0, drone.max_thrust)


def reference(simulator: Quadrotor, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """DOP853 through a sequence of held thrust actions."""
    drone = simulator.constants
    for action in actions:
        slope = equations(drone, commanded(drone, action), simulator.drag)
        found = solve_ivp(slope, (0, simulator.dt), state, method="DOP853", rtol=1e-12, atol=1e-12)
        state = found.y[:, -1]
    return state


@pytest.mark.parametrize("drag", [False, True])
@pytest.mark.parametrize("drone", NAMES)
def test_rk4_with_16_substeps_agrees_with_dop853(drone: str, drag: bool) -> None:
    simulator = Quadrotor(drone=drone, integrator="rk4", substeps=16, drag=drag)
    actions = random_action(32, seed=3, low=-1.0, high=1.0)
    state = random_state(simulator, 1, seed=4)[0]
    expected = reference(simulator, state.numpy(), actions.numpy())
    for action in actions:
        state = step(simulator, state, action)
    np.testing.assert_allclose(state.numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("integrator", "order"), [("euler", 1), ("rk4", 4)])
@pytest.mark.parametrize("drone", NAMES)
def test_order_of_convergence(drone: str, integrator: str, order: int) -> None:
    coarse = Quadrotor(drone=drone, integrator=integrator, drag=False, dt=0.2)
    state, action = random_state(coarse, 1, seed=5)[0], random_action(1, seed=6)[0]
    exact = reference(coarse, state.numpy(), action.numpy()[None])
    counts = (8, 16, 32, 64) if order == 4 else (256, 512, 1024, 2048)
    errors = []
    for count in counts:
        fine = dataclasses.replace(coarse, substeps=count)
        errors.append(np.linalg.norm(step(fine, state, action).numpy() - exact))
    fit = stats.linregress(-np.log(counts), np.log(errors))
    band = stats.t.ppf(0.9995, len(counts) - 2) * fit.stderr
    assert band < 0.4, f"the fit says too little: slope {fit.slope:.3f} ± {band:.3f}"
    assert abs(fit.slope - order) <= max(band, 1e-3), f"slope {fit.slope:.4f} ± {band:.4f}"


@pytest.mark.parametrize("drone", NAMES)
def test_an_euler_step_is_old_derivatives_then_normalisation(drone: str) -> None:
    simulator = Quadrotor(drone=drone)
    states, actions = random_state(simulator, 10, seed=28), random_action(10, seed=29)
    after = step(simulator, states, actions).numpy()
    for state, action, found in zip(states.numpy(), actions.numpy(), after, strict=True):
        thrusts = commanded(simulator.constants, action)
        expected = state + 0.02 * equations(simulator.constants, thrusts, drag=True)(0, state)
        assert np.linalg.norm(expected[3:7]) > 1 + 1e-6  # so that normalisation shows
        expected[3:7] /= np.linalg.norm(expected[3:7])
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_order_4_survives_motor_lag() -> None:
    """Rotor speeds are exact at every stage, so their exponential costs no order."""
    coarse = Quadrotor(drone="visfly-0.46kg", integrator="rk4", drag=False, dt=0.2, motor_lag=True)
    state, action = random_state(coarse, 1, seed=7)[0], random_action(1, seed=8)[0]
    exact = step(dataclasses.replace(coarse, substeps=2048), state, action)
    counts = (16, 32, 64, 128)
    errors = [
        float((step(dataclasses.replace(coarse, substeps=c), state, action) - exact)[:13].norm())
        for c in counts
    ]
    fit = stats.linregress(-np.log(counts), np.log(errors))
    band = stats.t.ppf(0.9995, len(counts) - 2) * fit.stderr
    assert band < 0.4
    assert abs(fit.slope - 4) <= max(band, 1e-3), f"slope {fit.slope:.4f} ± {band:.4f}"


@pytest.mark.parametrize("drone", NAMES)
def test_energy_and_angular_momentum_in_free_flight(drone: str) -> None:
    """Without thrust and drag both are conserved, and momentum changes by gravity alone."""
    simulator = Quadrotor(drone=drone, integrator="rk4", substeps=16, drag=False)
    constants = simulator.constants
    inertia = np.array(constants.inertia)
    stop = torch.full((4,), -constants.thrust_offset / constants.thrust_gain, dtype=torch.float64)

    def balance(state: torch.Tensor) -> tuple[float, np.ndarray]:
        s = state.numpy()
        energy = (
            0.5 * constants.mass * s[7:10] @ s[7:10]
            + 0.5 * s[10:13] @ (inertia * s[10:13])
            + constants.mass * GRAVITY * s[2]
        )
        turn = Rotation.from_quat(s[[4, 5, 6, 3]])
        return energy, turn.apply(inertia * s[10:13])

    state = random_state(simulator, 1, seed=9)[0]
    energy, momentum = balance(state)
    velocity = state[7:10].clone()
    for _ in range(50):
        state = step(simulator, state, stop)
    energy_after, momentum_after = balance(state)
    assert abs(energy_after - energy) < 1e-9 * abs(energy)
    np.testing.assert_allclose(momentum_after, momentum, rtol=0, atol=1e-9 * inertia.max())
    fall = torch.tensor([0, 0, -GRAVITY], dtype=torch.float64)  # times 50 · 0.02 s
    torch.testing.assert_close(state[7:10], velocity + fall, rtol=0, atol=1e-12)
    assert abs(float(state[3:7].norm()) - 1) < 1e-14


@pytest.mark.parametrize("simulator", VARIANTS, ids=identify)
def test_hover_is_an_equilibrium(simulator: Quadrotor) -> None:
    still = torch.zeros(13, dtype=torch.float64)
    still[:4] = torch.tensor([1.0, -2.0, 3.0, 1.0])
    state = simulator.start(still)
    action = torch.tensor(simulator.hover_action, dtype=torch.float64)
    moved = step(simulator, state, action)
    torch.testing.assert_close(moved[:13], still, rtol=0, atol=1e-14)
    torch.testing.assert_close(moved, state, rtol=1e-14, atol=1e-14)


def test_published_constants() -> None:
    """Numbers that the sources or arithmetic on them give, to the digits given."""
    heavy, light = (DRONES[name] for name in NAMES)
    assert heavy.inertia == pytest.approx((0.0079114, 0.0079114, 0.0123066), abs=5e-8)
    assert heavy.max_thrust == pytest.approx(21.7077, abs=5e-5)
    assert heavy.quadratic_drag == pytest.approx((0.0091875, 0.0091875, 0.0153125))
    assert light.max_thrust == pytest.approx(5.0155, abs=5e-5)
    assert light.hover_speed == pytest.approx(1658, abs=0.5)
    assert light.quadratic_drag == pytest.approx((0.0030625, 0.0030625, 0.0091875))
    assert 4 * heavy.max_thrust / (heavy.mass * GRAVITY) == pytest.approx(12.1, abs=0.05)
    assert 4 * light.max_thrust / (light.mass * GRAVITY) == pytest.approx(4.45, abs=0.005)


@pytest.mark.parametrize(
    ("drone", "action", "thrust"),
    [
        ("visfly-0.73kg", 0.0, 1.790325),
        ("visfly-0.73kg", 1.0, 3.58065 + 1.790325),
        ("visfly-0.73kg", -0.5, 0.0),
        ("visfly-0.73kg", -0.9, 0.0),  # clamped
        ("visfly-0.46kg", 1.0, 3 * 0.46 * 9.81 / 4),
        ("visfly-0.46kg", -1.0, 0.0),
    ],
)
def test_thrust_command(drone: str, action: float, thrust: float) -> None:
    simulator = Quadrotor(drone=drone)
    state = random_state(simulator, 1, seed=1)[0] * 0
    state[3] = 1
    after = step(simulator, state, torch.full((4,), action, dtype=torch.float64))
    expected = 0.02 * (4 * thrust / simulator.constants.mass - 9.81)
    assert float(after[9]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("drone", "gain"),
    [
        ("visfly-0.73kg", (16.6, 16.6, 5.0)),
        ("visfly-0.46kg", (60 / (1 + 1 / 1.01), 50.6 / (1 + 1 / 1.53), 55 / (1 + 2 / 2.03))),
    ],
)
def test_body_rates_approach_their_command(drone: str, gain: tuple[float, ...]) -> None:
    """One Euler step is ω + dt·K(ω_cmd − ω): the gyroscopic torque is compensated."""
    simulator = Quadrotor(drone=drone, actions="bodyrate")
    state = random_state(simulator, 20, seed=10)
    action = random_action(20, seed=11) * 0.3
    state[:, 10:13] *= 0.3
    target = simulator.constants.max_rate * action[:, 1:]
    expected = state[:, 10:] + 0.02 * torch.tensor(gain).double() * (target - state[:, 10:])
    after = step(simulator, state, action)
    torch.testing.assert_close(after[:, 10:13], expected, rtol=0, atol=1e-6)
    thrust = 4 * commanded(simulator.constants, action[:, 0].numpy())
    free = dataclasses.replace(simulator, drag=False)
    lifted = (step(free, state, action) - state)[:, 7:10] / 0.02
    lifted[:, 2] += GRAVITY
    size = lifted.norm(dim=1).numpy()
    np.testing.assert_allclose(size, thrust / simulator.constants.mass, rtol=1e-12)


@pytest.mark.parametrize("integrator", ["euler", "rk4"])
def test_motor_lag_is_exponential(integrator: str) -> None:
    simulator = Quadrotor(
        drone="visfly-0.46kg", integrator=integrator, motor_lag=True, substeps=8, drag=False
    )
    drone = simulator.constants
    k0, k1, k2 = drone.thrust_map
    still = torch.zeros(13, dtype=torch.float64)
    still[3] = 1
    state = simulator.start(still)
    action = torch.full((4,), 0.5, dtype=torch.float64)
    thrust = float(commanded(drone, np.array(0.5)))
    goal = (-k1 + np.sqrt(k1**2 - 4 * k0 * (k2 - thrust))) / (2 * k0)
    assert k0 * goal**2 + k1 * goal + k2 == pytest.approx(thrust, rel=1e-12)
    for _ in range(3):
        state = step(simulator, state, action)
    time, tau, gap = 0.06, drone.motor_time_constant, drone.hover_speed - goal
    speed = goal + gap * np.exp(-time / tau)
    np.testing.assert_allclose(state[13:].numpy(), speed, rtol=1e-12)
    # climb rate: the integral of 4(k0 n² + k1 n + k2)/m − g with n = goal + gap·exp(−t/τ)
    first = gap * tau * (1 - np.exp(-time / tau))
    second = gap**2 * tau / 2 * (1 - np.exp(-2 * time / tau))
    lift = thrust * time + (2 * k0 * goal + k1) * first + k0 * second
    climb = 4 * lift / drone.mass - GRAVITY * time
    assert float(state[9]) == pytest.approx(climb, rel=1e-7 if integrator == "rk4" else 0.05)


def test_lag_of_the_heavy_drone_is_negligible() -> None:
    """Its time constant is 1/200 of a control period."""
    direct, lagged = Quadrotor(), Quadrotor(motor_lag=True)
    state, action = random_state(lagged, 8, seed=12), random_action(8, seed=13)
    expected = step(direct, state[:, :13], action)
    torch.testing.assert_close(step(lagged, state, action)[:, :13], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("drone", NAMES)
def test_drag_opposes_motion(drone: str) -> None:
    simulator = Quadrotor(drone=drone)
    state, action = random_state(simulator, 200, seed=14), random_action(200, seed=15)
    free = step(dataclasses.replace(simulator, drag=False), state, action)
    pull = (step(simulator, state, action) - free)[:, 7:10]
    assert bool(((pull * state[:, 7:10]).sum(-1) < 0).all())


def test_sign_slip_of_the_source_pushes_backward_flight() -> None:
    """At 5 m/s towards −x the force is 0.23 N, forwards instead of backwards."""
    state = torch.zeros(2, 13, dtype=torch.float64)
    state[:, 3] = 1
    state[:, 7] = torch.tensor([-5.0, 5.0])
    hover = torch.zeros(2, 4, dtype=torch.float64)
    change = [
        (step(Quadrotor(vendor_quirks=quirk), state, hover) - state)[:, 7] * 0.73 / 0.02
        for quirk in (False, True)
    ]
    size = 0.0091875 * 25
    np.testing.assert_allclose(change[0].numpy(), [size, -size], rtol=1e-10)
    np.testing.assert_allclose(change[1].numpy(), [-size, -size], rtol=1e-10)


@pytest.mark.parametrize("simulator", VARIANTS, ids=identify)
def test_gradients_match_finite_differences(simulator: Quadrotor) -> None:
    """Central differences at 1e-5 relative: error about 1e-10 from curvature,
    1e-11 from rounding.
    """
    state, action = random_state(simulator, 1, seed=16)[0], random_action(1, seed=17)[0] * 0.3
    state[10:13] *= 0.2  # far from saturation under body-rate control

    def both(x: torch.Tensor) -> torch.Tensor:
        body, command = x.split((simulator.state_dim, 4))
        return step(simulator, body, command)

    point = torch.cat((state, action))
    jacobian = torch.func.jacrev(both)(point)
    for i in range(len(point)):
        width = 1e-5 * max(1.0, abs(float(point[i])))
        shift = torch.zeros_like(point)
        shift[i] = width
        slope = (both(point + shift) - both(point - shift)) / (2 * width)
        torch.testing.assert_close(jacobian[:, i], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("simulator", VARIANTS, ids=identify)
def test_gradients_are_finite_at_the_spawn_state(simulator: Quadrotor) -> None:
    rest = torch.zeros(13, dtype=torch.float64)
    rest[3] = 1

    def far(action: torch.Tensor) -> torch.Tensor:
        state = simulator.start(rest)
        for _ in range(5):
            state = step(simulator, state, action)
        return state

    jacobian = torch.func.jacrev(far)(torch.tensor(simulator.hover_action, dtype=torch.float64))
    assert bool(jacobian.isfinite().all())
    # every action channel moves the drone in some way
    assert bool((jacobian.abs().amax(0) > 1e-4).all())


@pytest.mark.parametrize("simulator", VARIANTS, ids=identify)
def test_batch_single_and_vmap_agree(simulator: Quadrotor) -> None:
    state, action = random_state(simulator, 6, seed=18), random_action(6, seed=19, low=-1, high=1)
    batch = step(simulator, state, action)
    single = torch.stack([step(simulator, s, a) for s, a in zip(state, action, strict=True)])
    mapped = torch.vmap(lambda s, a: step(simulator, s, a))(state, action)
    shaped = step(simulator, state.view(2, 3, -1), action.view(2, 3, 4)).view(6, -1)
    for other in (single, mapped, shaped):
        torch.testing.assert_close(other, batch, rtol=1e-13, atol=1e-13)

    def score(s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return step(simulator, s, a).sin().sum()

    gradient = torch.vmap(torch.func.grad(score, argnums=(0, 1)))(state, action)
    leaves = (state.clone().requires_grad_(), action.clone().requires_grad_())
    expected = torch.autograd.grad(score(*leaves), leaves)
    for got, want in zip(gradient, expected, strict=True):
        assert bool(got.isfinite().all())
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_rows_are_independent() -> None:
    simulator = Quadrotor()
    state, action = random_state(simulator, 5, seed=20), random_action(5, seed=21)
    other = state.clone()
    other[2] += 0.1
    same = torch.arange(5) != 2
    before, after = step(simulator, state, action), step(simulator, other, action)
    assert torch.equal(before[same], after[same])
    assert not torch.equal(before[2], after[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first_use", ["vmap", "inference"])
def test_constants_outlive_the_context_of_their_first_use(name: str, first_use: str) -> None:
    """A drone never seen before is used first inside a transform
    or inference mode, then trained.
    """
    mass = {"vmap": 0.731, "inference": 0.732}[first_use]
    simulator = Quadrotor(drone=dataclasses.replace(DRONES[name], mass=mass))
    state, action = random_state(simulator, 3, seed=22), random_action(3, seed=23)

    def score(a: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return step(simulator, s, a).sum()

    if first_use == "vmap":
        torch.vmap(torch.func.grad(score))(action, state)
    else:
        with torch.inference_mode():
            score(action, state)
    for table in tables_of(simulator.constants, like=state):
        assert torch.func.debug_unwrap(table) is table, "a wrapper of a transform that has ended"
    leaf = action.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf, state), leaf)
    assert bool(gradient.isfinite().all())


UNCHECKED = """
import torch
from gradlab.foundation.errors import UnknownName
from gradlab.simulators.quadrotor import Quadrotor
torch.set_num_threads(1)
for options in ({"actions": "motors"}, {"integrator": "rk5"}):
    try:
        Quadrotor(**options)
    except UnknownName as error:
        assert "\\n" not in str(error), error
    else:
        raise SystemExit(f"{options} accepted")

simulator = Quadrotor(motor_lag=True, actions="bodyrate")
generator = torch.Generator().manual_seed(24)
raw = torch.randn(4, 13, generator=generator, dtype=torch.float64)
raw[:, 3:7] /= raw[:, 3:7].norm(dim=1, keepdim=True)
state, action = simulator.start(raw), 0.3 * torch.randn(4, 4, generator=generator).double()

def twice(state, action):
    for _ in range(2):
        state = simulator.step(state, action, action[..., :0])
    return state

traced = torch.compile(twice, fullgraph=True, dynamic=False, backend="aot_eager")
torch.testing.assert_close(traced(state, action), twice(state, action), rtol=1e-12, atol=1e-12)
print("fine")
"""


def test_without_annotation_checks() -> None:
    """In a process of its own, since annotations checked at run time get in the way of both parts:
    names that do not exist are refused in one line, and two steps trace into one full graph, as
    `compile=True` asks for (the default backend is tested with the engines).
    """
    done = run_code(UNCHECKED)
    assert done.stdout.strip() == "fine", done.stderr[-2000:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    simulator = Quadrotor(motor_lag=True)
    state = random_state(simulator, 3, seed=26).to(dtype)
    after = step(simulator, state, random_action(3, seed=27).to(dtype))
    assert after.dtype == dtype
    assert after.shape == (3, simulator.state_dim) == (3, 17)
    assert simulator.start(state[:, :13]).dtype == dtype


def test_bad_input_gets_one_line() -> None:
    cases = [
        (UnknownName, lambda: Quadrotor(drone="visfly-0.7kg")),
        (BadShape, lambda: Quadrotor().start(torch.zeros(2, 12))),
        (BadValue, lambda: Quadrotor(substeps=0)),
        (BadValue, lambda: Quadrotor(dt=-0.02)),
        (BadValue, lambda: dataclasses.replace(DRONES["visfly-0.73kg"], mass=-1.0)),
        (BadValue, lambda: dataclasses.replace(DRONES["visfly-0.73kg"], mass=100.0)),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)
