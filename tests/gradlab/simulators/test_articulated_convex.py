"""`Convex()` as it comes finds the minimum, however firm the constraints are,
or says that it did not.

Two references: MuJoCo's Newton solver at tolerance 0, and the cost itself, which is strictly
convex, so that of two accelerations the one of lower cost is nearer to the only minimum. Where
MuJoCo stops early (nearly rigid pyramids of friction 0 at impratio 100) its cost says so.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.simulators.articulated import (
    Articulated,
    BraxLike,
    Convex,
    Model,
    from_file,
    from_mujoco,
    from_string,
    gymnasium_asset,
)
from gradlab.simulators.articulated.constraints import firmness, rows_of
from gradlab.simulators.articulated.contact import Dynamics
from gradlab.simulators.articulated.convex import SOFT
from gradlab.simulators.articulated.linear import times
from gradlab.simulators.articulated.variants import RUNNERS, simulator
from tests.helpers.trees import forward, reference, states

RIGID = (0.99, 0.9999, 0.001, 0.5, 2.0)  # a solimp
BOX = """<mujoco model="box"><worldbody><geom type="plane" size="1 1 1" friction="{0}"/>
<body><freejoint/><geom type="box" size=".1 .1 .1" friction="{0}"/></body></worldbody></mujoco>"""


@lru_cache(maxsize=16)
def edited(name: str, ratio: float, every: int, friction: float | None, rigid: bool) -> Model:
    """gymnasium's model with another impratio, friction of every so many geoms, and solimp."""
    spec = mujoco.MjSpec.from_file(str(gymnasium_asset(name)))
    spec.compiler.settotalmass = -1  # deprecated, and of no matter here
    spec.option.impratio = ratio
    for k, geom in enumerate(spec.geoms):
        if friction is not None and k % every == 0:
            geom.friction[0] = friction
        if rigid:
            geom.solimp = RIGID
    return from_mujoco(spec.compile())


FIRM: dict[str, tuple[str, float, int, float | None, bool]] = {
    "ant, impratio 10": ("ant", 10.0, 1, None, False),
    "ant, impratio 100": ("ant", 100.0, 1, None, False),
    "ant, every third geom at friction .05": ("ant", 1.0, 3, 0.05, False),
    "ant, friction 0": ("ant", 1.0, 1, 0.0, False),
    "ant, friction 0, impratio 100, rigid": ("ant", 100.0, 1, 0.0, True),
    "humanoid, impratio 100": ("humanoid", 100.0, 1, None, False),
    "humanoid, every third geom at friction .05": ("humanoid", 1.0, 3, 0.05, False),
    "humanoid, friction 0, impratio 100, rigid": ("humanoid", 100.0, 1, 0.0, True),
}


def dynamics(model: Model, qpos: Tensor, qvel: Tensor, control: Tensor) -> Dynamics:
    sim = Articulated(model, Convex(), "implicit_damping", dt=model.timestep, substeps=1)
    return sim._dynamics(
        qpos, qvel, sim.actuation(control.expand(*qpos.shape[:-1], -1), qpos, qvel)
    )


def cost(model: Model, now: Dynamics, a: Tensor) -> np.ndarray:
    """What is minimised, as it stands in `convex.py`, up to a number that a does not change.

    In 80 bits: in 64 the rounding of J a − r, times weights of up to 1e17, hides which one is less.
    """
    rows = rows_of(model, now)
    jacobian = torch.cat((rows.contact, rows.joint.expand(len(a), -1, -1)), dim=-2)
    parts = a, now.mass, now.smooth, jacobian, rows.reference, rows.weight
    x, mass, smooth, jacobian, reference, weight = (p.numpy().astype(np.longdouble) for p in parts)
    lacking = np.minimum((jacobian * x[:, None, :]).sum(-1) - reference, 0.0)
    force = (mass * x[:, None, :]).sum(-1) / 2 - smooth
    return (force * x).sum(-1) + (weight * lacking**2).sum(-1) / 2


def accelerations_of_mujoco(model: Model, count: int, seed: int) -> tuple[Dynamics, Tensor]:
    compiled, data = reference(model)
    qpos, qvel, control = states(model, count, seed)
    wanted = []
    for i in range(count):
        forward(compiled, data, qpos[i], qvel[i], control[i])
        wanted.append(data.qacc.copy())
    return dynamics(model, qpos, qvel, control), torch.tensor(np.array(wanted))


