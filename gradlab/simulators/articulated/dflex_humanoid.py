"""dFlex's humanoid: 21 hinges, ankles included, no turns between bodies.

Numbers: NVlabs/DiffRL@fb0e1e1 dflex/dflex/envs/assets/humanoid.xml (the small turns of the waist
there are ignored by its loader), motor strengths of envs/humanoid.py.
"""

from __future__ import annotations

from typing import Any

from gradlab.simulators.articulated.mjcf import mujoco_package

# body: (parent, place [m], shapes: two ends (the same for a sphere) [m] and radius [m]); density
# 1000 kg/m³
BODIES: dict[str, tuple[str, tuple, list[tuple]]] = {
    "torso": (
        "world",
        (0, 0, 1.35),
        [
            ((0, -0.07, 0), (0, 0.07, 0), 0.07),
            ((-0.01, -0.06, -0.12), (-0.01, 0.06, -0.12), 0.06),
            ((0, 0, 0.19), (0, 0, 0.19), 0.09),
        ],
    ),
    "lower_waist": ("torso", (-0.01, 0, -0.26), [((0, -0.06, 0), (0, 0.06, 0), 0.06)]),
    "pelvis": ("lower_waist", (0, 0, -0.165), [((-0.02, -0.07, 0), (-0.02, 0.07, 0), 0.09)]),
}
# joint: body, place [m], axis, range [deg], damping [N m s/rad], stiffness [N m/rad], armature [kg
# m²], strength
JOINTS: dict[str, tuple[str, tuple, tuple, tuple, float, float, float, float]] = {
    "abdomen_z": ("lower_waist", (0, 0, 0.065), (0, 0, 1), (-45, 45), 5, 20, 0.02, 200),
    "abdomen_y": ("lower_waist", (0, 0, 0.065), (0, 1, 0), (-75, 30), 5, 20, 0.01, 200),
    "abdomen_x": ("pelvis", (0, 0, 0.1), (1, 0, 0), (-35, 35), 5, 10, 0.01, 200),
}


def _limbs() -> None:
    """Legs and arms: the left ones mirror the right ones."""
    bodies, joints = BODIES, JOINTS
    here = (0, 0, 0)
    for side, s in (("right", -1), ("left", 1)):
        thigh, shin, foot = (f"{side}_{part}" for part in ("thigh", "shin", "foot"))
        bodies[thigh] = ("pelvis", (0, 0.1 * s, -0.04), [(here, (0, -0.01 * s, -0.34), 0.06)])
        bodies[shin] = (thigh, (0, -0.01 * s, -0.403), [(here, (0, 0, -0.3), 0.049)])
        outer = ((-0.07, 0.02 * s, 0), (0.14, 0.04 * s, 0), 0.027)
        inner = ((-0.07, 0, 0), (0.14, -0.02 * s, 0), 0.027)
        bodies[foot] = (shin, (0, 0, -0.39), [outer, inner])
        ankle = (0, 0, 0.08)
        joints |= {
            f"{side}_hip_x": (thigh, here, (-s, 0, 0), (-25, 5), 5, 10, 0.01, 200),
            f"{side}_hip_z": (thigh, here, (0, 0, -s), (-60, 35), 5, 10, 0.01, 200),
            f"{side}_hip_y": (thigh, here, (0, 1, 0), (-80, 20), 5, 20, 0.01, 600),
            f"{side}_knee": (shin, (0, 0, 0.02), (0, -1, 0), (-160, 2), 0.1, 5, 0.007, 400),
            f"{side}_ankle_y": (foot, ankle, (0, 1, 0), (-50, 50), 1, 2, 0.006, 100),
            f"{side}_ankle_x": (foot, ankle, (1, 0, 0.5), (-50, 50), 1, 2, 0.006, 100),
        }
    for side, s in (("right", -1), ("left", 1)):
        upper, lower = f"{side}_upper_arm", f"{side}_lower_arm"
        bodies[upper] = ("torso", (0, 0.17 * s, 0.06), [(here, (0.16, 0.16 * s, -0.16), 0.04)])
        fore = ((0.01, -0.01 * s, 0.01), (0.17, -0.17 * s, 0.17), 0.031)
        hand = (0.18, -0.18 * s, 0.18)
        bodies[lower] = (upper, (0.18, 0.18 * s, -0.18), [fore, (hand, hand, 0.04)])
        first = (2, 1, 1) if s < 0 else (-2, 1, -1)
        joints |= {
            f"{side}_shoulder1": (upper, here, first, (-60, 60), 5, 10, 0.01, 100),
            f"{side}_shoulder2": (upper, here, (0, -1, -s), (-60, 60), 5, 10, 0.01, 100),
            f"{side}_elbow": (lower, here, (0, -1, -s), (-90, 50), 1, 2, 0.006, 200),
        }


_limbs()
MOTOR_SCALE = 0.35


def strengths() -> list[float]:
    """Torque of every motor, in the order of the joints [N m]."""
    return [MOTOR_SCALE * values[-1] for values in JOINTS.values()]


def spec() -> Any:
    """The model, open for editing (`mujoco.MjSpec`), without motors."""
    mujoco = mujoco_package()

    made = mujoco.MjSpec()
    made.modelname = "humanoid"
    made.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[40.0, 40.0, 40.0])
    for name, (parent, place, shapes) in BODIES.items():
        above = made.worldbody if parent == "world" else made.body(parent)
        body = above.add_body(name=name, pos=list(place))
        if parent == "world":
            body.add_freejoint(name="root")
        for joint, values in JOINTS.items():
            if values[0] == name:
                _, anchor, axis, reach, damping, stiffness, armature, _ = values
                body.add_joint(
                    name=joint,
                    type=mujoco.mjtJoint.mjJNT_HINGE,
                    pos=list(anchor),
                    axis=list(axis),
                    range=list(reach),
                    limited=True,
                    damping=[damping, 0, 0],
                    stiffness=[stiffness, 0, 0],
                    armature=armature,
                )
        for first, second, radius in shapes:
            if first == second:
                sphere = mujoco.mjtGeom.mjGEOM_SPHERE
                body.add_geom(type=sphere, pos=list(first), size=[radius, 0, 0])
            else:
                capsule = mujoco.mjtGeom.mjGEOM_CAPSULE
                body.add_geom(type=capsule, fromto=[*first, *second], size=[radius, 0, 0])
    return made
