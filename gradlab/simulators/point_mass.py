"""Linear dynamics with additive noise: point masses whose value functions are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape
from gradlab.foundation.tensors import Matrix, Vector, constant


@dataclass(frozen=True)
class PointMass:
    """s' = A s + B a + process_std·w, the state and the action in SI units of the task.

    Smooth everywhere. With `process_std=()` there is no process noise and `noise_dim` is 0.
    """

    transition: Matrix  # A, one row per state component
    control: Matrix  # B
    process_std: Vector = ()  # per state component, each step [units of the state]

    def __post_init__(self) -> None:
        n = len(self.transition)
        if any(len(row) != n for row in self.transition) or len(self.control) != n:
            raise BadShape(
                f"transition must be square with as many rows as control ({len(self.control)}), "
                f"got {n} rows; give A as n x n and B as n x nu"
            )
        if len(self.process_std) not in (0, n):
            raise BadShape(
                f"process_std needs one value per state component ({n}), got "
                f"{len(self.process_std)}; use () for no process noise"
            )

    @property
    def state_dim(self) -> int:
        return len(self.transition)

    @property
    def action_dim(self) -> int:
        return len(self.control[0])

    @property
    def noise_dim(self) -> int:
        return len(self.process_std)

    def start(self, coordinates: Float[Tensor, "*batch ns"]) -> Float[Tensor, "*batch ns"]:
        """The state is the task's coordinates."""
        return coordinates

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch nw"],
    ) -> Float[Tensor, "*batch ns"]:
        """One step; `noise` is standard normal, [..., 0] without process noise."""
        after = (
            state @ constant(self.transition, state).T + action @ constant(self.control, state).T
        )
        if self.process_std:
            after = after + noise * constant(self.process_std, state)
        return after


def planar_point_mass(
    dt: float = 0.4,
    drag: float = 0.5,
    swirl: float = 0.8,
    process_std: Vector = (0.0, 0.0, 0.03, 0.05),
) -> PointMass:
    """A unit mass in the plane, state [x, y, vx, vy], pushed by an oblique pair of thrusters.

    `swirl` turns the velocity as a magnetic field would, and the thrusters are neither orthogonal
    nor equal: on a symmetric problem a wrong sign or a transposed matrix can go unseen.

    dt [s], drag [1/s], swirl [rad/s], process_std [m, m, m/s, m/s].
    """
    keep = 1 - dt * drag
    return PointMass(
        transition=(
            (1.0, 0.0, dt, 0.0),
            (0.0, 1.0, 0.0, dt),
            (0.0, 0.0, keep, -dt * swirl),
            (0.0, 0.0, dt * swirl, keep),
        ),
        control=((0.0, 0.0), (0.0, 0.0), (1.0 * dt, 0.4 * dt), (-0.3 * dt, 0.7 * dt)),
        process_std=process_std,
    )
