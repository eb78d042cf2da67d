"""The five runners as gymnasium, Brax and dFlex have them:
models, time steps and compliant contact.

Brax's and dFlex's models are edits of the files that come with gymnasium, whose geometry they
share; dFlex's humanoid, with ankles, is written out. Sources: gymnasium v5 (envs/mujoco/assets),
google/brax@0b96d05 (brax/envs, its `generalized` pipeline), NVlabs/DiffRL@a4c0dd1 (envs,
utils/load_utils.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import UnknownName
from gradlab.simulators.articulated import dflex_humanoid
from gradlab.simulators.articulated.brax_like import BraxLike
from gradlab.simulators.articulated.contact import Compliant, ContactModel, Smoothed
from gradlab.simulators.articulated.convex import Convex
from gradlab.simulators.articulated.dynamics import bodies
from gradlab.simulators.articulated.kinematics import frames, tables_of
from gradlab.simulators.articulated.mjcf import from_mujoco, gymnasium_asset, mujoco_package
from gradlab.simulators.articulated.model import Model
from gradlab.simulators.articulated.simulator import Articulated
from gradlab.simulators.articulated.stability import contact_response, limit_response

RUNNERS = ("ant", "hopper", "walker2d", "half_cheetah", "humanoid")
CONTACTS = ("compliant", "smoothed", "convex", "brax")

REST_DEPTH = 2e-3  # of a compliant foot under its share of the weight [m]
LIMIT_OVERSHOOT = 0.05  # of a joint under the strongest motor, where the step allows it [rad]
LEVER = 1.0  # of the strongest motor, as far as contact damping goes [m]
DAMPING_SPEED = 1.0  # approach at which damping doubles a compliant normal force [m/s]


@dataclass(frozen=True)
class Variant:
    """One runner of one preset, ready to simulate."""

    model: Model
    integrator: str
    dt: float  # control period [s]
    substeps: int
    contact: str  # name of the preset's own contact law
    compliant: Compliant  # and of compliant contact, which every preset has
    mass_every: int = 1


def presets(name: str) -> list[str]:
    """The presets that a runner has. Raises `UnknownName` for another runner."""
    if name not in RUNNERS:
        raise UnknownName("runner", name, RUNNERS)
    return [preset for runner, preset in _VARIANTS if runner == name]


@lru_cache(maxsize=32)
def variant(name: str, preset: str) -> Variant:
    """A runner of a preset; built once. Raises `UnknownName` for one that does not exist."""
    known = presets(name)
    if preset not in known:
        raise UnknownName(f"preset of {name}:", preset, known)
    return _VARIANTS[name, preset]()


def simulator(
    name: str, preset: str, contact: str | ContactModel | None = None, **changes: Any
) -> Articulated:
    """The simulator of a runner; `contact` is a law or the name of one, `changes` are fields.

    Raises `UnknownName` for a name, `BadValue` for what cannot work together.
    """
    found = variant(name, preset)
    settings: dict[str, Any] = {
        "integrator": found.integrator,
        "dt": found.dt,
        "substeps": found.substeps,
        "mass_every": found.mass_every,
    }
    law = contact_law(found, found.contact if contact is None else contact)
    return Articulated(found.model, law, **(settings | changes))


def contact_law(of: Variant, contact: str | ContactModel) -> ContactModel:
    """A law by name: "compliant", "smoothed" (its smooth version), "convex",
    "brax"; or as it is.
    """
    if not isinstance(contact, str):
        return contact
    if contact not in CONTACTS:
        raise UnknownName("contact", contact, CONTACTS)
    if contact == "compliant":
        return of.compliant
    if contact == "smoothed":
        return Smoothed(limit=of.compliant)
    return Convex() if contact == "convex" else BraxLike()


def compliant_for(model: Model, h: float, feet: int) -> Compliant:
    """Compliant contact that suits a model at a time step h [s]; `feet` points carry its weight.

    Stiffness: the feet rest 2 mm deep, or deeper where the step asks for it: k_e λ h² <= 1/2, an
    eighth of what an explicit step can bear, with λ the largest eigenvalue of J M⁻¹ J', J the
    velocities of all points of one body that may touch the floor. Friction sticks with critical
    damping 2√(k_e/λ), at most 1/(2 λ h). An approach of 1 m/s doubles the normal force, unless the
    damper would then be too stiff, h λ k_d c > 1, at the depth c to which the strongest motor
    presses a metre away. (Brax's ant weighs 9 N and presses 150 N: its compliant feet hardly
    dissipate, so that it bounces more than with convex contact.) Joint limits give 0.05 rad under
    the strongest motor, or more where √(k w) h would exceed 1, and have no damper: it would act
    inside the range too, and change the preset's own joint damping.
    """
    weight = float(model.inertia[:, 3, 3].sum() * np.linalg.norm(model.gravity))
    strongest = float((np.abs(model.gain[:, 0]) @ np.abs(model.gear)).max())
    response = contact_response(model)
    stiffness = min(weight / (feet * REST_DEPTH), 0.5 / (response * h * h))
    deepest = strongest / (LEVER * stiffness)
    lightest = limit_response(model)
    return Compliant(
        stiffness=stiffness,
        damping=min(stiffness / DAMPING_SPEED, 1 / (h * response * deepest)),
        friction_damping=min(2 * math.sqrt(stiffness / response), 0.5 / (response * h)),
        friction=None,
        limit_stiffness=min(strongest / LIMIT_OVERSHOOT, 1 / (lightest * h * h)),
        limit_damping=0.0,
    )


@dataclass(frozen=True)
class CentreOfMass:
    """Where the centre of mass of a model is, as a function of its positions."""

    model: Model

    def __call__(self, qpos: Float[Tensor, "*batch nq"]) -> Float[Tensor, "*batch 3"]:
        """In the world [m]."""
        tables = tables_of(self.model, qpos)
        now = frames(self.model, tables, qpos)
        first = bodies(tables, now.pose).first.sum(-1)
        return now.origin + first / tables.mass.sum()


# --------------------------------------------------------------------------------------- gymnasium

# points that carry the weight when standing: both ends of a foot that lies flat, one of a cheetah's
FEET = {"ant": 4, "hopper": 2, "walker2d": 4, "half_cheetah": 2, "humanoid": 2}


def _spec(name: str) -> Any:
    """gymnasium's own file, as its v5 environment has it, open for editing."""
    mujoco = mujoco_package()

    file = "walker2d_v5" if name == "walker2d" else name
    spec = mujoco.MjSpec.from_file(str(gymnasium_asset(file)))
    if name == "humanoid":
        _act_in_unit_range(spec)
    return spec


