"""Reads an MJCF model, compiled by the `mujoco` package, into a `Model`; refuses what is outside the subset.

The subset: free, hinge and slide joints (several per body); sphere, capsule and box against plane,
sphere and capsule against each other; condim 1 and 3 with pyramidal friction; contact margin and gap,
armature, damping, springs, joint limits; motors on joints with gear, control and force range. Tendons
that exert nothing are accepted, and so are geoms that touch nothing, whatever their type.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.errors import BadValue, Missing
from gradlab.simulators.articulated.model import (
    Array,
    ContactLaw,
    Limit,
    Model,
    Pair,
    Shape,
)

FREE, SLIDE, HINGE = 0, 2, 3  # mjtJoint
PLANE, SPHERE, CAPSULE, BOX = 0, 2, 3, 6  # mjtGeom
_SHAPES = {PLANE: "plane", SPHERE: "sphere", CAPSULE: "capsule", BOX: "box"}
_INTEGRATORS = {0: "euler", 1: "rk4", 2: "implicit", 3: "implicitfast"}


def from_file(path: str | Path) -> Model:
    """The model of an MJCF file. Raises `Missing` for no such file, `BadValue` outside the subset."""
    if not Path(path).is_file():
        raise Missing(f"no MJCF file at {path}; give the path of an .xml file")
    return _from_file(str(path), Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _from_file(path: str, changed: int) -> Model:
    return from_mujoco(mujoco_package().MjModel.from_xml_path(path))


@lru_cache(maxsize=256)
def from_string(xml: str) -> Model:
    """The model of MJCF text. Raises `BadValue` outside the subset."""
    return from_mujoco(mujoco_package().MjModel.from_xml_string(xml))


def gymnasium_asset(name: str) -> Path:
    """Path of one of the models that come with gymnasium: ant, hopper, walker2d, half_cheetah, humanoid."""
    import gymnasium

    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"


def from_mujoco(compiled: Any) -> Model:
    """The model of a compiled one, which is kept as `Model.compiled`.

    Raises `BadValue` with the element's name for anything outside the subset.
    """
    _refuse(compiled)
    links = _Links(compiled)
    m = compiled
    return Model(
        name=m.names[: m.names.index(b"\0")].decode() or "model",
        compiled=m,
        nq=m.nq,
        nv=m.nv,
        nu=m.nu,
        timestep=float(m.opt.timestep),
        integrator=_INTEGRATORS[int(m.opt.integrator)],
        gravity=_array(m.opt.gravity),
        qpos0=_array(m.qpos0),
        qpos_spring=_array(m.qpos_spring),
        parent=links.parent,
        kind=links.kind,
        before=links.before,
        axis=links.axis,
        anchor=links.anchor,
        qpos_index=links.qpos_index,
        dof_index=links.dof_index,
        body_link=links.of_body,
        body_frame=links.frame_of_body,
        inertia=links.inertia,
        invweight=_array(m.body_invweight0)[:, 0],
        dof_invweight=_array(m.dof_invweight0),
        armature=_array(m.dof_armature),
        damping=_array(m.dof_damping),
        stiffness=_dof_stiffness(m),
        gear=_gear(m),
        control_range=_ranges(m.actuator_ctrllimited, m.actuator_ctrlrange),
        force_range=_ranges(m.actuator_forcelimited, m.actuator_forcerange),
        joint_force_range=_joint_force_range(m),
        limits=_limits(m),
        shapes=tuple(_shape(m, links, g) for g in range(m.ngeom)),
        pairs=tuple(_pairs(m)),
    )


# ------------------------------------------------------------------------------------------ subset


def _refuse(m: Any) -> None:
    mj = mujoco_package()
    names = mj.mjtObj

    def name(kind: Any, index: int) -> str:
        return mj.mj_id2name(m, kind, index) or f"number {index}"

    def need(fine: Any, what: str) -> None:
        if not fine:
            raise BadValue(
                f"{what} is outside the subset of MJCF that gradlab simulates; "
                "see docs/articulated.md for what is inside"
            )

    for count, what in (
        (m.neq, "an equality constraint"),
        (m.nmocap, "a mocap body"),
        (m.nflex, "a flex"),
        (m.npair, "an explicit contact pair"),
        (m.nplugin, "a plugin"),
        (m.na, "an actuator with its own state"),
        (m.nplastic, "plasticity"),
        (m.nhistory, "an actuator or sensor with a delay"),
    ):
        need(count == 0, what)
    need(m.nv > 0, "a model without joints")
    need(
        m.opt.cone == mj.mjtCone.mjCONE_PYRAMIDAL or not _frictional(m), "an elliptic friction cone"
    )
    need(not (m.opt.density or m.opt.viscosity or np.any(m.opt.wind)), "a fluid around the bodies")
    need(m.opt.noslip_iterations == 0, "the noslip solver")
    need(int(m.opt.integrator) in _INTEGRATORS, "its integrator")
    need(int(m.opt.disableflags) == 0, "a disabled part of the pipeline (option flag)")
    need(
        int(m.opt.enableflags) & ~int(mj.mjtEnableBit.mjENBL_ENERGY) == 0, "an enabled option flag"
    )
    need(int(m.opt.disableactuator) == 0, "a disabled group of actuators (actuatorgroupdisable)")
    for j in range(m.njnt):
        who = f"joint {name(names.mjOBJ_JOINT, j)!r}"
        need(int(m.jnt_type[j]) in (FREE, SLIDE, HINGE), f"{who}: a ball joint")
        need(not np.any(m.jnt_stiffnesspoly[j]), f"{who}: a nonlinear spring")
        need(not m.jnt_actgravcomp[j], f"{who}: actuated gravity compensation")
        if int(m.jnt_type[j]) == FREE:
            need(m.jnt_stiffness[j] == 0, f"{who}: a spring on a free joint")
    for d in range(m.nv):
        who = f"joint {name(names.mjOBJ_JOINT, int(m.dof_jntid[d]))!r}"
        need(m.dof_frictionloss[d] == 0, f"{who}: dry friction")
        need(not np.any(m.dof_dampingpoly[d]), f"{who}: nonlinear damping")
    for b in range(m.nbody):
        need(m.body_gravcomp[b] == 0, f"body {name(names.mjOBJ_BODY, b)!r}: gravity compensation")
    for t in range(m.ntendon):
        who = f"tendon {name(names.mjOBJ_TENDON, t)!r}"
        idle = not (
            m.tendon_stiffness[t]
            or m.tendon_limited[t]
            or m.tendon_damping[t]
            or m.tendon_frictionloss[t]
            or m.tendon_armature[t]
            or np.any(m.tendon_stiffnesspoly[t])
            or np.any(m.tendon_dampingpoly[t])
        )
        need(idle, f"{who}: a spring, damper, limit, friction or armature")
    for a in range(m.nu):
        who = f"actuator {name(names.mjOBJ_ACTUATOR, a)!r}"
        motor = (
            int(m.actuator_trntype[a]) == mj.mjtTrn.mjTRN_JOINT
            and int(m.actuator_gaintype[a]) == mj.mjtGain.mjGAIN_FIXED
            and int(m.actuator_biastype[a]) == mj.mjtBias.mjBIAS_NONE
            and int(m.jnt_type[m.actuator_trnid[a, 0]]) != FREE
            and not np.any(m.actuator_damping[a])
            and not np.any(m.actuator_armature[a])
        )
        need(motor, f"{who}: not a plain motor on a hinge or slide joint")
    for first, second in _touching(m):
        kinds = int(m.geom_type[first]), int(m.geom_type[second])
        pair = f"{name(names.mjOBJ_GEOM, first)!r} and {name(names.mjOBJ_GEOM, second)!r}"
        need(_collides(*kinds), f"geoms {pair}: contact of these two shapes")
        need(_dim(m, first, second) in (1, 3), f"geoms {pair}: condim other than 1 or 3")
    for g in range(m.ngeom):
        need(not np.any(m.geom_adhesion[g]), f"geom {name(names.mjOBJ_GEOM, g)!r}: adhesion")
        need(
            not np.any(m.geom_surfacevel[g]),
            f"geom {name(names.mjOBJ_GEOM, g)!r}: surface velocity",
        )


def _collides(first: int, second: int) -> bool:
    kinds = {first, second}
    if PLANE in kinds:
        return kinds - {PLANE} <= {SPHERE, CAPSULE, BOX} and kinds != {PLANE}
    return kinds <= {SPHERE, CAPSULE}


def _frictional(m: Any) -> bool:
    return any(_dim(m, a, b) > 1 for a, b in _touching(m))


# ------------------------------------------------------------------------------------------- links


class _Links:
    """One link per joint; bodies without a joint ride on their parent's link."""

    def __init__(self, m: Any) -> None:
        count = m.njnt
        self.parent = np.full(count, -1)
        self.kind = np.array([int(k) for k in m.jnt_type])
        self.before = np.tile(np.eye(4), (count, 1, 1))  # frame of the link at rest in its parent
        self.axis, self.anchor = _array(m.jnt_axis), _array(m.jnt_pos)
        self.qpos_index, self.dof_index = _array(m.jnt_qposadr), _array(m.jnt_dofadr)
        self.of_body = np.full(m.nbody, -1)
        self.frame_of_body = np.tile(np.eye(4), (m.nbody, 1, 1))  # in its link; of the world if -1
        self.inertia = np.zeros((count, 4, 4))
        for b in range(1, m.nbody):
            above = int(m.body_parentid[b])
            link = int(self.of_body[above])
            frame = self.frame_of_body[above] @ _pose(m.body_pos[b], m.body_quat[b])
            for j in range(m.body_jntadr[b], m.body_jntadr[b] + m.body_jntnum[b]):
                self.parent[j], self.before[j] = link, frame
                link, frame = j, np.eye(4)
            self.of_body[b], self.frame_of_body[b] = link, frame
            if link >= 0:
                self.inertia[link] += _second_moments(m, b, frame)


