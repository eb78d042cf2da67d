"""Where shapes may touch: a fixed list of candidate contacts, with distances that may be positive.

No broad phase and no branches: every candidate is evaluated in every state, and the contact laws give
no force to those that are apart. A plane and a capsule have two candidates, one at each end; a plane
and a box eight, one at each corner.

Non-smooth places: a box's corner stops counting when it rises above the box's centre, as in MuJoCo; the
tangents at a capsule's end turn with its axis, and are undefined where it stands upright.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.constants import constants_of
from gradlab.simulators.articulated.kinematics import Frames
from gradlab.simulators.articulated.model import Array, Model, Pair

APART = 1e3  # distance [m] given to a candidate that cannot touch


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


@lru_cache(maxsize=64)
def candidates(model: Model) -> tuple[Candidate, ...]:
    """The fixed list: first all against planes, then the others."""
    return tuple(
        Candidate(
            pair,
            model.shapes[pair.first].link,
            model.shapes[pair.second].link,
            (model.shapes[pair.first].body, model.shapes[pair.second].body),
        )
        for pair in _plane_pairs(model)
        for _ in _corners(model, pair)
    )


def contacts(model: Model, now: Frames) -> Contacts:
    """Distance, position and frame of every candidate, in the order of `candidates`."""
    return _against_planes(model, now)


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
