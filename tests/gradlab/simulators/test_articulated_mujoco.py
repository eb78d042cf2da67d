"""The articulated simulator against MuJoCo's own numbers, and its derivatives against differences.

Tolerances are those of the docs (docs/articulated.md): rounding (1e-10 of the largest entry) for
what both compute directly, 1e-6 for what a solver or a difference quotient stands between.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.simulators.articulated import (
    Articulated,
    BraxLike,
    Compliant,
    Convex,
    Model,
    Smoothed,
    from_string,
)
from gradlab.simulators.articulated.constraints import rows_of
from gradlab.simulators.articulated.contact import Dynamics
from gradlab.simulators.articulated.dynamics import bias_force, bodies
from gradlab.simulators.articulated.geometry import candidates, contacts
from gradlab.simulators.articulated.kinematics import tables_of
from gradlab.simulators.articulated.model import FREE
from tests.helpers.trees import GYMNASIUM, forward, gymnasium_model, reference, states, trees

# gymnasium's humanoid still asks for a total mass in the way that MuJoCo 4.0 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*settotalmass.*")
SHIPPED, CONVERGED = Convex(), Convex(iterations=12)
QUICK = settings(
    max_examples=12, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
THOROUGH = settings(QUICK, max_examples=400)


def simulator(
    model: Model, law: Any = SHIPPED, integrator: Any = "implicit_damping"
) -> Articulated:
    return Articulated(model, law, integrator, dt=model.timestep, substeps=1)


def dynamics(sim: Articulated, qpos: Tensor, qvel: Tensor, control: Tensor) -> Dynamics:
    return sim._dynamics(qpos, qvel, sim.actuation(control, qpos, qvel))


def step(sim: Articulated, state: Tensor, action: Tensor) -> Tensor:
    return sim.step(state, action, action[..., :0])


def relative(ours: Tensor, theirs: Any) -> float:
    """Largest difference over the largest entry."""
    wanted = theirs if isinstance(theirs, Tensor) else torch.as_tensor(np.array(theirs))
    if not wanted.numel():
        return 0.0
    return float((ours - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


# ------------------------------------------------------------------------------------------ forward


TOLERANCES = {
    "mass": 1e-10, "bias": 1e-10, "actuators": 1e-10, "passive": 1e-10, "weights": 1e-10,
    "references": 1e-10, "acceleration": 1e-6, "residual": 1e-6, "step": 1e-6,
}  # fmt: skip


def errors(model: Model, count: int, seed: int) -> tuple[dict[str, float], int]:
    """Largest relative errors over random states, and the number of constraint rows in them."""
    compiled, data = reference(model)
    qpos, qvel, control = states(model, count, seed)
    sim = simulator(model)
    now = dynamics(sim, qpos, qvel, control)
    force = sim.actuation(control, qpos, qvel)
    tables = tables_of(model, qpos)
    bias = bias_force(tables, now.frames, bodies(tables, now.frames.pose), now.moving)
    passive = now.smooth - force + bias
    acceleration, residual = SHIPPED.acceleration(model, now), SHIPPED.residual(model, now)
    rows = rows_of(model, now)
    following = step(sim, torch.cat((qpos, qvel), -1), control)
    worst, acted = dict.fromkeys(TOLERANCES, 0.0), 0
    for i in range(count):
        forward(compiled, data, qpos[i], qvel[i], control[i])
        mass = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(compiled, data, mass)
        there = rows.weight[i] > 0
        assert int(there.sum()) == data.nefc
        acted += data.nefc
        # a difference of the larger total: its rounding is relative to that
        scale = max(abs(data.qfrc_passive).max(), abs(data.qfrc_bias).max(), 1e-12)
        found = {
            "mass": relative(now.mass[i], mass),
            "bias": relative(bias[i], data.qfrc_bias),
            "actuators": relative(force[i], data.qfrc_actuator),
            "passive": np.abs(passive[i].numpy() - data.qfrc_passive).max() / scale,
            "weights": relative(rows.weight[i][there].sort().values, np.sort(data.efc_D)),
            "references": relative(rows.reference[i][there].sort().values, np.sort(data.efc_aref)),
            "acceleration": relative(acceleration[i], data.qacc),
            "residual": float(residual[i]),
        }
        mujoco.mj_step(compiled, data)
        found["step"] = relative(following[i], np.concatenate((data.qpos, data.qvel)))
        worst = {name: max(worst[name], float(found[name])) for name in worst}
    return worst, acted


def within(worst: dict[str, float]) -> None:
    outside = {name: x for name, x in worst.items() if not x < TOLERANCES[name]}
    assert not outside, outside


def told(who: str, worst: dict[str, float]) -> None:
    """The numbers of docs/articulated.md, seen with `-s`."""
    print(f"\n{who}: " + ", ".join(f"{name} {x:.0e}" for name, x in worst.items()))


@pytest.mark.parametrize("name", GYMNASIUM)
def test_the_five_models(name: str) -> None:
    worst, acted = errors(gymnasium_model(name), count=20, seed=1)
    told(name, worst)
    within(worst)
    assert acted > 100


@QUICK
@given(trees(), st.integers(0, 2**16))
def test_random_trees(xml: str, seed: int) -> None:
    within(errors(from_string(xml), count=2, seed=seed)[0])


@pytest.mark.slow
def test_many_random_trees() -> None:
    total, acted = dict.fromkeys(TOLERANCES, 0.0), 0

    @THOROUGH
    @given(trees(), st.integers(0, 2**16))
    def check(xml: str, seed: int) -> None:
        nonlocal total, acted
        worst, rows = errors(from_string(xml), count=4, seed=seed)
        total, acted = {name: max(total[name], worst[name]) for name in total}, acted + rows
        within(worst)

    check()
    told("400 random trees", total)
    assert acted > 4000


@pytest.mark.parametrize("name", GYMNASIUM)
def test_converges_in_the_default_number_of_iterations(name: str) -> None:
    """To 1e-10 of the other forces, in all of 200 states."""
    model = gymnasium_model(name)
    now = dynamics(simulator(model), *states(model, 200, 2))
    assert float(Convex().residual(model, now).max()) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", GYMNASIUM)
def test_iterations_needed(name: str) -> None:
    """Share of 1000 states not converged to 1e-10, by iterations: it falls to 0."""
    model = gymnasium_model(name)
    now = dynamics(simulator(model), *states(model, 1000, 11))
    shares = {
        count: float((Convex(count).residual(model, now) > 1e-10).double().mean())
        for count in (2, 3, 4, 5, 6, 8, 10)
    }
    print(f"\n{name}: " + ", ".join(f"{count}: {share:.1%}" for count, share in shares.items()))
    assert shares[10] == 0.0


def test_frictionless_in_name_only() -> None:
    """A friction of zero is 1e-5 to MuJoCo (mjMINMU); weights and references agree."""
    model = from_string(TWO.format(first='friction="0"', second='friction="0"'))
    compiled, data = reference(model)
    qpos = torch.tensor(model.qpos0)
    qpos[2], qpos[9] = 0.05, 0.2
    now = dynamics(simulator(model), qpos, torch.zeros(12).double(), qpos[:0])
    rows = rows_of(model, now)
    forward(compiled, data, qpos, now.qvel, qpos[:0])
    there = rows.weight > 0
    assert data.nefc > 0
    assert relative(rows.weight[there].sort().values, np.sort(data.efc_D)) < 1e-10
    assert relative(rows.reference[there].sort().values, np.sort(data.efc_aref)) < 1e-10


# ----------------------------------------------------------------------------------------- geometry

TWO = """<mujoco><worldbody><geom name="floor" type="plane" size="1 1 1"/>
<body><freejoint/><geom name="one" type="capsule" size="0.1 0.3" {first}/></body>
<body><freejoint/><geom name="two" type="capsule" size="0.15 0.2" {second}/></body>
</worldbody></mujoco>"""


def same_contacts(model: Model, qpos: Tensor) -> int:
    """Every contact of MuJoCo is one of ours and the other way round;
    returns how many there are.
    """
    compiled, data = reference(model)
    still = torch.zeros(model.nv).double()
    forward(compiled, data, qpos, still, still[: model.nu])
    now = dynamics(simulator(model), qpos, still, still[: model.nu])
    touch = contacts(model, now.frames)
    position = touch.position + now.frames.origin.unsqueeze(-1)
    ours = [
        (c.pair.first, c.pair.second, torch.cat((touch.distance[k, None], position[:, k],
         touch.normal[:, k], touch.tangent[:, k])).numpy())
        for k, c in enumerate(candidates(model))
        if touch.distance[k] <= c.pair.margin + c.pair.gap
    ]  # fmt: skip
    assert len(ours) == data.ncon
    for contact in data.contact:
        wanted = np.concatenate(([contact.dist], contact.pos, contact.frame[:6]))
        found = [v for a, b, v in ours if (a, b) == tuple(contact.geom)]
        # normals of nearly touching axes lose as many digits as their distance does
        assert min(np.abs(v - wanted).max() for v in found) < 1e-9
        pair = next(p for p in model.pairs if (p.first, p.second) == tuple(contact.geom))
        assert (pair.dim, pair.friction) == (contact.dim, contact.friction[0])
        assert pair.margin == contact.includemargin
        assert pair.law.solref == tuple(contact.solref) and pair.law.solimp == tuple(contact.solimp)
    return data.ncon


def test_parallel_capsules_have_two_contacts() -> None:
    model = from_string(TWO.format(first='margin="0.02" gap="0.03"', second='margin="0.01"'))
    count = {0: 0, 1: 0, 2: 0}
    for height in np.linspace(-0.73, 0.71, 15):
        for tilt in (0.0, 5e-5, 9e-5, 2e-4, 1e-2, np.pi):
            turned = [np.cos(tilt / 2), 0.6 * np.sin(tilt / 2), 0.8 * np.sin(tilt / 2), 0]
            qpos = torch.tensor([0, 0, 2, 1, 0, 0, 0, 0.2, 0.1, 2 + height, *turned]).double()
            count[same_contacts(model, qpos)] += 1
    assert min(count.values()) >= 5


@QUICK
@given(trees(), st.integers(0, 2**16))
def test_contacts_of_random_trees(xml: str, seed: int) -> None:
    model = from_string(xml)
    for qpos in states(model, 3, seed)[0]:
        same_contacts(model, qpos)


@pytest.mark.parametrize(
    "first, second",
    [
        ('priority="1" friction=".3" condim="1"', 'friction="2" condim="3"'),
        ('solmix="0" solref=".01 1"', 'solmix="2" solref=".04 .5"'),
        ('solmix="0" solimp=".5 .6 .01"', 'solmix="0" solimp=".7 .9 .02"'),
        ('solmix="1" solref="-100 -5"', 'solmix="3" solref=".04 .5"'),
        ('margin=".04" gap=".01"', 'margin=".02" gap=".02"'),
    ],
)
def test_mixed_parameters(first: str, second: str) -> None:
    model = from_string(TWO.format(first=first, second=second))
    qpos = torch.tensor([0, 0, 0.2, 1, 0, 0, 0, 0.2, 0.1, 0.2, 0.8, 0.6, 0, 0]).double()
    assert same_contacts(model, qpos) >= 3


# ----------------------------------------------------------------------------------------- rollouts


def rollout_errors(name: str, integrator: str, seeds: int, steps: int = 100) -> tuple[float, float]:
    """Median over seeds of the final error of 100 steps,
    and of what 1e-10 in the speeds grows to.
    """
    model = gymnasium_model(name)
    rng = np.random.default_rng(5)
    qpos = np.tile(model.qpos0, (seeds, 1)) + rng.uniform(-0.1, 0.1, size=(seeds, model.nq))
    for link in np.flatnonzero(model.kind == FREE):
        first = int(model.qpos_index[link]) + 3
        qpos[:, first : first + 4] /= np.linalg.norm(qpos[:, first : first + 4], axis=1)[:, None]
    qvel = 0.1 * rng.normal(size=(seeds, model.nv))
    controls = rng.uniform(-1, 1, size=(steps, seeds, model.nu))
    kind = "implicit_damping" if integrator == "euler" else integrator
    sim = simulator(model, CONVERGED, kind)
    state = torch.tensor(np.concatenate((qpos, qvel), 1))
    for control in controls:
        state = step(sim, state, torch.tensor(control))

    def play(start: np.ndarray, seed: int) -> np.ndarray:
        compiled, data = reference(model, integrator)
        data.qpos[:], data.qvel[:] = qpos[seed], start
        for control in controls[:, seed]:
            data.ctrl[:] = control
            mujoco.mj_step(compiled, data)
        return np.concatenate((data.qpos, data.qvel))

    errors, growth = [], []
    for seed in range(seeds):
        played = play(qvel[seed], seed)
        nudged = play(qvel[seed] + 1e-10 * rng.normal(size=model.nv), seed)
        scale = np.abs(played).max()
        errors.append(np.abs(state[seed].numpy() - played).max() / scale)
        growth.append(np.abs(nudged - played).max() / scale)
    return float(np.median(errors)), float(np.median(growth))


@pytest.mark.parametrize("name, integrator", [("ant", "euler"), ("hopper", "euler")])
def test_rollouts(name: str, integrator: str) -> None:
    error, _ = rollout_errors(name, integrator, seeds=3)
    assert error < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("integrator", ["euler", "rk4"])
@pytest.mark.parametrize("name", GYMNASIUM)
def test_rollouts_of_all_models(name: str, integrator: str) -> None:
    error, growth = rollout_errors(name, integrator, seeds=11)
    print(f"\n{name} {integrator}: median error {error:.1e}, 1e-10 grew to {growth:.1e}")
    assert error < 1e-4


# ---------------------------------------------------------------------------------------- gradients


def acting(sim: Articulated, state: Tensor, action: Tensor) -> Tensor:
    """Which rows exist and which act, and on which part of their impedance they are."""
    nq = sim.model.nq
    now = dynamics(sim, state[..., :nq], state[..., nq : nq + sim.model.nv], action)
    rows = rows_of(sim.model, now)
    acceleration = sim.contact.acceleration(sim.model, now)
    return torch.cat((rows.weight > 0, rows.along(acceleration) < rows.reference), -1)


def differences(
    sim: Articulated, state: Tensor, action: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Central differences of weights·step in state and action, and which samples saw no switch."""
    x, eps, ns = torch.cat((state, action), -1), 1e-6, state.shape[-1]
    size = x.shape[-1]
    moved = eps * torch.cat((torch.eye(size), -torch.eye(size))).double()
    there = x + moved.unsqueeze(1)  # [2 size, N, size]
    value = step(sim, there[..., :ns], there[..., ns:]) @ weights
    same = acting(sim, there[..., :ns], there[..., ns:]) == acting(sim, state, action)
    return ((value[:size] - value[size:]) / (2 * eps)).mT, same.all(-1).all(0)