def compared(model: Model, count: int, seed: int) -> tuple[int, float]:
    """Checks every state; how many MuJoCo left at a higher cost,
    and the largest bound of our error.
    """
    now, theirs = accelerations_of_mujoco(model, count, seed)
    ours, bound = Convex().acceleration(model, now), Convex().residual(model, now)
    assert ours.isfinite().all() and theirs.isfinite().all()
    off = (ours - theirs).abs().amax(-1) > 1e-6 * theirs.abs().amax(-1)
    higher = cost(model, now, theirs) > cost(model, now, ours)
    assert not (off.numpy() & ~higher).any()
    # a part of the bound is the rounding of J a - r times sqrt(D): nearly all of it where D is 1e17
    assert float(bound.max()) < 1e-6
    return int(off.sum()), float(bound.max())


def test_a_box_on_ice() -> None:
    """Eight iterations of Newton's method gave (0, 0, -2.92, -102.18, 23.67, 2.58)."""
    model = from_string(BOX.format(0))
    qpos = torch.tensor([0, 0, 0.097, 1, 0.005, -0.014, -0.026], dtype=torch.float64)
    qvel = torch.tensor([0.06, 0, 0.03, -0.04, 0.47, 0.13], dtype=torch.float64)
    found = Convex().acceleration(model, dynamics(model, qpos, qvel, qpos[:0]))
    wanted = torch.tensor([0, 0, 4.85, -23.62, 23.64, 0.40], dtype=torch.float64)
    assert float((found - wanted).abs().max()) < 0.005  # as many digits as there are
    compiled, data = reference(model)
    forward(compiled, data, qpos, qvel, qpos[:0])
    assert float((found - torch.tensor(data.qacc)).abs().max()) < 1e-9


@pytest.mark.parametrize("name", [name for name in FIRM if name.startswith("ant")])
def test_firm_constraints(name: str) -> None:
    compared(edited(*FIRM[name]), count=15, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRM)
def test_firm_constraints_in_many_states(name: str) -> None:
    higher, bound = compared(edited(*FIRM[name]), count=300, seed=8)
    print(f"\n{name}: MuJoCo at a higher cost in {higher} of 300, error at most {bound:.0e}")


@pytest.mark.parametrize("name", RUNNERS)
@pytest.mark.parametrize("preset", ["gymnasium", "brax"])
def test_what_ships_is_soft(name: str, preset: str) -> None:
    """So that Newton's eight iterations are what runs, as before."""
    assert firmness(simulator(name, preset, "convex").model) <= SOFT


@pytest.mark.parametrize("ratio", [1.0, 100.0])
@pytest.mark.parametrize("iterations", [1, 3, None])
def test_residual_bounds_the_error(ratio: float, iterations: int | None) -> None:
    model = edited("ant", ratio, 1, None, False)
    now = dynamics(model, *states(model, 100, 3))
    law = Convex(iterations)
    truth, found = Convex(60).acceleration(model, now), law.acceleration(model, now)
    free = torch.linalg.solve(now.mass, now.smooth)
    error, size, other = (
        (times(now.mass, x) * x).sum(-1).sqrt() for x in (found - truth, found, free)
    )
    bound = law.residual(model, now)
    assert (error <= bound * (size + other) + 1e-10 * size).all()
    unconverged = float((bound > 1e-6).double().mean())
    assert unconverged == 0 if iterations is None else unconverged > 0


def test_newtons_iterations_on_firm_constraints_are_warned_of() -> None:
    model = edited("ant", 100.0, 1, None, False)
    for law in (Convex(8), Convex(differentiate="unrolled")):
        with pytest.warns(UserWarning, match="firmness 475, above 20.*Articulated.residual"):
            Articulated(model, law)


def gradient(model: Model, state: Tensor, action: Tensor, weights: Tensor, dtype: Any) -> Tensor:
    state, action = state.to(dtype).requires_grad_(), action.to(dtype)
    sim = Articulated(model, Convex(), dt=model.timestep, substeps=1)
    value = (sim.step(state, action, action[..., :0]) @ weights.to(dtype)).sum()
    return torch.autograd.grad(value, state)[0]


