"""Where every link is and how it can move: poses, motion axes, velocities.

Everything is written for all links at once, links or degrees of freedom in the last dimension, so
that sums along the tree are products with constant 0/1 matrices. Spatial vectors are (angular,
linear) in world axes about a point O that travels with the first link: momentum and forces need no
more, and nothing loses digits far from the origin of the world.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.tensors import constant, constants_of, plain
from gradlab.simulators.articulated.model import FREE, HINGE, Array, Model


class Tables(NamedTuple):
    """Constants of one model in one dtype; see `_build`."""

    angle_of_qpos: Tensor  # [nq, nl]
    angle_offset: Tensor  # [nl]
    local_constant: Tensor  # [12, nl]
    local_sine: Tensor  # [12, nl]
    local_cosine: Tensor  # [12, nl]
    local_linear: Tensor  # [12, nl]
    free_rotation: Tensor  # [16, 9]: outer product of a quaternion to its rotation matrix
    free_place: Tensor  # [nf, nl]
    hops: Tensor  # [rounds, nl + 1, nl]
    axis: Tensor  # [4 nl, nv]: a 3 by 4 pose of every link to the axis of every dof
    anchor: Tensor  # [4 nl, nv]
    fixed_axis: Tensor  # [3, nv]: of the translations of free joints
    turns: Tensor  # [nv]: 1 for rotations, 0 for translations
    carry: Tensor  # [nv, nv]: velocities that carry the axis of each dof
    moves: Tensor  # [nv, nl]
    inertia: Tensor  # [4, 4, nl]
    mass: Tensor  # [nl]
    below: Tensor  # [nl, nv]: links that each dof moves
    mass_below: Tensor  # [nv]
    lower: Tensor  # [nv, nv]: 1 where the column moves the row's link (itself included)
    strict: Tensor  # the same without the diagonal
    armature: Tensor  # [nv]
    damping: Tensor  # [nv]
    stiffness: Tensor  # [nv]
    gravity: Tensor  # [3, 1]


class Frames(NamedTuple):
    """Poses and motion axes of one configuration."""

    origin: Float[Tensor, "*batch 3"]  # O in the world [m]
    pose: Float[Tensor, "*batch 3 4 nl"]  # rotation and position about O
    motion: Float[Tensor, "*batch 6 nv"]  # spatial velocity per unit of each velocity


class Velocities(NamedTuple):
    """Spatial velocities and what the velocities alone accelerate."""

    link: Float[Tensor, "*batch 6 nl"]
    bias: Float[Tensor, "*batch 6 nl"]  # spatial acceleration at zero generalised acceleration


def tables_of(model: Model, like: Tensor) -> Tables:
    """The constants of a model with the dtype and device of `like`; built once."""
    return Tables(*_tables(model, like=like))


def frames(model: Model, tables: Tables, qpos: Float[Tensor, "*batch nq"]) -> Frames:
    """Forward kinematics. Quaternions are normalised here, as MuJoCo does."""
    angle = qpos @ tables.angle_of_qpos - tables.angle_offset
    pose = (
        tables.local_constant
        + tables.local_sine * angle.sin().unsqueeze(-2)
        + tables.local_cosine * angle.cos().unsqueeze(-2)
    )
    if _slides(model):
        pose = pose + tables.local_linear * angle.unsqueeze(-2)
    free = free_joints(model)
    origin = None
    if free:
        origin = qpos[..., free[0][0] : free[0][0] + 3]
        parts = []
        for first, _ in free:
            quaternion = qpos[..., first + 3 : first + 7]
            norm = torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
            unit = quaternion / norm.clamp(min=torch.finfo(qpos.dtype).tiny)
            outer = (unit.unsqueeze(-1) * unit.unsqueeze(-2)).flatten(-2)
            rotation = (outer @ tables.free_rotation).unflatten(-1, (3, 3))
            offset = qpos[..., first : first + 3] - origin
            parts.append(torch.cat((rotation, offset.unsqueeze(-1)), -1).flatten(-2))
        pose = pose + torch.stack(parts, -1) @ tables.free_place
    pose = pose.unflatten(-2, (3, 4))
    grounded = _grounded(model)
    if origin is not None and any(grounded):
        # trees fixed to the world, beside one that floats: about O too
        moved = origin.unsqueeze(-1) * constant(grounded, like=origin)
        pose = torch.cat((pose[..., :3, :], (pose[..., 3, :] - moved).unsqueeze(-2)), -2)
    for hop in tables.hops.unbind(0):
        pose = _compose(_pick(pose, hop), pose)
    if origin is None:
        # about the last link of the first body: all positions relative to it
        reference = _reference(model)
        origin = pose[..., 3, reference]
        shift = torch.cat((torch.zeros_like(pose[..., :3, :1]), origin[..., None, None]), -2)
        pose = pose - shift
    flat = pose.flatten(-2)
    axis = flat @ tables.axis + tables.fixed_axis
    anchor = flat @ tables.anchor
    linear = torch.linalg.cross(anchor, axis, dim=-2) * tables.turns + axis * (1 - tables.turns)
    return Frames(origin, pose, torch.cat((axis * tables.turns, linear), -2))


def velocities(
    tables: Tables, motion: Float[Tensor, "*batch 6 nv"], qvel: Float[Tensor, "*batch nv"]
) -> Velocities:
    """Velocities of all links, and their accelerations while the generalised ones are zero."""
    scaled = motion * qvel.unsqueeze(-2)
    change = cross_motion(scaled @ tables.carry, scaled)
    return Velocities(scaled @ tables.moves, change @ tables.moves)


def cross_motion(v: Float[Tensor, "*batch 6 k"], m: Float[Tensor, "*batch 6 k"]) -> Tensor:
    """v × m of spatial motions."""
    angular, linear = v.split(3, dim=-2)
    first, second = m.split(3, dim=-2)
    turned = torch.linalg.cross(angular, second, dim=-2)
    return torch.cat(
        (
            torch.linalg.cross(angular, first, dim=-2),
            turned + torch.linalg.cross(linear, first, dim=-2),
        ),
        -2,
    )


def _pick(pose: Tensor, hop: Float[Tensor, "nl_plus_1 nl"]) -> Tensor:
    """The pose of each link's pointer; the last row of `hop` stands for the world."""
    identity = torch.eye(3, 4, dtype=pose.dtype, device=pose.device).unsqueeze(-1)
    return pose @ hop[:-1] + identity * hop[-1]


