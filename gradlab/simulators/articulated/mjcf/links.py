"""Bodies and joints of a compiled model as a tree of one-joint links."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.simulators.articulated.model import Array


class Links:
    """One link per joint; bodies without a joint ride on their parent's link."""

    def __init__(self, m: Any) -> None:
        count = m.njnt
        self.parent = np.full(count, -1)
        self.kind = np.array([int(k) for k in m.jnt_type])
        self.before = np.tile(np.eye(4), (count, 1, 1))  # frame of the link at rest in its parent
        self.axis, self.anchor = np.array(m.jnt_axis), np.array(m.jnt_pos)
        self.qpos_index, self.dof_index = np.array(m.jnt_qposadr), np.array(m.jnt_dofadr)
        self.of_body = np.full(m.nbody, -1)
        self.frame_of_body = np.tile(np.eye(4), (m.nbody, 1, 1))  # in its link; of the world if -1
        self.inertia = np.zeros((count, 4, 4))
        for b in range(1, m.nbody):
            above = int(m.body_parentid[b])
            link = int(self.of_body[above])
            frame = self.frame_of_body[above] @ pose(m.body_pos[b], m.body_quat[b])
            for j in range(m.body_jntadr[b], m.body_jntadr[b] + m.body_jntnum[b]):
                self.parent[j], self.before[j] = link, frame
                link, frame = j, np.eye(4)
            self.of_body[b], self.frame_of_body[b] = link, frame
            if link >= 0:
                self.inertia[link] += _second_moments(m, b, frame)


def _second_moments(m: Any, b: int, frame: Array) -> Array:
    """∫ (x, 1)(x, 1)' dm of a body, 4 by 4, about the origin of its link."""
    principal = m.body_inertia[b]
    local = np.zeros((4, 4))
    local[:3, :3] = np.diag(0.5 * principal.sum() - principal)
    local[3, 3] = m.body_mass[b]
    place = frame @ pose(m.body_ipos[b], m.body_iquat[b])
    return place @ local @ place.T


def pose(position: Any, quaternion: Any) -> Array:
    """4 by 4, of a position [m] and a quaternion of any length."""
    w, x, y, z = np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = position
    return out
