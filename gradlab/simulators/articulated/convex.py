"""MuJoCo's contact: a convex problem for all constraint forces together,
solved anew in every state.

Every contact and limit gives rows J of a linear map from accelerations, a reference acceleration r
that springs and dampers ask for, and a weight D that says how firmly (`constraints.py`). The
acceleration minimises

    ½ (a − a₀)' M (a − a₀) + ½ Σ Dᵢ min(Jᵢ a − rᵢ, 0)²,    a₀ = M⁻¹ (all other forces),

which is strictly convex and piecewise quadratic.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.simulators.articulated.constraints import Rows, constrained, firmness, rows_of
from gradlab.simulators.articulated.contact import Dynamics
from gradlab.simulators.articulated.geometry import MINVAL
from gradlab.simulators.articulated.interior import Optimum, interior
from gradlab.simulators.articulated.linear import factor, times
from gradlab.simulators.articulated.model import Model
from gradlab.simulators.articulated.newton import newton, searched, solved

DIFFERENTIATE = ("implicit", "unrolled")
SOFT = 20.0  # firmness up to which Newton's method needs few iterations (docs/articulated.md)
OF_NEWTON, OF_INTERIOR = 8, 18  # iterations for soft and for firm constraints


@dataclass(frozen=True)
class Convex:
    """MuJoCo's soft constraints: contacts, pyramidal friction and joint limits
    in one convex problem.

    `iterations=None` chooses by the model's firmness (`constraints.firmness`). Up to 20, as in all
    runners that ship: 8 iterations of Newton's method with an exact line search. Beyond (little
    friction, a large impratio, an impedance near 1): 18 iterations of an interior-point method, in
    float64 whatever the dtype. A number asks for so many of Newton's. Each iteration is one
    Cholesky factorisation, and a last Newton step follows. All counts are fixed, so that nothing
    waits for a device; `residual` bounds what is missing in a state, and `Articulated.residual`
    does so for a user.

    Derivatives: "implicit" differentiates the condition of optimality, a* − H(a*)⁻¹ g(a*, state)
    with a* and H held constant: the first derivative is exact at the optimum (a second is not
    defined by it). "unrolled" differentiates all iterations of Newton's method; the two agree where
    they have converged.

    Non-smooth places: a row begins to act at its margin (with a jump if it is approached at speed),
    stops acting where Jᵢ a = rᵢ, and its impedance has kinks at the ends of its width; those of the
    geometry.

    Raises `UnknownName` for another way to differentiate, `BadValue` for fewer than one iteration.
    """

    iterations: int | None = None
    differentiate: Literal["implicit", "unrolled"] = "implicit"

    def __post_init__(self) -> None:
        if self.differentiate not in DIFFERENTIATE:
            raise UnknownName("way to differentiate", self.differentiate, DIFFERENTIATE)
        if self.iterations is not None and self.iterations < 1:
            raise BadValue(
                f"Convex: expected iterations >= 1 or None, got {self.iterations}; try Convex()"
            )

    def check(self, model: Model, dt: float) -> None:
        """Warn where Newton's method was asked for and may not converge; time constants below 2 dt
        [s] are raised to it, as in MuJoCo."""
        if firmness(model) > SOFT and not self._interior(model):
            warnings.warn(
                f"Convex: {model.name} has constraints of firmness {firmness(model):.3g}, above "
                f"{SOFT:g}; {self.iterations or OF_NEWTON} iterations of Newton's method need not "
                "converge: look at Articulated.residual, or use Convex()",
                stacklevel=2,
            )

    def force(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """Generalised force of all contacts and limits [N m, N]."""
        if not constrained(model):
            return torch.zeros_like(now.qvel)
        return times(now.mass, self.acceleration(model, now)) - now.smooth

    def acceleration(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch nv"]:
        """The minimiser a [m/s², rad/s²]."""
        if not constrained(model):
            return solved(now.mass, now.smooth)
        rows = rows_of(model, now)
        if self.differentiate == "unrolled":
            return newton(now.mass, now.smooth, rows, self.iterations or OF_NEWTON)
        mass, smooth, fixed = now.mass.detach(), now.smooth.detach(), rows.detach()
        if not self._interior(model):
            near = newton(mass, smooth, fixed, self.iterations or OF_NEWTON)
            acting = fixed.acts(fixed.along(near) - fixed.reference).to(near.dtype)
            return _last_step(now.mass, now.smooth, rows, near, acting)
        found = interior(mass, smooth, fixed, OF_INTERIOR)
        return _firm_last_step(now.mass.double(), now.smooth.double(), rows, found).to(mass.dtype)

    def residual(self, model: Model, now: Dynamics) -> Float[Tensor, "*batch"]:
        """Bound of the relative error of `acceleration`,
        ‖a − a*‖/(‖a‖ + ‖a₀‖) in the norm of M [1].

        The problem is strongly convex: ½ ‖a − a*‖² is at most the gap between its value at a and
        its dual's at any forces λ >= 0, ½ ‖a − M⁻¹(f + J'λ)‖² + Σ (λ + D min(J a − r, 0))²/(2D) + λ
        max(J a − r, 0). The forces are those at a, or the interior point's where they say more.
        """
        now = now._replace(
            **{n: getattr(now, n).detach() for n in ("mass", "smooth", "qpos", "qvel")}
        )
        a = self.acceleration(model, now).detach()
        if not constrained(model):
            return torch.zeros_like(a[..., 0])
        rows = rows_of(model, now).detach()
        slack = rows.along(a) - rows.reference
        gap = _gap(now, rows, a, slack, rows.force(slack, rows.acts(slack).to(a.dtype)))
        if self._interior(model):
            force = interior(now.mass, now.smooth, rows, OF_INTERIOR).force.to(a.dtype)
            gap = torch.fmin(gap, _gap(now, rows, a, slack, force))
        free = solved(now.mass, now.smooth)
        scale = _squared(now.mass, a).sqrt() + _squared(now.mass, free).sqrt()
        return gap.sqrt() / scale.clamp(min=MINVAL)

    def _interior(self, model: Model) -> bool:
        chosen = self.iterations is None and self.differentiate == "implicit"
        return chosen and firmness(model) > SOFT


def _gap(now: Dynamics, rows: Rows, a: Tensor, slack: Tensor, force: Tensor) -> Tensor:
    """Twice the gap between the problem's value at `a` and its dual's at a `force` in its range."""
    pushed = solved(now.mass, now.smooth + rows.onto(force))
    weight = torch.where(rows.weight > 0, rows.weight, 1.0)
    own = rows.force(slack, rows.acts(slack).to(a.dtype))
    apart = force - own
    beyond = (apart * (slack + own / weight)).clamp(min=0.0)  # negative by rounding only
    at_rows = apart.square() / weight + 2 * beyond
    return _squared(now.mass, a - pushed) + torch.where(rows.weight > 0, at_rows, 0.0).sum(-1)


def _squared(mass: Tensor, x: Tensor) -> Tensor:
    """x' M x."""
    return (times(mass, x) * x).sum(-1)


