"""Brax's own ant, in its own engines, as a `Simulator` (extra `peers`).

Nothing is rewritten: a step is the environment's `pipeline_step` with its sub-steps, and the flat
state is all that the pipeline carries from one step to the next, with q and q̇ first. Gradients are
JAX's of that code. Source: `google/brax` 0.14.2, brax/envs/ant.py.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from gradlab.foundation.errors import Missing, UnknownName
from gradlab.simulators.bridge import Bridged, Entrance
from gradlab.simulators.jax import JaxSteps, Options, jax, jax_simulator

BACKENDS = ("generalized", "spring", "positional")
NQ, NV = 15, 14  # sizes of q and q̇


def brax_ant(backend: str = "generalized", *, block: int = 64, options: Options = ()) -> Bridged:
    """The ant of Brax in one of `BACKENDS`: state [q, q̇, ...], action 8 motors in [−1, 1].

    With the task of our own: `gradlab.make("ant", preset="brax", simulator=brax_ant("spring"))`.
    Control periods of 0.05 s, in 5 sub-steps (10 in spring and positional, where motors of
    positional are stronger: 200 N m against 150). Controls beyond ±1 are clipped. Non-smooth as
    Brax is: contacts and limits begin at once, projections and line searches end where they are.
    Worlds are stepped in blocks of `block`, which are compiled once: minutes on a CPU with the
    gradient; `jax.QUICK` takes less, and JAX_COMPILATION_CACHE_DIR keeps it for the next process.
    In float32.

    Raises `Missing` without Brax, `UnknownName` for another backend.
    """
    if backend not in BACKENDS:
        raise UnknownName("backend", backend, BACKENDS)
    width = _ant(backend).width
    return jax_simulator(
        AntStep(backend),
        state_dim=width,
        action_dim=8,
        dt=0.05,
        dtypes=(torch.float32,),
        coordinates_to_state=Entrance(JaxSteps(AntStart(backend), block, options), width),
        block=block,
        options=options,
    )


class _Ant(NamedTuple):
    environment: Any
    unflatten: Callable[[Any], Any]  # of the pipeline's state
    width: int


@functools.cache
def _ant(backend: str) -> _Ant:
    package = jax()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # Brax announces its successor
            environments = importlib.import_module("brax.envs")
            environment = environments.get_environment("ant", backend=backend)
    except ModuleNotFoundError as error:
        raise Missing(
            f"Brax is not installed ({error}); try: pip install 'gradlab[peers]'"
        ) from error
    at_rest = package.numpy.zeros(NV)
    state = package.eval_shape(environment.pipeline_init, environment.sys.init_q, at_rest)
    state = package.tree_util.tree_map(lambda x: package.numpy.zeros(x.shape, x.dtype), state)
    flat, unflatten = _flat(state)
    return _Ant(environment, unflatten, flat.shape[0])


def _flat(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """All numbers in one array, in the order of the tree, and the way back."""
    return importlib.import_module("jax.flatten_util").ravel_pytree(tree)


@dataclass(frozen=True)
class AntStep:
    """(flat state, action) → flat state, of one world."""

    backend: str

    @property
    def __name__(self) -> str:
        return f"of Brax's {self.backend} ant"

    def __call__(self, state: Any, action: Any, noise: Any, parameters: Any) -> Any:
        ant = _ant(self.backend)
        after = ant.environment.pipeline_step(ant.unflatten(state), action)
        return _flat(after)[0]


@dataclass(frozen=True)
class AntStart:
    """[q, q̇] → flat state, of one world, as Brax's reset makes it."""

    backend: str

    def __call__(self, coordinates: Any, action: Any, noise: Any, parameters: Any) -> Any:
        environment = _ant(self.backend).environment
        state = environment.pipeline_init(coordinates[:NQ], coordinates[NQ:])
        return _flat(state)[0]