def gradient(sim: Articulated, state: Tensor, action: Tensor, weights: Tensor) -> Tensor:
    state, action = state.clone().requires_grad_(), action.clone().requires_grad_()
    value = (step(sim, state, action) @ weights).sum()
    return torch.cat(torch.autograd.grad(value, (state, action)), -1)


def flights(model: Model, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """States, actions within their ranges, and weights of an objective."""
    qpos, qvel, control = states(model, count, seed)
    weights = torch.tensor(np.random.default_rng(seed).normal(size=model.nq + model.nv))
    return torch.cat((qpos, qvel), -1), 0.3 * control.clamp(-1, 1), weights


def fast(*names: str) -> list[Any]:
    """The five models, those not named marked slow."""
    marks = {name: () if name in names else (pytest.mark.slow,) for name in GYMNASIUM}
    return [pytest.param(name, marks=marks[name]) for name in GYMNASIUM]


@pytest.mark.parametrize("integrator", ["explicit_damping", "implicit_damping", "rk4"])
@pytest.mark.parametrize("name", fast("ant", "hopper"))
def test_gradients_are_differences(name: str, integrator: str) -> None:
    """Every sample away from switches; RK4's inner stages may meet one,
    so there the 90 % quantile.
    """
    model = gymnasium_model(name)
    state, action, weights = flights(model, 12, 3)
    sim = simulator(model, CONVERGED, integrator)
    wanted, smooth = differences(sim, state, action, weights)
    error = (gradient(sim, state, action, weights) - wanted).abs().amax(-1) / wanted.abs().amax(-1)
    assert smooth.double().mean() > 0.8
    worst = error[smooth].quantile(0.9) if integrator == "rk4" else error[smooth].max()
    assert float(worst) < 1e-6


@pytest.mark.parametrize("name", fast("ant", "half_cheetah"))
def test_gradients_are_mujocos(name: str) -> None:
    """Against mjd_transitionFD in tangent coordinates, where it saw no switch."""
    model = gymnasium_model(name)
    state, action, weights = flights(model, 8, 4)
    sim = simulator(model, CONVERGED)
    _, smooth = differences(sim, state, action, weights)
    compiled, data = reference(model)
    assert smooth.sum() >= 5
    for i in np.flatnonzero(smooth.numpy()):
        forward(compiled, data, state[i, : model.nq], state[i, model.nq :], action[i])
        size = 2 * model.nv
        over_state, over_control = np.zeros((size, size)), np.zeros((size, model.nu))
        mujoco.mjd_transitionFD(compiled, data, 1e-6, True, over_state, over_control, None, None)
        jacobian, by_action = torch.autograd.functional.jacobian(
            lambda s, a: step(sim, s, a), (state[i], action[i])
        )
        into, out = tangent(model, state[i]), tangent(model, step(sim, state[i], action[i]))
        # columns of `tangent` are orthogonal: its pseudo-inverse is its scaled transpose
        back = out.mT / out.square().sum(0).unsqueeze(-1)
        assert relative(back @ jacobian @ into, over_state) < 1e-6
        assert relative(back @ by_action, over_control) < 1e-6


def tangent(model: Model, state: Tensor) -> Tensor:
    """[nq + nv, 2 nv]: change of the state per unit of MuJoCo's tangent coordinates."""
    out = np.zeros((model.nq + model.nv, 2 * model.nv))
    out[model.nq :, model.nv :] = np.eye(model.nv)
    for link in range(model.links):
        at, dof = int(model.qpos_index[link]), int(model.dof_index[link])
        if model.kind[link] != FREE:
            out[at, dof] = 1.0
            continue
        out[at : at + 3, dof : dof + 3] = np.eye(3)
        w, x, y, z = state[at + 3 : at + 7].tolist()
        turn = np.array([[-x, -y, -z], [w, -z, y], [z, w, -x], [-y, x, w]])
        out[at + 3 : at + 7, dof + 3 : dof + 6] = 0.5 * turn
    return torch.tensor(out)


@pytest.mark.parametrize("name", ["ant", "hopper", "humanoid"])
def test_implicit_gradients_are_the_unrolled_ones(name: str) -> None:
    model = gymnasium_model(name)
    state, action, weights = flights(model, 16, 6)
    both = [
        gradient(simulator(model, Convex(12, kind)), state, action, weights)  # type: ignore[arg-type]
        for kind in ("implicit", "unrolled")
    ]
    error = (both[0] - both[1]).abs().amax(-1) / both[0].abs().amax(-1)
    assert float(error.max()) < 1e-10


# ------------------------------------------------------------------------------- batches and floats

LAWS = {
    "convex": Convex(),
    "unrolled": Convex(differentiate="unrolled"),
    "brax": BraxLike(),
    "compliant": Compliant(stiffness=1e3, damping=10.0, friction_damping=10.0),
    "smoothed": Smoothed(limit=Compliant(stiffness=1e3, damping=10.0, friction_damping=10.0)),
}


@pytest.mark.parametrize("law", LAWS)
def test_batched_is_single_is_vmap(law: str) -> None:
    model = gymnasium_model("ant")
    sim = simulator(model, LAWS[law])
    state, action, weights = flights(model, 6, 7)

    def value(s: Tensor, a: Tensor) -> Tensor:
        return step(sim, s, a) @ weights

    together = step(sim, state, action)
    alone = torch.stack([step(sim, s, a) for s, a in zip(state, action, strict=True)])
    assert relative(together, alone) < 1e-12
    grid = step(sim, state.reshape(2, 3, -1), action.reshape(2, 3, -1)).reshape(6, -1)
    assert relative(grid, together) < 1e-12
    by_vmap = torch.func.vmap(torch.func.grad(value, argnums=(0, 1)))(state, action)
    wanted = gradient(sim, state, action, weights)
    assert relative(torch.cat(by_vmap, -1), wanted) < 1e-10


@pytest.mark.parametrize("law", LAWS)
def test_rows_of_a_batch_are_independent(law: str) -> None:
    model = gymnasium_model("ant")
    sim = simulator(model, LAWS[law])
    state, action, weights = flights(model, 5, 8)
    changed = state.clone()
    changed[2] += 0.01
    before, after = (gradient(sim, s, action, weights) for s in (state, changed))
    others = [0, 1, 3, 4]
    assert relative(after[others], before[others]) < 1e-12
    assert not torch.equal(before[2], after[2])


def non_finite(name: str, law: str, count: int, seed: int) -> int:
    """Number of float32 gradients that are not finite, over random states and actions."""
    model = gymnasium_model(name)
    sim = simulator(model, LAWS[law], "explicit_damping")
    bad = 0
    for k in range(0, count, 1000):
        state, action, weights = (x.float() for x in flights(model, min(1000, count - k), seed + k))
        special(model, state, 50)
        bad += int((~gradient(sim, state, action, weights).isfinite().all(-1)).sum())
    return bad


def special(model: Model, state: Tensor, count: int) -> None:
    """The delicate ones: at rest (no sliding), lying on the ground, exactly at a limit."""
    state[:count, model.nq :] = 0.0
    state[count : 3 * count, : model.nq] = torch.tensor(model.qpos0, dtype=state.dtype)
    height = 2 if model.kind[0] == FREE else 1
    state[count : 2 * count, height] = 0.0
    state[2 * count : 3 * count, model.nq :] = 0.0
    for limit in model.limits:
        state[3 * count : 4 * count, limit.qpos] = limit.low
        state[4 * count : 5 * count, limit.qpos] = limit.high


@pytest.mark.parametrize("law", LAWS)
def test_gradients_are_finite(law: str) -> None:
    assert non_finite("ant", law, 2000, 9) == 0


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["ant", "hopper", "humanoid"])
def test_gradients_are_finite_in_100_000_states(name: str, law: str) -> None:
    count = 10_000 if name == "humanoid" else 100_000
    bad = non_finite(name, law, count, 10)
    print(f"\n{name} {law}: {bad} of {count} gradients not finite")
    assert bad == 0


