"""The bridge to JAX, on a step that compiles at once."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators
import gradlab
from gradlab.foundation.errors import BadShape, BadValue, Missing, Unavailable
from gradlab.simulators import jax as module
from gradlab.simulators.bridge import Bridged, Entrance
from gradlab.simulators.bridge_checks import check_step
from gradlab.simulators.jax import QUICK, JaxSteps, jax_simulator
from gradlab.simulators.point_mass import planar_point_mass

jax = pytest.importorskip("jax", reason="the extra `peers` is not installed")
import jax.numpy as jnp


def oscillate(state: Any, action: Any, noise: Any, parameters: Any) -> Any:
    place, speed = state[0], state[1]
    for _ in range(3):
        speed = speed + 0.1 * (action[0] * place - parameters[0] * jnp.sin(place))
        speed = speed + noise[0] * jnp.cos(place)
        place = place + 0.1 * speed
    return jnp.stack([place, speed])


def twin(state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor) -> Tensor:
    place, speed = state.unbind(-1)
    for _ in range(3):
        speed = speed + 0.1 * (action[..., 0] * place - parameters[..., 0] * place.sin())
        speed = speed + noise[..., 0] * place.cos()
        place = place + 0.1 * speed
    return torch.stack([place, speed], -1)


def oscillator(**options: Any) -> Bridged:
    return jax_simulator(
        oscillate, state_dim=2, action_dim=1, noise_dim=1, dt=0.3, parameters=(3.0,), **options
    )


def inputs(*batch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(*batch, n, generator=generator, dtype=torch.float64) for n in (2, 1, 1, 1)]
    return [part.requires_grad_() for part in drawn]


@pytest.mark.parametrize("options", [{}, {"block": 3}, {"block": 8, "options": QUICK}])
@pytest.mark.parametrize("batch", [(), (7,), (2, 3), (0,)])
def test_values_and_gradients_are_the_twins(batch: tuple[int, ...], options: Any) -> None:
    given = inputs(*batch)
    ours, expected = oscillator(**options).advance(*given), twin(*given)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)
    assert not jax.config.jax_enable_x64
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), given) for y in (ours, expected)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_checks_transforms_and_refusals() -> None:
    given = inputs(3)
    state, action, noise, parameters = (part.detach() for part in given)
    assert torch.autograd.gradcheck(oscillator().advance, given)
    check_step(oscillator(), state, action, noise)
    for transform in (torch.func.jacrev, lambda f: torch.func.grad(lambda *x: f(*x).sum())):
        ours, expected = (
            torch.func.vmap(transform(f))(state, action, noise, parameters)
            for f in (oscillator().advance, twin)
        )
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)
    single = [part.detach().float() for part in given]
    torch.testing.assert_close(oscillator().advance(*single), twin(*single))
    with pytest.raises(Unavailable, match="reverse mode only"):
        torch.autograd.functional.hessian(
            lambda s: oscillator().advance(s, action, noise, parameters).sum(), state
        )
    with pytest.raises(BadValue, match="block should be"):
        oscillator(block=0)


def push(state: Any, action: Any, noise: Any, parameters: Any) -> Any:
    """The planar point mass."""
    simulator = planar_point_mass()
    a, b = jnp.array(simulator.transition), jnp.array(simulator.control)
    return a @ state + b @ action + jnp.array(simulator.process_std) * noise


def doubled(coordinates: Any, *nothing: Any) -> Any:
    return jnp.concatenate([coordinates, 2 * coordinates])


def test_estimators_see_the_same_problem() -> None:
    twin = gradlab.make("lq", dtype=torch.float64)
    other = jax_simulator(push, state_dim=4, action_dim=2, noise_dim=4, dt=0.4)
    problem = twin.replace(simulator=other)
    params, noise = twin.reference, twin.draw(6, torch.Generator().manual_seed(0))
    expected = estimators.FOG()(twin, params, noise).per_sample()
    for engine in ("pullback", "vmap", "loop"):
        ours = estimators.FOG(engine=engine)(problem, params, noise).per_sample()
        for key, leaf in expected.items():
            torch.testing.assert_close(ours[key], leaf, rtol=1e-9, atol=1e-11)


def test_coordinates_become_a_state_of_another_size() -> None:
    entrance = Entrance(JaxSteps(doubled), 6)
    coordinates = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = torch.cat([coordinates, 2 * coordinates], -1)
    assert torch.equal(entrance(coordinates), expected)
    assert torch.equal(torch.func.vmap(entrance)(coordinates.detach()), expected)
    (grad,) = torch.autograd.grad(entrance(coordinates).sum(), coordinates)
    assert torch.equal(grad, torch.full_like(grad, 3.0))


def test_without_jax_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module.jax.cache_clear()
    monkeypatch.setitem(sys.modules, "jax", None)  # as if it were not installed
    with pytest.raises(Missing, match=r"pip install 'gradlab\[peers\]'"):
        oscillator()


def test_what_a_step_returns_is_looked_at() -> None:
    state, action, noise, _ = (part.detach() for part in inputs(3))

    def stepped(step: Any) -> Tensor:
        options: Any = {"state_dim": 2, "action_dim": 1, "noise_dim": 1, "dt": 0.1}
        return jax_simulator(step, **options).step(state, action, noise)

    with pytest.raises(BadShape, match=r"expected \[3, 2\] .* got \[3, 1\]"):
        stepped(lambda state, action, noise, parameters: state[:1])
    with pytest.raises(BadShape, match=r"of torch.float64 .* of torch.float32"):
        stepped(lambda state, action, noise, parameters: state.astype("float32"))
