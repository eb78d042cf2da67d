"""The FR3 with inertia: MuJoCo's twin of a period, the hand's place, gradients, the problem."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

import estimators
import gradlab
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.simulators.arm import FR3
from gradlab.simulators.servo_arm import ServoArm, fr3_model


def home() -> torch.Tensor:
    return torch.tensor(FR3.home, dtype=torch.float64)


def test_a_control_period_is_mujocos() -> None:
    """Set points ahead of the joints, ten steps of implicitfast; far from every limit."""
    arm = ServoArm()
    action = torch.linspace(-0.05, 0.05, 7, dtype=torch.float64)
    state = arm.start(home())
    state[7:] = 0.1
    after = arm.step(state, action, state[:0])
    model = fr3_model(0.01).compiled
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = state[:7].numpy(), state[7:].numpy()
    data.ctrl[:] = (home() + 0.2 * action).numpy()
    for _ in range(10):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(after[:7].numpy(), data.qpos, rtol=0, atol=1e-9)
    np.testing.assert_allclose(after[7:].numpy(), data.qvel, rtol=0, atol=1e-7)


def test_the_model_has_the_arms_kinematics() -> None:
    """The last body is where the chain without flange and hand ends."""
    model = fr3_model().compiled
    data = mujoco.MjData(model)
    data.qpos[:] = FR3.home
    mujoco.mj_kinematics(model, data)
    pose = FR3.pose(home())
    z = data.body(7).xmat.reshape(3, 3)[:, 2]
    np.testing.assert_allclose(data.body(7).xpos + FR3.reach * z, pose[:3], rtol=0, atol=1e-12)


def test_gradients_are_differences() -> None:
    arm = ServoArm(dt=0.02, substeps=2)
    state = arm.start(home()).requires_grad_()
    action = torch.full((7,), 0.02, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.functional.jacobian(lambda u: arm.step(state, u, state[:0]), action)
    for k in (0, 3, 6):
        way = torch.zeros(7, dtype=torch.float64)
        way[k] = 1e-6
        ends = [arm.step(state, action + sign * way, state[:0]) for sign in (1, -1)]
        difference = ((ends[0] - ends[1]) / 2e-6).detach()
        torch.testing.assert_close(slopes[:, k], difference, rtol=1e-5, atol=1e-6)


def test_the_problem_has_velocities_and_options_of_its_own() -> None:
    problem = gradlab.make("franka_reach", dynamics=True, substeps=8, horizon=2)
    assert problem.task.observation_dim == 35 and problem.simulator.state_dim == 21
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(3, torch.Generator().manual_seed(1))
    samples = estimators.FOG()(problem, params, noise).mean()
    assert all(bool(leaf.isfinite().all()) for leaf in samples.values())
    assert float(samples["layers.2.bias"].norm()) > 0
    with pytest.raises(UnknownName, match="detach_joints"):
        gradlab.make("franka_reach", dynamics=True, detach_joints=True)
    with pytest.raises(UnknownName, match="dry_friction"):
        gradlab.make("franka_reach", dry_friction=True)
    with pytest.raises(BadValue, match="substeps"):
        ServoArm(substeps=0)
    with pytest.raises(BadValue, match="substeps should be a whole number"):
        ServoArm(substeps=True)


def test_joints_that_follow_at_once_have_no_velocities_to_observe() -> None:
    """Where they would be read the state has the last action."""
    with pytest.raises(UnknownName, match="velocities"):
        gradlab.make("franka_reach", velocities=True)
    still = gradlab.make("franka_reach", dynamics=True, velocities=False)
    assert still.task.observation_dim == 28
