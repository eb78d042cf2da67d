"""What is refused of a compiled model, each blocker with its element's name
and what to write instead.

The subset: free, hinge and slide joints (several per body); sphere, capsule and box against plane,
sphere and capsule against each other; condim 1 and 3 with pyramidal friction; contact margin and
gap, armature, damping, springs, joint limits, dry friction of joints; motors and affine servos on
joints with gear, damping, armature, control and force range; Euler, implicitfast and RK4; the flags
of `_FLAGS`. Tendons that exert nothing are accepted, and so are geoms that touch nothing, whatever
their type. A test changes every field of a compiled model and requires that it is refused here or
simulated as MuJoCo does (tests/gradlab/simulators/test_mjcf_fields.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab.foundation.errors import BadValue
from gradlab.simulators.articulated.mjcf import shapes
from gradlab.simulators.articulated.mjcf.package import disabled, mujoco_package
from gradlab.simulators.articulated.model import FREE, HINGE, SLIDE

# MuJoCo's integrator: ours. In the subset, implicitfast's velocity derivatives are those of joint
# damping and servos, but for free bodies with no joints below, whose gyroscopic ones it has too.
_INTEGRATORS = {0: "implicit_damping", 1: "rk4", 3: "implicitfast"}
_FLAGS = (
    # switched off as MuJoCo does
    *("CONSTRAINT", "LIMIT", "CONTACT", "SPRING", "DAMPER", "GRAVITY", "CLAMPCTRL"),
    *("FILTERPARENT", "ACTUATION", "EULERDAMP", "FRICTIONLOSS"),
    # nothing inside the subset for it to switch off
    "EQUALITY",
    # ways of computing the same, and checks
    *("WARMSTART", "SENSOR", "MIDPHASE", "AUTORESET", "NATIVECCD", "ISLAND", "MULTICCD"),
)
_ENABLED = ("ENERGY", "FWDINV", "INVDISCRETE")  # more outputs, the same motion
_NAMED = 12  # elements with the same blocker that a message names
_SURFACE = 1e-9  # relative accuracy of the bounding radius that the compiler stores


def refuse(m: Any) -> None:
    """Raise `BadValue` with all of what is outside the subset, in one line."""
    elements: dict[str, list[str]] = {}
    for who, what in blockers(m):
        elements.setdefault(what, []).append(who)
    if elements:
        found = [f"{_listed(who)}: {what}" for what, who in elements.items()]
        things = "1 thing" if len(found) == 1 else f"{len(found)} things"
        raise BadValue(
            f"{things} of this model outside the subset of MJCF that gradlab simulates: "
            f"{'; '.join(found)}. See docs/own_mjcf.md for what is inside"
        )


def _listed(elements: list[str]) -> str:
    more = len(elements) - _NAMED
    return ", ".join(elements[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def integrator(m: Any) -> str:
    """The file's integrator by the name that `Articulated` has for it."""
    name = _INTEGRATORS[int(m.opt.integrator)]
    explicit = (
        name == "implicit_damping" and int(m.opt.integrator) == 0 and disabled(m, "EULERDAMP")
    )
    return "explicit_damping" if explicit else name


def blockers(m: Any) -> Iterator[tuple[str, str]]:
    """Each thing outside the subset: the element, and what it has and what to try."""
    yield from _whole(m)
    yield from _options(m)
    yield from _joints(m)
    yield from _bodies(m)
    yield from _tendons(m)
    yield from _actuators(m)
    yield from _geoms(m)
    yield from _not_finite(m)


def name_of(m: Any, kind: str, index: int) -> str:
    """An element in words: its name, or its number."""
    mujoco = mujoco_package()
    found = mujoco.mj_id2name(m, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), index)
    return f"{kind} {found!r}" if found else f"{kind} number {index}"


