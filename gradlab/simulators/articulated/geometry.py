"""Where shapes may touch: a fixed list of candidate contacts, with distances that may be positive.

No broad phase and no branches: every candidate is evaluated in every state, and the contact laws
give no force to those that are apart. A plane and a capsule have two candidates, one at each end; a
plane and a box eight, one at each corner; two capsules have two, of which the second counts only
where their axes are parallel. Spheres are capsules of length zero here. Conventions are those of
MuJoCo 4.0 (engine_collision_primitive.c, mju_makeFrame), measured in
test_articulated_mujoco.py; for capsules that are parallel to within 1e-4 and whose axes
nearly meet, one of the two normals differs from MuJoCo's by up to 1e-4.

Non-smooth places: a box's corner stops counting when it rises above the box's centre, as in MuJoCo;
the tangents at a capsule's end turn with its axis, and are undefined where it stands upright; the
nearest point of a capsule stops at its ends, and jumps along parallel capsules; normals are
undefined where two centres or axes meet; tangents between two shapes jump where the normal's y
component is ±½.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.tensors import constants_of, plain, positions
from gradlab.simulators.articulated.kinematics import Frames
from gradlab.simulators.articulated.model import Array, Model, Pair

APART = 1e3  # distance [m] given to a candidate that cannot touch
MINVAL = 1e-15  # mjMINVAL, MuJoCo's smallest denominator
PARALLEL = 1e-8  # squared sine of the angle below which MuJoCo 4.0 calls capsules parallel


class Contacts(NamedTuple):
    """All K candidates of one configuration; positions about O, axes of the world."""

    distance: Float[Tensor, "*batch K"]  # between the surfaces, negative inside [m]
    position: Float[Tensor, "*batch 3 K"]  # midway between the surfaces [m]
    normal: Float[Tensor, "*batch 3 K"]  # from the first shape to the second
    tangent: Float[Tensor, "*batch 3 K"]  # the first tangent; the second is normal × tangent


class Candidate(NamedTuple):
    """What is constant about one candidate."""

    pair: Pair
    first: int  # link of the first shape, −1 for the world
    second: int
    bodies: tuple[int, int]  # MuJoCo's


class PlaneTables(NamedTuple):
    """Constants of the candidates against planes; the plane is fixed to the world."""

    point: Tensor  # [4 nl, K]: poses of all links to a centre, an end or a corner
    along: Tensor  # [4 nl, K]: ... to the axis of a capsule; 0 for others
    centre: Tensor  # [4 nl, K]: ... to the centre of a box; 0 for others
    radius: Tensor  # [K] [m]
    normal: Tensor  # [3, K]
    offset: Tensor  # [K]: height of the plane along its normal [m]
    tangent: Tensor  # [3, K]: where the capsule gives none
    capsule: Tensor  # [K]: 1 for ends of capsules
    box: Tensor  # [K]: 1 for corners of boxes


class RoundTables(NamedTuple):
    """Constants of P pairs of spheres and capsules; rows of links, the world's part apart."""

    centre: Tensor  # [4 nl, 2 P]: poses of all links to the centres, first shapes then second ones
    axis: Tensor  # [4 nl, 2 P]: ... to the z axes
    fixed_centre: Tensor  # [3, 2 P]: of shapes fixed to the world [m]
    fixed_axis: Tensor  # [3, 2 P]
    fixed: Tensor  # [2 P]: 1 for those
    half: Tensor  # [2 P]: half-lengths of the axes, 0 for spheres [m]
    radii: Tensor  # [2 P] [m]


@lru_cache(maxsize=64)
def candidates(model: Model) -> tuple[Candidate, ...]:
    """The fixed list: all against planes, then one of each other pair,
    then one more of capsules.
    """
    pairs = [pair for pair in _plane_pairs(model) for _ in _corners(model, pair)]
    round_pairs = _round_pairs(model)
    pairs += round_pairs + [pair for pair in round_pairs if _both_capsules(model, pair)]
    return tuple(
        Candidate(
            pair,
            model.shapes[pair.first].link,
            model.shapes[pair.second].link,
            (model.shapes[pair.first].body, model.shapes[pair.second].body),
        )
        for pair in pairs
    )


