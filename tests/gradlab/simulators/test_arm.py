"""The FR3's hand: against MuJoCo on the URDF's offsets, a plain loop, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue
from gradlab.simulators.arm import FR3, KinematicArm, SerialArm

# (x, y, z [m], roll [rad]) of each joint in the one before it, as the URDF has them
URDF = (
    (0, 0, 0.333, 0),
    (0, 0, 0, -math.pi / 2),
    (0, -0.316, 0, math.pi / 2),
    (0.0825, 0, 0, math.pi / 2),
    (-0.0825, 0.384, 0, -math.pi / 2),
    (0, 0, 0, math.pi / 2),
    (0.088, 0, 0, math.pi / 2),
)


def some(count: int) -> Tensor:
    """Joints within the limits."""
    share = torch.rand(count, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = torch.tensor(FR3.lower), torch.tensor(FR3.upper)
    return low.double() + share * (high - low).double()


def test_the_hand_is_where_mujoco_has_it() -> None:
    mujoco = pytest.importorskip("mujoco")
    body = ""
    for x, y, z, roll in URDF:
        body += f'<body pos="{x} {y} {z}" euler="{roll!r} 0 0"><joint axis="0 0 1"/>'
        body += '<geom size="0.01"/>'
    body += f'<body pos="0 0 0.107"><body euler="0 0 {-math.pi / 4!r}">'
    body += '<site name="tcp" pos="0 0 0.1034"/></body></body>' + len(URDF) * "</body>"
    text = f'<mujoco><compiler angle="radian"/><worldbody>{body}</worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    for joints in some(20):
        data.qpos[:] = joints.numpy()
        mujoco.mj_kinematics(model, data)
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, data.site("tcp").xmat)
        pose = FR3.pose(joints).numpy()
        np.testing.assert_allclose(pose[:3], data.site("tcp").xpos, rtol=0, atol=1e-10)
        assert abs(float(pose[3:] @ quaternion)) == pytest.approx(1, abs=1e-10)


def _plain(arm: SerialArm, joints: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and position, one matrix after the other."""
    turn, place = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    rows = zip(arm.offsets, arm.twists, arm.lengths, joints, strict=True)
    for a, alpha, d, angle in rows:
        c, s = math.cos(alpha), math.sin(alpha)
        about_x = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
        place = place + turn @ torch.tensor([a, 0, 0], dtype=torch.float64)
        turn = turn @ about_x
        place = place + d * turn[:, 2]
        c, s = torch.cos(angle), torch.sin(angle)
        zero, one = torch.zeros_like(c), torch.ones_like(c)
        rows_z = [torch.stack(row) for row in ((c, -s, zero), (s, c, zero), (zero, zero, one))]
        turn = turn @ torch.stack(rows_z)
    return turn, place + arm.reach * turn[:, 2]


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_a_product_by_pairs_is_the_product(count: int) -> None:
    """Of any number of joints, odd ones too."""
    cut = {name: getattr(FR3, name)[:count] for name in FR3.__dataclass_fields__ if name not in ("yaw", "reach")}  # fmt: skip
    arm = SerialArm(**cut, yaw=FR3.yaw, reach=FR3.reach)
    joints = some(1)[0, :count]
    torch.testing.assert_close(arm.pose(joints)[:3], _plain(arm, joints)[1], rtol=0, atol=1e-14)


def test_slopes_are_those_of_differences_and_of_the_plain_loop() -> None:
    joints = some(1)[0].requires_grad_()
    assert torch.autograd.gradcheck(FR3.pose, (joints,))
    ours = torch.autograd.functional.jacobian(lambda q: FR3.pose(q)[:3], joints)
    theirs = torch.autograd.functional.jacobian(lambda q: _plain(FR3, q)[1], joints)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_quaternions_are_of_unit_length_and_batches_are_rows() -> None:
    joints = some(6)
    pose = FR3.pose(joints.view(2, 3, 7)).view(6, 7)
    torch.testing.assert_close(pose[:, 3:].norm(dim=-1), torch.ones(6, dtype=torch.float64))
    for row, alone in zip(pose, joints, strict=True):
        torch.testing.assert_close(row, FR3.pose(alone), rtol=0, atol=1e-15)
    torch.testing.assert_close(torch.func.vmap(FR3.pose)(joints), pose, rtol=0, atol=1e-14)


def test_joints_follow_and_stop_at_their_limits() -> None:
    arm = KinematicArm()
    before = torch.tensor(FR3.home, dtype=torch.float64)
    action = torch.linspace(-1, 1, 7, dtype=torch.float64)
    after = arm.step(before, action, before[:0])
    torch.testing.assert_close(after, before + 0.2 * action, rtol=1e-14, atol=0)
    top = torch.tensor(FR3.upper, dtype=torch.float64)
    assert torch.equal(arm.step(top, torch.ones(7).double(), top[:0]), top)


def test_the_released_cut_leaves_the_action_alone() -> None:
    for cut in (False, True):
        arm = KinematicArm(detach_joints=cut)
        before = torch.tensor(FR3.home, dtype=torch.float64, requires_grad=True)
        action = torch.zeros(7, dtype=torch.float64, requires_grad=True)
        after = arm.step(before, action, before[:0])
        slopes = torch.autograd.grad(after.sum(), (before, action), materialize_grads=True)
        assert torch.equal(slopes[0], torch.full_like(before, 0.0 if cut else 1.0))
        assert torch.equal(slopes[1], torch.full_like(action, 0.2))


def test_mistakes_are_named() -> None:
    with pytest.raises(BadShape, match="twists"):
        SerialArm((0.0,), (), (0.0,), 0.0, 0.0, (0.0,), (1.0,), (0.0,))
    with pytest.raises(BadValue, match="stride"):
        KinematicArm(stride=0.0)