def _whole(m: Any) -> Iterator[tuple[str, str]]:
    for kind, count, what in (
        ("equality", m.neq, "an equality constraint"),
        ("flex", m.nflex, "deformable"),
        ("pair", m.npair, "an explicit contact pair (give its values to the geoms)"),
        ("plugin", m.nplugin, "computed outside MuJoCo"),
    ):
        for k in range(count):
            yield name_of(m, kind, k), what
    for kind in ("jnt", "tendon"):
        for k in np.flatnonzero(getattr(m, f"{kind}_plasticadr") >= 0):
            yield name_of(m, "joint" if kind == "jnt" else kind, int(k)), "plasticity"
    for k in np.flatnonzero(m.sensor_historyadr >= 0):
        yield name_of(m, "sensor", int(k)), "a delay"
    if m.nv == 0:
        yield "the model", "without joints"


def _options(m: Any) -> Iterator[tuple[str, str]]:
    mj = mujoco_package()
    if int(m.opt.integrator) not in _INTEGRATORS:
        word = mj.mjtIntegrator(int(m.opt.integrator)).name.removeprefix("mjINT_").lower()
        yield f'option integrator="{word}"', 'not simulated (try "implicitfast", "Euler" or "RK4")'
    elif int(m.opt.integrator) == mj.mjtIntegrator.mjINT_IMPLICITFAST:
        roots = [int(m.body_rootid[b]) for b in m.jnt_bodyid]
        alone = [b for b, kind in zip(roots, m.jnt_type, strict=True) if kind == FREE]
        for b in (b for b in alone if roots.count(b) == 1):
            what = "gyroscopic derivatives of a free body without joints below (try Euler)"
            yield f'option integrator="implicitfast" and {name_of(m, "body", b)}', what
    if m.opt.timestep <= 0:
        yield "option timestep", "must be positive"
    if m.opt.cone != mj.mjtCone.mjCONE_PYRAMIDAL and any(
        shapes.dimension(m, *pair) > 1 for pair in shapes.touching(m)
    ):
        yield (
            'option cone="elliptic"',
            'an elliptic friction cone (try "pyramidal", or simplify=["friction"])',
        )
    for field in ("density", "viscosity"):
        if getattr(m.opt, field):
            yield f"option {field}", "a fluid around the bodies (try 0 and joint damping)"
    if m.opt.noslip_iterations:
        yield "option noslip_iterations", "the noslip solver (try 0 and a larger impratio)"
    for bits, members, prefix, fine, state in (
        (m.opt.disableflags, mj.mjtDisableBit, "mjDSBL_", _FLAGS, "disable"),
        (m.opt.enableflags, mj.mjtEnableBit, "mjENBL_", _ENABLED, "enable"),
    ):
        known = {int(bit): name for name, bit in members.__members__.items() if prefix in name}
        for place in range(int(bits).bit_length()):
            name = known.get(1 << place, f"number {place}").removeprefix(prefix)
            if int(bits) >> place & 1 and name not in fine:
                yield f'option flag {name.lower()}="{state}"', "not simulated (try the default)"


def _joints(m: Any) -> Iterator[tuple[str, str]]:
    for j in range(m.njnt):
        who, kind = name_of(m, "joint", j), int(m.jnt_type[j])
        dofs = slice(m.jnt_dofadr[j], m.jnt_dofadr[j] + {FREE: 6, SLIDE: 1, HINGE: 1}.get(kind, 3))
        if kind not in (FREE, SLIDE, HINGE):
            yield who, "a ball joint (try three hinges)"
        if np.any(m.jnt_stiffnesspoly[j]):
            yield who, "a nonlinear spring"
        if m.jnt_limited[j] and np.isinf(m.jnt_range[j]).any():
            yield who, "a range without end (try a large number, such as 1000)"
        if m.jnt_actgravcomp[j]:
            yield who, "actuated gravity compensation"
        if kind == FREE and m.jnt_stiffness[j] and not disabled(m, "SPRING"):
            yield who, "a spring on a free joint"
        if np.any(m.dof_frictionloss[dofs] < 0):
            yield who, "negative frictionloss"
        if np.any(m.dof_dampingpoly[dofs]):
            yield who, "nonlinear damping"
        if np.any(m.dof_armature[dofs] < 0):
            yield who, "negative armature"
        if np.any(m.dof_invweight0[dofs] < 0):
            yield who, "negative inverse weight"
        if m.jnt_actfrclimited[j] and m.jnt_actfrcrange[j, 0] > m.jnt_actfrcrange[j, 1]:
            yield who, "actuatorfrcrange that ends before it begins"


