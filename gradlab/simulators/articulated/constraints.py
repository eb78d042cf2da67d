"""The rows of constraints that MuJoCo makes of contacts, joint limits and dry friction.

Formulas are those of MuJoCo 4.0 (its chapter "Computation", and engine_core_constraint.c). A
contact with friction has the four rows n ± μ t of a pyramid, one without only n, each limit one per
side; all are there in every state, with a weight of 0 where MuJoCo has none. Dry friction of a
joint has one row, always there, whose force is within ± its loss.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.tensors import constants_of, plain, positions
from gradlab.simulators.articulated.contact import Dynamics
from gradlab.simulators.articulated.geometry import MINVAL, candidates, contacts
from gradlab.simulators.articulated.model import ContactLaw, Model, Pair

MINIMP, MAXIMP, MINMU = 1e-4, 0.9999, 1e-5  # mjMINIMP, mjMAXIMP, mjMINMU


class RowTables(NamedTuple):
    """Constants of R rows: of contacts, then a lower and an upper one of each limit, then F of dry
    friction. U = 2 L + F of them are unit vectors."""

    side: Tensor  # [3, rc]: how much of the normal and of both tangents a contact's row has
    reach: Tensor  # [rc, nv]: velocities that part (1) or join (−1) the two shapes
    of_joint: Tensor  # [U, nv]: ±1 at the dof of a limit, 1 at that of dry friction
    marked: Tensor  # [U, nv]: 1 there
    offset: Tensor  # [U]: a limit's distance is position·q − offset [rad or m]
    position: Tensor  # [nq, U]: ±1 at the position of a limit
    lasting: Tensor  # [R]: 1 for rows that are always there, those of dry friction
    loss: Tensor  # [F]: largest force of dry friction [N m, N]
    margin: Tensor  # [R] [m or rad]
    stiffness: Tensor  # [R] K [1/s²]
    damping: Tensor  # [R] B [1/s]
    softness: Tensor  # [R]: R imp/(1 − imp) [1/kg], [1/(kg m²)]
    least: Tensor  # [R]: smallest R [1/kg], [1/(kg m²)]
    low: Tensor  # [R]: impedance dmin at the margin [1]
    high: Tensor  # [R]: impedance dmax beyond the width [1]
    width: Tensor  # [R] [m or rad]
    middle: Tensor  # [R] [1]
    power: Tensor  # [R] [1]


class Rows(NamedTuple):
    """The R = rc + U constraint rows of one state; the last U are ± unit vectors.

    A row pulls with −D x at the slack x = J a − r, within [0, ∞) for contacts and limits and within
    ± loss for the last F, of dry friction. Where that bound is met its force is constant.
    """

    contact: Float[Tensor, "*batch rc nv"]
    joint: Float[Tensor, "u nv"]
    marked: Float[Tensor, "u nv"]  # its absolute values
    loss: Float[Tensor, " f"]  # [N m, N]
    reference: Float[Tensor, "*batch R"]  # acceleration asked for [m/s², rad/s²]
    weight: Float[Tensor, "*batch R"]  # D [kg, kg m²]; 0 where there is no constraint

    @property
    def one_sided(self) -> int:
        """R − F, of contacts and limits."""
        return self.weight.shape[-1] - self.loss.shape[-1]

    def along(self, x: Float[Tensor, "*batch nv"]) -> Float[Tensor, "*batch R"]:
        """J x."""
        return torch.cat(((self.contact @ x.unsqueeze(-1)).squeeze(-1), x @ self.joint.mT), -1)

    def onto(self, force: Float[Tensor, "*batch R"]) -> Float[Tensor, "*batch nv"]:
        """J' f."""
        count = self.contact.shape[-2]
        at_contacts = force[..., :count].unsqueeze(-2) @ self.contact
        return at_contacts.squeeze(-2) + force[..., count:] @ self.joint

    def acts(self, slack: Float[Tensor, "*batch R"]) -> Bool[Tensor, "*batch R"]:
        """Rows whose force follows the slack, being within its bounds."""
        if not self.loss.shape[-1]:
            return slack < 0
        first = self.one_sided
        within = self.weight[..., first:] * slack[..., first:].abs() < self.loss
        return torch.cat((slack[..., :first] < 0, within), -1)

    def force(
        self, slack: Float[Tensor, "*batch R"], acting: Float[Tensor, "*batch R"]
    ) -> Float[Tensor, "*batch R"]:
        """Of every row, with `acting` 1 where it follows the slack, else 0 [N, N m]."""
        follows = -acting * self.weight * slack
        if not self.loss.shape[-1]:
            return follows
        first = self.one_sided
        slides = (1 - acting[..., first:]) * self.loss * slack[..., first:].sign()
        return torch.cat((follows[..., :first], follows[..., first:] - slides), -1)

    def derivatives(
        self, slack: Float[Tensor, "*batch R"]
    ) -> tuple[Float[Tensor, "*batch nv nv"], Float[Tensor, "*batch nv"]]:
        """Second and first derivative in a of what the rows cost at a slack: J' W J, −J' f."""
        acting = self.acts(slack)
        bend, push = self.curvature(torch.where(acting, self.weight, 0.0), slack)
        if not self.loss.shape[-1]:
            return bend, push
        first = self.one_sided
        slides = torch.where(acting[..., first:], 0.0, self.loss * slack[..., first:].sign())
        return bend, push + slides @ self.joint[-self.loss.shape[-1] :]

    def curvature(
        self, weight: Float[Tensor, "*batch R"], values: Float[Tensor, "*batch R"]
    ) -> tuple[Float[Tensor, "*batch nv nv"], Float[Tensor, "*batch nv"]]:
        """J' W J and J' W x of W = diag(weight) and x = values, in one product."""
        count, nv = self.contact.shape[-2:]
        right = torch.cat((self.contact, values[..., :count, None]), -1)
        both = self.contact.mT @ (right * weight[..., :count, None])
        heavy = weight[..., count:]
        square = both[..., :nv] + torch.diag_embed(heavy @ self.marked)
        return square, both[..., nv] + (heavy * values[..., count:]) @ self.joint

    def detach(self) -> Rows:
        """The same as constants."""
        return Rows(*(x.detach() for x in self))


