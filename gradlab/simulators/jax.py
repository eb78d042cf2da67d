"""Steps written in JAX, as a `Simulator`.

    def step(state, action, noise, parameters):  # of one world, pure
        return jnp.concatenate([state[2:], action])

    simulator = jax_simulator(step, state_dim=4, action_dim=2, dt=0.1)

Tensors pass by DLPack both ways; the step is vectorised over worlds and compiled, forwards and with
`jax.vjp`, so that one backward pass gives the gradient of every sample. Needs the extra `peers`.
See `docs/engines.md`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import Missing
from gradlab.foundation.tensors import Vector
from gradlab.simulators.bridge import Bridged, Worlds

# (state [ns], action [nu], noise [nw], parameters [np]) → state [ns], of one world: pure, traceable
Step = Callable[..., Any]
Options = tuple[tuple[str, str | bool | int], ...]  # of XLA, by name

# Compiled in less time, for steps of which few are taken; a step takes longer.
QUICK: Options = (
    ("xla_llvm_disable_expensive_passes", True),
    ("xla_backend_optimization_level", 0),
)


@functools.cache
def jax() -> ModuleType:
    """The package. Raises `Missing` where it is not installed."""
    try:
        return importlib.import_module("jax")
    except ModuleNotFoundError as error:  # an extra
        raise Missing(
            f"jax is not installed ({error}); try: pip install 'gradlab[peers]'"
        ) from error


def jax_simulator(
    step: Step,
    *,
    state_dim: int,
    action_dim: int,
    noise_dim: int = 0,
    dt: float,
    parameters: Vector = (),
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64),
    coordinates_to_state: Callable[[Tensor], Tensor] | None = None,
    block: int | None = None,
    options: Options = (),
) -> Bridged:
    """A simulator that steps by `step(state, action, noise, parameters)`, a JAX function of one
    world [n] to its next state.

    XLA compiles it once for each number of worlds. A step that takes long to compile is better
    called in blocks of one size: `block` worlds at a time, the last one filled up by copies.
    `options` are XLA's compiler options, such as `QUICK`. float64 is switched on for the calls
    alone; `dtypes` says what the step is good for, and must leave out float64 if arrays in it are
    float32.

    Raises `Missing` without JAX, `BadValue` for a block below 1.
    """
    jax()
    engine = JaxSteps(step, None if block is None else whole("block", block), tuple(options))
    return Bridged(
        engine, state_dim, action_dim, noise_dim, dt, tuple(parameters), tuple(dtypes),
        coordinates_to_state, name=f"the JAX step {getattr(step, '__name__', 'step')}",
    )  # fmt: skip


@dataclass(frozen=True)
class JaxSteps:
    """The engine of `Bridged`: a compiled function of all worlds, and its vjp."""

    step: Step
    block: int | None = None
    options: Options = ()

    def forward(self, worlds: Worlds) -> Float[Tensor, "N ns"]:
        """The states one control period later."""
        run = _forward(self.step, self.options)
        (after,) = self._in_blocks(lambda *parts: (run(*parts),), worlds)
        return after

    def pull(
        self, worlds: Worlds, back: Float[Tensor, "N ns"], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of Σ back·forward by what is wanted."""
        found = self._in_blocks(_pullback(self.step, self.options), (*worlds, back))
        return [grad if want else None for grad, want in zip(found, wanted, strict=True)]

    def _in_blocks(self, run: Callable[..., Any], parts: Sequence[Tensor]) -> list[Tensor]:
        """`run` on all rows, or on blocks of rows of one size; its results as one."""
        count = len(parts[0])
        size = self.block or max(count, 1)
        blocks = []
        for begin in range(0, max(count, 1), size):
            rows = [_filled(part[begin : begin + size], size) for part in parts]
            blocks.append([_to_torch(result) for result in _call(run, rows)])
        columns = (
            (column[0] if len(column) == 1 else torch.cat(column))[:count]
            for column in zip(*blocks, strict=True)
        )
        # what XLA hands back may be what it was given, which is not new memory
        given = {part.data_ptr() for part in parts}
        return [c.clone() if c.data_ptr() in given else c for c in columns]


def _filled(rows: Tensor, size: int) -> Tensor:
    """`size` rows: these, and the last one again and again (ones where there is none)."""
    short = size - len(rows)
    if not short:
        return rows.detach()
    last = rows[-1:] if len(rows) else rows.new_ones(1, rows.shape[1])
    return torch.cat([rows, last.expand(short, -1)]).detach()


def _call(run: Callable[..., Any], rows: Sequence[Tensor]) -> Any:
    """A compiled function of tensors; it has finished, as torch goes on with the memory."""
    package = jax()
    with package.enable_x64(rows[0].dtype == torch.float64):
        return package.block_until_ready(run(*(_to_jax(part) for part in rows)))


def _to_jax(part: Tensor) -> Any:
    if part.numel():
        return jax().dlpack.from_dlpack(part.contiguous())
    return jax().numpy.zeros(tuple(part.shape), dtype=str(part.dtype).removeprefix("torch."))


def _to_torch(array: Any) -> Tensor:
    return torch.from_dlpack(array)


@functools.lru_cache(maxsize=64)
def _forward(step: Step, options: Options) -> Callable[..., Any]:
    package = jax()
    return package.jit(package.vmap(step), compiler_options=dict(options))


@functools.lru_cache(maxsize=64)
def _pullback(step: Step, options: Options) -> Callable[..., Any]:
    """(state, action, noise, parameters, cotangent) → gradients by the first four, of all worlds.

    By all of them, whatever is wanted: to compile another one takes longer than to run it.
    """
    package = jax()

    def one(state: Any, action: Any, noise: Any, parameters: Any, back: Any) -> tuple[Any, ...]:
        return package.vjp(step, state, action, noise, parameters)[1](back)

    return package.jit(package.vmap(one), compiler_options=dict(options))
