"""Self-made MJCF files with the features that the files of known robots mix.

Masses, places and ranges are made up where no source is named; what matters is which features come
together: defaults, servos, ranges, dry friction, armature, meshes left out, a floor.
"""

from __future__ import annotations

import math

# Franka FR3: geometry, masses, inertias from frankarobotics/franka_description (robots/fr3);
# ranges, armature, damping, dry friction, servo gains from google-deepmind/mujoco_menagerie
# (franka_fr3)
# a [m], d [m] and α [rad/(π/2)] of the modified Denavit-Hartenberg frames of joints 1 to 7
_DH = (
    (0, 0.333, 0), (0, 0, -1), (0, 0.316, 1), (0.0825, 0, 1), (-0.0825, 0.384, -1), (0, 0, 1),
    (0.088, 0, 1),
)  # fmt: skip
# mass [kg], centre [m], inertia about it xx, yy, zz, xy, xz, yz [kg m²]
_LINKS = (
    (2.9274653454, (4.128e-7, -0.0181251324, -0.038603597),
     (0.0239273165, 0.0224821613, 0.0063500983, 1.33179e-5, -1.140477e-4, -0.0019950321)),
    (2.9355370338, (0.0031828864, -0.0743221644, 0.0088146084),
     (0.0419389463, 0.0251451489, 0.0617021447, 2.025733e-4, 0.0040777842, -0.0042252158)),
    (2.2449013699, (0.0407015686, -0.0048200565, -0.0289730823),
     (0.0241014255, 0.0197405327, 0.0190444945, 0.0024046946, -0.0028562693, -0.0021042127)),
    (2.6155955791, (-0.0459100965, 0.063049296, -0.0085187868),
     (0.0345299832, 0.0288816219, 0.0412547117, 0.0132255227, 0.01015143, -9.762834e-4)),
    (2.3271207594, (-0.0016039605, 0.0292536262, -0.097296599),
     (0.0516102785, 0.0478772971, 0.0164236256, -0.0057151734, -0.0035673168, 0.0106739851)),
    (1.8170376524, (0.0597131221, -0.0410294666, -0.0101692726),
     (0.0054123336, 0.0140583295, 0.0160808179, 0.0061934564, 0.0014219289, -0.0013140754)),
    (0.6271432862, (0.0045225817, 0.0086261921, -0.0161633251),
     (2.1092389e-4, 1.7718568e-4, 5.9931906e-5, -2.4332991e-5, 4.5644804e-5, 8.7440702e-5)),
)  # fmt: skip
# low, high [rad], torque [N m], armature [kg m²], dry friction [N m], kp [N m/rad], kv [N m s/rad]
_JOINTS = (
    (-2.9007, 2.9007, 87, 0.195, 1.137, 4500, 450),
    (-1.8361, 1.8361, 87, 0.195, 1.137, 4500, 450),
    (-2.9007, 2.9007, 87, 0.195, 1.137, 3500, 350),
    (-3.0770, -0.1169, 87, 0.195, 1.137, 3500, 350),
    (-2.8763, 2.8763, 12, 0.074, 0.763, 2000, 200),
    (0.4398, 4.6216, 12, 0.074, 0.44, 2000, 200),
    (-3.0508, 3.0508, 12, 0.074, 0.248, 2000, 200),
)
FR3_HOME = (0, 0, 0, -1.57079, 0, 1.57079, -0.7853)  # [rad]


def fr3(integrator: str = "implicitfast", friction: bool = True, timestep: float = 0.002) -> str:
    """The arm FR3 without hand or shapes that touch: position servos with force ranges."""
    opened, servos = "", ""
    for k, ((a, d, turn), (mass, centre, inertia), joint) in enumerate(
        zip(_DH, _LINKS, _JOINTS, strict=True), start=1
    ):
        low, high, torque, armature, loss, kp, kv = joint
        alpha = turn * math.pi / 2
        place = f"{a} {-d * math.sin(alpha):.17g} {d * math.cos(alpha):.17g}"
        quaternion = f"{math.cos(alpha / 2):.17g} {math.sin(alpha / 2):.17g} 0 0"
        dry = f'frictionloss="{loss}"' if friction else ""
        opened += f"""<body name="link{k}" pos="{place}" quat="{quaternion}">
<inertial mass="{mass}" pos="{_text(centre)}" fullinertia="{_text(inertia)}"/>
<joint name="joint{k}" range="{low} {high}" actuatorfrcrange="{-torque} {torque}" armature="{armature}"
 damping="0.21" {dry}/>
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
