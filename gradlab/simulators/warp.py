"""Steps written as NVIDIA Warp kernels, as a `Simulator`.

    @wp.kernel
    def push(state: wp.array2d(dtype=float), ...): ...

    def launch(state, action, noise, parameters, after, dt):
        inputs = [state, action, noise, dt]
        wp.launch(push, dim=state.shape[0], inputs=inputs, outputs=[after])

    simulator = warp_simulator(launch, state_dim=2, action_dim=1, dt=0.1)

The memory is torch's on both sides, nothing is copied, and on a GPU kernels run on torch's stream.
Needs the extra `warp`. See `docs/engines.md`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import Missing
from gradlab.foundation.tensors import Vector
from gradlab.simulators.bridge import Bridged, Worlds

# (state, action, noise, parameters, after, dt): kernels from the first four, Warp arrays [N, n],
# to `after` [N, ns], which is 0 before; dt is that of a sub-step [s]
Launch = Callable[..., None]


@functools.cache
def warp() -> ModuleType:
    """The package, started. Raises `Missing` where it is not installed."""
    try:
        package = importlib.import_module("warp")
    except ModuleNotFoundError as error:  # an extra
        raise Missing(
            f"warp-lang is not installed ({error}); try: pip install 'gradlab[warp]'"
        ) from error
    package.init()
    return package


def warp_simulator(
    launch: Launch,
    *,
    state_dim: int,
    action_dim: int,
    noise_dim: int = 0,
    dt: float,
    substeps: int = 1,
    parameters: Vector = (),
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
    coordinates_to_state: Callable[[Tensor], Tensor] | None = None,
    capture: bool = False,
) -> Bridged:
    """A simulator that steps by `launch(state, action, noise, parameters, after, dt / substeps)`,
    called `substeps` times in a control period of `dt` [s].

    `launch` gets Warp arrays [N, n] of one scalar type and launches kernels that write the next
    states to `after`, world i from row i of each input alone. Action, noise and parameters are the
    same in all sub-steps. It must write to no array that it is given but `after`, and to none that
    it keeps between calls: arrays in between are made anew in each call, with
    `requires_grad=True`. `tests/gradlab/simulators/test_warp.py` shows what goes wrong otherwise.

    `dtypes` says what the kernels are written for: Warp's `float` is float32; arrays with
    `dtype=Any` take float64 too, if constants are cast by `state.dtype(0.5)`. `parameters` are
    numbers that kernels read and that gradients may be taken by (`Bridged.advance`).

    With `capture` the launches are recorded once per number of worlds as a CUDA graph and replayed:
    for kernels so short that launching them is what takes the time.

    Raises `Missing` without Warp, `BadValue` for `substeps` below 1.
    """
    warp()
    substeps = whole("substeps", substeps)
    engine = WarpSteps(launch, substeps, dt / substeps, capture)
    return Bridged(
        engine, state_dim, action_dim, noise_dim, dt, tuple(parameters), tuple(dtypes),
        coordinates_to_state, name=f"the Warp step {getattr(launch, '__name__', 'launch')}",
    )  # fmt: skip


@dataclass(frozen=True)
class WarpSteps:
    """The engine of `Bridged`: sub-steps by kernel launches, each with a tape of its own.

    One tape over several sub-steps would be right only as long as no array is written twice. A tape
    each, over states that each have their own memory, says what was read and written where.
    """

    launch: Launch
    substeps: int
    dt: float  # of a sub-step [s]
    capture: bool = False

    def forward(self, worlds: Worlds) -> Float[Tensor, "N ns"]:
        """The states one control period later."""
        with _on_stream_of(worlds.state):
            if self.capture and worlds.state.is_cuda:
                graph = _graph(self, *_key(worlds, ()))
                graph.replay(worlds)
                return graph.space.after.clone()
            space = _space(self, worlds, ())
            space.forward(self)
            return space.after

    def pull(
        self, worlds: Worlds, back: Float[Tensor, "N ns"], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of Σ back·forward; the sub-steps are run again, and recorded."""
        with _on_stream_of(worlds.state):
            if self.capture and worlds.state.is_cuda:
                graph = _graph(self, *_key(worlds, tuple(wanted)))
                graph.replay(worlds, back)
                return [None if grad is None else grad.clone() for grad in graph.space.gradients]
            space = _space(self, worlds, wanted)
            space.backward(self, warp().from_torch(back, requires_grad=False))
            return space.gradients


