"""Springs, dampers, limits, dry friction and actuators of the joints of a compiled model;
disabled flags switch them off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlab.simulators.articulated.mjcf.package import disabled, mujoco_package
from gradlab.simulators.articulated.model import FREE, Array, ContactLaw, DryFriction, Limit


def damping(m: Any) -> Array:
    """[nv], that of motors included."""
    if disabled(m, "DAMPER"):
        return np.zeros(m.nv)
    return m.dof_damping + _reflected(m, m.actuator_damping)


def armature(m: Any) -> Array:
    """[nv], that of motors included."""
    return m.dof_armature + _reflected(m, m.actuator_armature)


def _reflected(m: Any, values: Any) -> Array:
    """What motors add to their joints, times their gears squared: [nv]."""
    out = np.zeros(m.nv)
    for a in range(m.nu):
        joint = m.actuator_trnid[a, 0]
        # the one that adds something, −1 for none, −2 for several
        if m.jnt_actuatorid[joint] in (a, -2):
            out[m.jnt_dofadr[joint]] += m.actuator_gear[m.actuator_outadr[a], 0] ** 2 * values[a]
    return out


def stiffness(m: Any) -> Array:
    """[nv]; 0 for free joints."""
    if disabled(m, "SPRING"):
        return np.zeros(m.nv)
    joints = [int(j) for j in m.dof_jntid]
    return np.array([m.jnt_stiffness[j] if m.jnt_type[j] != FREE else 0.0 for j in joints])


def limits(m: Any) -> tuple[Limit, ...]:
    """Ranges of hinges and slides."""
    if disabled(m, "LIMIT") or disabled(m, "CONSTRAINT"):
        return ()
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


def frictions(m: Any) -> tuple[DryFriction, ...]:
    """Dry friction of joints, free ones included."""
    if disabled(m, "FRICTIONLOSS") or disabled(m, "CONSTRAINT"):
        return ()
    return tuple(
        DryFriction(
            dof=d,
            loss=float(m.dof_frictionloss[d]),
            law=ContactLaw(tuple(m.dof_solref[d]), tuple(m.dof_solimp[d])),
        )
        for d in range(m.nv)
        if m.dof_frictionloss[d] > 0
    )


def idle(m: Any, a: int) -> bool:
    """Whether an actuator is switched off, by its group or together with all."""
    group = int(m.actuator_group[a])
    by_group = 0 <= group <= 30 and bool(int(m.opt.disableactuator) >> group & 1)
    return by_group or disabled(m, "ACTUATION")


def gain(m: Any) -> Array:
    """Actuator force per unit of control, and how it changes with length and speed: [nu, 3]."""
    fixed = int(mujoco_package().mjtGain.mjGAIN_FIXED)
    return _affine(m, m.actuator_gainprm, [1 if t == fixed else 3 for t in m.actuator_gaintype])


def bias(m: Any) -> Array:
    """Actuator force without control, and how it changes with length and speed: [nu, 3]."""
    none = int(mujoco_package().mjtBias.mjBIAS_NONE)
    return _affine(m, m.actuator_biasprm, [0 if t == none else 3 for t in m.actuator_biastype])


def _affine(m: Any, numbers: Any, counts: list[int]) -> Array:
    """The first so many numbers of every actuator that is not switched off: [nu, 3]."""
    out = np.zeros((m.nu, 3))
    for a, count in enumerate(counts):
        if not idle(m, a):
            out[a, :count] = numbers[a, :count]
    return out


def gear(m: Any) -> Array:
    """Generalised force per unit of actuator force: [nu, nv]."""
    out = np.zeros((m.nu, m.nv))
    for a in range(m.nu):
        dof = m.jnt_dofadr[m.actuator_trnid[a, 0]]
        out[a, dof] = m.actuator_gear[m.actuator_outadr[a], 0]
    return out


def control_range(m: Any) -> Array:
    """[nu, 2]."""
    return _ranges(m.actuator_ctrllimited & (not disabled(m, "CLAMPCTRL")), m.actuator_ctrlrange)


def force_range(m: Any) -> Array:
    """[nu, 2]: of gain times control plus bias."""
    live = np.array([not idle(m, a) for a in range(m.nu)], dtype=bool)
    return _ranges(m.actuator_forcelimited & live, m.actuator_forcerange)


def joint_force_range(m: Any) -> Array:
    """[nv, 2]: of all actuators of a joint together."""
    limited = m.jnt_actfrclimited & (not disabled(m, "ACTUATION"))
    by_joint = _ranges(limited, m.jnt_actfrcrange)
    return by_joint[[int(j) for j in m.dof_jntid]]


def _ranges(limited: Any, ranges: Any) -> Array:
    out = np.array(ranges, dtype=float).reshape(-1, 2)
    out[~np.asarray(limited, dtype=bool).reshape(-1)] = (-np.inf, np.inf)
    return out
