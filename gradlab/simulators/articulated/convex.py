"""MuJoCo's contact: a convex problem for all constraint forces together, solved anew in every state.

Every contact and limit gives rows J of a linear map from accelerations, a reference acceleration r that
springs and dampers ask for, and a weight D that says how firmly. The acceleration minimises

    ½ (a − a₀)' M (a − a₀) + ½ Σ Dᵢ min(Jᵢ a − rᵢ, 0)²,    a₀ = M⁻¹ (all other forces),

which is strictly convex and piecewise quadratic. A contact with friction has the four rows n ± μ t of a
pyramid, one without only n. Formulas are those of MuJoCo 4.0 (its chapter "Computation", and
engine_core_constraint.c); rows are there in every state, with D = 0 where MuJoCo has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.constants import constants_of, plain
from gradlab.errors import BadValue, UnknownName
from gradlab.simulators.articulated.contact import Dynamics
from gradlab.simulators.articulated.geometry import MINVAL, candidates, contacts
from gradlab.simulators.articulated.linear import factor, solve
from gradlab.simulators.articulated.model import ContactLaw, Model

MINIMP, MAXIMP, MINMU = 1e-4, 0.9999, 1e-5  # mjMINIMP, mjMAXIMP, mjMINMU
DIFFERENTIATE = ("implicit", "unrolled")
PAIRED = 64  # rows up to which a line search over pairs is the faster one (docs/performance.md)


class RowTables(NamedTuple):
    """Constants of R rows, those of contacts first, then a lower and an upper one of each limit."""

    side: Tensor  # [3, rc]: how much of the normal and of both tangents a contact's row has
    reach: Tensor  # [rc, nv]: velocities that part (1) or join (−1) the two shapes
    of_limit: Tensor  # [2 L, nv]: ±1 at the dof of a limit
    limited: Tensor  # [2 L, nv]: 1 there
    offset: Tensor  # [2 L]: a limit's distance is of_limit·q − offset [rad or m]
    position: Tensor  # [nq, 2 L]: ±1 at the position of a limit
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
    """The R = rc + 2 L constraint rows of one state; the last 2 L are ± unit vectors."""

    contact: Float[Tensor, "*batch rc nv"]
    limit: Float[Tensor, "l2 nv"]
    limited: Float[Tensor, "l2 nv"]  # its absolute values
    reference: Float[Tensor, "*batch R"]  # acceleration asked for [m/s², rad/s²]
    weight: Float[Tensor, "*batch R"]  # D [kg, kg m²]; 0 where there is no constraint

    def along(self, x: Float[Tensor, "*batch nv"]) -> Float[Tensor, "*batch R"]:
        """J x."""
        return torch.cat(((self.contact @ x.unsqueeze(-1)).squeeze(-1), x @ self.limit.mT), -1)

    def onto(self, force: Float[Tensor, "*batch R"]) -> Float[Tensor, "*batch nv"]:
        """J' f."""
        count = self.contact.shape[-2]
        at_contacts = force[..., :count].unsqueeze(-2) @ self.contact
        return at_contacts.squeeze(-2) + force[..., count:] @ self.limit

    def curvature(
        self, weight: Float[Tensor, "*batch R"], values: Float[Tensor, "*batch R"]
    ) -> tuple[Float[Tensor, "*batch nv nv"], Float[Tensor, "*batch nv"]]:
        """J' W J and J' W x of W = diag(weight) and x = values, in one product."""
        count, nv = self.contact.shape[-2:]
        right = torch.cat((self.contact, values[..., :count, None]), -1)
        both = self.contact.mT @ (right * weight[..., :count, None])
        heavy = weight[..., count:]
        square = both[..., :nv] + torch.diag_embed(heavy @ self.limited)
        return square, both[..., nv] + (heavy * values[..., count:]) @ self.limit

    def detach(self) -> Rows:
        """The same as constants."""
        return Rows(*(x.detach() for x in self))


