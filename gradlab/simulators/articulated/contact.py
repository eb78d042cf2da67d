"""What a contact law is, and the compliant ones: springs and dampers, from hard switches to smooth.

A law maps the state to generalised forces. `Compliant` and `Smoothed` see each candidate contact by
itself; `Convex` (`convex.py`) solves for all constraint forces together. Joint limits belong to the
law: a spring here, constraints there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.foundation.tensors import constants_of, plain
from gradlab.simulators.articulated.geometry import Contacts, candidates, contacts
from gradlab.simulators.articulated.kinematics import Frames, Velocities
from gradlab.simulators.articulated.model import Model
from gradlab.simulators.articulated.stability import (
    contact_response,
    friction_response,
    limit_response,
    pair_response,
)

TINY = 1e-300


class Dynamics(NamedTuple):
    """What a law may need of one state."""

    frames: Frames
    moving: Velocities
    qpos: Float[Tensor, "*batch nq"]
    qvel: Float[Tensor, "*batch nv"]
    mass: Float[Tensor, "*batch nv nv"]
    smooth: Float[Tensor, "*batch nv"]  # all generalised forces but the law's, bias included
    dt: float  # time step of the integrator [s]


@runtime_checkable
class ContactModel(Protocol):
    """A law of contacts and joint limits; frozen dataclasses implement it."""

    def check(self, model: Model, dt: float) -> None:
        """Raise `BadValue` where the law cannot work with this model at this time step [s]."""
        ...

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        ...


@runtime_checkable
class Accelerates(ContactModel, Protocol):
    """A law that solves for the acceleration itself:
    integrators that can use it need not solve again.
    """

    def acceleration(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """M⁻¹ (smooth + force) [rad/s², m/s²]."""
        ...


@runtime_checkable
class Bounded(ContactModel, Protocol):
    """A law that solves by iterations and can say how far it is from the solution."""

    def residual(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch"]:
        """Bound of the relative error of the acceleration [1]."""
        ...


@dataclass(frozen=True)
class Compliant:
    """dFlex's springs and dampers at every point that is inside
    (NVlabs/DiffRL@a4c0dd1, dflex/sim.py).

    With depth c > 0, normal speed v_n (positive when parting) and tangential
    velocity v_t of the point:

        normal force     N = k_e c + k_d c max(−v_n, 0)
        friction         −v_t/‖v_t‖ · min(k_f ‖v_t‖, μ k_e c)

    The point is on the surface of the second shape. Joint limits are springs with a damper that is
    always on: limit_stiffness·(bound − q if violated) − limit_damping·q̇. Dry friction of a joint
    (`frictionloss`) is viscous below `slip_speed` u and constant above: −loss·clamp(q̇/u, −1, 1),
    where MuJoCo has a constraint.

    Non-smooth places: c = 0 (forces are continuous, their derivatives jump), v_n = 0, the change
    from sticking to sliding friction, also in joints, the ends of joint ranges. At v_t = 0 friction
    is linear and its gradient finite.

    A law too stiff for an explicit time step is refused by `check`: with λ the response of a body's
    points (`stability.contact_response`), w its inverse weight and w_l that of the lightest limited
    joint the step must satisfy dt < 2/√(k_e λ), dt < 2/(k_f w), dt < 2/√(limit_stiffness w_l),
    dt < 2/(limit_damping w_l) and, with w_d that of a joint with dry friction, dt < 2 u/(loss w_d).
    The damper grows with depth, and no step bears all depths: a body
    that is thrown far into the ground may still fly apart.
    """

    stiffness: float = 4e4  # k_e [N/m]
    damping: float = 1e4  # k_d [N s/m²]
    friction_damping: float = 3e3  # k_f [N s/m]
    friction: float | None = 0.75  # μ [1]; None: that of each pair
    limit_stiffness: float = 1e3  # [N m/rad]
    limit_damping: float = 10.0  # [N m s/rad]
    slip_speed: float = 0.1  # u, up to which dry friction in joints sticks [rad/s, m/s]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise BadValue(f"Compliant: {name} must be a number >= 0, got {value}")
        if self.slip_speed == 0:
            raise BadValue("Compliant: slip_speed must be positive, got 0; use Convex() for that")

    def check(self, model: Model, dt: float) -> None:
        """Raise `BadValue`, with the numbers, if an explicit step of `dt` [s] would be unstable."""
        inverse = pair_response(model)
        response, joint = contact_response(model), limit_response(model)
        contact, limit = "points in contact", "lightest joint with limits"
        bounds = (
            ("stiffness", 2 / math.sqrt(max(self.stiffness * response, TINY)), contact, response),
            ("friction_damping", 2 / max(self.friction_damping * inverse, TINY), contact, inverse),
            (
                "limit_stiffness",
                2 / math.sqrt(max(self.limit_stiffness * joint, TINY)),
                limit,
                joint,
            ),
            ("limit_damping", 2 / max(self.limit_damping * joint, TINY), limit, joint),
        )
        rate = friction_response(model)
        if dt * rate >= 2 * self.slip_speed:
            raise BadValue(
                f"Compliant: slip_speed={self.slip_speed:g} is too small for the dry friction of "
                f"{model.name}: it must be above {0.5 * dt * rate:.3g} (rad/s or m/s) at time steps of "
                f"{dt * 1e3:.3g} ms; try that, or more substeps"
            )
        for name, bound, whose, weight in bounds:
            if dt >= bound:
                raise BadValue(
                    f"Compliant: {name}={getattr(self, name):g} is too stiff for {model.name}, whose "
                    f"{whose} have inverse weight {weight:.3g} (1/kg or 1/(kg m²)): the time step "
                    f"must be below {bound * 1e3:.3g} ms, got {dt * 1e3:.3g} ms; "
                    "try more substeps or a softer law"
                )

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        return forces(self, model, now)

    def normal_force(self, depth: Tensor, speed: Tensor) -> Tensor:
        """N [N] of a signed depth [m] and the speed of approach −v_n [m/s]."""
        inside = depth.clamp(min=0.0)
        return inside * (self.stiffness + self.damping * speed.clamp(min=0.0))

    def friction_coefficient(self, depth: Tensor, sliding: Tensor, limit: Tensor) -> Tensor:
        """Friction force over tangential speed [N s/m]; `limit` is μ."""
        cap = limit * self.stiffness * depth.clamp(min=0.0)
        slides = self.friction_damping * sliding > cap
        return torch.where(slides, cap / torch.where(slides, sliding, 1.0), self.friction_damping)

    def limit_force(self, violation: Tensor) -> Tensor:
        """Spring force of a signed violation of a joint's range [rad or m]."""
        return self.limit_stiffness * violation.clamp(min=0.0)

    def slip(self, speed: Tensor) -> Tensor:
        """Share of a joint's dry friction that acts against a speed [rad/s, m/s]: −1 to 1."""
        return (speed / self.slip_speed).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Smoothed:
    """A `Compliant` law without switches: everything is smooth in the state, and tends to it.

    max(x, 0) becomes the softplus u·log(1 + e^(x/u)), off by at most u ln 2, with u = `width` [m]
    for depths (and [rad] for joint ranges) and `speed_width` [m/s] for the speed of approach. The
    switch from sticking to sliding, 1/max(‖v_t‖, s) with s = μ k_e c/k_f, uses
    ½(a + b + √((a − b)² + e²)) >= max(a, b), e = `speed_width`. Dry friction in joints is
    −loss·tanh(q̇/`slip_speed`), whatever the widths.

    Bounds, tested: the normal force is off by at most k_e w ln 2 + k_d (c u + r w + u w ln 2) ln 2
    at depth c >= 0 and approach r >= 0, the friction by at most k_f e/2 + μ k_e w ln 2, a limit's
    by k w ln 2.

    `Smoothed.hard(width, load)` tends to rigid contact instead: its stiffness is load/width.
    """

    width: float = 1e-3  # [m]
    speed_width: float = 1e-2  # [m/s]
    limit: Compliant = Compliant()  # what it tends to

    def __post_init__(self) -> None:
        for name in ("width", "speed_width"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise BadValue(
                    f"Smoothed: {name} must be positive, got {getattr(self, name)}; "
                    "use Compliant() for the limit itself"
                )

    @staticmethod
    def hard(width: float, load: float, friction: float | None = None) -> Smoothed:
        """Tends to rigid contact: the force at depth c is load·log(1 + e^(c/width)).

        A point that carries F rests at depth width·log(e^(F/load) − 1), at most width·F/load.
        Friction sticks below a tangential speed of `width` per ms; there is no damping but the
        joints'. Raises `BadValue` unless both are positive.
        """
        if not (width > 0 and load > 0):
            raise BadValue(
                f"Smoothed.hard: expected width > 0 m and load > 0 N, got {width}, {load}"
            )
        speed = 1e3 * width
        base = Compliant(
            stiffness=load / width, damping=0.0, friction_damping=load / speed, friction=friction
        )
        return Smoothed(width, speed, base)

    def check(self, model: Model, dt: float) -> None:
        """As `Compliant.check`."""
        self.limit.check(model, dt)

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        return forces(self, model, now)

    def normal_force(self, depth: Tensor, speed: Tensor) -> Tensor:
        """N [N] of a signed depth [m] and the speed of approach −v_n [m/s]."""
        inside = _softplus(depth, self.width)
        approach = _softplus(speed, self.speed_width)
        return inside * (self.limit.stiffness + self.limit.damping * approach)

    def friction_coefficient(self, depth: Tensor, sliding: Tensor, limit: Tensor) -> Tensor:
        """Friction force over tangential speed [N s/m]; `limit` is μ."""
        if self.limit.friction_damping == 0:
            return torch.zeros_like(sliding)
        cap = limit * self.limit.stiffness * _softplus(depth, self.width)
        sticking = cap / self.limit.friction_damping
        gap = sliding - sticking
        larger = 0.5 * (sliding + sticking + (gap.square() + self.speed_width**2).sqrt())
        return cap / larger

    def limit_force(self, violation: Tensor) -> Tensor:
        """Spring force of a signed violation of a joint's range [rad or m]."""
        return self.limit.limit_stiffness * _softplus(violation, self.width)

    def slip(self, speed: Tensor) -> Tensor:
        """Share of a joint's dry friction that acts against a speed [rad/s, m/s]: −1 to 1."""
        return (speed / self.limit.slip_speed).tanh()

    @property
    def limit_damping(self) -> float:
        """[N m s/rad]."""
        return self.limit.limit_damping

    @property
    def friction(self) -> float | None:
        """μ [1]; None: that of each pair."""
        return self.limit.friction


def _length(x: Float[Tensor, "*batch 3 k"]) -> Float[Tensor, "*batch k"]:
    """Norm over the second last dimension; gradient 0 at 0."""
    squared = x.square().sum(-2)
    zero = squared == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())


