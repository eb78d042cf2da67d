"""Self-made MJCF files with the features that the files of known robots mix.

Masses, places and ranges are made up where no source is named; what matters is which features come
together: defaults, servos, ranges, dry friction, armature, meshes left out, a floor.
"""

from __future__ import annotations

import math

from gradlab.simulators.arm import FR3
from gradlab.simulators.servo_arm import DAMPING, DRIVES, LINKS

# of the FR3 as menagerie has them, where `servo_arm` has those of franka_description [rad]
_RANGES = (
    (-2.9007, 2.9007), (-1.8361, 1.8361), (-2.9007, 2.9007), (-3.0770, -0.1169), (-2.8763, 2.8763),
    (0.4398, 4.6216), (-3.0508, 3.0508),
)  # fmt: skip
FR3_HOME = (0, 0, 0, -1.57079, 0, 1.57079, -0.7853)  # [rad]


def fr3(integrator: str = "implicitfast", friction: bool = True, timestep: float = 0.002) -> str:
    """The arm FR3 without hand or shapes that touch: position servos with force ranges."""
    opened, servos = "", ""
    frames = zip(FR3.offsets, FR3.lengths, FR3.twists, strict=True)
    parts = zip(frames, LINKS, DRIVES, _RANGES, strict=True)
    for k, ((a, d, alpha), (mass, centre, inertia), drive, (low, high)) in enumerate(
        parts, start=1
    ):
        torque, armature, loss, kp, kv = drive
        place = f"{a} {-d * math.sin(alpha):.17g} {d * math.cos(alpha):.17g}"
        quaternion = f"{math.cos(alpha / 2):.17g} {math.sin(alpha / 2):.17g} 0 0"
        dry = f'frictionloss="{loss}"' if friction else ""
        opened += f"""<body name="link{k}" pos="{place}" quat="{quaternion}">
<inertial mass="{mass}" pos="{_text(centre)}" fullinertia="{_text(inertia)}"/>
<joint name="joint{k}" range="{low} {high}" actuatorfrcrange="{-torque} {torque}" armature="{armature}"
 damping="{DAMPING}" {dry}/>
"""
        servos += (
            f'<position name="servo{k}" joint="joint{k}" kp="{kp}" kv="{kv}" ctrlrange="{low} {high}" '
            f'forcerange="{-torque} {torque}"/>\n'
        )
    flange = '<site name="flange" pos="0 0 0.107"/>\n'
    return f"""<mujoco model="fr3"><compiler angle="radian" autolimits="true"/>
<option integrator="{integrator}" timestep="{timestep}"/>
<worldbody>{opened}{flange}{"</body>" * 7}</worldbody>
<actuator>{servos}</actuator>
<keyframe><key name="home" qpos="{_text(FR3_HOME)}" ctrl="{_text(FR3_HOME)}"/></keyframe>
</mujoco>"""


def _text(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.17g}" for v in values)


def _legs() -> str:
    """Four legs of three hinges, feet as spheres, the other shapes without contact."""
    text = ""
    for name, x, y in (("FR", 1, -1), ("FL", 1, 1), ("RR", -1, -1), ("RL", -1, 1)):
        text += f"""<body name="{name}_hip" pos="{0.19 * x} {0.05 * y} 0">
<inertial mass="0.7" pos="0 0 0" diaginertia=".0005 .0007 .0006"/>
<joint class="abduction" name="{name}_hip_joint"/>
<body name="{name}_thigh" pos="0 {0.08 * y} 0"><joint class="hip" name="{name}_thigh_joint"/>
<geom class="visual" type="capsule" size=".02 .1" pos="0 0 -.1"/>
<body name="{name}_calf" pos="0 0 -.21"><joint class="knee" name="{name}_calf_joint"/>
<geom class="visual" type="capsule" size=".015 .1" pos="0 0 -.1"/>
<geom class="foot" name="{name}" pos="0 0 -.21"/></body></body></body>
"""
    return text


_JOINTS_OF_LEGS = [
    f"{leg}_{part}_joint" for leg in ("FR", "FL", "RR", "RL") for part in ("hip", "thigh", "calf")
]


