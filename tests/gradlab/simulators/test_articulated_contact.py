"""Compliant and smoothed contact against their formulae, bounds and balances;
the integrators' orders.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
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
    newton,
)
from gradlab.simulators.articulated.brax_like import _projected
from gradlab.simulators.articulated.contact import ContactModel, Dynamics
from gradlab.simulators.articulated.stability import contact_response
from tests.helpers.trees import forward, gymnasium_model, reference, states

SOFT = Compliant(stiffness=2e3, damping=50.0, friction_damping=20.0, friction=0.75)
CASES = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def simulator(
    model: Model, law: Any, integrator: Any = "explicit_damping", h: float = 1e-3
) -> Articulated:
    return Articulated(model, law, integrator, dt=h, substeps=1)


def dynamics(model: Model, qpos: Tensor, qvel: Tensor) -> Dynamics:
    sim = simulator(model, Convex())
    return sim._dynamics(qpos, qvel, torch.zeros(model.nv).double())


# ------------------------------------------------------------------------------- the formulae


def by_hand(law: Compliant, model: Model, qpos: Tensor, qvel: Tensor) -> np.ndarray:
    """The generalised force of dFlex's contact with the ground, on MuJoCo's kinematics,
    one point at a time.
    """
    compiled, data = reference(model)
    forward(compiled, data, qpos, qvel, torch.zeros(model.nu))
    total = np.zeros(model.nv)
    for g in range(1, compiled.ngeom):
        radius, half = compiled.geom_size[g, :2]
        axis = data.geom_xmat[g].reshape(3, 3)[:, 2]
        capsule = compiled.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE
        for end in (half, -half) if capsule else (0.0,):
            point = data.geom_xpos[g] + end * axis - [0, 0, radius]
            c = point[2]
            if c >= 0:
                continue
            jacobian = np.zeros((3, model.nv))
            mujoco.mj_jac(compiled, data, jacobian, None, point, int(compiled.geom_bodyid[g]))
            velocity = jacobian @ qvel.numpy()
            sliding = velocity * [1, 1, 0]
            speed = np.linalg.norm(sliding)
            force = np.zeros(3)
            force[2] = law.stiffness * -c + law.damping * -c * max(-velocity[2], 0.0)
            most = (law.friction or 0.0) * law.stiffness * -c
            force -= sliding / speed * min(law.friction_damping * speed, most)
            total += jacobian.T @ force
    for j in range(compiled.njnt):
        if compiled.jnt_limited[j]:
            dof, q = compiled.jnt_dofadr[j], float(qpos[compiled.jnt_qposadr[j]])
            low, high = compiled.jnt_range[j]
            total[dof] += law.limit_stiffness * (max(low - q, 0.0) - max(q - high, 0.0))
            total[dof] -= law.limit_damping * float(qvel[dof])
    return total


def test_compliant_is_dflex_point_by_point() -> None:
    model = gymnasium_model("ant")
    qpos, qvel, _ = states(model, 40, 1)
    now = dynamics(model, qpos, qvel)
    force = SOFT.force(model, now).numpy()
    wanted = np.stack([by_hand(SOFT, model, q, v) for q, v in zip(qpos, qvel, strict=True)])
    assert (np.abs(wanted).max(1) > 10).mean() > 0.5  # in contact
    assert np.abs(force - wanted).max() < 1e-10 * np.abs(wanted).max()


@CASES
@given(st.floats(-0.1, 0.1), st.floats(-5, 5), st.floats(1e-9, 10), st.floats(0, 2))
def test_compliant_laws(depth: float, approach: float, sliding: float, mu: float) -> None:
    c, r, v, m = (torch.tensor(x, dtype=torch.float64) for x in (depth, approach, sliding, mu))
    normal, drag = SOFT.normal_force(c, r), SOFT.friction_coefficient(c, v, m) * v
    inside = max(depth, 0.0)
    assert float(normal) == pytest.approx(inside * (2e3 + 50 * max(approach, 0.0)), rel=1e-12)
    assert float(drag) == pytest.approx(min(20 * sliding, mu * 2e3 * inside), rel=1e-12)


def test_friction_at_rest_is_linear() -> None:
    """At zero tangential speed the coefficient is k_f,
    so that the force and its gradient are 0 and k_f.
    """
    model = from_string(BALL)
    qpos, qvel = (
        torch.tensor([0, 0, 0.19, 1, 0, 0, 0], dtype=torch.float64),
        torch.zeros(6).double(),
    )
    qvel.requires_grad_()
    force = SOFT.force(model, dynamics(model, qpos, qvel))
    (slope,) = torch.autograd.grad(force[0], qvel)
    assert float(force[0].detach()) == 0.0 and float(slope[0]) == pytest.approx(-20.0)


# -------------------------------------------------------------------------------- Smoothed's bounds

WIDTHS = st.tuples(st.floats(1e-4, 1e-2), st.floats(1e-3, 1e-1))
ROUNDING = 1e-9  # of forces of up to 1e4 N in float64, with room


@CASES
@given(WIDTHS, st.floats(0, 0.1), st.floats(0, 5), st.floats(0, 10), st.floats(0, 2))
def test_smoothed_is_within_its_bounds(
    widths: tuple[float, float], depth: float, approach: float, sliding: float, mu: float
) -> None:
    w, u = widths
    law, ln2 = Smoothed(w, u, SOFT), math.log(2)
    c, r, v, m = (torch.tensor(x, dtype=torch.float64) for x in (depth, approach, sliding, mu))
    gap = float(law.normal_force(c, r) - SOFT.normal_force(c, r))
    bound = 2e3 * w * ln2 + 50 * (depth * u + approach * w + u * w * ln2) * ln2
    assert 0 <= gap + ROUNDING and gap <= bound + ROUNDING
    smooth, hard = (x.friction_coefficient(c, v, m) * v for x in (law, SOFT))
    assert abs(float(smooth - hard)) <= 20 * u / 2 + mu * 2e3 * w * ln2 + ROUNDING
    for violation in (c, -c):
        limit = float(law.limit_force(violation) - SOFT.limit_force(violation))
        assert -ROUNDING <= limit <= SOFT.limit_stiffness * w * ln2 + ROUNDING


def test_bounds_are_reached() -> None:
    """At depth and approach 0 the normal force is off by the whole bound: it is not loose."""
    law, zero = Smoothed(1e-3, 1e-2, SOFT), torch.zeros(()).double()
    ln2 = math.log(2)
    bound = 2e3 * 1e-3 * ln2 + 50 * 1e-2 * 1e-3 * ln2 * ln2
    assert float(law.normal_force(zero, zero)) == pytest.approx(bound, rel=1e-12)


def test_smoothed_tends_to_compliant_in_the_model() -> None:
    """Generalised forces: a tenth of the width leaves at most a tenth
    of the error, as in the bound.
    """
    model = gymnasium_model("ant")
    now = dynamics(model, *states(model, 40, 2)[:2])
    wanted = SOFT.force(model, now)
    gaps = [
        float((Smoothed(s, 10 * s, SOFT).force(model, now) - wanted).abs().max())
        for s in (1e-3, 1e-4, 1e-5)
    ]
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


@pytest.mark.parametrize("share", [0.1, 1.0, 3.0])
def test_hard_rests_where_it_says(share: float) -> None:
    """A ball of weight share·load on the ground, pushed down to the stated
    depth: no acceleration.
    """
    model = from_string(BALL)
    weight = float(model.inertia[0, 3, 3]) * 10.0
    load, width = weight / share, 1e-3
    depth = width * math.log(math.exp(share) - 1)
    assert depth <= width * share
    qpos = torch.tensor([0, 0, 0.2 - depth, 1, 0, 0, 0], dtype=torch.float64)
    now = dynamics(model, qpos, torch.zeros(6).double())
    force = Smoothed.hard(width, load).force(model, now)
    assert float(force[2]) == pytest.approx(weight, rel=1e-9)


# ---------------------------------------------------------------------------------- what is refused

BALL = """<mujoco><option gravity="0 0 -10"/><worldbody><geom type="plane" size="1 1 1"/>
<body pos="0 0 0.2"><freejoint/><geom size="0.2" density="30"/></body></worldbody></mujoco>"""


def test_too_stiff_laws_are_refused_with_the_numbers() -> None:
    model = from_string(BALL)
    inverse = 1 / float(model.inertia[0, 3, 3])
    law = Compliant(stiffness=4e4, friction_damping=0.0)
    bound = 2 / math.sqrt(4e4 * inverse)
    simulator(model, law, h=0.99 * bound)
    with pytest.raises(BadValue, match=rf"stiffness=40000 .*below {bound * 1e3:.3g} ms"):
        simulator(model, law, h=1.01 * bound)
    rough = Compliant(stiffness=1.0, friction_damping=3e3)
    bound = 2 / (3e3 * inverse)
    simulator(model, rough, h=0.99 * bound)
    with pytest.raises(BadValue, match=rf"friction_damping=3000 .*below {bound * 1e3:.3g} ms"):
        simulator(model, Smoothed(limit=rough), h=1.01 * bound)


@dataclass(frozen=True)
class OnlyForce:
    """The force of a law, for any step, and nothing else of it."""

    law: ContactModel

    def check(self, model: Model, dt: float) -> None: ...

    def force(self, model: Model, now: Dynamics) -> Tensor:
        return self.law.force(model, now)


def test_the_bound_is_where_stability_ends() -> None:
    """A ball pressed into the ground by its weight:
    small swings stay small below it and grow above.
    """
    model = from_string(BALL)
    mass = float(model.inertia[0, 3, 3])
    law = Compliant(stiffness=4e4, damping=0.0, friction_damping=0.0)
    bound = 2 / math.sqrt(4e4 / mass)
    rest = 0.2 - mass * 10 / 4e4
    swing = []
    for share in (0.95, 1.05):
        sim = simulator(model, OnlyForce(law), h=share * bound)
        state = torch.zeros(13).double()
        state[2], state[3] = rest - 1e-9, 1.0
        for _ in range(60):
            state = sim.step(state, state[:0], state[:0])
        swing.append(abs(float(state[2]) - rest))
    assert swing[0] < 1e-8 and swing[1] > 1e-6


BOX = (
    '<mujoco><worldbody><geom type="plane" size="5 5 1"/><body pos="0 0 .1"><freejoint/>'
    '<geom type="box" size=".1 .1 .1" mass="1"/></body></worldbody></mujoco>'
)


def test_a_box_stands_within_its_bound() -> None:
    """Four corners at once are stiffer than one:
    the bound of one corner alone would let the box be thrown up.
    """
    model = from_string(BOX)
    law = Compliant(stiffness=1e4, damping=0.0, friction_damping=0.0)
    together = 2 / math.sqrt(1e4 * contact_response(model))
    alone = 2 / math.sqrt(1e4 * sum(float(w) for w in model.invweight))
    assert together < 0.5 * alone
    with pytest.raises(BadValue, match=rf"stiffness=10000 .*below {together * 1e3:.3g} ms"):
        simulator(model, law, h=1.01 * together)
    rest = torch.cat((torch.tensor(model.qpos0), torch.zeros(6).double()))
    rest[2] -= 9.81 / 4e4  # its weight on four springs
    swing = []
    for h in (0.9 * together, 0.9 * alone):
        sim = simulator(model, OnlyForce(law), h=h)
        state = rest.clone()
        state[7:] = 1e-9 * torch.arange(1.0, 7.0)
        for _ in range(100):
            state = sim.step(state, state[:0], state[:0])
        swing.append(float((state - rest)[2:7].abs().max()))
    assert swing[0] < 1e-7 and swing[1] > 1e-3


def test_joint_limits_too_stiff_for_the_step_are_refused() -> None:
    model = from_string(
        '<mujoco><compiler autolimits="true"/><worldbody><body><joint axis="0 1 0" range="-10 10"/>'
        '<geom type="capsule" fromto="0 0 0 .1 0 0" size=".01" mass=".01"/></body></worldbody></mujoco>'
    )
    inverse = float(model.dof_invweight[0])
    for name, bound in (
        ("limit_stiffness", lambda k: 2 / math.sqrt(k * inverse)),
        ("limit_damping", lambda k: 2 / (k * inverse)),
    ):
        law = replace(Compliant(limit_stiffness=0.0, limit_damping=0.0), **{name: 5.0})
        step = bound(5.0)
        simulator(model, law, h=0.99 * step)
        with pytest.raises(BadValue, match=f"{name}=5 is too stiff .*below {step * 1e3:.3g} ms"):
            simulator(model, law, h=1.01 * step)


def test_bad_constants_are_refused() -> None:
    for bad in (
        lambda: Compliant(stiffness=-1.0),
        lambda: Compliant(friction=math.nan),
        lambda: Smoothed(width=0.0),
        lambda: Smoothed.hard(1e-3, -1.0),
        lambda: Convex(iterations=0),
        lambda: BraxLike(iterations=0),
    ):
        with pytest.raises(BadValue):
            bad()


# ----------------------------------------------------------------------------------------- balances

PAIR = """<mujoco><option gravity="0 0 0"/><worldbody>
<body><freejoint/><geom type="capsule" size="0.1 0.3" pos="0.1 0 0" euler="10 20 0"/></body>
<body pos="0.2 0 0"><freejoint/><geom type="capsule" size="0.15 0.2" euler="50 0 0"/></body>
</worldbody></mujoco>"""
LAWS = {
    "compliant": SOFT,
    "smoothed": Smoothed(limit=SOFT),
    "convex": Convex(),
    "brax": BraxLike(),
}


@pytest.mark.parametrize("law", LAWS)
def test_action_is_reaction(law: str) -> None:
    """Forces between two free bodies have no resultant and no moment."""
    model = from_string(PAIR)
    qpos, qvel, _ = states(model, 20, 3)
    qpos[:, [0, 1, 2, 7, 8, 9]] *= 0.3
    now = dynamics(model, qpos, qvel)
    force = LAWS[law].force(model, now)
    assert (force.abs().amax(-1) > 1.0).double().mean() > 0.5  # most touch
    total, moment = 0.0, 0.0
    for body in (0, 1):
        f, torque = force[:, 6 * body : 6 * body + 3], force[:, 6 * body + 3 : 6 * body + 6]
        rotation = now.frames.pose[:, :, :3, body]
        place = qpos[:, 7 * body : 7 * body + 3]
        total = total + f
        moment = moment + torch.linalg.cross(place, f) + (rotation @ torque[..., None])[..., 0]
    scale = float(force.abs().max())
    assert float(torch.as_tensor(total).abs().max()) < 1e-10 * scale
    assert float(torch.as_tensor(moment).abs().max()) < 1e-10 * scale


@pytest.mark.parametrize("law", LAWS)
def test_contact_never_adds_energy(law: str) -> None:
    """A spinning ball dropped on the ground: after every bounce it has less energy than before."""
    model = from_string(BALL)
    h = 1e-3
    # one ball has four rows: three iterations of Newton's method find those that act
    sim = simulator(model, Convex(3) if law == "convex" else LAWS[law], h=h)
    state = torch.zeros(13).double()
    state[2], state[3], state[7], state[11] = 0.25, 1.0, 0.5, 8.0
    mass = sim._dynamics(state[:7], state[7:], torch.zeros(6).double()).mass
    flying = []
    for _ in range(600):
        state = sim.step(state, state[:0], state[:0])
        kinetic = 0.5 * state[7:] @ mass @ state[7:]
        if state[2] > 0.205:  # off the ground by more than any width of a law
            flying.append(float(kinetic + mass[0, 0] * 10 * state[2]))
    energies = np.array(flying)
    # semi-implicit Euler's own error on free fall is m g h v/2, and v < 4 m/s
    own = float(mass[0, 0]) * 10 * h * 2.0
    assert np.all(np.diff(energies) < own)
    assert energies[-1] <= energies[0] + own


TREE = """<mujoco><option gravity="0 0 0"/><worldbody><body><freejoint/>
<geom size=".1 .2" type="capsule" density="500" contype="0"/>
<body pos="0 .1 .3" euler="20 0 0"><joint axis="1 .3 0" pos="0 0 -.1"/><joint axis="0 1 .2"/>
<geom size=".08" pos=".1 .1 .2" density="900" contype="0"/>
<body pos=".2 0 .2"><joint type="slide" axis="0 .4 1"/>
<geom type="box" size=".1 .05 .1" contype="0"/></body></body></body></worldbody></mujoco>"""


def swing(integrator: Any, substeps: int, time: float = 0.2) -> Tensor:
    """State of the free tree after a while, from a fast start."""
    model = from_string(TREE)
    sim = Articulated(model, Convex(), integrator, dt=time, substeps=substeps)
    start = torch.tensor(np.r_[model.qpos0, np.random.default_rng(4).normal(size=model.nv) * 2])
    return sim.step(start, start[:0], start[:0])


@pytest.mark.parametrize(
    "integrator, order", [("explicit_damping", 1), ("implicit_damping", 1), ("rk4", 4)]
)
def test_orders_of_the_integrators(integrator: str, order: int) -> None:
    """What halving the step changes falls as its order; the band is four errors of the fit."""
    counts = np.array([16, 32, 64, 128])
    results = [swing(integrator, int(n)) for n in counts]
    changes = [float((a - b).abs().max()) for a, b in itertools.pairwise(results)]
    fit = stats.linregress(np.log(1 / counts[:-1]), np.log(changes))
    assert fit.stderr < 0.05
    assert abs(fit.slope - order) < 4 * fit.stderr + 0.02, (fit.slope, fit.stderr)


def test_a_free_tree_keeps_energy_and_momentum() -> None:
    """To the error of RK4 at this step, known from halving it."""
    model = from_string(TREE)

    def kept(state: Tensor) -> Tensor:
        now = dynamics(model, state[: model.nq], state[model.nq :])
        impulse = now.mass @ now.qvel
        turning = now.frames.pose[:, :3, 0] @ impulse[3:6]
        angular = turning + torch.linalg.cross(state[:3], impulse[:3])
        return torch.cat((0.5 * now.qvel @ impulse.unsqueeze(-1), impulse[:3], angular))

    start = torch.tensor(np.r_[model.qpos0, np.random.default_rng(4).normal(size=model.nv) * 2])
    coarse, fine = (kept(swing("rk4", n)) for n in (32, 64))
    before = kept(start)
    assert float((fine - before).abs().max()) < 1e-8 * float(before.abs().max())
    assert float((fine - before).abs().max()) < float((coarse - before).abs().max()) / 8


# ----------------------------------------------------------------------- Brax's projected gradients


def test_projected_gradients_are_the_obvious_loop() -> None:
    """The batched line search against one written with loops and breaks."""
    rng = np.random.default_rng(6)
    root = rng.normal(size=(30, 7, 5))
    matrix = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(7)
    offset = 3 * rng.normal(size=(30, 7))
    ours = _projected(torch.tensor(matrix), torch.tensor(offset), 4, 15).numpy()
    for a, b, answer in zip(matrix, offset, ours, strict=True):
        assert np.abs(answer - _slow_projected(a, b, 4, 15)).max() < 1e-12


def _slow_projected(a: np.ndarray, b: np.ndarray, iterations: int, halvings: int) -> np.ndarray:
    x = y = np.zeros(len(b))
    t, size = 1.0, 1.0
    for _ in range(iterations):
        slope = a @ (a @ y + b)
        for k in range(halvings + 1):
            following = np.maximum(y - size * slope, 0)
            move = following - y
            gain = 0.5 * np.sum((a @ following + b) ** 2) - 0.5 * np.sum((a @ y + b) ** 2)
            enough = size * gain <= size * move @ slope + 0.5 * move @ move + np.finfo(float).eps
            if enough or k == halvings:
                break
            size /= 2
        later = 0.5 * (1 + math.sqrt(1 + 4 * t * t))
        x, y = following, following + (t - 1) / later * (following - x)
        t, size = later, (1.0 if size <= 1e-6 else 2 * size)
        if np.linalg.norm(np.maximum(x - a @ (a @ x + b), 0) - x) <= 1e-3:
            break
    return x


def test_converged_projected_gradients_solve_the_least_squares() -> None:
    """Many iterations reach the minimum that scipy's non-negative least squares finds."""
    from scipy.optimize import nnls

    rng = np.random.default_rng(7)
    root = rng.normal(size=(6, 6))
    matrix, offset = root @ root.T + np.eye(6), rng.normal(size=6)
    ours = _projected(torch.tensor(matrix[None]), torch.tensor(offset[None]), 3000, 15)[0]
    wanted, _ = nnls(matrix, -offset)
    # it stops at a projected step of 1e-3, and the curvature A² is at least 1 here
    assert np.abs(ours.numpy() - wanted).max() < 1e-3


