"""The worked examples of Warp steps against their twins in torch, and under the estimators."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import estimators
import gradlab
from gradlab.simulators.arm import FR3
from gradlab.simulators.bridge import Bridged
from gradlab.simulators.bridge_checks import check_step
from gradlab.simulators.point_mass import planar_point_mass

pytest.importorskip("warp", reason="the extra `warp` is not installed")
from gradlab.simulators.warp_examples import warp_disc, warp_fr3, warp_point_mass

Twin = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def point_mass(state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor) -> Tensor:
    """The project's own, which has its drag and swirl in a matrix."""
    return planar_point_mass().step(state, action, noise)


def disc(state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor) -> Tensor:
    stiffness, damping, friction_damping, friction = parameters.unbind(-1)
    x, z, angle, vx, vz, spin = state.unbind(-1)
    h = 1 / 60 / 16
    for _ in range(16):
        depth = (0.1 - z).clamp(min=0)
        normal = depth * stiffness + depth * damping * (-vz).clamp(min=0)
        bound = friction * stiffness * depth
        grip = torch.minimum(torch.maximum(friction_damping * (vx - 0.1 * spin), -bound), bound)
        vx = vx + h * (action[..., 0] - grip)
        vz = vz + h * (normal - 9.81)
        spin = spin + h * (action[..., 1] + 0.1 * grip) / 0.005
        x, z, angle = x + h * vx, z + h * vz, angle + h * spin
    return torch.stack([x, z, angle, vx, vz, spin], -1)


def fr3(state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor) -> Tensor:
    """The chain of the robot's URDF: fixed offsets (roll, x, y, z), each before a turn about z."""
    half = math.pi / 2
    offsets = [
        (0.0, 0.0, 0.0, 0.333),
        (-half, 0.0, 0.0, 0.0),
        (half, 0.0, -0.316, 0.0),
        (half, 0.0825, 0.0, 0.0),
        (-half, -0.0825, 0.384, 0.0),
        (half, 0.0, 0.0, 0.0),
        (half, 0.088, 0.0, 0.0),
    ]
    angles = state[..., :7] + 0.02 * action
    eye = torch.eye(4, dtype=state.dtype).expand(*state.shape[:-1], 4, 4)
    frame = eye
    for k, (roll, *place) in enumerate(offsets):
        c, s = math.cos(roll), math.sin(roll)
        fixed = torch.tensor(
            [[1, 0, 0, place[0]], [0, c, -s, place[1]], [0, s, c, place[2]], [0, 0, 0, 1]],
            dtype=state.dtype,
        )
        cos, sin, zero = (
            angles[..., k].cos(),
            angles[..., k].sin(),
            torch.zeros_like(angles[..., k]),
        )
        turn = torch.stack([cos, -sin, zero, zero, sin, cos, zero, zero], -1).unflatten(-1, (2, 4))
        frame = frame @ fixed @ torch.cat([turn, eye[..., 2:, :]], -2)
    tool = torch.tensor([0.0, 0.0, 0.107 + 0.1034, 1.0], dtype=state.dtype)
    return torch.cat([angles, (frame @ tool)[..., :3]], -1)


CASES: list[tuple[Callable[[], Bridged], Twin]] = [
    (warp_point_mass, point_mass),
    (warp_disc, disc),
    (warp_fr3, fr3),
]


def drawn(simulator: Bridged, *batch: int) -> list[Tensor]:
    """Discs that fly, press, roll and slide; nothing special for the others."""
    generator = torch.Generator().manual_seed(3)
    sizes = simulator.state_dim, simulator.action_dim, simulator.noise_dim
    given = [torch.randn(*batch, n, generator=generator, dtype=torch.float64) for n in sizes]
    if simulator.state_dim == 6:
        given[0][..., 1] = 0.1 + 0.03 * given[0][..., 1]
    parameters = torch.tensor(simulator.parameters, dtype=torch.float64)
    return [*given, parameters.expand(*batch, -1).clone()]


@pytest.mark.parametrize(("build", "twin"), CASES, ids=["point_mass", "disc", "fr3"])
def test_values_and_gradients_are_the_twins(build: Callable[[], Bridged], twin: Twin) -> None:
    simulator = build()
    given = [part.requires_grad_() for part in drawn(simulator, 24)]
    ours, expected = simulator.advance(*given), twin(*given)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)
    back = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).sin().reshape(ours.shape)
    # the point mass's twin knows no parameters
    asked = given[:3] if twin is point_mass else given
    for a, b in zip(
        *(
            torch.autograd.grad(y, asked, back, materialize_grads=True)
            for y in (ours, expected)
        ),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    check_step(simulator, *(part.detach() for part in given[:3]))


def test_the_tool_is_where_the_robot_in_torch_has_it() -> None:
    simulator = warp_fr3()
    state, action, noise, _ = drawn(simulator, 5)
    after = simulator.step(state, action, noise)
    torch.testing.assert_close(after[:, 7:], FR3.pose(after[:, :7])[:, :3], rtol=1e-11, atol=1e-12)


def test_discs_of_the_test_do_all_that_a_disc_can() -> None:
    simulator = warp_disc()
    state, _, _, parameters = drawn(simulator, 24)
    depth = (0.1 - state[:, 1]).clamp(min=0)
    slip = (state[:, 3] - 0.1 * state[:, 5]).abs()
    sliding = parameters[:, 2] * slip > parameters[:, 3] * parameters[:, 0] * depth
    for what in (depth == 0, depth > 0, (depth > 0) & sliding, (depth > 0) & ~sliding):
        assert what.sum() >= 2


def test_estimators_see_the_same_problem() -> None:
    """Per-sample gradients of whole episodes, by all engines, as on the simulator in torch."""
    twin = gradlab.make("lq", dtype=torch.float64)
    problem = twin.replace(simulator=warp_point_mass())
    params, noise = twin.reference, twin.draw(6, torch.Generator().manual_seed(0))
    for make in (estimators.FOG, estimators.PG):
        expected = make()(twin, params, noise).per_sample()
        for engine in ("pullback", "vmap", "loop"):
            ours = make(engine=engine)(problem, params, noise).per_sample()
            for key, leaf in expected.items():
                torch.testing.assert_close(ours[key], leaf, rtol=1e-9, atol=1e-11)


@pytest.mark.slow  # inductor compiles both ways
def test_a_compiled_rollout_goes_through_it() -> None:
    twin = gradlab.make("lq", dtype=torch.float64)
    problem = gradlab.make("lq", simulator=warp_point_mass(), dtype=torch.float64, compile=True)
    params, noise = twin.reference, twin.draw(6, torch.Generator().manual_seed(0))
    ours, expected = (estimators.FOG()(p, params, noise).per_sample() for p in (problem, twin))
    for key, leaf in expected.items():
        torch.testing.assert_close(ours[key], leaf, rtol=1e-9, atol=1e-11)
