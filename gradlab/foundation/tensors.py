"""Constant tensors that cost nothing to use again: one copy per value, dtype and device.

A step of a simulator or a task is called thousands of times, also inside `torch.func` transforms,
under inference mode and in compiled code. A tensor made in there belongs to that context and must
not outlive it: what is cached here is an ordinary tensor, and compiled code gets its own copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Vector = tuple[float, ...]  # numbers of a configuration: nested tuples, so that it is hashable
Matrix = tuple[tuple[float, ...], ...]


class Key:
    """A description that constants are made from, such as a model;
    frozen dataclasses inherit from it.

    Compiled code calls a marked function at the time it is traced and keeps the result. Arguments
    of such a function are numbers, strings and functions only (torch 2.11 refuses other objects),
    but it may be a method of any object, and so this one is.
    """

    def result_of(self, function: Callable[..., Any], identity: int, *rest: Any) -> Any:
        """`function(self, *rest)`; reading `identity`, id(self),
        ties compiled code to this object.
        """
        return function(self, *rest)

    # what `torch.compiler.assume_constant_result` does, without importing the compiler (1 to 2 s)
    result_of._dynamo_marked_constant = True  # type: ignore[attr-defined]


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a function from hashable arguments to numbers, strings or tuples of them.

    Run once per argument; compiled code takes the result as it is instead of tracing the function,
    so that numpy and loops over a model may be used in it. The first argument may be a `Key`, all
    others are numbers or strings.
    """
    cached = functools.lru_cache(maxsize=256)(function)

    def once(*key: Any) -> Any:
        return cached(*key)

    once._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @functools.wraps(function)
    def lookup(*key: Any) -> Any:
        if torch.compiler.is_compiling() and isinstance(key[0], Key):
            return key[0].result_of(once, id(key[0]), *key[1:])
        return once(*key)

    return lookup


def constants_of(build: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Decorator for a function from arguments as those of `plain` to constants, run once per key.

    It returns float64 tensors. The decorated function takes one more
    argument, `like`, whose dtype and device the constants get; nothing may write to them.
    """

    @plain
    def numbers(*key: Any) -> tuple:
        with torch.inference_mode(False):
            tables = (torch.func.debug_unwrap(table) for table in build(*key))
            return tuple((_literal(table.tolist()), tuple(table.shape)) for table in tables)

    @functools.lru_cache(maxsize=256)
    def tensors(key: tuple, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        with torch.inference_mode(False):
            return tuple(
                torch.func.debug_unwrap(_table(values, shape, dtype, device))
                for values, shape in numbers(*key)
            )

    def lookup(*key: Any, like: Tensor) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            return tuple(
                _table(values, shape, like.dtype, like.device) for values, shape in numbers(*key)
            )
        return tensors(key, like.dtype, like.device)

    return lookup


def shared(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator for a function (*key, dtype, device) of hashable arguments
    to a tensor, run once per key.

    "cuda" is the GPU that is current at the call. Nothing may write to the tensor.
    """

    @functools.lru_cache(maxsize=256)
    def tensor(key: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False):
            return torch.func.debug_unwrap(build(*key, dtype=dtype, device=device))

    @functools.wraps(build)
    def lookup(*key: Any, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        if torch.compiler.is_compiling():
            return build(*key, dtype=dtype, device=device)
        place = torch.device(device)
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", torch.cuda.current_device())
        return tensor(key, dtype, place)

    return lookup


def positions(picked: Iterable[int], like: Tensor) -> Tensor:
    """Whole numbers to index with, on the device of `like`; shared, so never written to.

    A list in an index is copied to the device at every use.
    """
    return _whole_numbers(*picked, dtype=torch.long, device=like.device)


def flags(values: Iterable[bool], like: Tensor) -> Tensor:
    """Booleans on the device of `like`; shared, so never written to."""
    return _whole_numbers(*map(int, values), dtype=torch.bool, device=like.device)


@shared
def _whole_numbers(*values: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def constant(values: Vector | Matrix, like: Tensor) -> Tensor:
    """The numbers with the dtype and device of `like`; shared, so never written to."""
    if torch.compiler.is_compiling():
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return _tensor(values, like.dtype, like.device)


@functools.lru_cache(maxsize=512)
def _tensor(values: float | Vector | Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.func.debug_unwrap(torch.tensor(values, dtype=dtype, device=device))


def _table(
    values: float | tuple, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A tensor of nested tuples, which do not tell the shape of an empty one."""
    if 0 in shape:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, device=device)


def _literal(values: float | list) -> float | tuple:
    """Nested lists as nested tuples."""
    return tuple(_literal(v) for v in values) if isinstance(values, list) else values