def test_smoothed_without_friction_damping_has_no_drag() -> None:
    law = Smoothed(limit=Compliant(friction_damping=0.0))
    sliding = torch.tensor([0.0, 1.0], requires_grad=True)
    depth = torch.tensor([0.0, 1e-3], requires_grad=True)
    drag = law.friction_coefficient(depth, sliding, torch.tensor(0.5))
    assert torch.equal(drag, torch.zeros(2))


# ------------------------------------------------------------------------------------ Convex inside


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "sorted"])
def test_line_searches_find_the_minimum(pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both against a scalar root search on the derivative written as it stands.

    Rows that never act, rows that start at their place,
    and rows that all switch at one place are among them.
    """
    monkeypatch.setattr(newton, "PAIRED", 1000 if pairs else 0)
    rng = np.random.default_rng(8)
    slack, along = rng.normal(size=(2, 60, 9))
    weight = np.exp(3 * rng.normal(size=(60, 9))) * (rng.random((60, 9)) < 0.8)
    slack[:10, :3] = 0.0
    slack[10:20, :4], along[10:20, :4] = 1.0, -2.0
    curvature, slope = rng.random(60), -10 * rng.random(60)
    ours = newton.line_search(*map(torch.tensor, (curvature, slope, slack, along, weight)))
    for i in range(60):

        def derivative(x: float, i: int = i) -> float:
            pushed = np.minimum(slack[i] + x * along[i], 0.0)
            return slope[i] + curvature[i] * x + float(np.sum(weight[i] * along[i] * pushed))

        if derivative(0.0) >= 0:  # not a direction of descent: no Newton step asks for it
            continue
        wanted = float(optimize.brentq(derivative, 0.0, 1e6, xtol=1e-14, rtol=1e-14))
        assert float(ours[i]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("integrator", ["explicit_damping", "implicit_damping", "rk4"])
def test_the_laws_own_acceleration_is_that_of_its_forces(integrator: Any) -> None:
    """One step and its gradient, the acceleration handed over and solved for again."""
    model = gymnasium_model("ant")
    qpos, qvel, control = states(model, 50, 4)
    results = []
    for law in (Convex(), OnlyForce(Convex())):
        sim = Articulated(model, law, integrator, dt=0.02, substeps=2)
        start = torch.cat((qpos, qvel), -1).requires_grad_()
        after = sim.step(start, control, control[..., :0])
        results.append((after.detach(), torch.autograd.grad(after.square().sum(), start)[0]))
    for ours, twin in zip(*results, strict=True):
        assert float((ours - twin).abs().max()) < 1e-9 * float(twin.abs().max())


def test_convex_without_constraints_is_free_fall() -> None:
    model = from_string(
        '<mujoco><worldbody><body pos="0 0 1"><freejoint/><geom type="sphere" size="0.1"/></body>'
        "</worldbody></mujoco>"
    )
    start = torch.cat((torch.tensor(model.qpos0), torch.zeros(6, dtype=torch.float64)))
    sim = Articulated(model, Convex(), "explicit_damping", dt=0.1, substeps=1)
    after = sim.step(start, start[:0], start[:0])
    assert after[7:].tolist() == pytest.approx([0.0, 0.0, -0.981, 0.0, 0.0, 0.0])
    assert torch.equal(
        Convex().force(model, sim._dynamics(after[:7], after[7:], after[7:] * 0)), after[7:] * 0
    )
