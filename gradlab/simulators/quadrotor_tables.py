"""The quadrotor's constant tensors, laid out so that a step launches few kernels."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.tensors import constants_of
from gradlab.simulators import rotations
from gradlab.simulators.drones import GRAVITY, Drone

BODY = 13  # entries of [p, q, v, ω]


class Tables(NamedTuple):
    """Constant tensors of one drone, dtype and device; m products of state entries are used."""

    factors: Tensor  # [13, 2m+3] picks the two factors of each product, and the velocity
    quadratic: Tensor  # [m, 9+4+3] products -> R(q), q̇ [1/s], −J⁻¹(ω × Jω) [rad/s²]
    thrust_effect: Tensor  # [4, 3+3] rotor thrusts -> e_z ΣT/m, J⁻¹τ, per N [1/kg, rad/(kg·m²)]
    linear_drag: Tensor  # [3] k₁/m [1/s]
    quadratic_drag: Tensor  # [3] k₂/m [1/m]
    gravity: Tensor  # [3] [m/s²]
    thrust_offset: Tensor  # [] of one rotor at action 0 [N]
    command_offset: Tensor  # [4] of (ΣT, ω_cmd) at action 0 [N, rad/s]
    command_gain: Tensor  # [4] of (ΣT, ω_cmd) per action [N, rad/s]
    inertia: Tensor  # [3] [kg·m²]
    rate_stiffness: Tensor  # [3] torque per rate error, J·K [N·m·s]
    inverse_allocation: Tensor  # [4, 4] transposed B⁻¹ [1, 1/m]


def tables_of(drone: Drone, like: Tensor) -> Tables:
    """The tables of a drone in the dtype and on the device of `like`; never written to."""
    return Tables(*_build(drone, like=like))


def _double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@constants_of
def _build(drone: Drone) -> Tables:
    """The tables in float64."""
    inertia = _double(*drone.inertia)
    factors, quadratic = _quadratic_form(inertia)
    allocation = torch.tensor(drone.allocation, dtype=torch.float64)
    force = torch.zeros(4, 3, dtype=torch.float64)
    force[:, 2] = 1 / drone.mass
    weight = drone.mass * GRAVITY
    gain = _double(*drone.rate_gain) / (1 + _double(*drone.rate_damping) / inertia)
    return Tables(
        factors=factors,
        quadratic=quadratic,
        thrust_effect=torch.cat((force, (allocation[1:] / inertia[:, None]).T), dim=1),
        linear_drag=_double(*drone.linear_drag) / drone.mass,
        quadratic_drag=_double(*drone.quadratic_drag) / drone.mass,
        gravity=_double(0.0, 0.0, -GRAVITY),
        thrust_offset=_double(drone.hover_thrust * drone.thrust_offset).squeeze(0),
        command_offset=_double(weight * drone.thrust_offset, 0.0, 0.0, 0.0),
        command_gain=_double(weight * drone.thrust_gain, *(drone.max_rate,) * 3),
        inertia=inertia,
        rate_stiffness=inertia * gain,
        inverse_allocation=torch.linalg.inv(allocation).T,
    )


def _quadratic_form(
    inertia: Float[Tensor, " 3"],
) -> tuple[Float[Tensor, "13 factors"], Float[Tensor, "products 16"]]:
    """The attitude kinematics as products of state entries times a matrix.

    f is a quadratic form of u = (q, ω); the coefficient of u_i·u_j is
    f(e_i + e_j) − f(e_i) − f(e_j), that of u_i² is f(e_i). Products that nothing uses are left out.
    """

    def f(u: Tensor) -> Tensor:
        quaternion, rates = u.split((4, 3), dim=-1)
        gyroscopic = torch.linalg.cross(rates, inertia * rates) / inertia
        rotation = rotations.matrix(quaternion).flatten(-2)
        return torch.cat((rotation, rotations.derivative(quaternion, rates), -gyroscopic), dim=-1)

    basis = torch.eye(7, dtype=torch.float64)
    place = (3, 4, 5, 6, 10, 11, 12)  # of u in the state
    left, right, rows = [], [], []
    for i, j in combinations_with_replacement(range(7), 2):
        row = f(basis[i]) if i == j else f(basis[i] + basis[j]) - f(basis[i]) - f(basis[j])
        if row.any():
            left.append(place[i])
            right.append(place[j])
            rows.append(row)
    picks = torch.eye(BODY, dtype=torch.float64)[:, [*left, *right, 7, 8, 9]]
    return picks, torch.stack(rows)