class Space(NamedTuple):
    """Torch's memory for one call, as Warp sees it: a state before and after every sub-step."""

    states: list[Any]
    inputs: list[Any]  # action, noise, parameters
    after: Tensor
    gradients: list[Tensor | None]  # by the parts of a `Worlds`, where they are wanted

    def forward(self, engine: WarpSteps) -> None:
        """All sub-steps."""
        for before, after in zip(self.states[:-1], self.states[1:], strict=True):
            engine.launch(before, *self.inputs, after, engine.dt)

    def backward(self, engine: WarpSteps, back: Any) -> None:
        """All sub-steps, recorded, and then backwards from the cotangent `back` [N, ns].

        The cotangent is copied into the last state's own gradient: a tape changes that one.
        """
        tapes = []
        for before, after in zip(self.states[:-1], self.states[1:], strict=True):
            tape = warp().Tape()
            with tape:
                engine.launch(before, *self.inputs, after, engine.dt)
            tapes.append(tape)
        for k, tape in enumerate(reversed(tapes)):
            tape.backward(grads={self.states[-1]: back} if k == 0 else None)


def _space(engine: WarpSteps, rows: Worlds, wanted: Sequence[bool]) -> Space:
    """Arrays over the rows themselves and over new memory for all else; `wanted` is empty where
    there is no backward pass."""
    needed = wanted or (False,) * len(rows)
    gradients = [
        torch.zeros_like(row) if need else None for row, need in zip(rows, needed, strict=True)
    ]
    state, *inputs = (_array(row, grad) for row, grad in zip(rows, gradients, strict=True))
    afters = [torch.zeros_like(rows.state) for _ in range(engine.substeps)]
    # the states after sub-steps need gradients whatever is wanted
    later = [_array(part, torch.zeros_like(part) if wanted else None) for part in afters]
    return Space([state, *later], inputs, afters[-1], gradients)


def _array(values: Tensor, gradient: Tensor | None) -> Any:
    """A Warp array over the memory of both."""
    values = values.detach()
    if gradient is None:
        return warp().from_torch(values, requires_grad=False)
    return warp().from_torch(values, grad=warp().from_torch(gradient, requires_grad=False))


def _on_stream_of(tensor: Tensor) -> ExitStack:
    """Warp's launches go to the tensor's device, and there to torch's stream."""
    wp = warp()
    stack = ExitStack()
    stack.enter_context(wp.ScopedDevice(wp.device_from_torch(tensor.device)))
    if tensor.is_cuda:
        stream = wp.stream_from_torch(torch.cuda.current_stream(tensor.device))
        stack.enter_context(wp.ScopedStream(stream, sync_enter=False))
    return stack


# ------------------------------------------------------------------------------------ CUDA graphs


class _Graph:
    """The launches of one call on memory that stays, recorded once."""

    def __init__(self, engine: WarpSteps, rows: Worlds, wanted: tuple[bool, ...]) -> None:
        wp = warp()
        self.rows = rows
        self.back = torch.zeros_like(rows.state)
        self.space = _space(engine, rows, wanted)
        back = wp.from_torch(self.back, requires_grad=False)
        space = self.space
        run = partial(space.backward, engine, back) if wanted else partial(space.forward, engine)
        run()  # kernels are compiled and loaded before, not while recording
        torch.cuda.synchronize(rows.state.device)
        # torch's stream may be the device's default one, which cannot be recorded
        own = wp.Stream(wp.get_device())
        with wp.ScopedStream(own, sync_enter=False), wp.ScopedCapture(stream=own) as capture:
            self._clear()
            run()
        self.graph = capture.graph

    def _clear(self) -> None:
        """As new memory is: outputs and gradients are added to."""
        for state in self.space.states[1:]:
            state.zero_()
        for array in (*self.space.states, *self.space.inputs):
            if array.grad is not None:
                array.grad.zero_()

    def replay(self, rows: Worlds, back: Tensor | None = None) -> None:
        """The launches again, on these rows: what they make is in `space`, until the next time."""
        for own, given in zip(self.rows, rows, strict=True):
            own.copy_(given)
        if back is not None:
            self.back.copy_(back)
        warp().capture_launch(self.graph)


def _key(rows: Worlds, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
    shapes = tuple(tuple(row.shape) for row in rows)
    return shapes, rows.state.dtype, rows.state.device, wanted


@functools.lru_cache(maxsize=16)
def _graph(
    engine: WarpSteps,
    shapes: tuple[tuple[int, int], ...],
    dtype: torch.dtype,
    device: torch.device,
    wanted: tuple[bool, ...],
) -> _Graph:
    rows = Worlds(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes))
    return _Graph(engine, rows, wanted)