def _compose(first: Tensor, second: Tensor) -> Tensor:
    """first ∘ second of poses [..., 3, 4, k]."""
    turned = (first[..., :3, None, :] * second.unsqueeze(-4)).sum(-3)
    shift = torch.cat((torch.zeros_like(first[..., :3, :]), first[..., 3:, :]), -2)
    return turned + shift


# ----------------------------------------------------------------------------------------- tables


@plain
def free_joints(model: Model) -> tuple[tuple[int, int], ...]:
    """First position and first velocity of every free joint."""
    links = np.flatnonzero(model.kind == FREE)
    return tuple((int(model.qpos_index[k]), int(model.dof_index[k])) for k in links)


@plain
def _grounded(model: Model) -> tuple[float, ...]:
    """1 for links that hang on the world by a hinge or slide."""
    rooted = (model.parent < 0) & (model.kind != FREE)
    return tuple(float(x) for x in rooted)


@plain
def _slides(model: Model) -> bool:
    return bool(np.any((model.kind != FREE) & (model.kind != HINGE)))


@plain
def _reference(model: Model) -> int:
    """The last joint of the first moving body."""
    first = int(next(link for link in model.body_link if link >= 0))
    return first


@constants_of
def _tables(model: Model) -> tuple[Tensor, ...]:
    nl, nv = model.links, model.nv
    angle_of_qpos, offset = np.zeros((model.nq, nl)), np.zeros(nl)
    features = np.zeros((4, nl, 3, 4))  # constant, sine, cosine, linear
    for link in range(nl):
        if model.kind[link] == FREE:
            continue
        index = int(model.qpos_index[link])
        angle_of_qpos[index, link], offset[link] = 1.0, model.qpos0[index]
        features[:, link] = _local(model, link)
    free = [link for link in range(nl) if model.kind[link] == FREE]
    place = np.zeros((len(free), nl))
    place[np.arange(len(free)), free] = 1.0
    of_dof, moves = model.link_of_dof, model.moves
    axis, anchor = np.zeros((4, nl, nv)), np.zeros((4, nl, nv))
    fixed, turns = np.zeros((3, nv)), np.ones(nv)
    carry = np.zeros((nv, nv))
    for dof in range(nv):
        link = int(of_dof[dof])
        within = dof - int(model.dof_index[link])
        above = model.ancestors(link)[1:]
        carry[np.isin(of_dof, above), dof] = 1.0
        if model.kind[link] == FREE:
            if within < 3:
                fixed[within, dof], turns[dof] = 1.0, 0.0
            else:
                axis[within - 3, link, dof], anchor[3, link, dof] = 1.0, 1.0
                carry[of_dof == link, dof] = 1.0
            continue
        axis[:3, link, dof] = model.axis[link]
        anchor[:3, link, dof], anchor[3, link, dof] = model.anchor[link], 1.0
        turns[dof] = float(model.kind[link] == HINGE)
    mass = model.inertia[:, 3, 3]
    lower = moves[:, of_dof].T  # [row, column]: does the column move the row's link
    lower = np.where(of_dof[:, None] == of_dof[None, :], np.tril(np.ones((nv, nv))), lower)
    arrays = (
        angle_of_qpos,
        offset,
        *(features[i].reshape(nl, 12).T for i in range(4)),
        _quaternion_table(),
        place.reshape(len(free), nl),
        _hops(model),
        axis.reshape(4 * nl, nv),
        anchor.reshape(4 * nl, nv),
        fixed,
        turns,
        carry,
        moves,
        model.inertia.transpose(1, 2, 0),
        mass,
        moves.T,
        moves @ mass,
        lower,
        lower - np.eye(nv),
        model.armature,
        model.damping,
        model.stiffness,
        model.gravity.reshape(3, 1),
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(a, dtype=np.float64)) for a in arrays)


