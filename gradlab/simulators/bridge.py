"""Another engine's step as a `Simulator`: what Warp and JAX have in common.

An engine steps rows [N, n] of independent worlds and pulls a cotangent of the states after a step
back to what the step read. As worlds are independent, one row of the cotangent per world gives the
gradient of every sample in one backward pass. To torch the two are operators without an inside, so
that ordinary autograd, compiled code and `torch.func.vmap` and `grad` all go through them. What an
engine's reverse mode does not have is refused: forward mode and second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, Unavailable
from gradlab.foundation.tensors import Vector, constant


class Worlds(NamedTuple):
    """What one step reads: a row for each of N worlds, contiguous, all of one dtype and device."""

    state: Float[Tensor, "N ns"]
    action: Float[Tensor, "N nu"]
    noise: Float[Tensor, "N nw"]
    parameters: Float[Tensor, "N np"]


@runtime_checkable
class Foreign(Protocol):
    """A step of another engine; hashable, and the same numbers whenever it is called again."""

    def forward(self, worlds: Worlds) -> Float[Tensor, "N ns"]:
        """The states one control period later, in memory of their own."""
        ...

    def pull(
        self, worlds: Worlds, back: Float[Tensor, "N ns"], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of Σ back·forward by the parts of `worlds`; None where none is wanted.

        It runs the step again: nothing is kept between a forward and a backward pass.
        """
        ...


@dataclass(frozen=True)
class Bridged:
    """A `Simulator` that another engine steps. Not smooth where the engine's step is not.

    Gradients come from the engine's own reverse mode by state, action, noise and parameters; a
    backward pass costs one more forward step. Ordinary autograd, `torch.compile` and, of
    `torch.func`, `vmap`, `grad`, `vjp` and `jacrev` work; forward mode (`jvp`, `jacfwd`) and second
    derivatives raise `Unavailable`. Worlds must not depend on each other, and the engine must not
    write to what it is given: `bridge_checks.check_step` looks.
    """

    engine: Foreign
    state_dim: int
    action_dim: int
    noise_dim: int = 0
    dt: float = 1.0  # control period [s]
    parameters: Vector = ()  # of every world, each in its own unit
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)  # that the engine's code can run in
    coordinates_to_state: Callable[[Tensor], Tensor] | None = None  # None: they are the state
    name: str = "the engine"
    key: int = field(init=False, repr=False, compare=False)  # of the engine, in this process

    def __post_init__(self) -> None:
        if not self.dt > 0:
            raise BadValue(f"dt of {self.name} must be positive [s], got {self.dt}; try dt=0.02")
        object.__setattr__(self, "key", _key_of(self.engine))

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the engine has another key."""
        return type(self), tuple(getattr(self, f.name) for f in fields(self) if f.init)

    def start(self, coordinates: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch ns"]:
        """The full state that belongs to a task's initial coordinates."""
        if self.coordinates_to_state is None:
            return coordinates
        return self.coordinates_to_state(coordinates)

    def step(
        self,
        state: Float[Tensor, "*batch ns"],
        action: Float[Tensor, "*batch nu"],
        noise: Float[Tensor, "*batch nw"],
    ) -> Float[Tensor, "*batch ns"]:
        """The state one control period later, under the parameters of this simulator."""
        return self.advance(state, action, noise, constant(self.parameters, state))

    def advance(
        self,
        state: Float[Tensor, "*#batch ns"],
        action: Float[Tensor, "*#batch nu"],
        noise: Float[Tensor, "*#batch nw"],
        parameters: Float[Tensor, "*#batch np"],
    ) -> Float[Tensor, "*batch ns"]:
        """The same under given parameters: [np] for all worlds, or a row for each.

        Raises `BadValue` for a dtype that the engine's code does not have or that differs from part
        to part, `BadShape` for sizes that are not this simulator's.
        """
        if state.dtype not in self.dtypes:
            known = ", ".join(str(dtype) for dtype in self.dtypes)
            raise BadValue(
                f"{self.name} is written for {known}, got {state.dtype}; make the problem with "
                f"dtype={self.dtypes[0]}, or write the step for {state.dtype} too and say so in "
                "dtypes"
            )
        given = Worlds(state, action, noise, parameters)
        sizes = self.state_dim, self.action_dim, self.noise_dim, len(self.parameters)
        for part, size, kind in zip(given, sizes, Worlds._fields, strict=True):
            if part.shape[-1] != size:
                raise BadShape(
                    f"expected {size} numbers of {kind} for {self.name}, got {part.shape[-1]}; "
                    f"look at its sizes {sizes}"
                )
            # a kernel that is launched once for mixed types cannot be launched again for any
            if part.dtype != state.dtype:
                raise BadValue(
                    f"{kind} for {self.name} should be {state.dtype}, as the state is, got "
                    f"{part.dtype}; try {kind}.to(state)"
                )
        return _through(self.key, self.state_dim, given)


