"""A differentiable quadrotor: rigid body, four rotors, drag. It knows no reward.

With position p and velocity v in the world, unit quaternion q, body rates ω, rotor thrusts T:

    ṗ = v                 v̇ = R(q)[e_z ΣT − D(v_b)]/m − g e_z,    v_b = R(q)ᵀ v
    q̇ = ½ q ⊗ (0, ω)      ω̇ = J⁻¹(τ − ω × Jω),                    [ΣT; τ] = B T
    D(v_b) = k₁⊙v_b + k₂⊙|v_b|⊙v_b

Constants and conventions: VisFly (arXiv 2407.14783), see `drones.py`.

One step is the inner loop of every study, and its time is the number of kernels launched. So
everything quadratic in (q, ω), namely R(q), q̇ and ω × Jω, is one product of selected state entries
with one matrix (`quadrotor_tables.py` derives both from the plain formulas of `rotations.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, UnknownName
from gradlab.foundation.tensors import constant
from gradlab.simulators.drones import DRONES, Drone
from gradlab.simulators.quadrotor_tables import BODY, Tables, tables_of


@dataclass(frozen=True)
class Quadrotor:
    """Quadrotor with state [p (3, m), q (4, wxyz), v (3, m/s, world), ω (3, rad/s, body)].

    With `motor_lag` the state goes on with the four rotor speeds [rad/s] (17 numbers), which
    approach the commanded speeds exponentially (exactly, whatever the integrator) and start at
    hover speed; without it thrusts follow commands at once.

    Actions are in [−1, 1]; values outside are extrapolated, not clipped.
    - "thrust": one number per rotor, T_i = (m g/4)·(thrust_offset + thrust_gain·a_i);
    - "bodyrate": collective thrust a_0, scaled in the same way, and body rates
      ω_cmd = max_rate·a_1..3, tracked by ω̇_cmd = K(ω_cmd − ω), with the torques J ω̇_cmd + ω × Jω.
      K is `rate_gain/(1 + rate_damping/J)`: the derivative term of the source acts on the
      acceleration that the command itself brings about, which needs no memory of the last one.
    The command is computed once per control period, clamped to [0, max_thrust] and held.

    Integrators: "euler" is explicit Euler with every derivative at the old state and then
    q ← q/|q|, as in VisFly; rotor speeds are advanced first, as there. "rk4" is the classical
    Runge-Kutta method, forces re-evaluated at each stage, q normalised after each sub-step. With
    "euler", substeps=1, "thrust" and `vendor_quirks`, this is what ABPT (arXiv 2501.14513) trains
    on.

    `drag=False` leaves drag out. `vendor_quirks=True` reproduces a sign slip of VisFly@8b49f94: the
    quadratic drag is k₂⊙v_b⊙v_b, which pushes a drone that moves towards a negative body axis.

    Non-smooth places: rotor thrust saturates at 0 and max_thrust (a kink in the step; at 0 from
    a_i = −½ downwards for "visfly-0.73kg", never by thrust commands for "visfly-0.46kg"); quadratic
    drag has a jump in its second derivative where a component of v_b changes sign. There is no
    contact: nothing stops the drone at the ground, and no state is clamped.

    Raises `UnknownName` for a drone, action type or integrator that does not exist, `BadValue` for
    substeps < 1 or dt <= 0.
    """

    drone: str | Drone = "visfly-0.73kg"  # a name in DRONES, or constants of one's own
    actions: Literal["thrust", "bodyrate"] = "thrust"
    integrator: Literal["euler", "rk4"] = "euler"
    substeps: int = 1  # integrator steps per control period [1]
    dt: float = 0.02  # control period [s]
    motor_lag: bool = False
    drag: bool = True
    vendor_quirks: bool = False

    def __post_init__(self) -> None:
        choices = {"actions": ("thrust", "bodyrate"), "integrator": ("euler", "rk4")}
        for kind, known in choices.items():
            if getattr(self, kind) not in known:
                raise UnknownName(kind, getattr(self, kind), known)
        if isinstance(self.drone, str) and self.drone not in DRONES:
            raise UnknownName("drone", self.drone, DRONES)
        if self.substeps < 1 or not (math.isfinite(self.dt) and self.dt > 0):
            raise BadValue(
                f"Quadrotor: expected substeps >= 1 and dt > 0 s, got substeps={self.substeps}, "
                f"dt={self.dt}; try substeps=1, dt=0.02"
            )

    @property
    def constants(self) -> Drone:
        """The drone's physical constants."""
        return DRONES[self.drone] if isinstance(self.drone, str) else self.drone

    @property
    def state_dim(self) -> int:
        """13, or 17 with rotor speeds."""
        return BODY + 4 if self.motor_lag else BODY

    @property
    def action_dim(self) -> int:
        """4."""
        return 4

    @property
    def noise_dim(self) -> int:
        """0: the dynamics are deterministic."""
        return 0

    @property
    def hover_action(self) -> tuple[float, float, float, float]:
        """The action that carries the weight of a level drone at rest [1]."""
        collective = (1 - self.constants.thrust_offset) / self.constants.thrust_gain
        if self.actions == "bodyrate":
            return (collective, 0.0, 0.0, 0.0)
        return (collective, collective, collective, collective)

    def start(self, coordinates: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch ns"]:
        """[p, q, v, ω], followed by the hover speeds of the rotors if they lag.

        Raises `BadShape` for anything but 13 numbers. |q| = 1 is up to the caller.
        """
        if coordinates.shape[-1] != BODY:
            raise BadShape(
                f"Quadrotor.start: expected 13 coordinates [p, q wxyz, v, ω], got "
                f"{coordinates.shape[-1]}; try a task that flies a quadrotor"
            )
        if not self.motor_lag:
            return coordinates
        speed = constant((self.constants.hover_speed,) * 4, coordinates)
        return torch.cat((coordinates, speed.expand(*coordinates.shape[:-1], 4)), dim=-1)

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch 4"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch ns"]:
        """The state `dt` seconds later, the commanded thrusts held."""
        tables = tables_of(self.constants, like=state)
        thrusts = self._command(state, action, tables)
        if self.motor_lag:
            return self._advance_with_rotors(state, thrusts, tables)
        for _ in range(self.substeps):
            if self.integrator == "euler":
                state = self._euler(state, thrusts, tables)
            else:
                state = self._runge_kutta(state, (thrusts, thrusts, thrusts), tables)
        return state

    def _command(
        self, state: Float[Tensor, "*batch ns"], action: Float[Tensor, "*batch 4"], tables: Tables
    ) -> Float[Tensor, "*batch 4"]:
        """Commanded rotor thrusts [N], within what the rotors can do."""
        drone = self.constants
        if self.actions == "thrust":
            gain = drone.hover_thrust * drone.thrust_gain
            thrusts = torch.add(tables.thrust_offset, action, alpha=gain)
        else:
            rates = state[..., 10:13]
            scaled = torch.addcmul(tables.command_offset, action, tables.command_gain)
            lift, target = scaled.split((1, 3), dim=-1)
            gyroscopic = torch.linalg.cross(rates, rates * tables.inertia)
            torque = torch.addcmul(gyroscopic, target - rates, tables.rate_stiffness)
            thrusts = torch.cat((lift, torque), dim=-1) @ tables.inverse_allocation
        return thrusts.clamp(0.0, drone.max_thrust)

    def _advance_with_rotors(
        self, state: Float[Tensor, "*batch 17"], thrusts: Float[Tensor, "*batch 4"], tables: Tables
    ) -> Float[Tensor, "*batch 17"]:
        """All sub-steps of a control period, rotor speeds approaching those of the command."""
        drone, h = self.constants, self.dt / self.substeps
        k0, k1, k2 = drone.thrust_map
        whole = math.exp(-h / drone.motor_time_constant)
        # the argument of the root is at least k1² − 4·k0·k2 > 0 for thrusts >= 0
        target = ((k1**2 - 4 * k0 * k2 + 4 * k0 * thrusts).sqrt() - k1) / (2 * k0)
        body, speed = state.split((BODY, 4), dim=-1)

        def thrust(n: Tensor) -> Tensor:
            return (k0 * n + k1) * n + k2

        for _ in range(self.substeps):
            end = torch.lerp(target, speed, whole)
            if self.integrator == "euler":
                body = self._euler(body, thrust(end), tables)
            else:
                halfway = torch.lerp(target, speed, math.sqrt(whole))
                held = (thrust(speed), thrust(halfway), thrust(end))
                body = self._runge_kutta(body, held, tables)
            speed = end
        return torch.cat((body, speed), dim=-1)

    def _euler(
        self, body: Float[Tensor, "*batch 13"], thrusts: Float[Tensor, "*batch 4"], tables: Tables
    ) -> Float[Tensor, "*batch 13"]:
        """One sub-step of explicit Euler."""
        h = self.dt / self.substeps
        return _unit(torch.add(body, self._derivative(body, thrusts, tables), alpha=h))

    def _runge_kutta(
        self,
        body: Float[Tensor, "*batch 13"],
        thrusts: tuple[Tensor, Tensor, Tensor],
        tables: Tables,
    ) -> Float[Tensor, "*batch 13"]:
        """One sub-step of order 4; thrusts [N] at its start, middle and end."""
        h = self.dt / self.substeps
        first, middle, last = thrusts
        a = self._derivative(body, first, tables)
        b = self._derivative(torch.add(body, a, alpha=h / 2), middle, tables)
        c = self._derivative(torch.add(body, b, alpha=h / 2), middle, tables)
        d = self._derivative(torch.add(body, c, alpha=h), last, tables)
        return _unit(torch.add(body, torch.add(a + d, b + c, alpha=2), alpha=h / 6))

    def _derivative(
        self, body: Float[Tensor, "*batch 13"], thrusts: Float[Tensor, "*batch 4"], tables: Tables
    ) -> Float[Tensor, "*batch 13"]:
        """d/dt [p, q, v, ω]."""
        pairs = tables.quadratic.shape[0]
        left, right, velocity = (body @ tables.factors).split((pairs, pairs, 3), dim=-1)
        flat, spin, gyroscopic = ((left * right) @ tables.quadratic).split((9, 4, 3), dim=-1)
        rotation = flat.unflatten(-1, (3, 3))
        force, angular = (thrusts @ tables.thrust_effect).split((3, 3), dim=-1)
        if self.drag:
            airspeed = (velocity.unsqueeze(-1) * rotation).sum(-2)
            size = airspeed if self.vendor_quirks else airspeed.abs()
            coefficient = torch.addcmul(tables.linear_drag, size, tables.quadratic_drag)
            force = torch.addcmul(force, coefficient, airspeed, value=-1)
        acceleration = (rotation * force.unsqueeze(-2)).sum(-1) + tables.gravity
        return torch.cat((velocity, spin, acceleration, angular + gyroscopic), dim=-1)


def _unit(body: Float[Tensor, "*batch 13"]) -> Float[Tensor, "*batch 13"]:
    """The state with q/|q|. Steps lengthen q (Euler) or keep it near 1: no division by zero."""
    position, quaternion, velocities = body.split((3, 4, 6), dim=-1)
    norm = torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
    return torch.cat((position, quaternion / norm, velocities), dim=-1)