def contacts(model: Model, now: Frames) -> Contacts:
    """Distance, position and frame of every candidate, in the order of `candidates`."""
    planes, rounds = _kinds(model)
    if not rounds:
        return _against_planes(model, now)
    between = _between(model, now)
    if not planes:
        return between
    parts = zip(_against_planes(model, now), between, strict=True)
    return Contacts(*(torch.cat(part, -1) for part in parts))


@plain
def _kinds(model: Model) -> tuple[int, int]:
    """Numbers of pairs with a plane and without."""
    return len(_plane_pairs(model)), len(_round_pairs(model))


# ------------------------------------------------------------------------------------------ planes


def _against_planes(model: Model, now: Frames) -> Contacts:
    tables = PlaneTables(*_plane_tables(model, like=now.pose))
    flat = now.pose.flatten(-2)
    point = flat @ tables.point
    height = (point * tables.normal).sum(-2) + now.origin @ tables.normal - tables.offset
    distance = height - tables.radius
    if _has(model, "box"):
        centre = ((flat @ tables.centre) * tables.normal).sum(-2)
        above = (point * tables.normal).sum(-2) > centre
        distance = torch.where(above & (tables.box > 0), APART, distance)
    position = point - tables.normal * (tables.radius + 0.5 * distance).unsqueeze(-2)
    normal = tables.normal.expand_as(position)
    tangent = tables.tangent.expand_as(position)
    if _has(model, "capsule"):
        along = flat @ tables.along
        along = along - tables.normal * (along * tables.normal).sum(-2, keepdim=True)
        squared = along.square().sum(-2, keepdim=True)
        turned = (squared > 1e-20) & (tables.capsule > 0)
        length = torch.where(turned, squared, 1.0).sqrt()
        tangent = torch.where(turned, along / length, tangent)
    return Contacts(distance, position, normal, tangent)


def _plane_pairs(model: Model) -> list[Pair]:
    return [pair for pair in model.pairs if model.shapes[pair.first].kind == "plane"]


@plain
def _has(model: Model, kind: str) -> bool:
    return any(model.shapes[pair.second].kind == kind for pair in _plane_pairs(model))


def _corners(model: Model, pair: Pair) -> list[Array]:
    """Points of the second shape, in its own frame, that a plane may touch."""
    shape = model.shapes[pair.second]
    if shape.kind == "sphere":
        return [np.zeros(3)]
    if shape.kind == "capsule":
        return [np.array([0, 0, sign * shape.size[1]]) for sign in (1.0, -1.0)]
    signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T
    return [sign * np.array(shape.size) for sign in signs]


@constants_of
def _plane_tables(model: Model) -> tuple[Tensor, ...]:
    rows = [(pair, corner) for pair in _plane_pairs(model) for corner in _corners(model, pair)]
    nl, count = model.links, len(rows)
    point, along, centre = (np.zeros((4, nl, count)) for _ in range(3))
    radius, offset, capsule, box = (np.zeros(count) for _ in range(4))
    normal, tangent = np.zeros((3, count)), np.zeros((3, count))
    for k, (pair, corner) in enumerate(rows):
        plane, shape = model.shapes[pair.first], model.shapes[pair.second]
        link = shape.link
        point[:, link, k] = shape.pose @ np.append(corner, 1.0)
        normal[:, k] = plane.pose[:3, 2]
        offset[k] = plane.pose[:3, 3] @ plane.pose[:3, 2]
        tangent[:, k] = default_tangent(normal[:, k])
        if shape.kind == "box":
            box[k], centre[:, link, k] = 1.0, shape.pose[:, 3]
        else:
            radius[k] = shape.size[0]
        if shape.kind == "capsule":
            capsule[k], along[:3, link, k] = 1.0, shape.pose[:3, 2]
            # where it stands upright MuJoCo normalises a zero vector, to the first axis
            tangent[:, k] = (1.0, 0.0, 0.0)
    flat = (x.reshape(4 * nl, count) for x in (point, along, centre))
    arrays = (*flat, radius, normal, offset, tangent, capsule, box)
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)


