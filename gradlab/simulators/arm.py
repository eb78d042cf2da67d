"""Serial arms: where the hand is, as a function of the joints, and arms that follow at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import check_positive
from gradlab.foundation.errors import BadShape
from gradlab.foundation.tensors import Key, Vector, constant, constants_of


@dataclass(frozen=True)
class SerialArm(Key):
    """Revolute joints one after the other, by modified Denavit-Hartenberg parameters (Craig).

    Joint i turns by θ_i = q_i after a step `offsets[i]` along x and a turn `twists[i]` about x, and
    is followed by `lengths[i]` along z. The hand turns by `yaw` about the last z and ends `reach`
    along it. Raises `BadShape` unless all have one number per joint.
    """

    offsets: Vector  # a_{i−1} [m]
    twists: Vector  # α_{i−1} [rad]
    lengths: Vector  # d_i [m]
    yaw: float  # of the hand [rad]
    reach: float  # from the last joint to the tool's centre point, along z [m]
    lower: Vector  # limits of the joints [rad]
    upper: Vector
    home: Vector  # [rad]

    def __post_init__(self) -> None:
        count = len(self.offsets)
        for name in ("twists", "lengths", "lower", "upper", "home"):
            if len(getattr(self, name)) != count:
                raise BadShape(f"{name} should have {count} numbers, one per joint as offsets has")

    @property
    def joints(self) -> int:
        """How many."""
        return len(self.offsets)

    def pose(self, joints: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch 7"]:
        """Position [m] and unit quaternion (w, x, y, z) of the tool's centre point.

        Both are trigonometric polynomials of q: smooth everywhere, and the quaternion does not
        change its sign by itself. It has a period of 4π in each joint.
        """
        angles = torch.stack([joints, 0.5 * joints], dim=-2)[..., None, None]
        fixed, by_cos, by_sin, tool = _tables(self, like=joints)
        chain = fixed + angles.cos() * by_cos + angles.sin() * by_sin  # [*batch, 2, n, 4, 4]
        while chain.shape[-3] > 1:  # products of neighbours, all at once
            left, last = chain[..., 0::2, :, :], None
            if chain.shape[-3] % 2:
                left, last = left[..., :-1, :, :], chain[..., -1:, :, :]
            chain = left @ chain[..., 1::2, :, :]
            chain = chain if last is None else torch.cat([chain, last], dim=-3)
        end = chain[..., 0, :, :] @ tool
        return torch.cat([end[..., 0, :3, 3], end[..., 1, :, 0]], dim=-1)


@constants_of
def _tables(arm: SerialArm) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `pose` multiplies: [2, n, 4, 4] without, by cosine and by sine; and the tool [2, 4, 4].

    Of each joint the homogeneous matrix, linear in cos θ and sin θ, and the matrix of the
    quaternion product from the left, linear in cos θ/2 and sin θ/2.
    """
    fixed, by_cos, by_sin = (torch.zeros(2, arm.joints, 4, 4, dtype=torch.float64) for _ in "abc")
    rows = zip(arm.offsets, arm.twists, arm.lengths, strict=True)
    for i, (offset, twist, length) in enumerate(rows):
        before = _homogeneous("x", twist, offset)
        turned = before @ _homogeneous("z", math.pi / 2, 0.0)  # what multiplies the sine
        fixed[0, i, :, 2] = before[:, 2]
        fixed[0, i, :, 3] = before[:, 3] + length * before[:, 2]
        by_cos[0, i, :, :2] = before[:, :2]
        by_sin[0, i, :, :2] = turned[:, :2]
        by_cos[1, i] = _product("x", twist)
        by_sin[1, i] = _product("x", twist) @ _product("z", math.pi)
    hand = torch.stack([_homogeneous("z", arm.yaw, arm.reach), _product("z", arm.yaw)])
    return fixed, by_cos, by_sin, hand


def _homogeneous(axis: str, angle: float, shift: float) -> Float[Tensor, "4 4"]:
    """A turn about x or z and a shift along it."""
    c, s = math.cos(angle), math.sin(angle)
    rows = {
        "x": [[1, 0, 0, shift], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]],
        "z": [[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, shift], [0, 0, 0, 1]],
    }
    return torch.tensor(rows[axis], dtype=torch.float64)


def _product(axis: str, angle: float) -> Float[Tensor, "4 4"]:
    """q ↦ turn ⊗ q for a turn about x or z, as a matrix of (w, x, y, z)."""
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    rows = {
        "x": [[c, -s, 0, 0], [s, c, 0, 0], [0, 0, c, -s], [0, 0, s, c]],
        "z": [[c, 0, 0, -s], [0, c, -s, 0], [0, s, c, 0], [s, 0, 0, c]],
    }
    return torch.tensor(rows[axis], dtype=torch.float64)


QUARTER = math.pi / 2
FR3 = SerialArm(
    offsets=(0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088),
    twists=(0.0, -QUARTER, QUARTER, QUARTER, -QUARTER, QUARTER, QUARTER),
    lengths=(0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0),
    yaw=-math.pi / 4,
    reach=0.107 + 0.1034,  # to the flange, and from there to the tool
    lower=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    upper=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    home=(0.0, -0.7854, 0.0, -2.3562, 0.0, 1.5708, 0.7854),
)
"""Franka FR3 with its hand. Source: frankarobotics/franka_description, robots/fr3 (joint offsets
and limits) and end_effectors/common (hand and TCP); the home is that of arXiv 2606.21525. The URDF
which that paper loads ships with Newton and was not read."""


@dataclass(frozen=True)
class KinematicArm:
    """Joints that go where they are told: q ← clamp(q + step·a, limits); no inertia, no torque.

    State q [rad]. `detach_joints=True` takes the joints before the step as constants, as the
    released code of arXiv 2606.21525 does: a step's action then has no effect on later steps but
    through what the policy sees. Non-smooth at the limits of the joints.
    Raises `BadValue` for a step that is not positive.
    """

    arm: SerialArm = FR3
    stride: float = 0.2  # of a joint under an action of 1 [rad]
    detach_joints: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "stride", hint="try 0.2")

    @property
    def state_dim(self) -> int:
        return self.arm.joints

    @property
    def action_dim(self) -> int:
        return self.arm.joints

    @property
    def noise_dim(self) -> int:
        return 0

    def start(self, coordinates: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """The state is the task's coordinates."""
        return coordinates

    def step(
        self,
        state: Float[Tensor, "*batch n"],
        action: Float[Tensor, "*batch n"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch n"]:
        """The joints after one command."""
        before = state.detach() if self.detach_joints else state
        limits = constant(self.arm.lower, state), constant(self.arm.upper, state)
        return torch.clamp(before + self.stride * action, *limits)
