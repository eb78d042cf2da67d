"""The FR3 with inertia and servos, on the articulated engine.

Sources: masses, centres and inertias of frankarobotics/franka_description (robots/fr3); armature,
damping, dry friction, torques and servo gains of google-deepmind/mujoco_menagerie (franka_fr3). The
hand has no mass here: none was read.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import check_positive, whole
from gradlab.foundation.tensors import constant
from gradlab.simulators.arm import FR3, SerialArm
from gradlab.simulators.articulated.convex import Convex
from gradlab.simulators.articulated.mjcf import from_string
from gradlab.simulators.articulated.model import Model
from gradlab.simulators.articulated.simulator import Articulated

# mass [kg], centre [m], inertia about it xx, yy, zz, xy, xz, yz [kg m²]
LINKS = (
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
# torque [N m], armature [kg m²], dry friction [N m], kp [N m/rad], kv [N m s/rad]
DRIVES = (
    (87, 0.195, 1.137, 4500, 450), (87, 0.195, 1.137, 4500, 450), (87, 0.195, 1.137, 3500, 350),
    (87, 0.195, 1.137, 3500, 350), (12, 0.074, 0.763, 2000, 200), (12, 0.074, 0.44, 2000, 200),
    (12, 0.074, 0.248, 2000, 200),
)  # fmt: skip
DAMPING = 0.21  # of every joint [N m s/rad]


@functools.cache
def fr3_model(timestep: float = 0.01, dry_friction: bool = False) -> Model:
    """Seven links on position servos with ranges and forces of the sources; nothing touches."""
    opened, servos = "", ""
    rows = zip(FR3.offsets, FR3.twists, FR3.lengths, FR3.lower, FR3.upper, strict=True)
    for k, (offset, twist, length, low, high) in enumerate(rows):
        mass, centre, inertia = LINKS[k]
        torque, armature, loss, kp, kv = DRIVES[k]
        place = (offset, -length * math.sin(twist), length * math.cos(twist))
        turn = (math.cos(twist / 2), math.sin(twist / 2), 0.0, 0.0)
        dry = f'frictionloss="{loss}"' if dry_friction else ""
        opened += (
            f'<body pos="{_text(place)}" quat="{_text(turn)}"><inertial mass="{mass}" '
            f'pos="{_text(centre)}" fullinertia="{_text(inertia)}"/><joint name="joint{k + 1}" '
            f'range="{low} {high}" armature="{armature}" damping="{DAMPING}" {dry}/>'
        )
        servos += (
            f'<position joint="joint{k + 1}" kp="{kp}" kv="{kv}" ctrlrange="{low} {high}" '
            f'forcerange="{-torque} {torque}"/>'
        )
    return from_string(
        f'<mujoco model="fr3"><compiler angle="radian" autolimits="true"/>'
        f'<option integrator="implicitfast" timestep="{timestep}"/>'
        f"<worldbody>{opened}{'</body>' * len(LINKS)}</worldbody>"
        f"<actuator>{servos}</actuator></mujoco>"
    )


def _text(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.17g}" for v in values)


@dataclass(frozen=True)
class ServoArm:
    """An FR3 whose servos hold q + stride·a, within the limits, for `dt`: q is that before a step.

    State [q, q̇] [rad, rad/s]. The control period and its sub-steps are ours (0.2 rad in 0.1 s are
    2 rad/s, of 2.62 that the first joints may have); integrated as MuJoCo's implicitfast. Gravity
    is not compensated, so that servos hold a little below their set points. `dry_friction=True`
    adds the joints' dry friction. Limits and friction are MuJoCo's own constraints (`Convex`), with
    which a period agrees with MuJoCo's to rounding; the dampers of a compliant law's limits act
    everywhere, and would not.

    Non-smooth: set points and torques at their limits; joints at theirs; dry friction.
    Raises `BadValue` for sizes that are not positive.
    """

    stride: float = 0.2  # of a set point under an action of 1 [rad]
    dt: float = 0.1  # control period [s]
    substeps: int = 10
    dry_friction: bool = False

    def __post_init__(self) -> None:
        whole("substeps", self.substeps)
        check_positive(self, "stride", "dt", hint="try 0.1")

    @property
    def arm(self) -> SerialArm:
        """Its kinematics."""
        return FR3

    @property
    def body(self) -> Articulated:
        """What moves: an `Articulated` whose actions are set points."""
        return _body(fr3_model(self.dt / self.substeps, self.dry_friction), self.substeps)

    @property
    def state_dim(self) -> int:
        return 2 * FR3.joints

    @property
    def action_dim(self) -> int:
        return FR3.joints

    @property
    def noise_dim(self) -> int:
        return 0

    def start(self, coordinates: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 14"]:
        """At rest at these joints."""
        return torch.cat([coordinates, torch.zeros_like(coordinates)], dim=-1)

    def step(
        self,
        state: Float[Tensor, "*batch 14"],
        action: Float[Tensor, "*batch 7"],
        noise: Float[Tensor, "*batch 0"],
    ) -> Float[Tensor, "*batch 14"]:
        """Joints and velocities one control period later."""
        limits = constant(FR3.lower, state), constant(FR3.upper, state)
        wanted = torch.clamp(state[..., : FR3.joints] + self.stride * action, *limits)
        return self.body.step(state, wanted, noise)


@functools.lru_cache(maxsize=16)
def _body(model: Model, substeps: int) -> Articulated:
    return Articulated(model, Convex(), substeps=substeps)
