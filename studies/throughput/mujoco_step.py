"""MuJoCo's own C step, on one thread: what an environment step costs without any gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from gradlab.foundation.errors import Unavailable
from gradlab.foundation.noise import Noise
from gradlab.problems.problem import Problem
from gradlab.simulators.articulated.mjcf.package import mujoco_package
from gradlab.simulators.articulated.simulator import Articulated


def mujoco_steps(
    problem: Problem, params: dict[str, torch.Tensor], noise: Noise
) -> Callable[[], object]:
    """A call that takes N times T control periods of the same body, in as many sub-steps.

    Contact is MuJoCo's own, whatever that of the problem is; actions are those of the noise, cut to
    their ranges. No policy is asked and no reward is found. Raises `Unavailable` for simulators
    that have no such model.
    """
    simulator = problem.simulator
    if not isinstance(simulator, Articulated):
        raise Unavailable("MuJoCo's step is raced on articulated bodies")
    mujoco = mujoco_package()
    model = copy.copy(simulator.mjcf_model())
    model.opt.timestep = simulator.dt / simulator.substeps
    actions = noise.action.clamp(-1, 1).double().cpu().numpy()
    data = mujoco.MjData(model)

    def work() -> object:
        for episode in actions:
            mujoco.mj_resetData(model, data)
            for action in episode:
                data.ctrl[:] = action
                mujoco.mj_step(model, data, simulator.substeps)
        return data

    return work