def quadruped(actuators: str, joint: str, option: str = "") -> str:
    """A dog of 12 hinges on a floor: a free base, classes of defaults, a keyframe."""
    home = "0 0 .3 1 0 0 0 " + "0 .8 -1.5 " * 4
    made = "".join(actuators.format(joint=name) for name in _JOINTS_OF_LEGS)
    return f"""<mujoco model="dog"><compiler angle="radian" autolimits="true"/>
<option timestep="0.002" {option}/>
<default><joint damping="1" armature=".01" {joint}/>
<general forcerange="-24 24" biastype="affine" gainprm="40" biasprm="0 -40 -1"/>
<position kp="40" kv="1" forcerange="-24 24"/><motor ctrlrange="-24 24"/>
<default class="abduction"><joint axis="1 0 0" range="-.86 .86"/></default>
<default class="hip"><joint axis="0 1 0" range="-.69 4.5"/></default>
<default class="knee"><joint axis="0 1 0" range="-2.82 -.89"/></default>
<default class="visual"><geom contype="0" conaffinity="0" group="2" density="300"/></default>
<default class="foot"><geom size=".023" priority="1" condim="3" friction=".8" solimp=".9 .95 .023"
 mass=".06"/></default></default>
<worldbody><light pos="0 0 3"/><geom name="floor" type="plane" size="0 0 .05"/>
<body name="trunk" pos="0 0 .445"><freejoint/><site name="imu"/>
<geom class="visual" type="box" size=".19 .05 .06" mass="5"/>
{_legs()}</body></worldbody>
<actuator>{made}</actuator>
<sensor><accelerometer site="imu"/></sensor>
<keyframe><key name="home" qpos="{home}"/></keyframe></mujoco>"""


def arm(servo: str, option: str, joint: str = "") -> str:
    """Six hinges with classes of defaults, links as capsules that touch nothing."""
    axes = ("0 0 1", "0 1 0", "0 1 0", "0 1 0", "0 0 1", "0 1 0")
    bodies = "".join(
        f'<body name="link{k}" pos="0 {0.13 * (k == 1)} {0.3 if k else 0.1}"><joint name="j{k}" axis="{axis}"/>'
        f'<geom type="capsule" size=".05" fromto="0 0 0 0 0 .28"/>'
        for k, axis in enumerate(axes)
    )
    servos = "".join(servo.format(joint=f"j{k}") for k in range(6))
    return f"""<mujoco model="arm"><compiler angle="radian" autolimits="true"/><option {option}/>
<default><joint range="-3.14 3.14" armature=".1" {joint}/><geom contype="0" conaffinity="0"/></default>
<worldbody>{bodies}<site name="tool" pos="0 0 .3"/>{"</body>" * 6}</worldbody>
<actuator>{servos}</actuator>
<keyframe><key name="home" qpos="0 -1.5 1.5 -1.5 -1.5 0" ctrl="0 -1.5 1.5 -1.5 -1.5 0"/></keyframe></mujoco>"""


# by whose mixture of features it is
MIXTURES = {
    "fr3": fr3(),
    "go1": quadruped(
        '<position joint="{joint}" ctrlrange="-2.8 4.5"/>', 'frictionloss=".2"', 'impratio="10"'
    ),
    "spot": quadruped('<general joint="{joint}" ctrlrange="-2.8 4.5"/>', "", 'integrator="implicitfast"'),
    "h1": quadruped('<motor joint="{joint}"/>', 'frictionloss=".1" actuatorfrcrange="-20 20"'),
    "ur5e": arm(
        '<general joint="{joint}" gainprm="2000" biastype="affine" biasprm="0 -2000 -400" '
        'ctrlrange="-6.28 6.28" forcerange="-150 150"/>', 'integrator="implicitfast"'),
    "iiwa14": arm('<position joint="{joint}" kp="2000" kv="200" inheritrange="1"/>',
                  'integrator="implicitfast" timestep="0.004"', 'damping=".2" frictionloss=".5"'),
}  # fmt: skip