# ---------------------------------------------------------------------------------- what is refused

BODY = '<body name="b"><joint name="j" {joint}/><geom name="g" size=".1" {geom}/>{inside}</body>'


def mjcf(joint: str = "", geom: str = "", inside: str = "", world: str = "", rest: str = "") -> str:
    body = BODY.format(joint=joint, geom=geom, inside=inside)
    return f"<mujoco>{rest}<worldbody>{body}{world}</worldbody></mujoco>"


OTHER = '<body name="c" pos="1 0 0"><freejoint/><geom name="h" {0}/></body>'
REFUSED = {
    "ball joint": (mjcf(joint='type="ball"'), "'j'.*ball joint"),
    "box and sphere": (mjcf(world=OTHER.format('type="box" size="1 1 1"')), "'g' and 'h'"),
    "cylinder": (mjcf(world=OTHER.format('type="cylinder" size=".1 1"')), "'g' and 'h'"),
    "ellipsoid": (mjcf(world=OTHER.format('type="ellipsoid" size=".1 1 1"')), "'g' and 'h'"),
    "torsional friction": (mjcf(geom='condim="4"', world=OTHER.format('size=".1"')), "'g' and 'h'"),
    "rolling friction": (mjcf(geom='condim="6"', world=OTHER.format('size=".1"')), "'g' and 'h'"),
    "gravity compensation": (
        mjcf().replace('name="b"', 'name="b" gravcomp="1"'), "'b'.*gravity compensation"),
    "equality": (
        mjcf(world=OTHER.format('size=".1"'),
             rest='<equality><weld body1="b" body2="c"/></equality>'), "equality"),
    "mocap": (mjcf(world='<body mocap="true" name="m"/>'), "mocap"),
    "explicit pair": (
        mjcf(world=OTHER.format('size=".1"'),
             rest='<contact><pair geom1="g" geom2="h"/></contact>'), "pair"),
    "muscle": (
        mjcf(joint='range="0 1"', rest='<actuator><muscle name="p" joint="j"/></actuator>'),
        "'p' .gaintype muscle, biastype muscle, dyntype muscle.: .*try position"),
    "activation": (
        mjcf(rest='<actuator><general name="p" joint="j" dyntype="integrator"/></actuator>'),
        "'p' .dyntype integrator.: .*motor"),
    "a servo with a filter": (
        mjcf(rest='<actuator><position name="p" joint="j" timeconst=".1"/></actuator>'),
        "'p' .dyntype filterexact.: .*motor"),
    "tendon spring": (
        mjcf(rest='<tendon><fixed name="t" stiffness="1"><joint joint="j" coef="1"/></fixed></tendon>'),
        "'t'"),
    "tendon limit": (
        mjcf(rest='<tendon><fixed name="t" range="0 1"><joint joint="j" coef="1"/></fixed></tendon>'),
        "'t'"),
    "elliptic cone": (
        mjcf(world=OTHER.format('size=".1"'), rest='<option cone="elliptic"/>'), "elliptic"),
    "implicit": (mjcf(rest='<option integrator="implicit"/>'), 'integrator="implicit".*implicitfast'),
    "polynomial damping of a motor": (
        mjcf(rest='<actuator><motor name="p" joint="j" damping="0 1"/></actuator>'), "'p': polynomial damping"),
    "negative gap": (
        mjcf(geom='margin=".1" gap="-.05"', world=OTHER.format('size=".1"')), "'g' and 'h'.*negative gap"),
    "fluid": (mjcf(rest='<option density="1"/>'), "fluid"),
    "noslip": (mjcf(rest='<option noslip_iterations="2"/>'), "noslip"),
    "disabled flag": (
        mjcf(rest='<option><flag refsafe="disable"/></option>'), 'flag refsafe="disable"'),
    "enabled flag": (
        mjcf(rest='<option><flag override="enable"/></option>'), 'flag override="enable"'),
    "no joints": ('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>', "without joints"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_outside_is_refused_by_name(what: str) -> None:
    xml, name = REFUSED[what]
    with pytest.raises(BadValue, match=name):
        from_string(xml)


def test_all_blockers_are_named_at_once() -> None:
    options = '<option density="1" integrator="implicit"><flag sleep="enable"/></option>'
    xml = mjcf(joint='type="ball"', rest=options).replace('name="b"', 'name="b" gravcomp="1"')
    with pytest.raises(BadValue) as caught:
        from_string(xml)
    message = str(caught.value)
    assert message.startswith("5 things") and "\n" not in message
    for what in ("density", 'integrator="implicit"', 'flag sleep="enable"', "'j'", "'b'"):
        assert what in message


def test_elements_with_the_same_blocker_share_its_words() -> None:
    many = "".join(
        f'<body><joint name="k{n}" type="ball"/><geom size=".1"/></body>' for n in range(15)
    )
    with pytest.raises(
        BadValue, match="joint 'k0', joint 'k1'.* and 3 more: a ball joint"
    ) as caught:
        from_string(f"<mujoco><worldbody>{many}</worldbody></mujoco>")
    assert str(caught.value).count("ball joint") == 1


def test_idle_tendons_and_untouchable_meshes_are_inside() -> None:
    tendon = '<tendon><fixed name="t"><joint joint="j" coef="1"/></fixed></tendon>'
    cylinder = '<geom type="cylinder" size=".1 1" contype="0" conaffinity="0"/>'
    assert from_string(mjcf(rest=tendon, inside=cylinder)).nv == 1
