"""Servos against MuJoCo: forces, implicit damping, clamps, rollouts and derivatives."""

from __future__ import annotations

import shutil

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.simulators.articulated import Articulated, Convex, Model, from_string
from gradlab.simulators.articulated.actuators import actuator_damping
from tests.helpers.forked import run_code
from tests.helpers.robots import FR3_HOME, fr3

# all kinds together, on joints that share loads and ranges; a spring that opens (kv < 0) too
SERVOS = """<mujoco model="servos"><compiler autolimits="true"/>
<option timestep="0.01" integrator="{integrator}"/>
<worldbody><body><joint name="one" axis="0 1 0" damping=".2" armature=".1" {one}/>
<geom type="capsule" size=".05" fromto="0 0 0 0 0 -.5"/>
<body pos="0 0 -.5"><joint name="two" axis=".2 1 0" range="-60 60"/>
<geom type="capsule" size=".04" fromto="0 0 0 .1 0 -.4"/>
<body pos=".1 0 -.4"><joint name="three" type="slide" axis="1 0 .3" armature=".02"/>
<geom size=".08"/></body></body></body></worldbody>
<actuator>
<position name="p" joint="one" kp="60" kv="6" gear="1.5" ctrlrange="-.4 .5" forcerange="-20 25"/>
<velocity name="v" joint="two" kv="3" gear="-2"/>
<damper name="d" joint="three" kv="4" ctrlrange="0 1"/>
<general name="g" joint="three" gaintype="affine" gainprm="2 .5 -1" biastype="affine" biasprm=".3 -5 -.2"
 gear=".7" forcerange="-3 3"/>
<general name="h" joint="two" gainprm="4" biastype="affine" biasprm="-1 0 .1" forcerange="-6 6"/>
<motor name="m" joint="one" gear="3" ctrlrange="-1 1"/>
</actuator></mujoco>"""


def servos(integrator: str, one: str = 'actuatorfrcrange="-12 11"') -> Model:
    return from_string(SERVOS.format(integrator=integrator, one=one))


