"""What is refused of a compiled model, each blocker with its element's name and what to write instead.

The subset: free, hinge and slide joints (several per body); sphere, capsule and box against plane,
sphere and capsule against each other; condim 1 and 3 with pyramidal friction; contact margin and gap,
armature, damping, springs, joint limits; motors on joints with gain, gear, control and force range; Euler,
implicitfast and RK4; the flags of `_FLAGS`. Tendons that exert nothing are accepted, and so are geoms that
touch nothing, whatever their type. A test changes every field of a compiled model and requires that it is
refused here or simulated as MuJoCo does (tests/test_mjcf_fields.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab.errors import BadValue
from gradlab.simulators.articulated.mjcf import shapes
from gradlab.simulators.articulated.mjcf.package import disabled, mujoco_package
from gradlab.simulators.articulated.model import FREE, HINGE, SLIDE

# MuJoCo's integrator: ours. In the subset, implicitfast's velocity derivatives are joint damping alone, but for free
# bodies with no joints below, whose gyroscopic derivatives it has too.
_INTEGRATORS = {0: "implicit_damping", 1: "rk4", 3: "implicit_damping"}
_FLAGS = (
    # switched off as MuJoCo does
    *("CONSTRAINT", "LIMIT", "CONTACT", "SPRING", "DAMPER", "GRAVITY", "CLAMPCTRL"),
    *("FILTERPARENT", "ACTUATION", "EULERDAMP"),
    # nothing inside the subset for them to switch off
    *("EQUALITY", "FRICTIONLOSS"),
    # ways of computing the same, and checks
    *("WARMSTART", "SENSOR", "MIDPHASE", "AUTORESET", "NATIVECCD", "ISLAND", "MULTICCD"),
)
_ENABLED = ("ENERGY", "FWDINV", "INVDISCRETE")  # more outputs, the same motion
_SURFACE = 1e-9  # relative accuracy of the bounding radius that the compiler stores


def refuse(m: Any) -> None:
    """Raise `BadValue` with all of what is outside the subset, in one line."""
    found = list(blockers(m))
    if found:
        things = "1 thing" if len(found) == 1 else f"{len(found)} things"
        raise BadValue(
            f"{things} of this model outside the subset of MJCF that gradlab simulates: "
            f"{'; '.join(found)}. See docs/own_mjcf.md for what is inside"
        )


def integrator(m: Any) -> str:
    """The file's integrator by the name that `Articulated` has for it."""
    name = _INTEGRATORS[int(m.opt.integrator)]
    explicit = (
        name == "implicit_damping" and int(m.opt.integrator) == 0 and disabled(m, "EULERDAMP")
    )
    return "explicit_damping" if explicit else name


def blockers(m: Any) -> Iterator[str]:
    """Each thing outside the subset: the element, what it has, what to try."""
    yield from _whole(m)
    yield from _options(m)
    yield from _joints(m)
    yield from _bodies(m)
    yield from _tendons(m)
    yield from _actuators(m)
    yield from _geoms(m)


def _name(m: Any, kind: str, index: int) -> str:
    mujoco = mujoco_package()
    found = mujoco.mj_id2name(m, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), index)
    return f"{kind} {found!r}" if found else f"{kind} number {index}"


def _whole(m: Any) -> Iterator[str]:
    for count, what in (
        (m.neq, "equality constraint"),
        (m.nmocap, "mocap body"),
        (m.nflex, "flex"),
        (m.npair, "explicit contact pair (give its values to the geoms)"),
        (m.nplugin, "plugin"),
        (m.na, "actuator state (put it into the policy's memory)"),
        (m.nplastic, "plasticity"),
        (m.nhistory, "actuator or sensor delay"),
    ):
        if count:
            yield f"{count} x {what}"
    if m.nv == 0:
        yield "a model without joints"