def _bodies(m: Any) -> Iterator[tuple[str, str]]:
    for b in range(m.nbody):
        who = name_of(m, "body", b)
        if m.body_mocapid[b] >= 0:
            yield who, "a mocap body (try a joint with a motor)"
        if m.body_gravcomp[b]:
            yield who, "gravity compensation (try gravcomp 0 and a force of the policy)"
        if m.body_mass[b] < 0 or np.any(m.body_inertia[b] < 0) or np.any(m.body_invweight0[b] < 0):
            yield who, "negative mass, inertia or inverse weight"


def _tendons(m: Any) -> Iterator[tuple[str, str]]:
    for t in range(m.ntendon):
        fields = ("stiffness", "limited", "damping", "frictionloss", "armature")
        busy = [f for f in fields if getattr(m, f"tendon_{f}")[t]]
        busy += [
            f for f in ("stiffnesspoly", "dampingpoly") if np.any(getattr(m, f"tendon_{f}")[t])
        ]
        if busy:
            yield name_of(m, "tendon", t), f"{', '.join(busy)} (only tendons that exert nothing)"


def _actuators(m: Any) -> Iterator[tuple[str, str]]:
    mj = mujoco_package()
    for a in range(m.nactuator):
        who = name_of(m, "actuator", a)
        where = int(m.actuator_trntype[a])
        if where not in (mj.mjtTrn.mjTRN_JOINT, mj.mjtTrn.mjTRN_JOINTINPARENT):
            yield who, "acts on something else than a joint"
        elif int(m.jnt_type[m.actuator_trnid[a, 0]]) not in (SLIDE, HINGE):
            yield who, "acts on a joint other than a hinge or slide"
        law = _law(m, a)
        if law:
            what = "with a law outside motors and affine servos (try position, velocity or motor)"
            yield f"{who} ({law})", what
        if np.any(m.actuator_dampingpoly[a]):
            yield who, "polynomial damping (try linear)"
        if m.actuator_armature[a] < 0:
            yield who, "negative armature"
        if m.actuator_delay[a] or m.actuator_historyadr[a] >= 0:
            yield who, "delay"
        control = int(m.actuator_ctrladr[a])
        ranges = [("forcerange", m.actuator_forcelimited[a], m.actuator_forcerange[a])]
        if control >= 0:
            ranges.append(
                ("ctrlrange", m.actuator_ctrllimited[control], m.actuator_ctrlrange[control])
            )
        for word, limited, (low, high) in ranges:
            if limited and low > high:
                yield who, f"{word} that ends before it begins"


def _law(m: Any, a: int) -> str:
    """What an actuator has beyond gain · control + bias with both affine; "" for nothing."""
    mj = mujoco_package()
    found = []
    for kind, known, prefix, fine in (
        ("gaintype", mj.mjtGain, "mjGAIN_", ("FIXED", "AFFINE")),
        ("biastype", mj.mjtBias, "mjBIAS_", ("NONE", "AFFINE")),
        ("dyntype", mj.mjtDyn, "mjDYN_", ("NONE",)),
    ):
        number = int(getattr(m, f"actuator_{kind}")[a])
        if number not in [int(getattr(known, prefix + word)) for word in fine]:
            found.append(f"{kind} {known(number).name.removeprefix(prefix).lower()}")
    if not found and int(m.actuator_ctrlnum[a]) != 1:
        found.append(f"{int(m.actuator_ctrlnum[a])} controls")
    return ", ".join(found)