def _second_moments(m: Any, b: int, frame: Array) -> Array:
    """∫ (x, 1)(x, 1)' dm of a body, 4 by 4, about the origin of its link."""
    principal = m.body_inertia[b]
    local = np.zeros((4, 4))
    local[:3, :3] = np.diag(0.5 * principal.sum() - principal)
    local[3, 3] = m.body_mass[b]
    pose = frame @ _pose(m.body_ipos[b], m.body_iquat[b])
    return pose @ local @ pose.T


def _pose(position: Any, quaternion: Any) -> Array:
    w, x, y, z = np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = position
    return out


# ----------------------------------------------------------------------------- joints and actuators


def _dof_stiffness(m: Any) -> Array:
    joints = [int(j) for j in m.dof_jntid]
    return np.array([m.jnt_stiffness[j] if m.jnt_type[j] != FREE else 0.0 for j in joints])


def _gear(m: Any) -> Array:
    """Torque per unit of control: [nu, nv]."""
    out = np.zeros((m.nu, m.nv))
    for a in range(m.nu):
        dof = m.jnt_dofadr[m.actuator_trnid[a, 0]]
        out[a, dof] = m.actuator_gear[a, 0] * m.actuator_gainprm[a, 0]
    return out


def _joint_force_range(m: Any) -> Array:
    by_joint = _ranges(m.jnt_actfrclimited, m.jnt_actfrcrange)
    return by_joint[[int(j) for j in m.dof_jntid]]


