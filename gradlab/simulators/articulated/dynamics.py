"""Equations of motion: M(q) q̈ = forces − bias, all bodies at once (composite
inertias, no recursion).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.simulators.articulated.kinematics import Frames, Tables, Velocities


class Bodies(NamedTuple):
    """Inertia of every link about O in world axes."""

    second: Float[Tensor, "*batch 3 3 nl"]  # ∫ x x' dm [kg m²]
    first: Float[Tensor, "*batch 3 nl"]  # ∫ x dm [kg m]


def bodies(tables: Tables, pose: Float[Tensor, "*batch 3 4 nl"]) -> Bodies:
    """Moments of mass in the world: T J T' with J = ∫ (x, 1)(x, 1)' dm of each link."""
    half = (pose.unsqueeze(-2) * tables.inertia).sum(-3)  # [3, 4, nl]: T J
    second = (half.unsqueeze(-4) * pose.unsqueeze(-3)).sum(-2)
    return Bodies(second, half[..., 3, :])


def momentum(
    second: Float[Tensor, "*batch 3 3 k"],
    first: Float[Tensor, "*batch 3 k"],
    mass: Float[Tensor, " k"],
    motion: Float[Tensor, "*batch 6 k"],
) -> Float[Tensor, "*batch 6 k"]:
    """Spatial inertia times motion: (∫ x × v(x) dm, ∫ v(x) dm) with v(x) = v + ω × x."""
    angular, linear = motion.split(3, dim=-2)
    trace = second.diagonal(dim1=-3, dim2=-2).sum(-1).unsqueeze(-2)
    turned = (second * angular.unsqueeze(-3)).sum(-2)
    moment = trace * angular - turned + torch.linalg.cross(first, linear, dim=-2)
    return torch.cat((moment, mass * linear + torch.linalg.cross(angular, first, dim=-2)), -2)


def mass_matrix(tables: Tables, now: Frames, inertia: Bodies) -> Float[Tensor, "*batch nv nv"]:
    """M(q) with armature [kg m², kg m, kg]."""
    flat = torch.cat((inertia.second.flatten(-3, -2), inertia.first), -2) @ tables.below
    second, first = flat[..., :9, :].unflatten(-2, (3, 3)), flat[..., 9:, :]
    force = momentum(second, first, tables.mass_below, now.motion)
    # row: the dof whose composite inertia is used; for six terms faster than a batched product
    product = (force.unsqueeze(-1) * now.motion.unsqueeze(-2)).sum(-3)
    return product * tables.lower + (product * tables.strict).mT + torch.diag_embed(tables.armature)


def bias_force(
    tables: Tables, now: Frames, inertia: Bodies, moving: Velocities
) -> Float[Tensor, "*batch nv"]:
    """Coriolis, centrifugal and gravity: MuJoCo's qfrc_bias [N m, N]."""
    falling = torch.cat((torch.zeros_like(tables.gravity), tables.gravity), -2)
    acceleration = moving.bias - falling
    both = torch.cat((acceleration, moving.link), -1)
    repeat = (torch.cat((x, x), -1) for x in inertia)
    second, first = repeat
    load, held = momentum(second, first, torch.cat((tables.mass, tables.mass)), both).chunk(2, -1)
    force = load + cross_force(moving.link, held)
    return project(tables, now, force)


def project(
    tables: Tables, now: Frames, force: Float[Tensor, "*batch 6 nl"]
) -> Float[Tensor, "*batch nv"]:
    """Generalised force of a wrench (moment about O, force) on every link: Σ J'f."""
    return ((force @ tables.below) * now.motion).sum(-2)


def cross_force(v: Float[Tensor, "*batch 6 k"], f: Float[Tensor, "*batch 6 k"]) -> Tensor:
    """v ×* f of a spatial motion and a spatial force."""
    angular, linear = v.split(3, dim=-2)
    moment, force = f.split(3, dim=-2)
    turned = torch.linalg.cross(angular, moment, dim=-2)
    return torch.cat(
        (
            turned + torch.linalg.cross(linear, force, dim=-2),
            torch.linalg.cross(angular, force, dim=-2),
        ),
        -2,
    )
