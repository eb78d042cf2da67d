"""The articulated simulator: one control period of a model with a contact law and an integrator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import number
from gradlab.foundation.compilation import compile_step
from gradlab.foundation.errors import BadShape, BadValue, UnknownName
from gradlab.foundation.tensors import constants_of, plain
from gradlab.simulators.articulated.actuators import (
    actuator_damping,
    actuator_force,
    damps,
    depends_on_state,
)
from gradlab.simulators.articulated.contact import (
    Accelerates,
    Bounded,
    Compliant,
    ContactModel,
    Dynamics,
)
from gradlab.simulators.articulated.dynamics import bias_force, bodies, mass_matrix
from gradlab.simulators.articulated.integration import advance, positions_of, straightened
from gradlab.simulators.articulated.kinematics import (
    frames,
    tables_of,
    velocities,
)
from gradlab.simulators.articulated.linear import factor, solve
from gradlab.simulators.articulated.model import Model

INTEGRATORS = ("implicit_damping", "implicitfast", "explicit_damping", "rk4")
_OF_FILE: Any = None  # a default that the model's file gives


class Held(NamedTuple):
    """What a sub-step keeps for those after it, see `mass_every`."""

    mass: Float[Tensor, "*batch nv nv"]
    root: Float[Tensor, "*batch nv nv"] | None  # factor of what is solved with; None if nothing is


@dataclass(frozen=True)
class Articulated:
    """Rigid bodies in a tree, for any leading batch shape.
    State: [q (nq), q̇ (nv)], plus the last action if kept.

    Conventions are MuJoCo's: quaternions (w, x, y, z); a free joint's linear velocity in the world,
    its angular velocity in the body. Quaternions are normalised where poses are computed, not in
    the state; one of length zero gives NaN (MuJoCo takes it for no rotation).

    Integrators, of `substeps` equal steps each control period `dt`, the control held:

    - `explicit_damping`: semi-implicit Euler, q̇ ← q̇ + h q̈, then q ← q ⊕ h q̇: dFlex's, Brax's;
    - `implicit_damping`: the same with joint damping implicit, (M + h D) q̈ = forces: MuJoCo's
      Euler;
    - `implicitfast`: D has the damping of servos too (`actuator_damping`): MuJoCo's implicitfast.
      Stiff servos need it, or small time steps. Without servos it is `implicit_damping`;
    - `rk4`: the classical method, forces of contacts evaluated at all four stages: MuJoCo's RK4.
      For the rotation of free joints it is that of Munthe-Kaas, without which its order would be 2.

    Where they are not given, the integrator is the file's, and so is the time step:
    `Articulated(model)` is one step of the file, `substeps=5` five of them in one control period,
    `dt=0.05` as many as 0.05 s hold.

    `mass_every` evaluates the mass matrix and its factor only at every that many sub-steps, as
    dFlex does (16 for its ant); not for `rk4`. `keep_action=True` adds the last action to the
    state, for tasks that observe it. `compile=True` compiles one sub-step (for `rk4` one evaluation
    of the acceleration), which is what `Problem(compile=True)` asks for through `compiled()`: the
    whole control period would take `substeps` times as long to compile.

    Non-smooth places: the ends of the control and force ranges (gradient 0 beyond), and those of
    the law; with `implicitfast` a servo's damping also leaves D at the ends of its force range.

    A servo has its set point as the action, and the gradient reaches it through the law:

        model = from_string('''<mujoco>
          <option integrator="implicitfast"/>
          <worldbody>
            <body><joint name="j"/><geom size="0.1" mass="1" pos="0 0 -0.3"/></body>
          </worldbody>
          <actuator><position joint="j" kp="50" kv="5" forcerange="-20 20"/></actuator>
        </mujoco>''')
        step = Articulated(model, Convex(), dt=0.02).step
        target = torch.tensor([0.3], requires_grad=True)
        state = step(torch.zeros(2), target, target[:0])
        torch.autograd.grad(state[0], target)  # how far q has gone, per rad of the set point

    Raises `UnknownName` for an integrator, `BadValue` for a period or a contact
    law that cannot work.
    """

    model: Model
    contact: ContactModel = field(default_factory=Compliant)
    integrator: str = _OF_FILE  # implicit_damping, implicitfast, explicit_damping or rk4
    dt: float = _OF_FILE  # control period [s]
    substeps: int = _OF_FILE  # integrator steps per control period [1]
    mass_every: int = 1  # sub-steps between evaluations of the mass matrix [1]
    keep_action: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, value in zip(("integrator", "dt", "substeps"), _settings(self), strict=True):
            object.__setattr__(self, name, value)
        if str(self.integrator).lower() == "euler":
            raise BadValue(
                "Articulated: Euler is a word of two meanings; MuJoCo's is 'implicit_damping', dFlex's and "
                "Brax's is 'explicit_damping'"
            )
        if self.integrator not in INTEGRATORS:
            raise UnknownName("integrator", self.integrator, INTEGRATORS)
        if self.substeps < 1 or self.substeps % 1 or not (math.isfinite(self.dt) and self.dt > 0):
            raise BadValue(
                f"Articulated: expected whole substeps >= 1 and dt > 0 s, got substeps={self.substeps}, "
                f"dt={self.dt}; try substeps=5, dt=0.05"
            )
        if self.mass_every < 1 or (self.mass_every > 1 and self.integrator == "rk4"):
            raise BadValue(
                f"Articulated: mass_every must be 1 for rk4 and at least 1 otherwise, got "
                f"{self.mass_every}"
            )
        self.contact.check(self.model, self.dt / self.substeps)

    @property
    def state_dim(self) -> int:
        """nq + nv, plus nu with `keep_action`."""
        return self.model.nq + self.model.nv + (self.model.nu if self.keep_action else 0)

    @property
    def action_dim(self) -> int:
        """nu."""
        return self.model.nu

    @property
    def noise_dim(self) -> int:
        """0: the dynamics are deterministic."""
        return 0

    def start(self, coordinates: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch ns"]:
        """[q, q̇], with a zero last action if it is kept. Raises `BadShape` for another length."""
        wanted = self.model.nq + self.model.nv
        if coordinates.shape[-1] != wanted:
            raise BadShape(
                f"Articulated.start: expected {wanted} coordinates [q ({self.model.nq}), "
                f"v ({self.model.nv})], got {coordinates.shape[-1]}; try a task of this model"
            )
        if not self.keep_action:
            return coordinates
        return torch.nn.functional.pad(coordinates, (0, self.model.nu))

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch ns"]:
        """The state `dt` seconds later, the action held."""
        nq, nv = self.model.nq, self.model.nv
        qpos, qvel = state[..., :nq], state[..., nq : nq + nv]
        if self.integrator == "rk4":
            for _ in range(self.substeps):
                qpos, qvel = self._runge_kutta(qpos, qvel, action)
        else:
            euler = _compiled(self) if self.compile else self._euler
            held: Held | None = None
            for k in range(self.substeps):
                if k % self.mass_every == 0:
                    held = None
                qpos, qvel, held = euler(qpos, qvel, action, held)
        parts = (qpos, qvel, action) if self.keep_action else (qpos, qvel)
        return torch.cat(parts, -1)

    def compiled(self) -> Articulated:
        """A copy whose sub-step is compiled. Raises `Unavailable` where that cannot be done."""
        _compiled(replace(self, compile=False))
        return replace(self, compile=True)

    def actuation(
        self,
        action: Float[Tensor, "*batch nu"],
        qpos: Float[Tensor, "*batch nq"] | None = None,
        qvel: Float[Tensor, "*batch nv"] | None = None,
    ) -> Float[Tensor, "*batch nv"]:
        """Generalised force of the actuators, within all their ranges [N m, N].

        Motors need no state. Raises `BadValue` where there are servos and no state is given.
        """
        if qpos is None or qvel is None:
            if depends_on_state(self.model):
                raise BadValue(
                    f"Articulated.actuation: {self.model.name} has servos, whose forces depend on the "
                    "state; expected actuation(action, qpos, qvel), got no qpos or no qvel"
                )
            batch = action.shape[:-1]
            qpos, qvel = (action.new_zeros(*batch, n) for n in (self.model.nq, self.model.nv))
        return actuator_force(self.model, action, qpos, qvel)

    def acceleration(
        self,
        qpos: Float[Tensor, "*batch nq"],
        qvel: Float[Tensor, "*batch nv"],
        control: Float[Tensor, "*batch nv"],
    ) -> Float[Tensor, "*batch nv"]:
        """q̈ under the actuators' generalised force `control`, damping explicit [rad/s², m/s²]."""
        now = self._dynamics(qpos, qvel, control)
        if isinstance(self.contact, Accelerates):
            return self.contact.acceleration(self.model, now)
        force = now.smooth + self.contact.force(self.model, now)
        return solve(now.mass, factor(now.mass), force)

    def residual(
        self, state: Float[Tensor, "*batch ns"], action: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """How far the contact law is from its solution:
        a bound of the acceleration's relative error [1].

        The largest over the states in which the sub-steps of one control period begin; evaluated
        apart from `step`, which never waits for it.
        `(simulator.residual(state, action) > 1e-6).sum()` counts what did not converge. In float64,
        below 1e-8 with `Convex()` (docs/articulated.md). Raises `BadValue` for a law that has
        nothing to converge.
        """
        if not isinstance(self.contact, Bounded):
            raise BadValue(
                f"Articulated.residual: {type(self.contact).__name__} does not iterate to a solution; "
                "expected a law with a residual, try contact=Convex()"
            )
        once = replace(self, dt=self.dt / self.substeps, substeps=1, mass_every=1, compile=False)
        nq, nv = self.model.nq, self.model.nv
        worst = torch.zeros_like(state[..., 0])
        for _ in range(self.substeps):
            qpos, qvel = state[..., :nq], state[..., nq : nq + nv]
            now = once._dynamics(qpos, qvel, self.actuation(action, qpos, qvel))
            worst = torch.maximum(worst, self.contact.residual(self.model, now))
            state = once.step(state, action, action[..., :0])
        return worst

    def stiffness(
        self, state: Float[Tensor, "*batch ns"], action: Float[Tensor, "*batch nu"]
    ) -> Float[Tensor, "*batch"]:
        """How stiff contact is at a state:
        the norm of F/q̈ with |q̈| at least 1, coordinate by coordinate.

        F is the generalised force of contacts and joint limits. AHAC's measure, at the beginning of
        the control period; 0 without contact.
        """
        nq, nv = self.model.nq, self.model.nv
        qpos, qvel = state[..., :nq], state[..., nq : nq + nv]
        control = self.actuation(action, qpos, qvel)
        force = self.contact.force(self.model, self._dynamics(qpos, qvel, control))
        rate = self.acceleration(qpos, qvel, control).abs().clamp(min=1.0)
        return torch.linalg.vector_norm(force / rate, dim=-1)

    def mjcf_model(self) -> Any:
        """The compiled `mujoco.MjModel`, for renderers; not to be written to."""
        return self.model.compiled

    def shapes(
        self, state: Float[Tensor, "*batch ns"]
    ) -> tuple[Float[Tensor, "*batch shapes 2 3"], Float[Tensor, " shapes"]]:
        """Ends of the axes of all moving spheres and capsules in the world [m],
        and their radii [m].

        Both ends of a sphere are its centre. Other shapes,
        and those fixed to the world, are left out.
        """
        ends, radius = _drawn(self.model, like=state)
        now = frames(self.model, tables_of(self.model, state), state[..., : self.model.nq])
        place = (now.pose.flatten(-2) @ ends).mT + now.origin.unsqueeze(-2)
        return place.unflatten(-2, (-1, 2)), radius

    def _dynamics(
        self, qpos: Tensor, qvel: Tensor, control: Tensor, mass: Tensor | None = None
    ) -> Dynamics:
        tables = tables_of(self.model, qpos)
        here = frames(self.model, tables, qpos)
        inertia = bodies(tables, here.pose)
        moving = velocities(tables, here.motion, qvel)
        passive = -tables.damping * qvel
        if _sprung(self.model):
            rest, onto = _springs(self.model, like=qpos)
            passive = passive - (qpos - rest) @ onto
        smooth = control + passive - bias_force(tables, here, inertia, moving)
        if mass is None:
            mass = mass_matrix(tables, here, inertia)
        return Dynamics(here, moving, qpos, qvel, mass, smooth, self.dt / self.substeps)

    def _euler(
        self,
        qpos: Tensor,
        qvel: Tensor,
        action: Tensor,
        held: Held | None,
    ) -> tuple[Tensor, Tensor, Held]:
        """One sub-step; `held` is what an earlier one kept."""
        h = self.dt / self.substeps
        control = actuator_force(self.model, action, qpos, qvel)
        now = self._dynamics(qpos, qvel, control, None if held is None else held.mass)
        if self.integrator == "explicit_damping" and isinstance(self.contact, Accelerates):
            root, rate = None, self.contact.acceleration(self.model, now)
        else:
            matrix, changes = now.mass, self.integrator == "implicitfast" and damps(self.model)
            if self.integrator != "explicit_damping":
                drag = tables_of(self.model, qpos).damping
                if changes:
                    drag = drag + actuator_damping(self.model, action, qpos, qvel)
                matrix = matrix + torch.diag_embed(h * drag)
            kept = None if held is None or changes else held.root
            root = factor(matrix) if kept is None else kept
            rate = solve(matrix, root, now.smooth + self.contact.force(self.model, now))
        qvel = qvel + h * rate
        return advance(self.model, qpos, qvel, h), qvel, Held(now.mass, root)

    def _accelerate(self, qpos: Tensor, qvel: Tensor, action: Tensor) -> Tensor:
        return self.acceleration(qpos, qvel, actuator_force(self.model, action, qpos, qvel))

    def _runge_kutta(self, qpos: Tensor, qvel: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """One sub-step of order 4."""
        h = self.dt / self.substeps
        accelerate = _compiled(self) if self.compile else self._accelerate
        speeds, rates = [qvel], [accelerate(qpos, qvel, action)]
        for share in (0.5, 0.5, 1.0):
            moved = share * h * speeds[-1]
            there = advance(self.model, qpos, speeds[-1], share * h)
            faster = qvel + share * h * rates[-1]
            speeds.append(straightened(self.model, moved, faster))
            rates.append(accelerate(there, faster, action))
        weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
        speed = sum(w * s for w, s in zip(weights, speeds, strict=True))
        rate = sum(w * r for w, r in zip(weights, rates, strict=True))
        assert isinstance(speed, Tensor)
        return advance(self.model, qpos, speed, h), qvel + h * rate


def _settings(given: Articulated) -> tuple[str, float, int]:
    """Integrator, dt and substeps, the file's where they are not given."""
    step, dt, substeps = given.model.timestep, given.dt, given.substeps
    if dt is not None:
        dt = number("dt [s]", dt, hint="try dt=0.02")
    if substeps is None:
        sound = dt is not None and math.isfinite(dt) and dt > 0
        substeps = max(1, round(dt / step)) if sound else 1
        if sound and not math.isclose(substeps * step, dt, rel_tol=1e-6):
            raise BadValue(
                f"Articulated: dt={dt} s is no whole number of the file's time steps of {step} s; "
                f"try dt={substeps * step:g}, or give substeps too"
            )
    integrator = given.model.integrator if given.integrator is None else given.integrator
    return integrator, substeps * step if dt is None else dt, substeps


def _compiled(simulator: Articulated) -> Callable[..., Any]:
    """The inner function of a simulator, compiled once."""
    return _compile(replace(simulator, compile=False))


@lru_cache(maxsize=32)
def _compile(simulator: Articulated) -> Callable[..., Any]:
    inner = simulator._accelerate if simulator.integrator == "rk4" else simulator._euler
    return compile_step(inner)


@plain
def _sprung(model: Model) -> bool:
    return bool(model.stiffness.any())


@constants_of
def _drawn(model: Model) -> tuple[Tensor, ...]:
    """Poses of all links to both ends of every shape [4 nl, 2 shapes], and radii [shapes]."""
    shown = [s for s in model.shapes if s.link >= 0 and s.kind in ("sphere", "capsule")]
    ends = np.zeros((4, model.links, 2 * len(shown)))
    for k, shape in enumerate(shown):
        reach = shape.size[1] if shape.kind == "capsule" else 0.0
        for side, along in enumerate((-reach, reach)):
            ends[:, shape.link, 2 * k + side] = shape.pose @ (0.0, 0.0, along, 1.0)
    radius = np.array([shape.size[0] for shape in shown])
    return torch.from_numpy(ends.reshape(-1, 2 * len(shown))), torch.from_numpy(radius)


@constants_of
def _springs(model: Model) -> tuple[Tensor, ...]:
    """Rest positions [nq] and stiffness [nq, nv]."""
    onto = positions_of(model).T * model.stiffness
    return torch.from_numpy(model.qpos_spring), torch.from_numpy(np.ascontiguousarray(onto))
