"""Worked examples of steps in Warp: a point mass, a disc with compliant contact, an arm's
kinematics.

Each builds its kernels for one scalar type, float32 or float64, so that the same lines serve
training and tests of gradients. `tests/gradlab/simulators/test_warp_examples.py` has their twins
in torch.
"""
# Annotations must be values here: Warp reads them.

import functools
import math
from typing import Any

import torch

from gradlab.simulators.arm import FR3, SerialArm
from gradlab.simulators.bridge import Bridged
from gradlab.simulators.warp import warp, warp_simulator

BOTH = (torch.float32, torch.float64)


# ------------------------------------------------------------------------------------ point mass


@functools.cache
def _point_mass_kernel(scalar: type) -> Any:
    wp = warp()

    @wp.kernel(module="unique")  # compiled without the other examples
    def point_mass(
        state: wp.array2d(dtype=scalar),
        action: wp.array2d(dtype=scalar),
        noise: wp.array2d(dtype=scalar),
        parameters: wp.array2d(dtype=scalar),
        dt: scalar,
        after: wp.array2d(dtype=scalar),
    ):
        i = wp.tid()
        drag = parameters[i, 0]
        swirl = parameters[i, 1]
        vx = state[i, 2]
        vy = state[i, 3]
        push_x = action[i, 0] + scalar(0.4) * action[i, 1]
        push_y = scalar(0.7) * action[i, 1] - scalar(0.3) * action[i, 0]
        after[i, 0] = state[i, 0] + dt * vx
        after[i, 1] = state[i, 1] + dt * vy
        after[i, 2] = vx + dt * (push_x - drag * vx - swirl * vy) + scalar(0.03) * noise[i, 2]
        after[i, 3] = vy + dt * (push_y - drag * vy + swirl * vx) + scalar(0.05) * noise[i, 3]

    return point_mass


def _launch_point_mass(
    state: Any, action: Any, noise: Any, parameters: Any, after: Any, dt: float
) -> None:
    warp().launch(
        _point_mass_kernel(state.dtype),
        dim=state.shape[0],
        inputs=[state, action, noise, parameters, dt],
        outputs=[after],
    )


