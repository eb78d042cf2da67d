"""A JAX twin of FOG on hovering: `jit(vmap(grad))` of the same numbers, to race against.

Written from the plain formulas (quaternion products, no tables), in the way a JAX user would: one
sample's return as a `scan`, then `grad`, `vmap` and `jit`. It needs the extra `peers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from torch import Tensor

from gradlab.events import Hard
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.drones import GRAVITY
from gradlab.simulators.quadrotor import Quadrotor
from gradlab.tasks import flight
from gradlab.tasks.hovering import Hovering

Array = jax.Array
# (params, initial noise, action noise) -> (returns [N], {name: [N, *param]})
PerSample = Callable[[dict[str, Array], Array, Array], tuple[Array, dict[str, Array]]]


def per_sample(problem: Problem, unroll: int = 1) -> PerSample:
    """The compiled twin of `FOG()(problem, ...).per_sample()` with the returns;
    `unroll` of the scan.

    Raises `BadValue` for anything but hovering without success event on the default kind of
    quadrotor, unrelaxed, with a squashed elu policy and state-dependent std.
    """
    simulator, task = _known(problem)

    def episode(params: dict[str, Array], initial: Array, noise: Array) -> Array:
        return _episode(problem, simulator, task, unroll, params, initial, noise)

    one = jax.value_and_grad(episode)
    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))


def arrays(params: dict[str, Tensor], noise: Noise) -> tuple[dict[str, Array], Array, Array]:
    """Arguments of the twin from a problem's parameters and noise."""
    return (
        {name: jnp.asarray(value.cpu().numpy()) for name, value in params.items()},
        jnp.asarray(noise.initial.cpu().numpy()),
        jnp.asarray(noise.action.cpu().numpy()),
    )


def _known(problem: Problem) -> tuple[Quadrotor, Hovering]:
    """Simulator and task, if they are what the twin was written for."""
    simulator, task, policy = problem.simulator, problem.task, problem.policy
    if (
        isinstance(simulator, Quadrotor)
        and (simulator.actions, simulator.integrator, simulator.substeps) == ("thrust", "euler", 1)
        and not simulator.motor_lag
        and simulator.drag
        and not simulator.vendor_quirks
        and isinstance(task, Hovering)
        and not task.success_event
        and isinstance(problem.event_step, Hard)
        and (policy.activation, policy.std, policy.squash) == ("elu", "state", True)
    ):
        return simulator, task
    raise BadValue(
        f"the JAX twin knows hovering on the default quadrotor only, got {problem.name} with "
        f"{type(simulator).__name__}; try gradlab.make('hovering')"
    )


def _episode(
    problem: Problem,
    simulator: Quadrotor,
    task: Hovering,
    unroll: int,
    params: dict[str, Array],
    initial: Array,
    noise: Array,
) -> Array:
    """The return Σ γ^t alive_t r_t of one episode."""
    position = jnp.array(task.spawn_mean) + jnp.array(task.spawn_half_range) * initial
    rest = jnp.array((*flight.LEVEL, *(0.0,) * 6))
    state = jnp.concatenate((position, rest)).astype(initial.dtype)
    ones = jnp.ones((), initial.dtype)

    def step(carry: tuple[Array, Array, Array], eps: Array) -> tuple[Any, Array]:
        state, alive, discount = carry
        mean, log_std = _policy(problem.policy, params, _observation(task, state))
        state = _physics(simulator, state, jnp.tanh(mean + jnp.exp(log_std) * eps))
        value = discount * alive * _reward(task, state)
        return (state, alive * ~_collided(state), discount * problem.discount), value

    _, values = jax.lax.scan(step, (state, ones, ones), noise, unroll=unroll)
    return values.sum()


def _observation(task: Hovering, state: Array) -> Array:
    offset = (jnp.array(task.target) - state[:3]) / flight.SENSE
    return jnp.concatenate((offset, state[3:7], state[7:] / flight.SENSE))


def _policy(policy: GaussianPolicy, params: dict[str, Array], obs: Array) -> tuple[Array, Array]:
    hidden = obs
    for layer in range(len(policy.hidden) + 1):
        hidden = jax.nn.elu(hidden) if layer else hidden
        hidden = params[f"layers.{layer}.weight"] @ hidden + params[f"layers.{layer}.bias"]
    mean, raw = jnp.split(hidden, 2)
    low, high = policy.log_std_range
    centre = math.atanh(2 * (math.log(policy.initial_std) - low) / (high - low) - 1)
    return mean, low + (high - low) * 0.5 * (1 + jnp.tanh(raw + centre))


def _physics(simulator: Quadrotor, state: Array, action: Array) -> Array:
    """One explicit Euler step; see `gradlab.simulators.quadrotor` for the equations."""
    drone, dt = simulator.constants, simulator.dt
    p, q, v, rates = jnp.split(state, (3, 7, 10))
    inertia = jnp.array(drone.inertia)
    thrust = drone.hover_thrust * (drone.thrust_offset + drone.thrust_gain * action)
    lift, *torque = jnp.array(drone.allocation) @ jnp.clip(thrust, 0.0, drone.max_thrust)
    rotation = _rotation(q)
    air = rotation.T @ v
    drag = (jnp.array(drone.linear_drag) + jnp.array(drone.quadratic_drag) * jnp.abs(air)) * air
    force = rotation @ (jnp.array((0.0, 0.0, 1.0)) * lift - drag)
    acceleration = force / drone.mass - jnp.array((0.0, 0.0, GRAVITY))
    spin = (jnp.array(torque) - jnp.cross(rates, inertia * rates)) / inertia
    turned = q + dt * _quaternion_rate(q, rates)
    parts = (p + dt * v, turned / jnp.linalg.norm(turned), v + dt * acceleration, rates + dt * spin)
    return jnp.concatenate(parts).astype(state.dtype)


def _rotation(q: Array) -> Array:
    w, x, y, z = q
    return jnp.array(
        (
            (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
        )
    )


def _quaternion_rate(q: Array, rates: Array) -> Array:
    w, u = q[0], q[1:]
    return 0.5 * jnp.concatenate((-(u @ rates)[None], w * rates + jnp.cross(u, rates)))


def _reward(task: Hovering, state: Array) -> Array:
    p, q, v, rates = jnp.split(state, (3, 7, 10))
    near = _length(p - jnp.array(task.target))
    level = _length(q - jnp.array(flight.LEVEL))
    slow = 0.002 * _length(v) + 0.002 * _length(rates)
    return 0.1 - (0.1 / 9) * near - 1e-5 * level - slow


def _length(x: Array) -> Array:
    """Euclidean norm with gradient 0 at 0."""
    square = (x * x).sum()
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _collided(state: Array) -> Array:
    inside = jnp.minimum(state[:3] - jnp.array(flight.LOW), jnp.array(flight.HIGH) - state[:3])
    return inside.min() < flight.RADIUS