def _ranges(limited: Any, ranges: Any) -> Array:
    out = np.asarray(ranges, dtype=float).copy().reshape(-1, 2)
    out[~np.asarray(limited, dtype=bool).reshape(-1)] = (-np.inf, np.inf)
    return out


def _limits(m: Any) -> tuple[Limit, ...]:
    return tuple(
        Limit(
            dof=int(m.jnt_dofadr[j]),
            qpos=int(m.jnt_qposadr[j]),
            low=float(m.jnt_range[j, 0]),
            high=float(m.jnt_range[j, 1]),
            margin=float(m.jnt_margin[j]),
            law=ContactLaw(tuple(m.jnt_solref[j]), tuple(m.jnt_solimp[j])),
        )
        for j in range(m.njnt)
        if m.jnt_limited[j] and m.jnt_type[j] != FREE
    )


# ------------------------------------------------------------------------------------------ shapes


def _shape(m: Any, links: _Links, g: int) -> Shape:
    body = int(m.geom_bodyid[g])
    pose = links.frame_of_body[body] @ _pose(m.geom_pos[g], m.geom_quat[g])
    kind = _SHAPES.get(int(m.geom_type[g]), "other")
    name = mujoco_package().mj_id2name(m, mujoco_package().mjtObj.mjOBJ_GEOM, g) or f"geom {g}"
    size = tuple(float(x) for x in m.geom_size[g])
    return Shape(name, kind, int(links.of_body[body]), body, pose, size)


