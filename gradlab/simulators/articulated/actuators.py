"""Motors and servos: from controls and the state to generalised forces, as MuJoCo computes them.

MuJoCo's order, for each actuator with length l = gear · q and speed l̇ = gear · q̇ of its joint:

    u ← control within `ctrlrange`
    f ← (g₀ + g₁ l + g₂ l̇) u + b₀ + b₁ l + b₂ l̇, within `forcerange`
    generalised force ← Σ gear · f of a joint, within its `actuatorfrcrange`.

A motor has g₀ = 1 alone, a position servo g₀ = kp, b₁ = −kp, b₂ = −kv, a velocity servo g₀ = kv,
b₂ = −kv, a damper g₂ = −kv. Source: MuJoCo 4.0, chapter "Computation", "Actuation model".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.tensors import constants_of, plain
from gradlab.simulators.articulated.integration import positions_of
from gradlab.simulators.articulated.model import Model


class ActuatorTables(NamedTuple):
    """Constants of nu actuators."""

    stroke: Tensor  # [nq, nu]: length per position
    gear: Tensor  # [nu, nv]: generalised force per unit of force, and speed per velocity
    squared: Tensor  # [nu, nv]: its squares
    gain: Tensor  # [3, nu]: g₀, g₁, g₂
    bias: Tensor  # [3, nu]: b₀, b₁, b₂
    low: Tensor  # [nu]: control range
    high: Tensor
    least: Tensor  # [nu]: force range
    most: Tensor
    joint_low: Tensor  # [nv]: of all actuators of a joint together
    joint_high: Tensor


def actuator_force(
    model: Model,
    action: Float[Tensor, "*batch nu"],
    qpos: Float[Tensor, "*batch nq"],
    qvel: Float[Tensor, "*batch nv"],
) -> Float[Tensor, "*batch nv"]:
    """Generalised force of all actuators, within all their ranges [N m, N].

    Non-smooth places: the ends of the three ranges; beyond one the gradient is 0, as MuJoCo clamps.
    """
    tables = _tables(model, like=qpos)
    force = _unclamped(model, tables, action, qpos, qvel).clamp(tables.least, tables.most)
    return (force @ tables.gear).clamp(tables.joint_low, tables.joint_high)


def actuator_damping(
    model: Model,
    action: Float[Tensor, "*batch nu"],
    qpos: Float[Tensor, "*batch nq"],
    qvel: Float[Tensor, "*batch nv"],
) -> Float[Tensor, "*batch nv"]:
    """−∂force/∂q̇ as MuJoCo's implicitfast has it [N m s, N s/m].

    That of b₂ and g₂ u; 0 for an actuator at an end of its `forcerange`, and for all of a joint at
    an end of its `actuatorfrcrange`.
    """
    tables = _tables(model, like=qpos)
    force = _unclamped(model, tables, action, qpos, qvel)
    slope = tables.bias[2] + tables.gain[2] * action.clamp(tables.low, tables.high)
    free = (force > tables.least) & (force < tables.most)
    damping = -(torch.where(free, slope, 0.0) @ tables.squared)
    total = force.clamp(tables.least, tables.most) @ tables.gear
    return torch.where((total > tables.joint_low) & (total < tables.joint_high), damping, 0.0)


def _unclamped(
    model: Model, tables: ActuatorTables, action: Tensor, qpos: Tensor, qvel: Tensor
) -> Tensor:
    """Force of every actuator before its range [*, nu]."""
    control = action.clamp(tables.low, tables.high)
    if not depends_on_state(model):
        return tables.gain[0] * control
    length, speed = qpos @ tables.stroke, qvel @ tables.gear.mT
    gain = tables.gain[0] + tables.gain[1] * length + tables.gain[2] * speed
    return gain * control + tables.bias[0] + tables.bias[1] * length + tables.bias[2] * speed


@plain
def depends_on_state(model: Model) -> bool:
    """Whether any actuator is more than a motor: its force depends on position or velocity,
    or is not 0 without control.
    """
    return bool(model.gain[:, 1:].any() or model.bias.any())


@plain
def damps(model: Model) -> bool:
    """Whether the force of any actuator depends on velocity."""
    return bool(model.gain[:, 2].any() or model.bias[:, 2].any())


def _tables(model: Model, like: Tensor) -> ActuatorTables:
    return ActuatorTables(*_numbers(model, like=like))


@constants_of
def _numbers(model: Model) -> tuple[Tensor, ...]:
    ranges = (model.control_range, model.force_range, model.joint_force_range)
    arrays = (
        (model.gear @ positions_of(model)).T,
        model.gear,
        model.gear**2,
        model.gain.T,
        model.bias.T,
        *(side for r in ranges for side in (r[:, 0], r[:, 1])),
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)) for x in arrays)
