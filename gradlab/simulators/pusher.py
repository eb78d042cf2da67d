"""A round pusher moves a T over a table without inertia: quasi-static, with smooth contact.

Numbers of the benchmark `pusht` of Diffusion Policy (Chi et al. 2023), whose unit of length, the
pixel of a window of 512, is kept. Contact is not the source's (an impulse solver): see `PusherT`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gradlab.foundation.arguments import check_positive, number, whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Matrix, constant
from gradlab.simulators.base import Deterministic

WINDOW = 512.0  # [px]
CENTRES = (
    (0.0, 15.0),
    (0.0, 75.0),
)  # of bar and stem, from the middle of the bar's outer edge [px]
HALVES = ((60.0, 15.0), (15.0, 45.0))  # half sizes of both [px]
_AREAS = tuple(4 * x * y for x, y in HALVES)
# of a uniform T [px, px²]: from the same point, and about it per unit of mass
MIDDLE = sum(a * y for a, (_, y) in zip(_AREAS, CENTRES, strict=True)) / sum(_AREAS)
GYRATION = sum(
    a * ((x * x + y * y) / 3 + (c - MIDDLE) ** 2)
    for a, (x, y), (_, c) in zip(_AREAS, HALVES, CENTRES, strict=True)
) / sum(_AREAS)  # fmt: skip


@dataclass(frozen=True)
class TShape:
    """The T as a task sees it."""

    cell: float = 5.0  # side of the squares that it is cut into [px]

    @property
    def cells(self) -> Matrix:
        """Middles of the squares, in the T's frame [px]."""
        return _cells(self.cell)

    def gap(self, point: Float[Tensor, "*b 2"], width: float) -> Float[Tensor, "*b"]:
        """Signed distance of points in the T's frame, negative inside [px]."""
        return distance(point, width)[0]


@functools.cache
def _cells(side: float) -> Matrix:
    found = []
    for (x, y), (a, b) in zip(CENTRES, HALVES, strict=True):
        columns, rows = round(2 * a / side), round(2 * b / side)
        found += [
            (x - a + (2 * i + 1) * a / columns, y - b + (2 * j + 1) * b / rows)
            for i in range(columns)
            for j in range(rows)
        ]
    return tuple(found)


