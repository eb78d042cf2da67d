"""How positions move with velocities: free joints turn, all others add up."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.tensors import constants_of
from gradlab.simulators.articulated.kinematics import free_joints
from gradlab.simulators.articulated.model import FREE, Model


def advance(
    model: Model, qpos: Float[Tensor, "*batch nq"], qvel: Float[Tensor, "*batch nv"], h: float
) -> Float[Tensor, "*batch nq"]:
    """q ⊕ h q̇: quaternions turn by the rotation vector h ω of the body."""
    (onto,) = _positions(model, like=qpos)
    moved = qpos + h * (qvel @ onto)
    for first, dof in free_joints(model):
        at = first + 3
        turned = _turn(qpos[..., at : at + 4], h * qvel[..., dof + 3 : dof + 6])
        moved = torch.cat((moved[..., :at], turned, moved[..., at + 4 :]), -1)
    return moved


def straightened(
    model: Model, moved: Float[Tensor, "*batch nv"], qvel: Float[Tensor, "*batch nv"]
) -> Float[Tensor, "*batch nv"]:
    """Rate of the rotation vector of free joints that have turned by `moved`;
    other velocities as they are.

    With q exp(θ) turning at ω, both in the body, θ̇ = ω + ½ θ × ω + c(‖θ‖) θ × (θ × ω),
    c = (1 − (‖θ‖/2) cot(‖θ‖/2))/‖θ‖² (H. Munthe-Kaas, Runge-Kutta methods on Lie groups, BIT 38,
    1998).
    """
    for _, dof in free_joints(model):
        theta, omega = moved[..., dof + 3 : dof + 6], qvel[..., dof + 3 : dof + 6]
        squared = theta.square().sum(-1, keepdim=True)
        small = squared < 1e-2
        angle = torch.where(small, 1.0, squared).sqrt()
        series = 1 / 12 + squared * (1 / 720 + squared * (1 / 30240 + squared / 1209600))
        second = torch.where(
            small, series, (1 - 0.5 * angle / (0.5 * angle).tan()) / angle.square()
        )
        once = torch.linalg.cross(theta, omega)
        rate = omega + 0.5 * once + second * torch.linalg.cross(theta, once)
        qvel = torch.cat((qvel[..., : dof + 3], rate, qvel[..., dof + 6 :]), -1)
    return qvel


def _turn(
    quaternion: Float[Tensor, "*batch 4"], rotation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4"]:
    """q ⊗ exp(rotation/2), smooth at zero rotation."""
    squared = rotation.square().sum(-1, keepdim=True)
    small = squared < 1e-6
    angle = torch.where(small, 1.0, squared).sqrt()
    # sin(a/2)/a and cos(a/2): by their series where the division would lose the gradient
    sine = torch.where(
        small, 0.5 - squared / 48 + squared.square() / 3840, (0.5 * angle).sin() / angle
    )
    cosine = torch.where(small, 1 - squared / 8 + squared.square() / 384, (0.5 * angle).cos())
    w, v = quaternion[..., :1], quaternion[..., 1:]
    turn = sine * rotation
    scalar = w * cosine - (v * turn).sum(-1, keepdim=True)
    vector = w * turn + cosine * v + torch.linalg.cross(v, turn)
    return torch.cat((scalar, vector), -1)


@constants_of
def _positions(model: Model) -> tuple[Tensor, ...]:
    return (torch.from_numpy(positions_of(model)),)


def positions_of(model: Model) -> np.ndarray:
    """[nv, nq]: which position each velocity moves; 0 for rotations of free joints."""
    out = np.zeros((model.nv, model.nq))
    for link in range(model.links):
        first, at = int(model.dof_index[link]), int(model.qpos_index[link])
        for k in range(3 if model.kind[link] == FREE else 1):
            out[first + k, at + k] = 1.0
    return out