def _local(model: Model, link: int) -> Array:
    """Pose in the parent = constant + sin q · A + cos q · B + q · C, each 3 by 4."""
    axis, anchor, before = model.axis[link], model.anchor[link], model.before[link]
    skew = np.array(
        [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], dtype=float
    )
    local = np.zeros((4, 4, 4))
    if model.kind[link] == HINGE:
        for k, part in ((0, np.eye(3) + skew @ skew), (1, skew), (2, -skew @ skew)):
            local[k, :3, :3] = part
            local[k, :3, 3] = -part @ anchor
        local[0, :3, 3] += anchor
    else:
        local[0, :3, :3] = np.eye(3)
        local[3, :3, 3] = axis
    local[0, 3, 3] = 1.0
    return np.einsum("ij,kjl->kil", before, local)[:, :3]


def _quaternion_table() -> Array:
    """[16, 9]: q q' flattened, (w, x, y, z), to the rotation matrix of a unit q."""
    out = np.zeros((4, 4, 3, 3))
    for i in range(3):
        out[0, 0, i, i] = 1.0
        for j in range(3):
            out[1 + j, 1 + j, i, i] += 1.0 if i == j else -1.0
            if i != j:
                k = 3 - i - j
                out[1 + i, 1 + j, i, j] += 2.0
                sign = -1.0 if (j - i) % 3 == 1 else 1.0
                out[0, 1 + k, i, j] += 2.0 * sign
    return out.reshape(16, 9)


def _hops(model: Model) -> Array:
    """Pointer jumping: after k rounds each link's pose is relative to its 2^k-th ancestor."""
    nl = model.links
    pointer = [int(p) for p in model.parent]
    rounds = []
    while any(p >= 0 for p in pointer):
        hop = np.zeros((nl + 1, nl))
        for link, p in enumerate(pointer):
            hop[p if p >= 0 else nl, link] = 1.0
        rounds.append(hop)
        pointer = [pointer[p] if p >= 0 else -1 for p in pointer]
    return np.stack(rounds) if rounds else np.zeros((0, nl + 1, nl))