def _options(m: Any) -> Iterator[str]:
    mj = mujoco_package()
    if int(m.opt.integrator) not in _INTEGRATORS:
        word = mj.mjtIntegrator(int(m.opt.integrator)).name.removeprefix("mjINT_").lower()
        yield f'option integrator="{word}" (try "implicitfast", "Euler" or "RK4")'
    elif int(m.opt.integrator) == mj.mjtIntegrator.mjINT_IMPLICITFAST:
        roots = [int(m.body_rootid[b]) for b in m.jnt_bodyid]
        alone = [b for b, kind in zip(roots, m.jnt_type, strict=True) if kind == FREE]
        for b in (b for b in alone if roots.count(b) == 1):
            yield f'option integrator="implicitfast" with {_name(m, "body", b)} free and without joints (try "Euler")'
    if m.opt.timestep <= 0:
        yield "option timestep, which must be positive"
    if m.opt.cone != mj.mjtCone.mjCONE_PYRAMIDAL and any(
        shapes.dimension(m, *pair) > 1 for pair in shapes.touching(m)
    ):
        yield 'option cone="elliptic", an elliptic friction cone (try "pyramidal")'
    for field in ("density", "viscosity"):
        if getattr(m.opt, field):
            yield f"option {field}, a fluid around the bodies (try 0 and joint damping)"
    if m.opt.noslip_iterations:
        yield "option noslip_iterations, the noslip solver (try 0 and a larger impratio)"
    for bits, members, prefix, fine, state in (
        (m.opt.disableflags, mj.mjtDisableBit, "mjDSBL_", _FLAGS, "disable"),
        (m.opt.enableflags, mj.mjtEnableBit, "mjENBL_", _ENABLED, "enable"),
    ):
        known = {int(bit): name for name, bit in members.__members__.items() if prefix in name}
        for place in range(int(bits).bit_length()):
            name = known.get(1 << place, f"number {place}").removeprefix(prefix)
            if int(bits) >> place & 1 and name not in fine:
                yield f'option flag {name.lower()}="{state}" (try the default)'


def _joints(m: Any) -> Iterator[str]:
    for j in range(m.njnt):
        who, kind = _name(m, "joint", j), int(m.jnt_type[j])
        dofs = slice(m.jnt_dofadr[j], m.jnt_dofadr[j] + {FREE: 6, SLIDE: 1, HINGE: 1}.get(kind, 3))
        if kind not in (FREE, SLIDE, HINGE):
            yield f"{who}: a ball joint (try three hinges)"
        if np.any(m.jnt_stiffnesspoly[j]):
            yield f"{who}: a nonlinear spring"
        if m.jnt_actgravcomp[j]:
            yield f"{who}: actuated gravity compensation"
        if kind == FREE and m.jnt_stiffness[j] and not disabled(m, "SPRING"):
            yield f"{who}: a spring on a free joint"
        if np.any(m.dof_frictionloss[dofs]):
            yield f"{who}: dry friction (try frictionloss 0 and damping)"
        if np.any(m.dof_dampingpoly[dofs]):
            yield f"{who}: nonlinear damping"
        if np.any(m.dof_armature[dofs] < 0):
            yield f"{who}: negative armature"
        if m.jnt_actfrclimited[j] and m.jnt_actfrcrange[j, 0] > m.jnt_actfrcrange[j, 1]:
            yield f"{who}: actuatorfrcrange that ends before it begins"


def _bodies(m: Any) -> Iterator[str]:
    for b in range(m.nbody):
        who = _name(m, "body", b)
        if m.body_gravcomp[b]:
            yield f"{who}: gravity compensation (try gravcomp 0 and a force of the policy)"
        if m.body_mass[b] < 0 or np.any(m.body_inertia[b] < 0) or np.any(m.body_invweight0[b] < 0):
            yield f"{who}: negative mass, inertia or inverse weight"


def _tendons(m: Any) -> Iterator[str]:
    for t in range(m.ntendon):
        fields = ("stiffness", "limited", "damping", "frictionloss", "armature")
        busy = [f for f in fields if getattr(m, f"tendon_{f}")[t]]
        busy += [
            f for f in ("stiffnesspoly", "dampingpoly") if np.any(getattr(m, f"tendon_{f}")[t])
        ]
        if busy:
            yield f"{_name(m, 'tendon', t)}: {', '.join(busy)} (only tendons that exert nothing)"