def _act_in_unit_range(spec: Any) -> None:
    """Actions in [−1, 1] for motors whose control range is ±c: the gear takes the c."""
    for motor in spec.actuators:
        reach = float(motor.ctrlrange[1])
        motor.gear, motor.ctrlrange = reach * motor.gear, [-1.0, 1.0]


def _compiled(spec: Any) -> Model:
    """The model, scaled to the file's total mass if it states one (as its compiler would)."""
    mujoco = mujoco_package()

    total = float(spec.compiler.settotalmass)
    spec.compiler.settotalmass = -1
    model = spec.compile()
    if total > 0:
        mujoco.mj_setTotalmass(model, total)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return from_mujoco(model)


def _gymnasium(name: str, frames: int) -> Variant:
    model = _compiled(_spec(name))
    h = model.timestep
    law = compliant_for(model, h, FEET[name])
    return Variant(model, model.integrator, frames * h, frames, "convex", law)


# -------------------------------------------------------------------------------------------- Brax

# geoms that touch the floor; all others touch nothing (facts of brax/envs/assets)
TOUCHING = {
    "ant": (),
    "hopper": ("foot_geom",),
    "walker2d": ("torso_geom", "foot_geom", "foot_left_geom"),
    "half_cheetah": ("head", "bthigh", "bfoot", "fthigh", "ffoot"),
    "humanoid": ("right_foot", "left_foot"),
}


def _brax(name: str, frames: int) -> Variant:
    """Only some shapes touch the floor, without a margin: the pipeline ignores it."""
    mujoco = mujoco_package()

    spec = _spec(name)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    spec.compiler.fusestatic = True
    if name == "ant":
        for motor in spec.actuators:
            ankle = spec.joint(motor.target.replace("hip", "ankle")).parent
            if motor.target.startswith("ankle"):
                end = np.array(ankle.first_geom().fromto[3:])
                ankle.add_geom(
                    name=f"foot_{motor.target[-1]}",
                    type=mujoco.mjtGeom.mjGEOM_SPHERE,
                    size=[0.08, 0, 0],
                    pos=end,
                    mass=0.0,
                    condim=3,
                    friction=[1.0, 0.5, 0.5],
                )
    if name == "walker2d":
        spec.geom("foot_geom").friction[0] = 0.9
    touching = TOUCHING[name] or tuple(f"foot_{leg}" for leg in (1, 2, 3, 4))
    for geom in spec.geoms:
        geom.contype, geom.conaffinity, geom.margin = int(geom.name in touching), 0, 0.0
    spec.geom("floor").conaffinity = 1
    model = _compiled(spec)
    h = model.timestep
    law = compliant_for(model, h, FEET[name])
    return Variant(model, "explicit_damping", frames * h, frames, "convex", law)


# ------------------------------------------------------------------------------------------- dFlex

DFLEX_DT = 1 / 60  # [s]


def _dflex_law(k_e: float, k_d: float, k_f: float, friction: float) -> Compliant:
    return Compliant(k_e, k_d, k_f, friction, limit_stiffness=1e3, limit_damping=10.0)


def _dflex(spec: Any, substeps: int, law: Compliant) -> Variant:
    """Semi-implicit Euler; the mass matrix once per control period."""
    spec.option.timestep = DFLEX_DT / substeps
    spec.compiler.settotalmass = -1
    return Variant(
        _compiled(spec),
        "explicit_damping",
        DFLEX_DT,
        substeps,
        "compliant",
        law,
        mass_every=substeps,
    )


