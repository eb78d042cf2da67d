"""What the quadrotor tasks share: state parts, observations, the flight reward, the flight box.

States are [p (3, m), q (4, wxyz), v (3, m/s, world), ω (3, rad/s, body), ...]; whatever follows the
first 13 numbers (rotor speeds) is seen by no task. Rewards, observations and limits are those of
VisFly@8b49f94 (envs/*Env.py, envs/base/droneGymEnv.py), on which ABPT (arXiv 2501.14513) trains.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.tensors import constant, constants_of

Point = tuple[float, float, float]

BODY = 13  # numbers of [p, q, v, ω]
SENSE = 10.0  # positions, velocities and rates are divided by this [m, m/s, rad/s]
LEVEL = (1.0, 0.0, 0.0, 0.0)  # attitude of a level drone, w x y z
LOW, HIGH = (-5.0, -10.0, 0.0), (18.0, 10.0, 7.0)  # corners of the flight box [m]
RADIUS = 0.1  # of the drone, as far as collisions go [m]
COLLISION_SCALE = 0.3  # of the collision margin: that of a gate, the sources having none [m]
PARTS = ("position", "attitude", "velocity", "rates")


class Flight(NamedTuple):
    """The parts of a state that a reward may look at."""

    position: Float[Tensor, "*batch 3"]  # [m]
    attitude: Float[Tensor, "*batch 4"]  # wxyz [1]
    velocity: Float[Tensor, "*batch 3"]  # world [m/s]
    rates: Float[Tensor, "*batch 3"]  # body [rad/s]


def flight(state: Float[Tensor, "*batch ns"], detached: tuple[str, ...] = ()) -> Flight:
    """The state's parts; those named in `detached` pass no gradient on."""
    parts = state.split((3, 4, 3, 3, state.shape[-1] - BODY), dim=-1)[:4]
    pairs = zip(PARTS, parts, strict=True)
    return Flight(*(part.detach() if name in detached else part for name, part in pairs))


def check_detached(names: tuple[str, ...]) -> None:
    """Raises `UnknownName` for anything but the names in `PARTS`."""
    for name in names:
        if name not in PARTS:
            raise UnknownName("part of the state", name, PARTS)


def check_spawn(half_range: Point) -> None:
    """Raises `BadValue` for a negative half-range."""
    if min(half_range) < 0:
        raise BadValue(
            f"spawn_half_range: expected three lengths >= 0 m, got {half_range}; try (1, 1, 0.5)"
        )


def length(vector: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Euclidean norm, with gradient 0 at 0, where every spawn attitude and velocity is."""
    return torch.linalg.vector_norm(vector, dim=-1)


def uniform(n: int, dim: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
    """Numbers in [−1, 1), float64 on the CPU."""
    return 2 * torch.rand(n, dim, generator=generator, dtype=torch.float64) - 1


def at_rest(position: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 13"]:
    """Level, still coordinates at given positions [m]."""
    rest = constant((*LEVEL, *(0.0,) * 6), position)
    return torch.cat((position, rest.expand(*position.shape[:-1], 10)), dim=-1)


def spawn(
    noise: Float[Tensor, "*batch 3"], mean: Point, half_range: Point
) -> Float[Tensor, "*batch 13"]:
    """Level, still coordinates at mean + half_range·noise [m]."""
    return at_rest(constant(mean, noise) + constant(half_range, noise) * noise)


def observation(
    state: Float[Tensor, "*batch ns"], points: Float[Tensor, "*points n"]
) -> Float[Tensor, "*batch no"]:
    """[(point − p)/10 of every point, q, v/10, ω/10], the points given flat (n = 3·points) [m]."""
    count = points.shape[-1] // 3
    offset = torch.nn.functional.pad(points / SENSE, (0, BODY - 3))
    (spread,) = _spread(count, state.shape[-1], like=state)
    return state @ spread + offset


@constants_of
def _spread(count: int, state_dim: int) -> tuple[Float[Tensor, "ns no"]]:
    """From a state to the part of the observation that is linear in it."""
    spread = torch.zeros(state_dim, 3 * count + BODY - 3, dtype=torch.float64)
    axes = torch.arange(3)
    for point in range(count):
        spread[axes, 3 * point + axes] = -1 / SENSE
    kept = torch.arange(3, BODY)
    spread[kept, 3 * count + kept - 3] = 1 / SENSE
    spread[kept[:4], 3 * count + kept[:4] - 3] = 1.0  # the quaternion
    return (spread,)


def flight_terms(
    now: Flight, target: Float[Tensor, "*target 3"]
) -> dict[str, Float[Tensor, "*batch"]]:
    """Stay close to the target, level and slow; at most 0.1 per step.

    0.1 − (0.1/9)‖p − target‖ − 1e-5 ‖q − (1,0,0,0)‖ − 0.002 ‖v‖ − 0.002 ‖ω‖, in m, m/s and rad/s.
    """
    distance = length(now.position - target)
    return {
        "flying": torch.full_like(distance, 0.1),
        "position": -(0.1 / 9) * distance,
        "attitude": -1e-5 * length(now.attitude - constant(LEVEL, now.attitude)),
        "velocity": -0.002 * length(now.velocity),
        "rates": -0.002 * length(now.rates),
    }


def collision_margin(position: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    """Positive within 0.1 m of a face of the flight box or outside it; per 0.3 m."""
    inside = torch.minimum(position - constant(LOW, position), constant(HIGH, position) - position)
    return (RADIUS - inside.amin(-1)) / COLLISION_SCALE


def conjunction(*margins: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The margin of "all of these": their minimum."""
    return torch.stack(margins, dim=-1).amin(-1)
