"""Are servos too stiff for the time step?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradlab.simulators.articulated.mjcf import mujoco_package
from gradlab.simulators.articulated.simulator import Articulated


def servo_stiffness(simulator: Articulated, qpos: NDArray[np.float64]) -> float:
    """How stiff servos are at `qpos`, as a share of what semi-implicit Euler takes [1].

    For small motions of M q̈ = −K q − (D + E) q̇, with D implicit, a step h is stable if

        h² K + 2 h E < 4 M + 2 h D

    (scalars; of matrices the largest eigenvalue of the left side over the right one, below 1). K
    and the servos' part of damping are sums over actuators of gear · gearᵀ; which damping is
    implicit the integrator says. Contact, gravity and force ranges are left out: a servo that is
    too stiff chatters between the ends of its force range, or diverges without one.
    0 for `rk4`, whose bound is another, and where nothing pulls back.
    """
    if simulator.integrator == "rk4":
        return 0.0
    model, mujoco = simulator.model, mujoco_package()
    data = mujoco.MjData(model.compiled)
    data.qpos[:] = qpos
    mujoco.mj_forward(model.compiled, data)
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model.compiled, data, mass)
    gear = np.asarray(model.gear)
    stiff, servo_damping = (
        gear.T @ np.diag(np.maximum(-np.asarray(model.bias)[:, k], 0.0)) @ gear for k in (1, 2)
    )
    joint_damping = np.diag(np.asarray(model.damping))
    implicit, explicit = np.zeros_like(mass), joint_damping + servo_damping
    if simulator.integrator == "implicit_damping":
        implicit, explicit = joint_damping, servo_damping
    elif simulator.integrator == "implicitfast":
        implicit, explicit = explicit, implicit
    h = simulator.dt / simulator.substeps
    least = np.linalg.solve(4 * mass + 2 * h * implicit, h * h * stiff + 2 * h * explicit)
    return float(np.abs(np.linalg.eigvals(least)).max(initial=0.0))