def _touching(m: Any) -> list[tuple[int, int]]:
    """Pairs of geoms that may collide: masks, not the same rigid body, not parent and child."""
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in m.exclude_signature}
    out = []
    for first in range(m.ngeom):
        for second in range(first + 1, m.ngeom):
            a, b = int(m.geom_bodyid[first]), int(m.geom_bodyid[second])
            masks = (m.geom_contype[first] & m.geom_conaffinity[second]) or (
                m.geom_contype[second] & m.geom_conaffinity[first]
            )
            welded, other = int(m.body_weldid[a]), int(m.body_weldid[b])
            if not masks or welded == other or (a, b) in excluded or (b, a) in excluded:
                continue
            up = int(m.body_weldid[m.body_parentid[welded]])
            down = int(m.body_weldid[m.body_parentid[other]])
            if welded != 0 and other != 0 and (welded == down or other == up):
                continue
            out.append((first, second))
    return out


def _dim(m: Any, first: int, second: int) -> int:
    if m.geom_priority[first] != m.geom_priority[second]:
        winner = max((first, second), key=lambda g: int(m.geom_priority[g]))
        return int(m.geom_condim[winner])
    return int(max(m.geom_condim[first], m.geom_condim[second]))


def _pairs(m: Any) -> list[Pair]:
    """Contact parameters of every pair, mixed by MuJoCo's rules (priority, solmix, larger friction)."""
    out = []
    for first, second in _touching(m):
        # the shape whose type has the lower number comes first, as in MuJoCo
        if m.geom_type[first] > m.geom_type[second]:
            first, second = second, first
        a, b = int(m.geom_priority[first]), int(m.geom_priority[second])
        if a != b:
            winner = first if a > b else second
            friction = float(m.geom_friction[winner, 0])
            solref, solimp = m.geom_solref[winner], m.geom_solimp[winner]
        else:
            friction = float(max(m.geom_friction[first, 0], m.geom_friction[second, 0]))
            mix = _mix(float(m.geom_solmix[first]), float(m.geom_solmix[second]))
            standard = m.geom_solref[first, 0] > 0 and m.geom_solref[second, 0] > 0
            refs = np.array([m.geom_solref[first], m.geom_solref[second]])
            solref = mix * refs[0] + (1 - mix) * refs[1] if standard else refs.min(0)
            solimp = mix * m.geom_solimp[first] + (1 - mix) * m.geom_solimp[second]
        margin = float(m.geom_margin[first] + m.geom_margin[second])
        gap = float(m.geom_gap[first] + m.geom_gap[second])
        dim = _dim(m, first, second)
        law = ContactLaw(tuple(map(float, solref)), tuple(map(float, solimp)))
        out.append(Pair(first, second, dim, friction, margin, gap, law))
    return out


def _mix(first: float, second: float) -> float:
    tiny = 1e-15  # mjMINVAL
    if first >= tiny and second >= tiny:
        return first / (first + second)
    if first < tiny and second < tiny:
        return 0.5
    return 0.0 if first < tiny else 1.0


def _array(values: Any) -> Array:
    return np.array(values)


def mujoco_package() -> Any:
    """The `mujoco` package, imported when it is first needed."""
    import mujoco

    return mujoco