@dataclass(frozen=True)
class Convex:
    """MuJoCo's soft constraints: contacts, pyramidal friction and joint limits in one convex problem.

    Newton's method with an exact line search; each of `iterations` is one Cholesky factorisation, and two
    more come before and after. It ends exactly once the set of acting rows is right;
    docs/articulated.md says after how many iterations that is so, and `residual` measures it.

    Derivatives: "implicit" differentiates the condition of optimality, a* − H(a*)⁻¹ g(a*, state) with a*
    and H held constant: the first derivative is exact at the optimum (a second is not defined by it).
    "unrolled" differentiates all iterations; the two agree where the iterations have converged.

    Non-smooth places: a row begins to act at its margin (with a jump if it is approached at speed), stops
    acting where Jᵢ a = rᵢ, and its impedance has kinks at the ends of its width; those of the geometry.

    Raises `UnknownName` for another way to differentiate, `BadValue` for fewer than one iteration.
    """

    iterations: int = 8
    differentiate: Literal["implicit", "unrolled"] = "implicit"

    def __post_init__(self) -> None:
        if self.differentiate not in DIFFERENTIATE:
            raise UnknownName("way to differentiate", self.differentiate, DIFFERENTIATE)
        if self.iterations < 1:
            raise BadValue(f"Convex: expected iterations >= 1, got {self.iterations}; try 8")

    def check(self, model: Model, dt: float) -> None:
        """Every model and step will do: time constants below 2 dt [s] are raised to it, as in MuJoCo."""

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        if not _constrained(model):
            return torch.zeros_like(now.qvel)
        optimum = self.acceleration(model, now)
        return (now.mass @ optimum.unsqueeze(-1)).squeeze(-1) - now.smooth

    def acceleration(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """The minimiser a [m/s², rad/s²]."""
        if not _constrained(model):
            return _solved(now.mass, now.smooth)
        rows = rows_of(model, now)
        if self.differentiate == "unrolled":
            return _newton(now.mass, now.smooth, rows, self.iterations)
        mass, fixed = now.mass.detach(), rows.detach()
        near = _newton(mass, now.smooth.detach(), fixed, self.iterations)
        acting = (fixed.along(near) < fixed.reference).to(near.dtype)
        bend, _ = fixed.curvature(acting * fixed.weight, fixed.reference)
        root = factor(mass + bend)
        gradient = _gradient(now.mass, now.smooth, rows, near, acting)
        return near - torch.cholesky_solve(gradient.unsqueeze(-1), root).squeeze(-1)

    def residual(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch"]:
        """‖gradient‖ at `acceleration`, over the norm of the other forces: 0 when converged [1]."""
        rows, best = rows_of(model, now), self.acceleration(model, now)
        acting = (rows.along(best) < rows.reference).to(best.dtype)
        gradient = _gradient(now.mass, now.smooth, rows, best, acting)
        scale = torch.linalg.vector_norm(now.smooth, dim=-1)
        return torch.linalg.vector_norm(gradient, dim=-1) / scale.clamp(min=MINVAL)


def _gradient(mass: Tensor, smooth: Tensor, rows: Rows, a: Tensor, acting: Tensor) -> Tensor:
    """M a − forces + J' D (J a − r) over the acting rows (1, else 0)."""
    push = acting * rows.weight * (rows.along(a) - rows.reference)
    return (mass @ a.unsqueeze(-1)).squeeze(-1) - smooth + rows.onto(push)


def _newton(mass: Tensor, smooth: Tensor, rows: Rows, iterations: int) -> Tensor:
    # from the minimiser over the rows that act where nothing accelerates: one iteration less than
    # from that without constraints
    acting = torch.where(rows.reference > 0, rows.weight, 0.0)
    bend, push = rows.curvature(acting, rows.reference)
    a = _solved(mass + bend, smooth + push)
    slack = rows.along(a) - rows.reference
    pull = (mass @ a.unsqueeze(-1)).squeeze(-1) - smooth
    for _ in range(iterations):
        acting = torch.where(slack < 0, rows.weight, 0.0)
        bend, push = rows.curvature(acting, slack)
        step = _solved(mass + bend, -pull - push)
        along, heavy = rows.along(step), (mass @ step.unsqueeze(-1)).squeeze(-1)
        curve, slope = (torch.stack((heavy, pull), -2) * step.unsqueeze(-2)).sum(-1).unbind(-1)
        share = _line_search(curve, slope, slack, along, rows.weight).unsqueeze(-1)
        a, slack, pull = a + share * step, slack + share * along, pull + share * heavy
    return a


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    return solve(matrix, factor(matrix), right)


def _line_search(
    curvature: Tensor, slope: Tensor, slack: Tensor, along: Tensor, weight: Tensor
) -> Tensor:
    """The minimiser of slope x + ½ curvature x² + ½ Σ D min(slack + x along, 0)², exactly: [*].

    Its derivative is continuous, rises and is linear between the places where a row starts or stops acting;
    the minimum is on the piece after the last place at which the derivative is still negative.
    """
    acts = (slack < 0) | ((slack == 0) & (along < 0))
    later = (slack * along < 0) & (weight > 0)  # rows that start or stop acting on the way
    place = torch.where(later, -slack / torch.where(later, along, 1.0), torch.inf).detach()
    line = torch.stack((curvature, slope), -1)
    # rounding differs, the result does not: pairs are fused into one kernel by a compiler, and grow
    # with the square of their number
    piece = _piece_of_pairs if slack.shape[-1] <= PAIRED else _piece_of_sorted
    bend, tilt = piece(line, slack, along, weight, acts, later, place).unbind(-1)
    # a step so small that its square underflows is Newton's own
    large = bend > math.sqrt(torch.finfo(bend.dtype).tiny)
    return torch.where(large, -tilt / torch.where(large, bend, 1.0), 1.0)


def _piece_of_pairs(
    line: Tensor, slack: Tensor, along: Tensor, weight: Tensor,
    acts: Tensor, later: Tensor, place: Tensor,
) -> Tensor:  # fmt: skip
    """Curvature and slope of the piece with the minimum [*, 2]: the derivative at every place anew."""
    pulled = weight * along
    at = torch.where(later, place, 0.0).unsqueeze(-1)
    pull = pulled.unsqueeze(-2) * (slack.unsqueeze(-2) + at * along.unsqueeze(-2)).clamp(max=0.0)
    falls = (pull.sum(-1) + line[..., :1] * at.squeeze(-1) + line[..., 1:]).detach() < 0
    last = torch.where(later & falls, place, 0.0).amax(-1, keepdim=True)
    weighty = torch.where(acts ^ (later & (place <= last)), pulled, 0.0)
    return line + torch.stack(((weighty * along).sum(-1), (weighty * slack).sum(-1)), -1)


def _piece_of_sorted(
    line: Tensor, slack: Tensor, along: Tensor, weight: Tensor,
    acts: Tensor, later: Tensor, place: Tensor,
) -> Tensor:  # fmt: skip
    """Curvature and slope of the piece with the minimum [*, 2]: the places passed in their order."""
    place, order = place.sort(-1)
    # curvature and slope of each row, and the sign with which it comes in at its place
    pulled = weight * along
    terms = torch.stack((pulled * along, pulled * slack), -2)
    signs = ((later & ~acts).to(weight) - (later & acts).to(weight)).unsqueeze(-2)
    gains = (terms * signs).gather(-1, order.unsqueeze(-2).expand_as(terms)).cumsum(-1)
    start = (terms * acts.unsqueeze(-2)).sum(-1) + line
    before = start.unsqueeze(-1) + torch.nn.functional.pad(gains, (1, 0))
    # the derivative at the end of each piece; the last one has no end
    falls = before[..., 0, :-1] * place + before[..., 1, :-1] < 0
    piece = falls.sum(-1, keepdim=True).unsqueeze(-2)
    return before.gather(-1, piece.expand(*before.shape[:-1], 1)).squeeze(-1)


# -------------------------------------------------------------------------------------------- rows


def rows_of(model: Model, now: Dynamics, margins: bool = True) -> Rows:
    """The constraint rows of a state; without `margins` contacts and limits begin to act at 0."""
    tables = RowTables(*_row_tables(model, now.dt, like=now.qpos))
    nv = model.nv
    distance = now.qpos @ tables.position - tables.offset
    rows = torch.zeros_like(now.qvel).unsqueeze(-2).expand(*now.qvel.shape[:-1], 0, nv)
    pick = _contact_of_row(model)
    if pick:
        touch = contacts(model, now.frames)
        normal, tangent, point = (
            x[..., list(pick)] for x in (touch.normal, touch.tangent, touch.position)
        )
        other = torch.linalg.cross(normal, tangent, dim=-2)
        push = normal * tables.side[0] + tangent * tables.side[1] + other * tables.side[2]
        wrench = torch.cat((torch.linalg.cross(point, push, dim=-2), push), -2)
        rows = (wrench.mT @ now.frames.motion) * tables.reach
        distance = torch.cat((touch.distance[..., list(pick)], distance), -1)
    inside = distance - tables.margin if margins else distance
    impedance = _impedance(tables, inside)
    resistance = torch.maximum((1 - impedance) / impedance * tables.softness, tables.least)
    weight = torch.where(inside < 0, 1 / resistance, 0.0)
    empty = Rows(rows, tables.of_limit, tables.limited, distance, weight)
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
        mu = max(pair.friction, MINMU)
        frictional = pair.dim > 1
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
    of_limit, position, offset = [], [], []
    for limit in model.limits:
        for sign, bound in ((1.0, limit.low), (-1.0, limit.high)):
            of_limit.append(sign * np.eye(model.nv)[limit.dof])
            position.append(sign * np.eye(model.nq)[limit.qpos])
            offset.append(sign * bound)
            margin.append(limit.margin)
            laws.append(_law(limit.law, dt))
            softness.append(float(model.dof_invweight[limit.dof]))
            least.append(MINVAL)
    numbers = np.array(laws).reshape(-1, 7).T
    arrays = (
        np.array(side, dtype=float).reshape(-1, 3).T,
        np.array(reach).reshape(-1, model.nv),
        np.array(of_limit).reshape(-1, model.nv),
        np.abs(np.array(of_limit)).reshape(-1, model.nv),
        np.array(offset),
        np.array(position).reshape(-1, model.nq).T,
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
def _constrained(model: Model) -> bool:
    return bool(candidates(model) or model.limits)


# ------------------------------------------------------------------------------------------- Brax


@dataclass(frozen=True)
class BraxLike:
    """The constraints of Brax's `generalized` pipeline, unconverged and differentiated through its iterations.

    Rows and weights are those of `Convex` with margins of zero and hard masks; of each joint's two limits
    only the violated one acts. With A = J M⁻¹ J' + R and b = J M⁻¹ (other forces) − r the forces minimise
    ½ ‖A x + b‖² over x >= 0: not MuJoCo's ½ x'A x + b'x, though both have the same minimum where
    A x + b = 0 can be met. Accelerated projected gradients with backtracking (FISTA), from x = 0, stopped
    after `iterations` or at a residual of 1e-3; everything is differentiated but the step sizes.
    Source: google/brax, brax/generalized/constraint.py, and jaxopt's ProximalGradient. M⁻¹ is exact here,
    where Brax iterates.

    Non-smooth places: those of `Convex`, and the projection at every iteration.

    Raises `BadValue` for fewer than one iteration or fewer than no halvings of the step.
    """

    iterations: int = 4
    halvings: int = 15  # of the step size in one line search

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.halvings < 0:
            raise BadValue(
                f"BraxLike: expected iterations >= 1 and halvings >= 0, got {self.iterations}, "
                f"{self.halvings}; try BraxLike(4, 15)"
            )

    def check(self, model: Model, dt: float) -> None:
        """Every model and step [s] will do."""

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        if not _constrained(model):
            return torch.zeros_like(now.qvel)
        # no margins, and time constants as they are
        rows = rows_of(model, now._replace(dt=0.0), margins=False)
        exists = rows.weight > 0
        resistance = torch.where(exists, 1 / torch.where(exists, rows.weight, 1.0), 0.0)
        limit = rows.limit.expand(*now.qvel.shape[:-1], *rows.limit.shape)
        jacobian = torch.cat((rows.contact, limit), -2) * exists.unsqueeze(-1)
        root, _ = torch.linalg.cholesky_ex(now.mass)
        right = torch.cat((jacobian.mT, now.smooth.unsqueeze(-1)), -1)
        half = torch.linalg.solve_triangular(root, right, upper=False)
        square = half[..., :-1].mT @ half  # J M⁻¹ (J', forces)
        offset = square[..., -1] - exists * rows.reference
        matrix = square[..., :-1] + torch.diag_embed(resistance)
        push = _projected(matrix, offset, self.iterations, self.halvings)
        return (push.unsqueeze(-2) @ jacobian).squeeze(-2)


def _projected(matrix: Tensor, offset: Tensor, iterations: int, halvings: int) -> Tensor:
    """FISTA on ½ ‖A x + b‖² over x >= 0, as jaxopt 0.8 does it: [*, R]."""
    eps = torch.finfo(offset.dtype).eps
    scales = 0.5 ** torch.arange(halvings + 1, dtype=offset.dtype, device=offset.device)
    x = y = torch.zeros_like(offset)
    size = torch.ones_like(offset[..., :1])
    going = torch.ones_like(offset[..., :1], dtype=torch.bool)
    t = 1.0
    for _ in range(iterations):
        rest = _residual(matrix, y, offset)
        slope = (rest.unsqueeze(-2) @ matrix).squeeze(-2)
        # all steps of the line search at once, as constants; the first that decreases enough
        at, down, a, b = (z.detach() for z in (y, slope, matrix, offset))
        sizes = (size * scales).unsqueeze(-1)
        move = (at.unsqueeze(-2) - sizes * down.unsqueeze(-2)).relu() - at.unsqueeze(-2)
        there = (at.unsqueeze(-2) + move) @ a.mT + b.unsqueeze(-2)
        gain = 0.5 * (there.square().sum(-1) - rest.detach().square().sum(-1, keepdim=True))
        bound = (move * down.unsqueeze(-2)).sum(-1) + 0.5 * move.square().sum(-1) / sizes.squeeze(
            -1
        )
        fine = sizes.squeeze(-1) * (gain - bound) <= eps
        pick = torch.where(fine.any(-1), fine.to(torch.uint8).argmax(-1), halvings)
        taken = sizes.squeeze(-1).gather(-1, pick.unsqueeze(-1))
        following = (y - taken * slope).relu()
        later = 0.5 * (1 + math.sqrt(1 + 4 * t * t))
        ahead = following + (t - 1) / later * (following - x)
        x, y = torch.where(going, following, x), torch.where(going, ahead, y)
        size = torch.where(taken <= 1e-6, 1.0, 2 * taken)
        t = later
        slope = (_residual(a, x.detach(), b).unsqueeze(-2) @ a).squeeze(-2)
        error = torch.linalg.vector_norm(
            (x.detach() - slope).relu() - x.detach(), dim=-1, keepdim=True
        )
        going = going & (error > 1e-3)
    return x


def _residual(matrix: Tensor, x: Tensor, offset: Tensor) -> Tensor:
    return (matrix @ x.unsqueeze(-1)).squeeze(-1) + offset
