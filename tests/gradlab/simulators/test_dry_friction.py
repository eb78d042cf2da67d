"""Dry friction of joints: MuJoCo's rows in `Convex`, a smooth law in the compliant ones."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
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
from gradlab.simulators.articulated.constraints import firmness
from gradlab.simulators.articulated.convex import SOFT
from tests.gradlab.simulators.test_actuators import (
    differences,
    jacobians,
    played,
    random_states,
    stepped,
)
from tests.helpers.robots import fr3

# one hinge at rest under a torque
DISC = """<mujoco><option timestep="0.002" gravity="0 0 0" {option}/><worldbody><body>
<joint name="j" axis="0 0 1" frictionloss="2" {joint}/><geom type="sphere" size=".2" mass="5"/></body></worldbody>
<actuator><motor joint="j"/></actuator></mujoco>"""
# a chain that drags over the floor: dry friction, limits and contacts together
DRAGGED = """<mujoco><compiler autolimits="true"/><option timestep="0.004" impratio="{impratio}"/><worldbody>
<geom type="plane" size="5 5 1" friction="{friction}"/>
<body pos="0 0 .12"><freejoint/><geom type="capsule" size=".1 .2" euler="0 90 0" mass="2"/>
<body pos=".3 0 0"><joint axis="0 1 0" range="-20 30" frictionloss=".8" {law}/>
<geom type="capsule" size=".06" fromto="0 0 0 .4 0 0" mass="1"/>
<body pos=".4 0 0"><joint axis="0 0 1" frictionloss=".3" damping=".05" {law}/>
<geom type="capsule" size=".06" fromto="0 0 0 .3 0 0" mass=".5"/></body></body></body>
</worldbody></mujoco>"""
SOFTER = ""
FIRMER = 'solreffriction=".01 1.2" solimpfriction=".995 .999 .001"'


def dragged(firm: bool) -> Model:
    numbers = {"impratio": 20, "friction": 0.4} if firm else {"impratio": 1, "friction": 0.8}
    return from_string(DRAGGED.format(law=FIRMER if firm else SOFTER, **numbers))


def drags(model: Model, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """States near the floor, slow and fast, and no controls."""
    rng = np.random.default_rng(seed)
    qpos = model.qpos0 + 0.03 * rng.normal(size=(count, model.nq))
    qpos[:, 7:] = rng.uniform(-0.4, 0.6, size=(count, 2))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qvel = rng.choice([0.01, 0.3, 3.0], size=(count, 1)) * rng.normal(size=(count, model.nv))
    return torch.tensor(np.concatenate((qpos, qvel), 1)), torch.zeros(count, 0).double()


@pytest.mark.parametrize("integrator", ["Euler", "implicitfast", "RK4"])
def test_an_arm_with_servos_is_mujocos_for_fifty_steps(integrator: str) -> None:
    """FR3 from its published numbers, half of the states nearly at rest at their set points."""
    model = from_string(fr3(integrator, timestep=5e-4))
    simulator = Articulated(model, Convex())
    state, _ = random_states(model, 8, 1)
    controls = torch.stack([random_states(model, 8, 2 + k)[1] for k in range(50)])
    state[4:, 7:] *= 0.01
    controls[:, 4:] = state[4:, :7] + 0.004 * (controls[:, 4:] - state[4:, :7])
    once, after = played(simulator, state, controls[:1]), played(simulator, state, controls)
    for k in range(len(state)):
        for ours, steps in ((once, 1), (after, 50)):
            wanted = stepped(model, state[k], controls[:steps, k])
            assert (ours[k] - wanted).abs().max() < 1e-10 * (wanted - state[k]).abs().max()


@pytest.mark.parametrize("firm", [False, True])
def test_friction_limits_and_contacts_together_are_mujocos(firm: bool) -> None:
    """By Newton's method and, where firm, by the interior point; the residual says it converged."""
    model = dragged(firm)
    assert (firmness(model) > SOFT) == firm
    simulator = Articulated(model, Convex())
    state, none = drags(model, 60, 3)
    after, slides, sticks = simulator.step(state, none, none), 0, 0
    for k in range(len(state)):
        wanted = stepped(model, state[k], none[k : k + 1])
        error = (after[k] - wanted).abs().max() / (wanted - state[k]).abs().max()
        assert error < (1e-7 if firm else 1e-10)
    assert simulator.residual(state, none).max() < (1e-7 if firm else 1e-10)
    data = mujoco.MjData(model.compiled)
    for k in range(len(state)):
        data.qpos[:], data.qvel[:] = state[k, : model.nq], state[k, model.nq :]
        mujoco.mj_forward(model.compiled, data)
        dry = data.efc_type == mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF
        full = np.isclose(np.abs(data.efc_force[dry]), data.efc_frictionloss[dry], rtol=1e-9)
        slides, sticks = slides + full.sum(), sticks + (~full).sum()
    assert slides > 10 and sticks > 10