def rows_of(model: Model, now: Dynamics, margins: bool = True) -> Rows:
    """The constraint rows of a state; without `margins` contacts and limits begin to act at 0."""
    tables = RowTables(*_row_tables(model, now.dt, like=now.qpos))
    nv = model.nv
    distance = now.qpos @ tables.position - tables.offset
    rows = torch.zeros_like(now.qvel).unsqueeze(-2).expand(*now.qvel.shape[:-1], 0, nv)
    pick = _contact_of_row(model)
    if pick:
        touch = contacts(model, now.frames)
        those = positions(pick, distance)
        normal, tangent, point = (
            x[..., those] for x in (touch.normal, touch.tangent, touch.position)
        )
        other = torch.linalg.cross(normal, tangent, dim=-2)
        push = normal * tables.side[0] + tangent * tables.side[1] + other * tables.side[2]
        wrench = torch.cat((torch.linalg.cross(point, push, dim=-2), push), -2)
        rows = (wrench.mT @ now.frames.motion) * tables.reach
        distance = torch.cat((touch.distance[..., those], distance), -1)
    inside = distance - tables.margin if margins else distance
    impedance = _impedance(tables, inside)
    resistance = torch.maximum((1 - impedance) / impedance * tables.softness, tables.least)
    there = (inside < 0) | (tables.lasting > 0)
    weight = torch.where(there, 1 / resistance, 0.0)
    empty = Rows(rows, tables.of_joint, tables.marked, tables.loss, distance, weight)
    speed = empty.along(now.qvel)
    reference = -tables.damping * speed - tables.stiffness * impedance * inside
    return empty._replace(reference=reference)


def _impedance(tables: RowTables, inside: Tensor) -> Tensor:
    """MuJoCo's d(r): from dmin at the margin to dmax beyond the width, along two powers."""
    x = (inside.abs() / tables.width).clamp(max=1.0)
    rise = tables.middle * (x / tables.middle) ** tables.power
    rest = (1 - x) / (1 - tables.middle)
    fall = 1 - (1 - tables.middle) * rest**tables.power
    shape = torch.where(x <= tables.middle, rise, fall)
    return tables.low + shape * (tables.high - tables.low)