def warp_point_mass(dt: float = 0.4, drag: float = 0.5, swirl: float = 0.8) -> Bridged:
    """A unit mass in the plane, state (x, y, vx, vy), pushed by an oblique pair of thrusters.

    What `planar_point_mass` is, so that `gradlab.make("lq", simulator=warp_point_mass())` has the
    closed forms of lq. Parameters: drag [1/s] and swirl [rad/s]. Smooth.
    """
    return warp_simulator(
        _launch_point_mass, state_dim=4, action_dim=2, noise_dim=4, dt=dt,
        parameters=(drag, swirl), dtypes=BOTH,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- disc

RADIUS = 0.1  # [m]
MASS = 1.0  # [kg]
INERTIA = 0.5 * MASS * RADIUS**2  # of a full disc [kg m²]
GRAVITY = 9.81  # [m/s²]


@functools.cache
def _disc_kernel(scalar: type) -> Any:
    wp = warp()

    @wp.kernel(module="unique")
    def disc(
        state: wp.array2d(dtype=scalar),
        action: wp.array2d(dtype=scalar),
        parameters: wp.array2d(dtype=scalar),
        dt: scalar,
        after: wp.array2d(dtype=scalar),
    ):
        i = wp.tid()
        zero = scalar(0.0)
        radius = scalar(RADIUS)
        stiffness = parameters[i, 0]
        vx = state[i, 3]
        vz = state[i, 4]
        spin = state[i, 5]
        depth = wp.max(radius - state[i, 1], zero)
        normal = depth * (stiffness + parameters[i, 1] * wp.max(-vz, zero))
        slip = vx - radius * spin  # of the lowest point, a positive spin rolls to the right
        cap = parameters[i, 3] * stiffness * depth
        grip = wp.clamp(parameters[i, 2] * slip, -cap, cap)
        vx = vx + dt * (action[i, 0] - grip) / scalar(MASS)
        vz = vz + dt * (normal / scalar(MASS) - scalar(GRAVITY))
        spin = spin + dt * (action[i, 1] + radius * grip) / scalar(INERTIA)
        after[i, 0] = state[i, 0] + dt * vx
        after[i, 1] = state[i, 1] + dt * vz
        after[i, 2] = state[i, 2] + dt * spin
        after[i, 3] = vx
        after[i, 4] = vz
        after[i, 5] = spin

    return disc


def _launch_disc(
    state: Any, action: Any, noise: Any, parameters: Any, after: Any, dt: float
) -> None:
    warp().launch(
        _disc_kernel(state.dtype),
        dim=state.shape[0],
        inputs=[state, action, parameters, dt],
        outputs=[after],
    )


def warp_disc(
    dt: float = 1 / 60,
    substeps: int = 16,
    stiffness: float = 2e3,
    damping: float = 1e3,
    friction_damping: float = 20.0,
    friction: float = 0.75,
) -> Bridged:
    """A disc in the vertical plane over flat ground, state (x, z, angle, vx, vz, spin), action a
    force along x [N] and a torque [N m].

    Contact by penetration d: normal force d (stiffness + damping max(−vz, 0)), friction against the
    slip of the lowest point, `friction_damping` times it up to friction·stiffness·d; the law of
    dFlex (`NVlabs/DiffRL`, sim.py). Parameters: stiffness [N/m], damping [N s/m²],
    friction_damping [N s/m], friction [1]. Semi-implicit steps. Continuous, with kinks where the
    disc touches the ground, turns from falling to rising, and begins to slide.
    """
    return warp_simulator(
        _launch_disc, state_dim=6, action_dim=2, dt=dt, substeps=substeps,
        parameters=(stiffness, damping, friction_damping, friction), dtypes=BOTH,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- arm


def _links(arm: SerialArm) -> list[tuple[float, float, float, float]]:
    """For each joint and the tool: the step before it along x, cos and sin of the turn about x,
    and the step along z."""
    turned = [(math.cos(angle), math.sin(angle)) for angle in arm.twists]
    rows = zip(arm.offsets, turned, arm.lengths, strict=True)
    return [(a, c, s, d) for a, (c, s), d in rows] + [(0.0, 1.0, 0.0, arm.reach)]


@functools.cache
def _arm_kernel(scalar: type) -> Any:
    wp = warp()
    vector = wp.types.vector(3, scalar)
    table = wp.constant(wp.types.matrix((8, 4), scalar)(*(x for row in _links(FR3) for x in row)))

    @wp.kernel(module="unique")
    def arm(
        state: wp.array2d(dtype=scalar),
        action: wp.array2d(dtype=scalar),
        dt: scalar,
        after: wp.array2d(dtype=scalar),
    ):
        i = wp.tid()
        zero = scalar(0.0)
        one = scalar(1.0)
        place = vector(zero, zero, zero)
        ex = vector(one, zero, zero)
        ey = vector(zero, one, zero)
        ez = vector(zero, zero, one)
        for joint in range(8):
            place = place + table[joint, 0] * ex
            turned = table[joint, 1] * ey + table[joint, 2] * ez
            ez = table[joint, 1] * ez - table[joint, 2] * ey
            ey = turned
            place = place + table[joint, 3] * ez
            if joint < 7:
                angle = state[i, joint] + dt * action[i, joint]
                after[i, joint] = angle
                across = wp.cos(angle) * ey - wp.sin(angle) * ex
                ex = wp.cos(angle) * ex + wp.sin(angle) * ey
                ey = across
        for k in range(3):
            after[i, 7 + k] = place[k]

    return arm


def _launch_arm(
    state: Any, action: Any, noise: Any, parameters: Any, after: Any, dt: float
) -> None:
    warp().launch(
        _arm_kernel(state.dtype),
        dim=state.shape[0],
        inputs=[state, action, dt],
        outputs=[after],
    )


def _arm_start(coordinates: torch.Tensor) -> torch.Tensor:
    return torch.cat([coordinates, coordinates.new_zeros(*coordinates.shape[:-1], 3)], -1)


def warp_fr3(dt: float = 0.02) -> Bridged:
    """The kinematics of a Franka FR3: state (7 joint angles [rad], tool point [m]), action the
    joints' velocities [rad/s].

    The robot is `arm.FR3`. The tool point is that of the new angles; at the start, whose
    coordinates are the angles, it is 0 and nothing reads it. Without limits, and smooth.
    """
    return warp_simulator(
        _launch_arm, state_dim=10, action_dim=7, dt=dt, dtypes=BOTH,
        coordinates_to_state=_arm_start,
    )  # fmt: skip