@dataclass(frozen=True)
class PusherT(Deterministic):
    """State [pusher (2) px, its velocity (2) px/s, T: x, y px and θ rad]; x, y is the middle of the
    bar's outer edge, as in the source.

    An action in ±1 is a target in the window, (1 + a)·256 px, held for ten steps of 0.01 s. The
    pusher is kinematic: v ← v + dt (k_p (target − p) − k_v v), p ← p + dt v. The T keeps no
    velocity (the source's damping removes it in every step): in a step it moves by what contact
    asks for and no more. With gap g between both, a penetration s = w·softplus(−g/w) is taken back
    to the share `stiffness` along the normal, and the friction takes the T along with the pusher
    up to the coefficient times that, through tanh. w is `width`: at 0.5 px the T feels the pusher
    some px before it is touched, and contact is smooth in the states; it hardens as w → 0. Bar and
    stem are joined by a smooth minimum of the same width.

    Not of the source: its walls, its impulse solver, and its moment of inertia (which takes one
    polygon twice); here it is that of a uniform T. The mass has no effect.
    Non-smooth: the bound of actions, and the T's inside, where the pusher's middle does not come
    unless it is faster than 15 px in a step. Raises `BadValue` for numbers out of range.
    """

    width: float = 0.5  # [px]
    stiffness: float = 1.0  # share of a penetration that a step takes back, at most 1 [1]
    friction: float = 1.0  # [1]
    radius: float = 15.0  # of the pusher [px]
    pull: float = 100.0  # k_p [1/s²]
    damping: float = 20.0  # k_v [1/s]
    substeps: int = 10
    dt: float = 0.1  # control period [s]

    bound = 1.0  # of actions [1]

    def __post_init__(self) -> None:
        whole("substeps", self.substeps)
        check_positive(self, "width", "stiffness", "radius", "dt")
        if self.stiffness > 1 or not number("friction", self.friction) >= 0:
            raise BadValue(
                "stiffness should be at most 1 and friction at least 0, got "
                f"{self.stiffness} and {self.friction}; try 1.0 and 1.0"
            )

    @property
    def state_dim(self) -> int:
        return 7

    @property
    def action_dim(self) -> int:
        return 2

    def step(
        self,
        state: Float[Tensor, "*batch 7"],
        action: Float[Tensor, "*batch 2"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch 7"]:
        """The state a control period later."""
        target = (1 + action.clamp(-self.bound, self.bound)) * (WINDOW / 2)
        place, velocity, pose = state.split((2, 2, 3), dim=-1)
        dt = self.dt / self.substeps
        for _ in range(self.substeps):
            velocity = velocity + dt * (self.pull * (target - place) - self.damping * velocity)
            place = place + dt * velocity
            pose = self._pushed(place, dt * velocity, pose)
        return torch.cat([place, velocity, pose], dim=-1)

    def _pushed(
        self,
        place: Float[Tensor, "*b 2"],
        moved: Float[Tensor, "*b 2"],
        pose: Float[Tensor, "*b 3"],
    ) -> Float[Tensor, "*b 3"]:
        """The T's pose after the pusher has `moved` to its `place`."""
        own = into(pose, place)
        gap, normal = distance(own, self.width)
        gap = gap - self.radius
        deep = self.stiffness * self.width * F.softplus(-gap / self.width)
        touched = own - normal * (gap + self.radius)[..., None]
        arm = torch.stack([touched[..., 0], touched[..., 1] - MIDDLE], dim=-1)
        along = torch.stack([-normal[..., 1], normal[..., 0]], dim=-1)
        slid = (_turned(moved, -pose[..., 2]) * along).sum(-1)
        # displacement per unit of impulse at the touched point, of a T of unit mass
        gives = [1 + _cross(arm, way).square() / GYRATION for way in (normal, along)]
        push = deep / gives[0]
        most = self.friction * push
        floor = torch.finfo(push.dtype).tiny ** 0.25
        drag = most * torch.tanh(slid / gives[1] / (most + floor))
        impulse = drag[..., None] * along - push[..., None] * normal
        angle = pose[..., 2] + _cross(arm, impulse) / GYRATION
        middle = constant((0.0, MIDDLE), pose).expand(*pose.shape[:-1], 2)
        centre = pose[..., :2] + _turned(middle, pose[..., 2]) + _turned(impulse, pose[..., 2])
        return torch.cat([centre - _turned(middle, angle), angle[..., None]], dim=-1)


def distance(
    point: Float[Tensor, "*batch 2"], width: float
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 2"]]:
    """Signed distance [px] of a point in the T's own frame, and the unit normal away from the T.

    −w·log Σ exp(−d_i/w) of bar and stem, at most w·ln 2 below the least; negative inside.
    """
    offset = point[..., None, :] - constant(CENTRES, point)
    beyond = offset.abs() - constant(HALVES, point)
    outside = beyond.clamp(min=0)
    out = torch.linalg.vector_norm(outside, dim=-1)
    each = out + beyond.amax(-1).clamp(max=0)
    # outside the way to the nearest point, inside the way to the nearest side
    is_out = out > 0
    away = outside / torch.where(is_out, out, 1.0)[..., None]
    side = (beyond == beyond.amax(-1, keepdim=True)).to(point)
    normals = torch.where(is_out[..., None], away, side) * torch.sign(offset)
    share = torch.softmax(-each / width, dim=-1)
    normal = (share[..., None] * normals).sum(-2)
    size = torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    normal = normal / torch.where(size > 0, size, 1.0)
    return -width * torch.logsumexp(-each / width, dim=-1), normal


def into(pose: Float[Tensor, "*b 3"], point: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
    """A point of the table in the frame of a pose."""
    return _turned(point - pose[..., :2], -pose[..., 2])


def _turned(vector: Float[Tensor, "*b 2"], angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b 2"]:
    c, s = torch.cos(angle), torch.sin(angle)
    x, y = vector.unbind(-1)
    return torch.stack([c * x - s * y, s * x + c * y], dim=-1)


def _cross(one: Float[Tensor, "*b 2"], other: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
