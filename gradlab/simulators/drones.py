"""Physical constants of the quadrotors, with their sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import Key

GRAVITY = 9.81  # acceleration towards −z [m/s²]


@dataclass(frozen=True)
class Drone(Key):
    """A quadrotor with rotors 1..4 at body (x, y) = (+,+), (+,−), (−,−), (−,+) times arm_length/√2.

    Neighbours spin in opposite directions. The scaling of actions belongs to the drone because its
    source defines it: a total thrust of m·g·(`thrust_offset` + `thrust_gain`·a), shared equally
    when a is a single number. Raises `BadValue` for a mass, length, inertia or thrust map that no
    drone can have.
    """

    mass: float  # [kg]
    arm_length: float  # centre to rotor [m]
    inertia: tuple[float, float, float]  # about the body axes, diagonal [kg·m²]
    torque_ratio: float  # yaw torque per thrust of a rotor [m]
    # (k0, k1, k2) of a rotor's thrust k0·n² + k1·n + k2 at speed n [N/(rad/s)², N/(rad/s), N]
    thrust_map: tuple[float, float, float]
    motor_speed_limit: float  # of a rotor [rad/s]
    motor_time_constant: float  # of a rotor's speed [s]
    linear_drag: tuple[float, float, float]  # along the body axes [N·s/m]
    quadratic_drag: tuple[float, float, float]  # along the body axes [N·s²/m²]
    rate_gain: tuple[float, float, float]  # angular acceleration per error of the body rate [1/s]
    rate_damping: tuple[float, float, float]  # torque per angular acceleration [N·m·s²/rad]
    max_rate: float  # body rate commanded by an action of 1 [rad/s]
    thrust_gain: float  # total thrust per action, as a multiple of the weight [1]
    thrust_offset: float  # total thrust at action 0, as a multiple of the weight [1]

    def __post_init__(self) -> None:
        positive = (
            self.mass,
            self.arm_length,
            self.torque_ratio,
            self.motor_time_constant,
            *self.inertia,
        )
        if not all(math.isfinite(x) and x > 0 for x in positive):
            raise BadValue(
                "Drone: expected positive mass, arm_length, torque_ratio, motor_time_constant and "
                f"inertia, got {positive}; try dataclasses.replace on a preset of DRONES"
            )
        if self.thrust_map[0] <= 0 or self.max_thrust < self.hover_thrust or self.thrust_gain <= 0:
            raise BadValue(
                "Drone: expected a positive thrust_gain and rotors that can carry the weight, got "
                f"thrust_gain={self.thrust_gain} and {self.max_thrust:.4g} N per rotor at full "
                f"speed, {self.hover_thrust:.4g} N needed; try the thrust_map of a preset"
            )

    @property
    def max_thrust(self) -> float:
        """Thrust of one rotor at its top speed [N]."""
        k0, k1, k2 = self.thrust_map
        return k0 * self.motor_speed_limit**2 + k1 * self.motor_speed_limit + k2

    @property
    def hover_thrust(self) -> float:
        """Thrust of one rotor that carries a quarter of the weight [N]."""
        return self.mass * GRAVITY / 4

    @property
    def hover_speed(self) -> float:
        """Rotor speed at the hover thrust [rad/s]."""
        k0, k1, k2 = self.thrust_map
        return (math.sqrt(k1**2 - 4 * k0 * (k2 - self.hover_thrust)) - k1) / (2 * k0)

    @property
    def allocation(self) -> tuple[tuple[float, float, float, float], ...]:
        """B of [ΣT, τx, τy, τz] = B·[T1, T2, T3, T4], in N and N·m per N."""
        d, k = self.arm_length / math.sqrt(2), self.torque_ratio
        return ((1.0, 1.0, 1.0, 1.0), (d, -d, -d, d), (-d, -d, d, d), (k, -k, k, -k))


def _air_drag(*coefficients: float) -> tuple[float, float, float]:
    """½·C·ρ·A per axis with C = 0.5, ρ = 1.225 kg/m³ and reference areas A [m²]."""
    x, y, z = (0.5 * 0.5 * 1.225 * area for area in coefficients)
    return (x, y, z)


def _plate_inertia(mass: float, arm_length: float) -> tuple[float, float, float]:
    x, y, z = (mass / 12 * arm_length**2 * c for c in (4.5, 4.5, 7.0))
    return (x, y, z)


DRONES = {
    # VisFly@8b49f94 (envs/base/dynamics.py, configs/example.json), which ABPT (arXiv 2501.14513)
    # pins. An action of 0 hovers; the rotors stop at −½.
    "visfly-0.73kg": Drone(
        mass=0.73,
        arm_length=0.17,
        inertia=_plate_inertia(0.73, 0.17),
        torque_ratio=0.016,
        thrust_map=(1.3298253500372892e-6, 0.0038360810526746033, -1.7689986848125325),
        motor_speed_limit=3000.0,
        motor_time_constant=1e-4,
        linear_drag=(0.0, 0.0, 0.0),
        quadratic_drag=_air_drag(0.03, 0.03, 0.05),
        rate_gain=(16.6, 16.6, 5.0),
        rate_damping=(0.0, 0.0, 0.0),
        max_rate=6.0,
        thrust_gain=2.0,
        thrust_offset=1.0,
    ),
    # VisFly@6ff29bf (envs/base/dynamics.py, configs/drone/drone_state.json). Its default action
    # scaling spans accelerations from 0 to 3 g, so that an action of −⅓ hovers.
    "visfly-0.46kg": Drone(
        mass=0.46,
        arm_length=0.075,
        inertia=(0.00101, 0.00153, 0.00203),
        torque_ratio=0.016,
        thrust_map=(4.0426e-7, 2.5583e-5, -0.026215),
        motor_speed_limit=3500.0,
        motor_time_constant=0.033,
        linear_drag=(0.005, 0.005, 0.00575),
        quadratic_drag=_air_drag(0.01, 0.01, 0.03),
        rate_gain=(60.0, 50.6, 55.0),
        rate_damping=(0.001, 0.001, 0.002),
        max_rate=2.0,
        thrust_gain=1.5,
        thrust_offset=1.5,
    ),
}