@pytest.mark.parametrize("name", ["ant, impratio 100", "ant, every third geom at friction .05"])
def test_gradients_are_differences_of_the_solution(name: str) -> None:
    """In every state where no row started or stopped acting within the difference."""
    model = edited(*FIRM[name])
    sim = Articulated(model, Convex(), dt=model.timestep, substeps=1)
    qpos, qvel, control = states(model, 12, 3)
    weights = torch.tensor(np.random.default_rng(3).normal(size=model.nq + model.nv))
    state, h = torch.cat((qpos, qvel), -1), 1e-7
    size = state.shape[-1]
    moved = h * torch.cat((torch.eye(size), -torch.eye(size))).double()
    there, action = state + moved.unsqueeze(1), control.expand(2 * size, *control.shape)
    value = sim.step(there, action, action[..., :0]) @ weights
    wanted = ((value[:size] - value[size:]) / (2 * h)).mT

    def acting(x: Tensor) -> Tensor:
        now = dynamics(model, x[..., : model.nq], x[..., model.nq :], control)
        rows = rows_of(model, now)
        acts = rows.along(Convex().acceleration(model, now)) < rows.reference
        return torch.cat((rows.weight > 0, acts), -1)

    same = (acting(there) == acting(state)).all(-1).all(0)
    assert same.double().mean() > 0.5
    error = (gradient(model, state, control, weights, torch.float64) - wanted).abs().amax(-1)
    assert float((error / wanted.abs().amax(-1))[same].max()) < 1e-5


@pytest.mark.parametrize("name", ["ant, impratio 100", "ant, friction 0, impratio 100, rigid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_at_firm_constraints_are_finite(name: str, dtype: torch.dtype) -> None:
    model = edited(*FIRM[name])
    qpos, qvel, control = states(model, 300, 5)
    weights = torch.tensor(np.random.default_rng(5).normal(size=model.nq + model.nv))
    found = gradient(model, torch.cat((qpos, qvel), -1), control, weights, dtype)
    assert found.dtype == dtype and found.isfinite().all()


def test_firm_constraints_alone_in_a_batch_and_under_vmap() -> None:
    model = edited("ant", 100.0, 1, None, False)
    sim = Articulated(model, Convex(), dt=0.02, substeps=1)
    qpos, qvel, control = states(model, 6, 7)
    state = torch.cat((qpos, qvel), -1)

    def value(s: Tensor, a: Tensor) -> Tensor:
        return sim.step(s, a, a[..., :0]).square().sum()

    def by_grad(s: Tensor, a: Tensor) -> Tensor:
        s = s.clone().requires_grad_()
        return torch.autograd.grad(value(s, a), s)[0]

    together = by_grad(state, control)
    alone = torch.stack([by_grad(s, a) for s, a in zip(state, control, strict=True)])
    mapped = torch.func.vmap(torch.func.grad(value))(state, control)
    for other in (alone, mapped):
        assert float((other - together).abs().max()) < 1e-9 * float(together.abs().max())


def test_simulator_reports_what_did_not_converge() -> None:
    """The largest over the sub-steps; a law without iterations is refused."""
    model = edited("ant", 1.0, 1, None, False)
    qpos, qvel, control = states(model, 100, 11)
    state = torch.cat((qpos, qvel), -1)
    found = [
        Articulated(model, Convex(n), dt=0.05, substeps=5).residual(state, control)
        for n in (2, 8, None)
    ]
    assert (found[0] > 1e-6).any() and float(found[2].max()) < 1e-8
    assert torch.equal(found[1], found[2])
    first = Articulated(model, Convex(2), dt=0.01, substeps=1).residual(state, control)
    assert (found[0] >= first).all() and (found[0] > first).any()
    with pytest.raises(BadValue, match="BraxLike does not iterate to a solution.*Convex"):
        Articulated(model, BraxLike()).residual(state, control)


def test_the_bound_is_as_small_as_the_error() -> None:
    """A tree whose interior point stops at forces 1e-5 off, while the last step is exact.

    The bound from those forces alone said 1.1e-5 of an acceleration that MuJoCo has to 1e-15.
    """
    model = from_file(Path(__file__).with_name("firm_tree.xml"))
    now, theirs = accelerations_of_mujoco(model, 4, 1227)
    ours = Convex().acceleration(model, now)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-12
    assert float(Convex().residual(model, now).max()) < 1e-10