def _geoms(m: Any) -> Iterator[tuple[str, str]]:
    touching = shapes.touching(m)
    for first, second in touching:
        pair = f"geoms {name_of(m, 'geom', first)[5:]} and {name_of(m, 'geom', second)[5:]}"
        if not collides(int(m.geom_type[first]), int(m.geom_type[second])):
            yield (
                pair,
                "contact of these two shapes (try capsules, contype and conaffinity 0, or simplify=['contacts'])",
            )
        if shapes.dimension(m, first, second) not in (1, 3):
            yield pair, "condim other than 1 or 3 (try simplify=['friction'])"
        if m.geom_gap[first] + m.geom_gap[second] < 0:
            yield pair, "negative gap (try gap 0 and a smaller margin)"
    for g in sorted({g for pair in touching for g in pair}):
        who = name_of(m, "geom", g)
        if np.any(m.geom_adhesion[g]):
            yield who, "adhesion"
        if np.any(m.geom_surfacevel[g]):
            yield who, "surface velocity"
        if int(m.geom_type[g]) not in shapes.KINDS:
            continue
        bound = _bounding_radius(int(m.geom_type[g]), m.geom_size[g])
        if abs(bound - m.geom_rbound[g]) > _SURFACE * max(1.0, bound):
            yield who, "size and bounding radius that disagree (compile the model again)"


def _not_finite(m: Any) -> Iterator[tuple[str, str]]:
    """NaN anywhere, and infinity where it ends no range: MuJoCo's compiler lets both pass."""
    arrays = [("option", name) for name in dir(m.opt)]
    for kind in ("body", "jnt", "dof", "geom", "actuator"):
        # those of the reference position, whose names end in 0, follow from the others
        arrays += [(kind, n) for n in dir(m) if n.startswith(f"{kind}_") and n[-1] != "0"]
    arrays += [
        ("model", "qpos0"),
        ("model", "qpos_spring"),
        ("key", "key_qpos"),
        ("key", "key_qvel"),
    ]
    seen = set()
    for kind, field in arrays:
        numbers = np.asarray(getattr(m.opt if kind == "option" else m, field))
        if numbers.dtype.kind != "f" or not numbers.size:
            continue
        wrong = np.isnan(numbers) if field.endswith("range") else ~np.isfinite(numbers)
        wrong = np.atleast_1d(wrong)
        for k in np.flatnonzero(wrong.reshape(len(wrong), -1).any(1)):
            who = _element(m, kind, int(k))
            if who not in seen:
                yield who, f"{field} is NaN or infinite"
            seen.add(who)


def _element(m: Any, kind: str, k: int) -> str:
    if kind in ("option", "model"):
        return f"the {kind}"
    if kind == "dof":
        kind, k = "jnt", int(m.dof_jntid[k])
    return name_of(m, "joint" if kind == "jnt" else kind, k)


def collides(first: int, second: int) -> bool:
    """Whether the contact of two types of geoms is simulated."""
    kinds = {first, second}
    if shapes.PLANE in kinds:
        rest = kinds - {shapes.PLANE}
        return bool(rest) and rest <= {shapes.SPHERE, shapes.CAPSULE, shapes.BOX}
    return kinds <= {shapes.SPHERE, shapes.CAPSULE}


def _bounding_radius(kind: int, size: Any) -> float:
    """What MuJoCo's compiler stores for the shapes of the subset;
    it looks for contacts within it [m].
    """
    if kind == shapes.PLANE:
        return 0.0
    if kind == shapes.BOX:
        return float(np.linalg.norm(size))
    return float(size[0] + (size[1] if kind == shapes.CAPSULE else 0.0))
