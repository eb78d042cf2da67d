"""Brax's own Ant, to race against: `jit(vmap(grad))` of the return of a policy of the same size.

Not the same physics: Brax's contact, masses and observation are its own. What is compared is the
price of one per-sample gradient through as many control periods of an ant. It needs the extra
`peers`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
CONTROL_PERIOD = 0.05  # of Brax's Ant [s]


def per_sample(
    backend: str, samples: int, horizon: int, hidden: tuple[int, ...], unroll: int = 1
) -> Callable:
    """A call without arguments that computes N per-sample gradients (compiled at the first
    call); `unroll` of the scan.
    """
    one, arguments = _setting(backend, samples, horizon, hidden, unroll)
    twin = jax.jit(jax.vmap(jax.grad(one), in_axes=(None, 0, 0)))
    return lambda: jax.block_until_ready(twin(*arguments))


def forward(
    backend: str, samples: int, horizon: int, hidden: tuple[int, ...], unroll: int = 1
) -> Callable:
    """The same without the gradient: N returns."""
    one, arguments = _setting(backend, samples, horizon, hidden, unroll)
    twin = jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))
    return lambda: jax.block_until_ready(twin(*arguments))


def _setting(
    backend: str, samples: int, horizon: int, hidden: tuple[int, ...], unroll: int
) -> tuple[Callable, tuple[Any, ...]]:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # Brax announces its successor
        from brax import envs

        env = envs.get_environment("ant", backend=backend)
    sizes = (env.observation_size, *hidden, 2 * env.action_size)
    keys = jax.random.split(jax.random.PRNGKey(0), len(sizes))
    params = [
        (jax.random.normal(key, (a, b)) / a**0.5, jnp.zeros(b))
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)
    ]

    def policy(params: list, obs: Array) -> tuple[Array, Array]:
        for layer, (weight, bias) in enumerate(params):
            obs = jax.nn.elu(obs) if layer else obs
            obs = obs @ weight + bias
        mean, log_std = jnp.split(obs, 2)
        return mean, jnp.tanh(log_std) - 1

    def one(params: list, state: Any, noise: Array) -> Array:
        def step(state: Any, eps: Array) -> tuple[Any, Array]:
            mean, log_std = policy(params, state.obs)
            state = env.step(state, jnp.tanh(mean + jnp.exp(log_std) * eps))
            return state, state.reward

        return jax.lax.scan(step, state, noise, unroll=unroll)[1].sum()

    starts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(1), samples))
    noise = jax.random.normal(jax.random.PRNGKey(2), (samples, horizon, env.action_size))
    return one, (params, starts, noise)