def test_a_torque_below_the_loss_hardly_moves_and_one_above_does() -> None:
    simulator = Articulated(from_string(DISC.format(option="", joint="")), Convex(), substeps=50)
    torque = torch.tensor([[1.9], [2.5], [-2.5]], dtype=torch.float64)
    after = simulator.step(torch.zeros(3, 2, dtype=torch.float64), torque, torque[:, :0])
    inertia = 0.4 * 5 * 0.2**2
    free = 0.5 / inertia * 0.1
    assert after[0, 1].abs() < 0.05 * 1.9 / inertia * 0.1
    torch.testing.assert_close(after[1:, 1], torch.tensor([free, -free]).double())


@pytest.mark.parametrize("flag", ["frictionloss", "constraint"])
def test_a_disabled_flag_switches_it_off(flag: str) -> None:
    xml = DISC.format(option="", joint="").replace(
        "<worldbody>", f'<option><flag {flag}="disable"/></option><worldbody>'
    )
    model = from_string(xml)
    assert model.frictions == ()
    simulator = Articulated(model, Convex())
    assert simulator.step(torch.zeros(2), torch.ones(1), torch.zeros(0))[1] > 0.01


# ---------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("firm", [False, True])
@pytest.mark.parametrize("integrator", ["implicit_damping", "rk4"])
def test_gradients_are_differences(integrator: str, firm: bool) -> None:
    """But where a row starts or stops within the difference."""
    model = dragged(firm)
    simulator = Articulated(model, Convex(), integrator)
    state, none = drags(model, 30, 5)
    found, wanted = jacobians(simulator, state, none), differences(simulator, state, none)
    error = (found - wanted).abs().amax((-1, -2)) / wanted.abs().amax((-1, -2))
    assert error.quantile(0.75) < (1e-5 if firm else 1e-6)


def test_unrolled_gradients_are_the_implicit_ones() -> None:
    model = dragged(False)
    state, none = drags(model, 20, 6)
    laws = (Convex(12), Convex(12, "unrolled"))
    one, two = (jacobians(Articulated(model, law), state, none) for law in laws)
    assert (one - two).abs().max() < 1e-9 * one.abs().max()


@pytest.mark.parametrize(
    "law", [Convex(), Compliant(4e3, 100, 30), Smoothed(limit=Compliant(4e3, 100, 30))]
)
def test_batches_are_independent_and_float32_is_finite(law: Convex | Compliant | Smoothed) -> None:
    model = dragged(False)
    simulator = Articulated(model, law)
    state, none = drags(model, 200, 7)
    together = simulator.step(state, none, none)
    torch.testing.assert_close(
        simulator.step(state[9], none[9], none[9]), together[9], rtol=1e-11, atol=1e-11
    )
    state[:40, model.nq :] = 0.0
    assert jacobians(simulator, state.float(), none.float()).isfinite().all()


# ---------------------------------------------------------------------------------- the other laws


def test_compliant_friction_is_viscous_and_then_constant() -> None:
    model = from_string(DISC.format(option="", joint=""))
    speed = torch.tensor([[0.0], [0.05], [0.2], [-3.0]], dtype=torch.float64)
    still, none = torch.zeros_like(speed), torch.zeros_like(speed)

    def force(law: Compliant | Smoothed) -> Tensor:
        simulator = Articulated(model, law)
        return law.force(model, simulator._dynamics(still, speed, none)).squeeze(-1)

    law = Compliant(slip_speed=0.1)
    torch.testing.assert_close(force(law), torch.tensor([0.0, -1.0, -2.0, 2.0]).double())
    torch.testing.assert_close(force(Smoothed(limit=law)), (-2 * (speed / 0.1).tanh()).squeeze(-1))
    with pytest.raises(BadValue, match="slip_speed=0.001 is too small.*must be above 0.02"):
        Articulated(model, Compliant(slip_speed=1e-3))
    with pytest.raises(BadValue, match="slip_speed must be positive"):
        Compliant(slip_speed=0)


def test_brax_has_none() -> None:
    with pytest.raises(BadValue, match="dry friction.*try contact=Convex"):
        Articulated(from_string(DISC.format(option="", joint="")), BraxLike())
