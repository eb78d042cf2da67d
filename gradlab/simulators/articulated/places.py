"""Where a named body or site of a model is, as a function of its positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.tensors import Matrix, constant
from gradlab.simulators.articulated.kinematics import frames, tables_of
from gradlab.simulators.articulated.mjcf import mujoco_package
from gradlab.simulators.articulated.mjcf.links import pose
from gradlab.simulators.articulated.model import Array, Model


@dataclass(frozen=True)
class Place:
    """A frame that is fixed to a link: the position and the axes of a body or a site."""

    model: Model
    link: int
    frame: Matrix  # 4 by 4, in the link [1, m]

    def __call__(self, qpos: Float[Tensor, "*batch nq"]) -> Float[Tensor, "*batch 3 4"]:
        """Rotation and, in the last column, position in the world [1, m]."""
        now = frames(self.model, tables_of(self.model, qpos), qpos)
        local = now.pose[..., self.link] @ constant(self.frame, like=qpos)
        return torch.cat((local[..., :3], local[..., 3:] + now.origin.unsqueeze(-1)), -1)


def place_of(model: Model, name: str) -> Place:
    """The frame of a site or a body of that name; of a site where there are both.

    Raises `UnknownName` for another name, `BadValue` for what is fixed to the world.
    """
    m, mujoco = model.compiled, mujoco_package()
    sites, bodies = (_names(m, kind) for kind in ("SITE", "BODY"))
    if name in sites:
        k = int(mujoco.mj_name2id(m, mujoco.mjtObj.mjOBJ_SITE, name))
        body, inner = int(m.site_bodyid[k]), pose(m.site_pos[k], m.site_quat[k])
    elif name in bodies:
        body, inner = int(mujoco.mj_name2id(m, mujoco.mjtObj.mjOBJ_BODY, name)), np.eye(4)
    else:
        raise UnknownName(f"body or site of {model.name}:", name, [*sites, *bodies])
    if model.body_link[body] < 0:
        raise BadValue(
            f"{name!r} of {model.name} is fixed to the world; expected a body or a site that moves, "
            f"try {_name(model, int(np.argmax(model.body_link >= 0)))!r}"
        )
    return _place(model, body, inner)


def root_place(model: Model) -> Place:
    """The frame of the first body that moves and carries or is moved by an actuator:
    a robot, not what lies before it in the file.
    """
    return _place(model, int(np.argmax(_of_robot(model))), np.eye(4))


def end_place(model: Model) -> Place:
    """The frame of the end of the longest chain with an actuator: its last site,
    or its body if it has none.
    """
    m, robot = model.compiled, _of_robot(model)
    depth = [len(model.ancestors(int(link))) for link in np.where(robot, model.body_link, -1)]
    body = len(depth) - 1 - int(np.argmax(depth[::-1]))
    sites = np.flatnonzero(m.site_bodyid == body)
    if not len(sites):
        return _place(model, body, np.eye(4))
    return _place(model, body, pose(m.site_pos[sites[-1]], m.site_quat[sites[-1]]))


def driven_roots(model: Model) -> frozenset[int]:
    """First links of the trees that have an actuator; of all trees where none has."""
    first = [model.ancestors(link)[-1] for link in range(model.links)]
    driven = model.link_of_dof[np.flatnonzero(model.gear.any(0))]
    return frozenset(first[link] for link in driven) or frozenset(first)


def _of_robot(model: Model) -> Array:
    """[nbody]: bodies of the trees that have an actuator."""
    roots = driven_roots(model)
    return np.array([k >= 0 and model.ancestors(int(k))[-1] in roots for k in model.body_link])


def floor_height(model: Model) -> float:
    """Of the highest plane that is fixed to the world, at its origin; 0 without one [m]."""
    planes = [s.pose[2, 3] for s in model.shapes if s.kind == "plane" and s.link < 0]
    return float(max(planes, default=0.0))


def _place(model: Model, body: int, inner: Array) -> Place:
    whole = model.body_frame[body] @ inner
    return Place(model, int(model.body_link[body]), tuple(tuple(map(float, row)) for row in whole))


def _names(m: object, kind: str) -> list[str]:
    mujoco = mujoco_package()
    count = {"SITE": m.nsite, "BODY": m.nbody}[kind]  # type: ignore[attr-defined]
    found = (mujoco.mj_id2name(m, getattr(mujoco.mjtObj, f"mjOBJ_{kind}"), k) for k in range(count))
    return [name for name in found if name]


def _name(model: Model, body: int) -> str:
    mujoco = mujoco_package()
    return mujoco.mj_id2name(model.compiled, mujoco.mjtObj.mjOBJ_BODY, body) or f"body {body}"