def _newton_step(
    mass: Tensor, smooth: Tensor, rows: Rows, near: Tensor, acting: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """−H⁻¹ g over the acting rows with H and `near` constant;
    J a − r at `near` and J times the step.
    """
    fixed = rows.detach()
    bend, _ = fixed.curvature(acting * fixed.weight, fixed.reference)
    slack = rows.along(near) - rows.reference
    gradient = times(mass, near) - smooth - rows.onto(rows.force(slack, acting))
    root = factor(mass + bend)
    step = -torch.cholesky_solve(gradient.unsqueeze(-1), root).squeeze(-1)
    return step, slack.detach(), fixed.along(step.detach())


def _last_step(mass: Tensor, smooth: Tensor, rows: Rows, near: Tensor, acting: Tensor) -> Tensor:
    """`near` improved by a Newton step, with its derivatives;
    no step where rows would start or stop acting.
    """
    step, slack, along = _newton_step(mass, smooth, rows, near, acting)
    switches = (rows.weight > 0) & (rows.acts(slack) != rows.acts(slack + along))
    off = switches.any(-1, keepdim=True).to(step.dtype)
    return near + step - off * step.detach()


def _firm_last_step(mass: Tensor, smooth: Tensor, rows: Rows, found: Optimum) -> Tensor:
    """The same in float64 with a line search; where rows are so firm that M is lost beside them,
    with derivatives only.

    These are of rows of the largest weight that leaves M its digits: the forces that they can carry
    are the same, so that derivatives differ by about the ratio of M to that weight.
    """
    rows = Rows(*(x.double() for x in rows))
    lost = (rows.weight.detach() > found.firmest).any(-1, keepdim=True)
    borne = rows._replace(weight=torch.minimum(rows.weight, found.firmest))
    step, slack, along = _newton_step(mass, smooth, borne, found.a, found.acting)
    there, heavy = step.detach(), mass.detach()
    slope = ((times(heavy, found.a) - smooth.detach()) * there).sum(-1)
    curve = _squared(heavy, there)
    share = searched(borne.detach(), curve, slope, slack, along).clamp(min=0.0).unsqueeze(-1)
    return found.a + step + (torch.where(lost, 0.0, share) - 1) * step.detach()