def _actuators(m: Any) -> Iterator[str]:
    mj = mujoco_package()
    for a in range(m.nactuator):
        who = _name(m, "actuator", a)
        where = int(m.actuator_trntype[a])
        if where not in (mj.mjtTrn.mjTRN_JOINT, mj.mjtTrn.mjTRN_JOINTINPARENT):
            yield f"{who}: acts on something else than a joint"
        elif int(m.jnt_type[m.actuator_trnid[a, 0]]) not in (SLIDE, HINGE):
            yield f"{who}: acts on a joint other than a hinge or slide"
        if (
            int(m.actuator_gaintype[a]) != mj.mjtGain.mjGAIN_FIXED
            or int(m.actuator_biastype[a]) != mj.mjtBias.mjBIAS_NONE
            or int(m.actuator_dyntype[a]) != mj.mjtDyn.mjDYN_NONE
            or int(m.actuator_ctrlnum[a]) != 1
        ):
            yield f"{who}: a servo, muscle or filter (try a plain motor, and the servo in the policy)"
        if m.actuator_damping[a] or np.any(m.actuator_dampingpoly[a]):
            yield f"{who}: damping, not a plain motor (give it to the joint)"
        if m.actuator_armature[a]:
            yield f"{who}: armature, not a plain motor (give it to the joint)"
        if m.actuator_delay[a]:
            yield f"{who}: delay"
        control = int(m.actuator_ctrladr[a])
        ranges = [("forcerange", m.actuator_forcelimited[a], m.actuator_forcerange[a])]
        if control >= 0:
            ranges.append(
                ("ctrlrange", m.actuator_ctrllimited[control], m.actuator_ctrlrange[control])
            )
        for word, limited, (low, high) in ranges:
            if limited and low > high:
                yield f"{who}: {word} that ends before it begins"


def _geoms(m: Any) -> Iterator[str]:
    touching = shapes.touching(m)
    for first, second in touching:
        pair = f"geoms {_name(m, 'geom', first)[5:]} and {_name(m, 'geom', second)[5:]}"
        if not _collides(int(m.geom_type[first]), int(m.geom_type[second])):
            yield f"{pair}: contact of these two shapes (try capsules, or contype and conaffinity 0)"
        if shapes.dimension(m, first, second) not in (1, 3):
            yield f"{pair}: condim other than 1 or 3"
        if m.geom_gap[first] + m.geom_gap[second] < 0:
            yield f"{pair}: negative gap (try gap 0 and a smaller margin)"
    for g in sorted({g for pair in touching for g in pair}):
        who = _name(m, "geom", g)
        if np.any(m.geom_adhesion[g]):
            yield f"{who}: adhesion"
        if np.any(m.geom_surfacevel[g]):
            yield f"{who}: surface velocity"
        bound = _bounding_radius(int(m.geom_type[g]), m.geom_size[g])
        if abs(bound - m.geom_rbound[g]) > _SURFACE * max(1.0, bound):
            yield f"{who}: size and bounding radius that disagree (compile the model again)"


def _collides(first: int, second: int) -> bool:
    kinds = {first, second}
    if shapes.PLANE in kinds:
        rest = kinds - {shapes.PLANE}
        return bool(rest) and rest <= {shapes.SPHERE, shapes.CAPSULE, shapes.BOX}
    return kinds <= {shapes.SPHERE, shapes.CAPSULE}


def _bounding_radius(kind: int, size: Any) -> float:
    """What MuJoCo's compiler stores for the shapes of the subset; it looks for contacts within it [m]."""
    if kind == shapes.PLANE:
        return 0.0
    if kind == shapes.BOX:
        return float(np.linalg.norm(size))
    return float(size[0] + (size[1] if kind == shapes.CAPSULE else 0.0))