@constants_of
def _row_tables(model: Model, dt: float) -> tuple[Tensor, ...]:
    fixed = candidates(model)
    moves = np.concatenate((model.moves, np.zeros((model.nv, 1))), 1)  # link -1: the world
    side, reach, margin, laws, softness, least = [], [], [], [], [], []
    ratio = max(MINVAL, float(model.compiled.opt.impratio))
    for candidate in fixed:
        pair = candidate.pair
        inverse = sum(float(model.invweight[b]) for b in candidate.bodies)
        apart = moves[:, candidate.second] - moves[:, candidate.first]
        mu, frictional = max(pair.friction, MINMU), pair.dim > 1
        directions = (
            [(1, mu, 0), (1, -mu, 0), (1, 0, mu), (1, 0, -mu)] if frictional else [(1, 0, 0)]
        )
        # a pyramid's rows share a resistance that gives its friction that of an elliptic cone
        scale = 2 * mu**2 / ratio if frictional else 1.0
        for direction in directions:
            side.append(direction)
            reach.append(apart)
            margin.append(pair.margin)
            laws.append(_law(pair.law, dt))
            softness.append(scale * inverse * (1 + mu**2 if frictional else 1.0))
            least.append(scale * MINVAL)
    of_joint, position, offset = [], [], []
    for limit in model.limits:
        for sign, bound in ((1.0, limit.low), (-1.0, limit.high)):
            of_joint.append(sign * np.eye(model.nv)[limit.dof])
            position.append(sign * np.eye(model.nq)[limit.qpos])
            offset.append(sign * bound)
            margin.append(limit.margin)
            laws.append(_law(limit.law, dt))
            softness.append(float(model.dof_invweight[limit.dof]))
            least.append(MINVAL)
    for friction in model.frictions:  # at a distance of 0, where the impedance is dmin, without K
        of_joint.append(np.eye(model.nv)[friction.dof])
        position.append(np.zeros(model.nq))
        offset.append(0.0)
        margin.append(0.0)
        laws.append((0.0, *_law(friction.law, dt)[1:]))
        softness.append(float(model.dof_invweight[friction.dof]))
        least.append(MINVAL)
    numbers = np.array(laws).reshape(-1, 7).T
    arrays = (
        np.array(side, dtype=float).reshape(-1, 3).T,
        np.array(reach).reshape(-1, model.nv),
        np.array(of_joint).reshape(-1, model.nv),
        np.abs(np.array(of_joint)).reshape(-1, model.nv),
        np.array(offset),
        np.array(position).reshape(-1, model.nq).T,
        np.arange(len(margin)) >= len(margin) - len(model.frictions),
        np.array([friction.loss for friction in model.frictions]),
        np.array(margin),
        numbers[0],
        numbers[1],
        np.array(softness),
        np.array(least),
        *numbers[2:],
    )
    return tuple(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)) for x in arrays)


def _law(law: ContactLaw, dt: float) -> tuple[float, ...]:
    """K, B, dmin, dmax, width, midpoint, power, as MuJoCo reads solref and solimp."""
    first, second = law.solref[:2]
    if (first > 0) != (second > 0):
        first, second = 0.02, 1.0  # a mixed format becomes the default
    low, high = (min(MAXIMP, max(MINIMP, d)) for d in law.solimp[:2])
    width, power = max(0.0, law.solimp[2]), max(1.0, law.solimp[4])
    middle = min(MAXIMP, max(MINIMP, law.solimp[3]))
    if first > 0:
        first = max(first, 2 * dt)  # the option refsafe
        stiffness = 1 / max(MINVAL, (high * first * second) ** 2)
        damping = 2 / max(MINVAL, high * first)
    else:
        stiffness, damping = -first / max(MINVAL, high**2), -second / max(MINVAL, high)
    if low == high or width <= MINVAL:
        low, top, width = (low + high) / 2, (low + high) / 2, 1.0
        return stiffness, damping, low, top, width, middle, power
    return stiffness, damping, low, high, width, middle, power


@plain
def _contact_of_row(model: Model) -> tuple[int, ...]:
    return tuple(
        k for k, c in enumerate(candidates(model)) for _ in range(4 if c.pair.dim > 1 else 1)
    )


@plain
def constrained(model: Model) -> bool:
    return bool(candidates(model) or model.limits or model.frictions)


@plain
def firmness(model: Model) -> float:
    """Largest D over the inverse weights that it is made of [1]:
    about D times the effective inverse mass.

    For one row d/(1 − d) at the impedance's largest d;
    for a pyramid's that times impratio/(2μ²(1 + μ²)).
    """
    ratio = max(MINVAL, float(model.compiled.opt.impratio))
    found = [0.0]
    for law, friction in [(c.pair.law, _friction(c.pair)) for c in candidates(model)] + [
        (limit.law, None) for limit in model.limits
    ]:
        most = max(_law(law, 0.0)[2:4])
        share = 1.0 if friction is None else ratio / (2 * friction**2 * (1 + friction**2))
        found.append(most / (1 - most) * share)
    for friction in model.frictions:
        least = _law(friction.law, 0.0)[2]
        found.append(least / (1 - least))
    return float(max(found))


def _friction(pair: Pair) -> float | None:
    """μ as MuJoCo clamps it; None without friction."""
    return max(pair.friction, MINMU) if pair.dim > 1 else None