def random_states(model: Model, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """[q, q̇] near the middle of the ranges, and controls beyond some of them."""
    rng = np.random.default_rng(seed)
    middle = np.zeros(model.nu)
    qpos = rng.normal(scale=0.4, size=(count, model.nq))
    if model.name == "fr3":
        qpos = np.array(FR3_HOME) + 0.3 * qpos
        middle = np.array(FR3_HOME)
    state = np.concatenate((qpos, rng.normal(size=(count, model.nv))), 1)
    return torch.tensor(state), torch.tensor(middle + rng.normal(scale=0.5, size=(count, model.nu)))


def stepped(model: Model, state: Tensor, controls: Tensor) -> Tensor:
    """MuJoCo's state after steps under `controls` [steps, nu], its solver to the last digit."""
    m = model.compiled.__copy__()
    m.opt.tolerance, m.opt.ls_tolerance = 0.0, 1e-6
    m.opt.iterations = m.opt.ls_iterations = 200
    data = mujoco.MjData(m)
    data.qpos[:], data.qvel[:] = state[: model.nq].numpy(), state[model.nq :].numpy()
    for control in controls:
        data.ctrl[:] = control.numpy()
        mujoco.mj_step(m, data)
    return torch.tensor(np.concatenate((data.qpos, data.qvel)))


def played(simulator: Articulated, state: Tensor, controls: Tensor) -> Tensor:
    for control in controls:
        state = simulator.step(state, control, control[..., :0])
    return state


@pytest.mark.parametrize("integrator", ["Euler", "implicitfast", "RK4"])
@pytest.mark.parametrize("robot", ["servos", "fr3"])
def test_accelerations_and_fifty_steps_are_mujocos(robot: str, integrator: str) -> None:
    model = servos(integrator) if robot == "servos" else from_string(fr3(integrator, False, 5e-4))
    simulator = Articulated(model, Convex())
    state, _ = random_states(model, 8, 1)
    controls = torch.stack([random_states(model, 8, 2 + k)[1] for k in range(50)])
    once, after = played(simulator, state, controls[:1]), played(simulator, state, controls)
    for k in range(len(state)):
        for ours, steps in ((once, 1), (after, 50)):
            wanted = stepped(model, state[k], controls[:steps, k])
            change = wanted - state[k]
            assert (ours[k] - wanted).abs().max() < 1e-10 * change.abs().max()


def test_forces_are_mujocos_in_every_range() -> None:
    model = servos("Euler")
    simulator, data = Articulated(model, Convex()), mujoco.MjData(model.compiled)
    state, action = random_states(model, 200, 3)
    qpos, qvel = state.split(3, -1)
    force = simulator.actuation(3 * action, qpos, qvel)
    clamped = np.zeros(model.nu)
    for k in range(200):
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos[k], qvel[k], 3 * action[k]
        mujoco.mj_forward(model.compiled, data)
        np.testing.assert_allclose(force[k], data.qfrc_actuator, rtol=1e-12, atol=1e-12)
        clamped += np.isin(data.actuator_force, model.force_range)
    assert (clamped[[0, 3, 4]] > 10).all() and (clamped[[0, 3, 4]] < 190).all()


def test_implicit_damping_is_the_slope_of_the_force() -> None:
    """Beyond a force range, of the actuator or of the joint, there is none."""
    model = servos("implicitfast")
    state, action = random_states(model, 50, 4)
    qpos, qvel = state.split(3, -1)
    found = actuator_damping(model, action, qpos, qvel)
    forces = Articulated(model, Convex()).actuation
    moved = [forces(action, qpos, qvel + sign * 1e-6) for sign in (1, -1)]
    slope = (moved[1] - moved[0]) / 2e-6
    within = (found - slope).abs() < 1e-6
    assert within.double().mean() > 0.95  # the rest are at a range's end within the difference
    assert (found != 0).any(0).all() and (found == 0).any(0).tolist() == [True, False, True]


def test_servos_need_a_state() -> None:
    simulator = Articulated(servos("Euler"), Convex())
    with pytest.raises(BadValue, match=r"servos.*expected actuation\(action, qpos, qvel\)"):
        simulator.actuation(torch.zeros(6))


# ---------------------------------------------------------------------------------------- gradients


def jacobians(simulator: Articulated, state: Tensor, action: Tensor) -> Tensor:
    def step(x: Tensor, u: Tensor) -> Tensor:
        return simulator.step(x, u, u[..., :0])

    parts = torch.func.vmap(torch.func.jacrev(step, argnums=(0, 1)))(state, action)
    return torch.cat(parts, -1)


def differences(simulator: Articulated, state: Tensor, action: Tensor) -> Tensor:
    x, eps = torch.cat((state, action), -1), 1e-6
    ways = eps * torch.eye(x.shape[-1], dtype=x.dtype)
    n = state.shape[-1]

    def after(x: Tensor) -> Tensor:
        return simulator.step(x[..., :n], x[..., n:], x[..., :0])

    moved = after(x.unsqueeze(1) + ways) - after(x.unsqueeze(1) - ways)
    return (moved / (2 * eps)).mT


@pytest.mark.parametrize("integrator", ["Euler", "implicitfast", "RK4"])
@pytest.mark.parametrize("robot", ["servos", "fr3"])
def test_gradients_are_differences(robot: str, integrator: str) -> None:
    """Of all states and actions, but those within a difference of a range's end."""
    model = servos(integrator) if robot == "servos" else from_string(fr3(integrator, False, 5e-4))
    simulator = Articulated(model, Convex())
    state, action = random_states(model, 12, 5)
    found, wanted = jacobians(simulator, state, action), differences(simulator, state, action)
    scale = wanted.abs().amax((-1, -2))
    error = (found - wanted).abs().amax((-1, -2)) / scale
    assert error.sort().values[-2] < 1e-6


def test_a_set_point_moves_the_joint_that_it_is_for() -> None:
    """The gradient in the action, not lost in an implicit step: kp h² / (M + h (D + kv))."""
    xml = """<mujoco><option integrator="implicitfast" timestep="0.01"/><worldbody><body>
    <joint name="j" axis="0 0 1" damping="0.5"/><geom size="0.1" mass="2" pos="0.3 0 0"/></body></worldbody>
    <actuator><position joint="j" kp="50" kv="5" {0}/></actuator></mujoco>"""
    target = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    for clamp, share in (("", 1.0), ('forcerange="-1 1"', 0.0), ('ctrlrange="-.1 .1"', 0.0)):
        model = from_string(xml.format(clamp))
        simulator = Articulated(model, Convex())
        state = simulator.step(torch.zeros(2, dtype=torch.float64), target, target[:0])
        (slope,) = torch.autograd.grad(state[0], target)
        mass = model.compiled.dof_M0[0]
        assert float(slope) == pytest.approx(share * 50 * 1e-4 / (mass + 0.01 * 5.5), rel=1e-12)


# ------------------------------------------------------------------------------- batches and floats


def test_batched_is_single_and_float32_is_finite() -> None:
    model = from_string(fr3(friction=False))
    simulator = Articulated(model, Convex(), substeps=5)
    state, action = random_states(model, 300, 6)
    together = simulator.step(state, action, action[:, :0])
    for k in (0, 7, 150):
        alone = simulator.step(state[k], action[k], action[k, :0])
        torch.testing.assert_close(together[k], alone, rtol=1e-12, atol=1e-12)
    wild, far = (3 * state).float(), (3 * action).float()
    assert jacobians(simulator, wild, far).isfinite().all()


def test_mass_every_keeps_the_mass_matrix_only() -> None:
    """A servo's implicit damping is that of the sub-step at hand, also with a kept mass matrix."""
    model = servos("implicitfast")
    state, action = random_states(model, 20, 7)
    kept = Articulated(model, Convex(), dt=0.002, substeps=4, mass_every=4)
    every = Articulated(model, Convex(), dt=0.002, substeps=4)
    apart = kept.step(state, action, action[:, :0]) - every.step(state, action, action[:, :0])
    assert 0 < apart.abs().max() < 1e-3


def compiled_is_eager(integrator: str) -> None:
    """A step and its gradients, without constraints."""
    model = from_string(SERVOS.format(integrator=integrator, one="").replace('range="-60 60"', ""))
    simulator = Articulated(model, Convex())
    state, action = (x.requires_grad_() for x in random_states(model, 16, 8))
    after = [s.step(state, action, action[:, :0]) for s in (simulator, simulator.compiled())]
    slopes = [torch.autograd.grad(x.square().sum(), (state, action)) for x in after]
    torch.testing.assert_close(after[1], after[0], rtol=1e-10, atol=1e-10)
    for one, two in zip(*slopes, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.parametrize("integrator", ["implicitfast", "RK4"])
def test_compiled_is_eager(integrator: str) -> None:
    code = "from tests.gradlab.simulators.test_actuators import compiled_is_eager as run; run({!r})"
    done = run_code(code.format(integrator))
    assert done.returncode == 0, done.stderr
