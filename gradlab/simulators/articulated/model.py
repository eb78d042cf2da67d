"""An articulated model as numbers: a tree of one-joint links,
shapes and the laws of limits and contacts.

Letters: nl links, nv velocities, nq positions, nu controls.
Lengths in m, masses in kg, angles in rad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.foundation.tensors import Key

Array = np.ndarray
FREE, SLIDE, HINGE = 0, 2, 3  # kinds of joints, numbered as MuJoCo does


@dataclass(frozen=True)
class ContactLaw:
    """MuJoCo's soft constraint: how fast (`solref`) and how firmly (`solimp`) a constraint acts."""

    solref: tuple[float, ...]  # time constant [s] and damping ratio [1], or -stiffness, -damping
    solimp: tuple[float, ...]  # dmin [1], dmax [1], width [m or rad], midpoint [1], power [1]


@dataclass(frozen=True)
class Limit:
    """Range of one hinge or slide."""

    dof: int
    qpos: int
    low: float  # [rad] or [m]
    high: float
    margin: float
    law: ContactLaw


@dataclass(frozen=True)
class DryFriction:
    """Coulomb friction inside a joint, on one of its velocities."""

    dof: int
    loss: float  # largest force [N m, N]
    law: ContactLaw


@dataclass(frozen=True)
class Shape:
    """A geom, fixed to a link (or to the world, link −1)."""

    name: str
    kind: str  # plane, sphere, capsule, box, or other (drawn only)
    link: int
    body: int  # MuJoCo's body, for its inverse weight
    pose: Array  # 4 by 4, in the frame of the link
    size: tuple[float, ...]  # [m], as MuJoCo counts: radius; radius and half-length; half-sides


@dataclass(frozen=True)
class Pair:
    """Two shapes that may touch, the one with the lower type first (planes, then spheres, ...)."""

    first: int
    second: int
    dim: int  # 1 frictionless, 3 with friction
    friction: float  # [1]
    margin: float  # distance at which a contact begins to act [m]
    gap: float  # wider reach of detection, without effect on forces [m]
    law: ContactLaw


@dataclass(frozen=True, eq=False)
class Model(Key):
    """Everything the engine needs."""

    name: str
    compiled: Any  # mujoco.MjModel of the same
    left_out: tuple[str, ...]  # what the file has and this has not, as its reader asked for
    nq: int
    nv: int
    nu: int
    timestep: float  # [s]
    integrator: str  # that of the file, by the name that `Articulated` has for it
    gravity: Array  # [3], [m/s²]
    qpos0: Array  # [nq]
    qpos_spring: Array  # [nq]
    parent: Array  # [nl], −1 for the world
    kind: Array  # [nl]
    before: Array  # [nl, 4, 4]: frame of the link at rest in its parent's
    axis: Array  # [nl, 3], in the link
    anchor: Array  # [nl, 3], in the link [m]
    qpos_index: Array  # [nl], first position of the joint
    dof_index: Array  # [nl], first velocity of the joint
    body_link: Array  # [nbody]: link that carries each of MuJoCo's bodies
    body_frame: Array  # [nbody, 4, 4], in its link
    inertia: Array  # [nl, 4, 4]: ∫ (x, 1)(x, 1)' dm about the link's origin [kg m², kg m, kg]
    invweight: Array  # [nbody]: MuJoCo's inverse weight of each body in translation [1/kg]
    dof_invweight: Array  # [nv]
    armature: Array  # [nv] [kg m²] or [kg]
    damping: Array  # [nv] [N m s/rad] or [N s/m]
    stiffness: Array  # [nv] [N m/rad] or [N/m]
    gain: Array  # [nu, 3]: actuator force per unit of control; the same per length, per speed
    bias: Array  # [nu, 3]: actuator force without control; per length, per speed of its joint
    gear: Array  # [nu, nv]: generalised force per unit of actuator force
    control_range: Array  # [nu, 2]
    force_range: Array  # [nu, 2], of gain times control plus bias, before the gear acts
    joint_force_range: Array  # [nv, 2], of all actuators of a joint together
    limits: tuple[Limit, ...]
    frictions: tuple[DryFriction, ...]
    shapes: tuple[Shape, ...]
    pairs: tuple[Pair, ...]

    @property
    def links(self) -> int:
        """Number of links nl."""
        return len(self.parent)

    @property
    def link_of_dof(self) -> Array:
        """[nv]."""
        out = np.zeros(self.nv, dtype=int)
        for link, first in enumerate(self.dof_index):
            out[first : first + (6 if self.kind[link] == FREE else 1)] = link
        return out

    def ancestors(self, link: int) -> list[int]:
        """The link itself and every link between it and the world."""
        out = []
        while link >= 0:
            out.append(link)
            link = int(self.parent[link])
        return out

    @property
    def moves(self) -> Array:
        """[nv, nl]: 1 where a velocity moves a link."""
        out = np.zeros((self.nv, self.links))
        for link in range(self.links):
            out[np.isin(self.link_of_dof, self.ancestors(link)), link] = 1.0
        return out
