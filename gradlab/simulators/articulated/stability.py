"""How a model answers to forces at its contacts and limits,
and the time steps that compliant laws can bear.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gradlab.simulators.articulated.geometry import candidates
from gradlab.simulators.articulated.mjcf import mujoco_package
from gradlab.simulators.articulated.model import Array, Model

CORNERS = 4  # of a box that lie on a plane at once


@lru_cache(maxsize=64)
def contact_response(model: Model) -> float:
    """Largest acceleration per unit of force of the points of one body pressed together [1/kg].

    The largest eigenvalue of J M⁻¹ J', J the velocities of all points of a body that may touch a
    plane at once, in the model's own pose and with its joints in the middle of their ranges; at
    least MuJoCo's inverse weight of the bodies of any pair. 0 without contacts.
    """
    largest = pair_response(model)
    mujoco = mujoco_package()
    m = model.compiled
    data = mujoco.MjData(m)
    bent = model.qpos0.copy()
    for limit in model.limits:
        bent[limit.qpos] = 0.5 * (limit.low + limit.high)
    for pose in (model.qpos0, bent):
        data.qpos[:] = pose
        mujoco.mj_forward(m, data)
        mass = np.zeros((m.nv, m.nv))
        mujoco.mj_fullM(m, data, mass)
        rows: dict[int, list[Array]] = {}
        for pair in model.pairs:
            if model.shapes[pair.first].kind != "plane":
                continue
            shape = model.shapes[pair.second]
            for place in _points(shape.kind, np.array(shape.size), data, pair.second):
                jacobian = np.zeros((3, m.nv))
                mujoco.mj_jac(m, data, jacobian, None, place, shape.body)
                rows.setdefault(shape.link, []).append(jacobian)
        for parts in rows.values():
            stacked = np.concatenate(parts)
            spectrum = np.linalg.eigvalsh(stacked @ np.linalg.solve(mass, stacked.T))
            largest = max(largest, float(spectrum[-1]))
    return largest


def pair_response(model: Model) -> float:
    """MuJoCo's largest inverse weight of the two bodies of a candidate contact
    [1/kg]; 0 without contacts.
    """
    pairs = (sum(float(model.invweight[b]) for b in c.bodies) for c in candidates(model))
    return max(pairs, default=0.0)


def limit_response(model: Model) -> float:
    """Largest inverse weight of a joint with limits [1/(kg m²), 1/kg]; 0 without limits."""
    return max((float(model.dof_invweight[limit.dof]) for limit in model.limits), default=0.0)


def friction_response(model: Model) -> float:
    """Largest acceleration by dry friction of a joint: loss times inverse weight [rad/s², m/s²]."""
    return max((f.loss * float(model.dof_invweight[f.dof]) for f in model.frictions), default=0.0)


def _points(kind: str, size: Array, data: object, geom: int) -> list[Array]:
    """Where a shape presses on a plane [m]: its centre, both ends, or its lowest corners."""
    centre = data.geom_xpos[geom]  # type: ignore[attr-defined]
    axes = data.geom_xmat[geom].reshape(3, 3)  # type: ignore[attr-defined]
    if kind == "capsule":
        return [centre + side * size[1] * axes[:, 2] for side in (-1, 1)]
    if kind == "box":
        signs = np.stack(np.meshgrid(*[(-1, 1)] * 3), -1).reshape(-1, 3)
        corners = centre + (signs * size[:3]) @ axes.T
        return list(corners[np.argsort(corners[:, 2], kind="stable")[:CORNERS]])
    return [centre]