@dataclass(frozen=True)
class Entrance:
    """A `coordinates_to_state` that another engine computes, differentiable as its steps are."""

    engine: Foreign  # takes the coordinates as its state, and nothing else
    state_dim: int

    def __call__(self, coordinates: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch ns"]:
        nothing = coordinates[..., :0]
        given = Worlds(coordinates, nothing, nothing, nothing)
        return _through(_key_of(self.engine), self.state_dim, given)


def _through(key: int, width: int, given: Worlds) -> Tensor:
    """One call of an engine for parts of any batch shapes, broadcast; [*batch, width]."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in given))
    count = math.prod(batch)
    rows = [p.expand(*batch, p.shape[-1]).reshape(count, p.shape[-1]) for p in given]
    return _step(key, width, *rows).reshape(*batch, width)


# ----------------------------------------------------------------------- engines known to operators

_ENGINES: list[Foreign] = []
_KEYS: dict[Foreign, int] = {}


def _key_of(engine: Foreign) -> int:
    """Operators take numbers and tensors only, so an engine goes by its number in this process."""
    if engine not in _KEYS:
        _KEYS[engine] = len(_ENGINES)
        _ENGINES.append(engine)
    return _KEYS[engine]


_ROWS = "Tensor state, Tensor action, Tensor noise, Tensor parameters"


@torch.library.custom_op(
    "gradlab::bridged_step", mutates_args=(), schema=f"(int key, int width, {_ROWS}) -> Tensor"
)
def bridged_step(
    key: int, width: int, state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor
) -> Tensor:
    """What engine `key` makes of rows [N, n]: rows [N, width]."""
    rows = Worlds(*(part.contiguous() for part in (state, action, noise, parameters)))
    after = _ENGINES[key].forward(rows)
    wanted = torch.Size([len(state), width]), state.dtype
    if (after.shape, after.dtype) != wanted:
        raise BadShape(
            f"expected {list(wanted[0])} numbers of {wanted[1]} of the next states from the engine, "
            f"got {list(after.shape)} of {after.dtype}; look at what the step returns"
        )
    return after


@torch.library.custom_op(
    "gradlab::bridged_pull",
    mutates_args=(),
    schema=f"(int key, {_ROWS}, Tensor back, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor)",
)
def bridged_pull(
    key: int,
    state: Tensor,
    action: Tensor,
    noise: Tensor,
    parameters: Tensor,
    back: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by state, action, noise and parameters; [N, 0] in place of what is not wanted."""
    rows = Worlds(*(part.contiguous() for part in (state, action, noise, parameters)))
    found = _ENGINES[key].pull(rows, back.contiguous(), wanted)
    first, second, third, fourth = (
        grad if want and grad is not None else _nothing(row)
        for grad, want, row in zip(found, wanted, rows, strict=True)
    )
    return first, second, third, fourth


def _nothing(row: Tensor) -> Tensor:
    return row.new_empty(row.shape[0], 0)


@bridged_step.register_fake
def _(
    key: int, width: int, state: Tensor, action: Tensor, noise: Tensor, parameters: Tensor
) -> Tensor:
    return state.new_empty(state.shape[0], width)


@bridged_pull.register_fake
def _(
    key: int,
    state: Tensor,
    action: Tensor,
    noise: Tensor,
    parameters: Tensor,
    back: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = state, action, noise, parameters
    first, second, third, fourth = (
        torch.empty_like(part, memory_format=torch.contiguous_format) if want else _nothing(part)
        for part, want in zip(parts, wanted, strict=True)
    )
    return first, second, third, fourth


# ------------------------------------------------------------------------------------ derivatives

FIRST_ORDER = (
    "another engine's step has first derivatives in reverse mode only, and a second or a forward one "
    "was asked for; use torch.autograd.grad without create_graph, torch.func.grad, vjp or jacrev"
)


def _refuse(ctx: Any, *_: Any) -> NoReturn:
    raise Unavailable(FIRST_ORDER)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.key = inputs[0]
    ctx.save_for_backward(*inputs[2:6])


def _forget(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Nothing is needed to refuse."""


def _backward(ctx: Any, *back: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[2:6])
    found = _pull(ctx.key, *ctx.saved_tensors, *back, wanted)
    return None, None, *(grad if want else None for grad, want in zip(found, wanted, strict=True))


def _over_worlds(function: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of `vmap`: samples of a batch are more worlds."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        flat = [
            _flat(arg, dim, info.batch_size) if isinstance(arg, Tensor) else arg
            for arg, dim in zip(args, in_dims, strict=True)
        ]
        found = function(*flat)
        if isinstance(found, Tensor):
            return found.unflatten(0, (info.batch_size, -1)), 0
        parts = tuple(_batched(part, info.batch_size) for part in found)
        return parts, (0,) * len(parts)

    return rule


def _flat(part: Tensor, dim: int | None, size: int) -> Tensor:
    """[B·N, n] of a part with a batch dimension, or without one and the same for all."""
    over = part.expand(size, *part.shape) if dim is None else part.movedim(dim, 0)
    return over.reshape(size * over.shape[1], over.shape[2])


def _batched(part: Tensor, size: int) -> Tensor:
    return part.reshape(size, part.shape[0] // size, part.shape[1])


bridged_step.register_autograd(_backward, setup_context=_remember)
bridged_pull.register_autograd(_refuse, setup_context=_forget)
bridged_step.register_vmap(_over_worlds(lambda *args: bridged_step(*args)))
bridged_pull.register_vmap(_over_worlds(lambda *args: bridged_pull(*args)))


class _Step(torch.autograd.Function):
    """The operator inside `torch.func.grad`, which does not see an operator's own derivative."""

    setup_context = staticmethod(_remember)
    backward = staticmethod(_backward)
    jvp = staticmethod(_refuse)

    @staticmethod
    def forward(*args: Any) -> Tensor:
        return bridged_step(*args)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _over_worlds(_Step.apply)(info, in_dims, *args)


class _Pull(torch.autograd.Function):
    """The same for the backward pass, whose own derivative is refused."""

    setup_context = staticmethod(_forget)
    backward = staticmethod(_refuse)
    jvp = staticmethod(_refuse)

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return bridged_pull(*args)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return _over_worlds(_Pull.apply)(info, in_dims, *args)


def _step(*args: Any) -> Tensor:
    return _Step.apply(*args) if _transformed() else bridged_step(*args)  # pyright: ignore


def _pull(*args: Any) -> tuple[Tensor, ...]:
    return _Pull.apply(*args) if _transformed() else bridged_pull(*args)  # pyright: ignore


def _transformed() -> bool:
    """Whether a transform of `torch.func` or forward mode is on; compiled code has none."""
    if torch.compiler.is_compiling():
        return False
    level = torch.autograd.forward_ad._current_level
    return level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore
