"""How the tests check annotations: by beartype, where an int is a float, as it is for every Python
type checker, with shapes that agree within a call.

jaxtyping's own decorator binds and checks the arguments of each call twice over, to name the wrong
one, and is made anew for each function defined inside another: together half of the suite's time.
`jaxtyped` checks the same annotations once per call, and leaves nested functions and generators to
the original, with one checker for all functions that are made by the same lines. A test that calls
a function over and over, step by step or chunk by chunk, has its first `CALLS` calls checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jaxtyping
import torch
from beartype import BeartypeConf, beartype

decorated = beartype(conf=BeartypeConf(is_pep484_tower=True))
_thorough, _context = jaxtyping.jaxtyped, functools.partial(jaxtyping.jaxtyped, "context")


CALLS = 5  # of each function in each test
enabled = True
# How many checks are left in this test, where some were made: looked up by code, since no function
# that torch traces may hold its budget in a closure, and by its number, since hashing code is slow.
_left: dict[int, int] = {}
_codes: dict[int, types.CodeType] = {}  # held, so that no number is used again


def begin() -> None:
    """A test begins: every function is checked again."""
    _left.clear()


def _spend(code: int) -> bool:
    """Whether there is a check left, which is then used up."""
    left = _left.get(code, CALLS)
    if left:
        _left[code] = left - 1
    return left > 0


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Nothing is checked in here."""
    global enabled
    before, thorough = enabled, jaxtyping.config.jaxtyping_disable
    enabled = False
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        enabled = before
        jaxtyping.config.update("jaxtyping_disable", thorough)


def install(packages: list[str]) -> None:
    """Checks what is imported from `packages` from now on."""
    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]  # the import hook looks it up here
    jaxtyping.install_import_hook(packages, "tests.helpers.checking.checked")


def jaxtyped(function: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Stands in for the decorator of the same name."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if torch.compiler.is_compiling():  # a nested one, whose qualified name is not known in there
        return function
    hints = getattr(function, "__annotations__", {}).values()
    if any(type(hint).__module__.startswith("warp.") for hint in hints):
        return function  # a kernel, which Warp reads and Python never runs
    nested = "<locals>" in getattr(function, "__qualname__", "")
    if nested and not enabled:
        return function
    if dataclasses.is_dataclass(function) and "__init__" in vars(function):
        made = function.__init__
        if not hasattr(made, "__wrapped__"):
            function.__init__ = jaxtyped(made, typechecker=typechecker)
        return function
    if not isinstance(function, types.FunctionType):
        return _thorough(function, typechecker=typechecker)
    code = id(function.__code__)
    _codes[code] = function.__code__
    if nested and not _left.get(code, CALLS):
        return function
    whole = nested or inspect.isgeneratorfunction(function)
    inner = (
        _thorough(function, typechecker=typechecker) if whole else decorated(_evaluated(function))
    )
    checked_call = inner if whole else _within_context(inner)

    # torch traces this one: its closure holds plain functions only
    @functools.wraps(function)
    def once(*args: Any, **kwargs: Any) -> Any:
        # not every release of torch compiles through a checker
        if not enabled or torch.compiler.is_compiling() or not _spend(code):
            return function(*args, **kwargs)
        return checked_call(*args, **kwargs)

    return once


def _within_context(inner: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _context():
            return inner(*args, **kwargs)

    return call


def _evaluated(function: types.FunctionType) -> types.FunctionType:
    """A copy of a function whose annotations are no strings;
    Any where a name is for type checkers only.
    """
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__,
        function.__defaults__, function.__closure__,
    )  # fmt: skip
    copy = functools.update_wrapper(copy, function)
    copy.__kwdefaults__ = function.__kwdefaults__
    del copy.__wrapped__
    copy.__annotations__ = {
        name: _value(hint, function.__globals__) for name, hint in function.__annotations__.items()
    }
    return copy


def _value(hint: Any, names: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"x": hint})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["x"]
    except (NameError, TypeError, ValueError, AttributeError):  # as jaxtyping has it
        return Any


class _Made(NamedTuple):
    annotations: dict[str, Any]
    defaults: tuple[object, ...]
    checker: Callable[..., Any]


_made: dict[tuple[object, ...], _Made] = {}


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """The checker of a signature: `_thorough` gives a stub that has it, and not the function."""
    if "<locals>" not in getattr(stub, "__qualname__", ""):
        return decorated(stub)
    key = stub.__module__, stub.__qualname__, stub.__code__.co_varnames, stub.__code__.co_flags
    defaults = (*(stub.__defaults__ or ()), *(stub.__kwdefaults__ or {}).values())
    known = _made.get(key)
    if (
        known is None
        or known.annotations != stub.__annotations__
        or not _same(known.defaults, defaults)
    ):
        known = _made[key] = _Made(dict(stub.__annotations__), defaults, decorated(stub))
    return known.checker


def _same(these: tuple[object, ...], those: tuple[object, ...]) -> bool:
    """Whether two tuples hold the very same objects."""
    return len(these) == len(those) and all(a is b for a, b in zip(these, those, strict=True))