def _softplus(x: Tensor, width: float) -> Tensor:
    return width * torch.nn.functional.softplus(x / width)


# ------------------------------------------------------------------------------ generalised forces


class LawTables(NamedTuple):
    """Constants of the candidates and limits of one model."""

    first: Tensor  # [nl, K]: 1 at the link of the first shape
    second: Tensor  # [nl, K]
    reach: Tensor  # [K, nv]: velocities that part (1) or join (−1) the two shapes
    friction: Tensor  # [K]; 0 for frictionless pairs
    limited: Tensor  # [nq, nlim]
    low: Tensor  # [nlim]
    high: Tensor  # [nlim]
    limited_dof: Tensor  # [nlim, nv]
    loss: Tensor  # [nv]: dry friction [N m, N]


def forces(law: Compliant | Smoothed, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
    """Generalised force of a law that sees every candidate by itself [N m, N]."""
    tables = LawTables(*_law_tables(model, like=now.qpos))
    total = torch.zeros_like(now.qvel)
    if _touches(model):
        touch = contacts(model, now.frames)
        total = total + _contact_force(law, tables, touch, now)
    if _limited(model):
        angle = now.qpos @ tables.limited
        push = law.limit_force(tables.low - angle) - law.limit_force(angle - tables.high)
        total = total + push @ tables.limited_dof
        total = total - law.limit_damping * tables.limited_dof.sum(0) * now.qvel
    if _dry(model):
        total = total - tables.loss * law.slip(now.qvel)
    return total


def _contact_force(
    law: Compliant | Smoothed, tables: LawTables, touch: Contacts, now: Dynamics
) -> Float[Tensor, "*batch nv"]:
    # the point on the surface of the second shape
    point = touch.position + touch.normal * (0.5 * touch.distance).unsqueeze(-2)
    relative = now.moving.link @ (tables.second - tables.first)
    angular, linear = relative.split(3, dim=-2)
    velocity = linear + torch.linalg.cross(angular, point, dim=-2)
    parting = (velocity * touch.normal).sum(-2)
    tangential = velocity - parting.unsqueeze(-2) * touch.normal
    sliding = _length(tangential)
    depth = -touch.distance
    friction = tables.friction
    if law.friction is not None:  # of the tables only who has friction at all
        friction = law.friction * (friction > 0).to(friction.dtype)
    normal = law.normal_force(depth, -parting).unsqueeze(-2) * touch.normal
    drag = law.friction_coefficient(depth, sliding, friction).unsqueeze(-2) * tangential
    force = normal - drag
    wrench = torch.cat((torch.linalg.cross(point, force, dim=-2), force), -2)
    return ((wrench @ tables.reach) * now.frames.motion).sum(-2)


@plain
def _touches(model: Model) -> bool:
    return bool(candidates(model))


@plain
def _limited(model: Model) -> bool:
    return bool(model.limits)


@plain
def _dry(model: Model) -> bool:
    return bool(model.frictions)


@constants_of
def _law_tables(model: Model) -> tuple[Tensor, ...]:
    fixed, nl = candidates(model), model.links
    first, second = np.zeros((nl, len(fixed))), np.zeros((nl, len(fixed)))
    for k, candidate in enumerate(fixed):
        if candidate.first >= 0:
            first[candidate.first, k] = 1.0
        if candidate.second >= 0:
            second[candidate.second, k] = 1.0
    friction = np.array([c.pair.friction if c.pair.dim > 1 else 0.0 for c in fixed])
    limited, on_dof = (
        np.zeros((model.nq, len(model.limits))),
        np.zeros((len(model.limits), model.nv)),
    )
    for k, limit in enumerate(model.limits):
        limited[limit.qpos, k] = 1.0
        on_dof[k, limit.dof] = 1.0
    loss = np.zeros(model.nv)
    for dry in model.frictions:
        loss[dry.dof] = dry.loss
    arrays = (
        first,
        second,
        (model.moves @ (second - first)).T,
        friction,
        limited,
        np.array([limit.low for limit in model.limits]),
        np.array([limit.high for limit in model.limits]),
        on_dof,
        loss,
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)