def _motors(spec: Any, strengths: list[float]) -> None:
    """One motor per hinge below the root, in the order of the joints, as dFlex acts."""
    mujoco = mujoco_package()

    for motor in list(spec.actuators):
        spec.delete(motor)
    joints = [joint for joint in spec.joints if joint.range[0] < joint.range[1]]
    for joint, strength in zip(joints, strengths, strict=True):
        motor = spec.add_actuator(
            name=joint.name,
            target=joint.name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrllimited=True,
            ctrlrange=[-1.0, 1.0],
        )
        motor.gear[0] = strength


def _dflex_ant() -> Variant:
    spec = _spec("ant")
    for geom in spec.geoms:
        geom.density, geom.margin = 1000.0, 0.0
    for joint in spec.joints:
        if joint.name == "root":
            continue
        joint.armature, joint.damping[0] = 0.05, 1.0
        hip = joint.name.startswith("hip")
        low = joint.range[0] < -30 - 1e-9  # ankles 2 and 3 bend the other way
        joint.range = [-40.0, 40.0] if hip else [-100.0, -30.0] if low else [30.0, 100.0]
    _motors(spec, [200.0] * 8)
    return _dflex(spec, 16, _dflex_law(4e4, 1e4, 3e3, 0.75))


def _dflex_root(spec: Any, armature: float, damping: float) -> None:
    """dFlex gives armature to every slide and hinge, the root's too, and lets the damper of joint
    limits act on the root, whose range is too wide to matter."""
    for joint in spec.joints:
        joint.armature = armature
        if joint.name.startswith("root"):
            joint.damping[0] = damping
            joint.ref = 0.0


def _dflex_hopper() -> Variant:
    """The foot's joint sits on the foot's axis, at the end of the leg, unlike gymnasium's."""
    spec = _spec("hopper")
    for joint in spec.joints:
        joint.damping[0] = 2.0
    _dflex_root(spec, armature=1.0, damping=10.0)
    foot = spec.body("foot")
    foot.pos = [0.0, 0.0, -0.25]
    spec.joint("foot_joint").pos = [0.0, 0.0, 0.0]
    spec.geom("foot_geom").pos = [0.06, 0.0, 0.0]
    _only_the_floor(spec)
    _motors(spec, [200.0] * 3)
    return _dflex(spec, 16, _dflex_law(2e4, 1e3, 1e3, 0.9))


def _dflex_half_cheetah() -> Variant:
    """Half as heavy again as gymnasium's (density 1000 kg/m³),
    wider ranges at the front, friction 1.
    """
    spec = _spec("half_cheetah")
    _dflex_root(spec, armature=0.1, damping=10.0)
    spec.joint("fthigh").range = [-1.5, 0.8]
    spec.joint("fshin").range = [-1.2, 1.1]
    spec.joint("ffoot").range = [-3.1, -0.3]
    spec.body("torso").pos = [0.0, 0.0, 1.0]
    _only_the_floor(spec)
    _motors(spec, [200.0] * 6)
    return _dflex(spec, 16, _dflex_law(2e4, 1e3, 1e3, 1.0))


def _dflex_humanoid() -> Variant:
    spec = dflex_humanoid.spec()
    _only_the_floor(spec)
    _motors(spec, dflex_humanoid.strengths())
    return _dflex(spec, 48, _dflex_law(2e4, 5e3, 1e3, 0.75))


def _only_the_floor(spec: Any) -> None:
    """Every shape touches the floor and nothing else."""
    for geom in spec.geoms:
        geom.contype, geom.conaffinity, geom.margin, geom.condim = 1, 0, 0.0, 3
    spec.geom("floor").contype, spec.geom("floor").conaffinity = 0, 1


_VARIANTS: dict[tuple[str, str], Callable[[], Variant]] = {
    ("ant", "gymnasium"): lambda: _gymnasium("ant", 5),
    ("hopper", "gymnasium"): lambda: _gymnasium("hopper", 4),
    ("walker2d", "gymnasium"): lambda: _gymnasium("walker2d", 4),
    ("half_cheetah", "gymnasium"): lambda: _gymnasium("half_cheetah", 5),
    ("humanoid", "gymnasium"): lambda: _gymnasium("humanoid", 5),
    ("ant", "brax"): lambda: _brax("ant", 5),
    ("hopper", "brax"): lambda: _brax("hopper", 4),
    ("walker2d", "brax"): lambda: _brax("walker2d", 4),
    ("half_cheetah", "brax"): lambda: _brax("half_cheetah", 5),
    ("humanoid", "brax"): lambda: _brax("humanoid", 5),
    ("ant", "dflex"): _dflex_ant,
    ("hopper", "dflex"): _dflex_hopper,
    ("half_cheetah", "dflex"): _dflex_half_cheetah,
    ("humanoid", "dflex"): _dflex_humanoid,
}