def default_tangent(normal: Array) -> Array:
    """MuJoCo's first tangent of a normal: y, or z where the normal is near y, made orthogonal."""
    axis = np.array([0.0, 1.0, 0.0]) if abs(normal[1]) < 0.5 else np.array([0.0, 0.0, 1.0])
    tangent = axis - normal * (normal @ axis)
    return tangent / np.linalg.norm(tangent)


# ----------------------------------------------------------------------------- spheres and capsules


def _between(model: Model, now: Frames) -> Contacts:
    tables = RoundTables(*_round_tables(model, like=now.pose))
    flat = now.pose.flatten(-2)
    centre, axis = flat @ tables.centre, flat @ tables.axis
    if _any_fixed(model):
        centre = centre + tables.fixed_centre - now.origin.unsqueeze(-1) * tables.fixed
        axis = axis + tables.fixed_axis
    first, second = centre.chunk(2, -1)
    z1, z2 = axis.chunk(2, -1)
    r1, r2 = tables.radii.chunk(2, -1)
    one, two = (axis * tables.half).chunk(2, -1)
    cross = torch.linalg.cross(z1, z2, dim=-2)
    parallel = cross.square().sum(-2) < PARALLEL
    x, y = _nearest(one, two, second - first, parallel)
    missing = torch.zeros_like(x)
    double = _capsules(model)
    if double:
        low, high = (_overlap(one, two, second - first, end) for end in (-1.0, 1.0))
        both = parallel & (tables.half > 0).unflatten(-1, (2, -1)).all(-2)
        x, y = torch.where(both, low[0], x), torch.where(both, low[1], y)
        # the second contacts of capsules go behind all the first ones
        again = positions((*range(_kinds(model)[1]), *double), x)
        those = positions(double, x)
        first, second, one, two, z1, z2, r1, r2 = (
            t[..., again] for t in (first, second, one, two, z1, z2, r1, r2)
        )
        x, y = (torch.cat((a, b[..., those]), -1) for a, b in zip((x, y), high, strict=True))
        missing = torch.cat((missing, (~both)[..., those].to(missing.dtype)), -1)
    start = first + one * x.unsqueeze(-2)
    length, normal = _direction(second + two * y.unsqueeze(-2) - start, z1, z2, r1 + r2)
    distance = length - (r1 + r2)
    position = start + normal * (r1 + 0.5 * distance).unsqueeze(-2)
    return Contacts(distance + APART * missing, position, normal, first_tangent(normal))


def _nearest(one: Tensor, two: Tensor, gap: Tensor, parallel: Tensor) -> tuple[Tensor, Tensor]:
    """Where two segments ±one and gap ± two come nearest, in [−1, 1] of each: [*, P] twice.

    With n = one × two the lines come nearest at (gap × two)·n/n²; then each end is the nearest to
    the other. Differences of products would lose all digits of nearly parallel ones.
    """
    cross = torch.linalg.cross(one, two, dim=-2)
    squared = cross.square().sum(-2)
    alike = parallel | (squared == 0)
    first = (torch.linalg.cross(gap, two, dim=-2) * cross).sum(-2)
    first = torch.where(alike, 0.0, first / torch.where(alike, 1.0, squared)).clamp(-1, 1)
    second = _onto(first.unsqueeze(-2) * one - gap, two)
    return _onto(second.unsqueeze(-2) * two + gap, one), second


def _overlap(one: Tensor, two: Tensor, gap: Tensor, end: float) -> tuple[Tensor, Tensor]:
    """An end of the stretch where parallel segments overlap:
    that of the second, or of the first.
    """
    first = _onto(gap + end * two, one)
    second = _onto(first.unsqueeze(-2) * one - gap, two)
    return first, torch.where(first.abs() < 1, end, second)


def _onto(point: Tensor, axis: Tensor) -> Tensor:
    """Nearest place on the segment ±axis, in [−1, 1]; 0 on one of no length."""
    squared = axis.square().sum(-2)
    sphere = squared == 0
    return ((point * axis).sum(-2) / torch.where(sphere, 1.0, squared)).clamp(-1, 1)


def _direction(gap: Tensor, z1: Tensor, z2: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Length and direction of a vector; the common normal of two axes where it vanishes."""
    squared = gap.square().sum(-2)
    tiny = (16 * torch.finfo(gap.dtype).eps * size).clamp(min=MINVAL)
    met = squared < tiny.square()
    length = torch.where(met, 1.0, squared).sqrt()
    cross = torch.linalg.cross(z1, z2, dim=-2).detach()
    norm = torch.linalg.vector_norm(cross, dim=-2, keepdim=True)
    common = torch.where(norm < MINVAL, 0.0, cross / norm.clamp(min=MINVAL))
    common = torch.cat(
        (torch.where(norm < MINVAL, 1.0, common[..., :1, :]), common[..., 1:, :]), -2
    )
    normal = torch.where(met.unsqueeze(-2), common, gap / length.unsqueeze(-2))
    return torch.where(met, 0.0, length), normal


def first_tangent(normal: Float[Tensor, "*batch 3 K"]) -> Float[Tensor, "*batch 3 K"]:
    """MuJoCo's first tangent of each normal; see `default_tangent`."""
    x, y, z = normal.unbind(-2)
    by_y = (y.abs() < 0.5).to(y.dtype)
    # the axis less its part along the normal: (−xy, 1 − y², −zy), or the same with z
    part = by_y * y + (1 - by_y) * z
    raw = torch.stack((-x * part, by_y - y * part, 1 - by_y - z * part), -2)
    return raw / torch.linalg.vector_norm(raw, dim=-2, keepdim=True)


def _round_pairs(model: Model) -> list[Pair]:
    return [pair for pair in model.pairs if model.shapes[pair.first].kind != "plane"]


def _both_capsules(model: Model, pair: Pair) -> bool:
    return all(model.shapes[s].kind == "capsule" for s in (pair.first, pair.second))


@plain
def _capsules(model: Model) -> tuple[int, ...]:
    """Which of the round pairs are two capsules."""
    return tuple(i for i, pair in enumerate(_round_pairs(model)) if _both_capsules(model, pair))


@plain
def _any_fixed(model: Model) -> bool:
    shapes = (model.shapes[s] for pair in _round_pairs(model) for s in (pair.first, pair.second))
    return any(shape.link < 0 for shape in shapes)


@constants_of
def _round_tables(model: Model) -> tuple[Tensor, ...]:
    pairs, nl = _round_pairs(model), model.links
    shapes = [model.shapes[p.first] for p in pairs] + [model.shapes[p.second] for p in pairs]
    count = len(shapes)
    centre, axis = np.zeros((4, nl, count)), np.zeros((4, nl, count))
    fixed_centre, fixed_axis, fixed = np.zeros((3, count)), np.zeros((3, count)), np.zeros(count)
    for k, shape in enumerate(shapes):
        if shape.link < 0:
            fixed_centre[:, k], fixed_axis[:, k] = shape.pose[:3, 3], shape.pose[:3, 2]
            fixed[k] = 1.0
        else:
            centre[:, shape.link, k] = shape.pose[:, 3]
            axis[:3, shape.link, k] = shape.pose[:3, 2]
    half = np.array([s.size[1] if s.kind == "capsule" else 0.0 for s in shapes])
    radii = np.array([s.size[0] for s in shapes])
    flat = (x.reshape(4 * nl, count) for x in (centre, axis))
    arrays = (*flat, fixed_centre, fixed_axis, fixed, half, radii)
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)
