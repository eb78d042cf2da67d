"""What a policy made of a user's classes computes, as hashes: their code and what it refers to.

Two classes of one name may have parameters of the same shapes and still be two functions. So an
identity is made of the source of all methods, of the functions, classes and constants of the user's
own that they name, and of the attributes of the object; of torch and other packages only names
count.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from types import (
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
from torch import Tensor, nn

from gradlab.foundation.checkpoints import Saved, content_checksum
from gradlab.foundation.files import digest
from gradlab.foundation.syntax import hash_source, hash_text

_OURS = {"gradlab", "estimators", "torch", "builtins", *sys.stdlib_module_names} - {"__main__"}
_MODULE = set(vars(nn.Module()))  # what every module has
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def module_identity(module: nn.Module) -> dict[str, str]:
    """A hash for every part of a module, by name: its code, its mode and its attributes, but none
    of its parameters and buffers."""
    return {
        name or "module": digest(_Description(part).of_part(part))
        for name, part in module.named_modules()
    }


def subclass_identity(value: Any, base: Any) -> dict[str, Any]:
    """The class and a hash of it for an instance of a subclass of a dataclass `base`, else {}."""
    kind = type(value)
    if kind is base:
        return {}
    said = _Description(value)
    inherited = {part.name for part in fields(base)}
    own = {p.name: said(getattr(value, p.name)) for p in fields(kind) if p.name not in inherited}
    return {"class": kind.__qualname__, "code": digest([said(kind), own])}


class _Description:
    """Values as JSON that is equal only for what computes the same."""

    def __init__(self, root: object) -> None:
        self.home = type(root).__module__.partition(".")[0]  # also if it is an installed package
        self.seen: dict[int, tuple[int, object]] = {}  # by identity, with the objects themselves

    def of_part(self, part: nn.Module) -> list[Any]:
        """Its code, mode and attributes, without its parts."""
        own = {n: self(v) for n, v in vars(part).items() if n not in _MODULE}
        hooks = [[self(f) for f in vars(part).get(n, {}).values()] for n in _HOOKS]
        return [self(type(part)), part.training, own, hooks]

    def __call__(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return content_checksum(Saved({"": value}))
        if isinstance(value, np.ndarray):
            return [str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()]
        if isinstance(value, tuple):
            return [self(each) for each in value]
        if isinstance(value, AbstractSet):
            return sorted(digest(self(each)) for each in value)
        if id(value) in self.seen:
            return f"number {self.seen[id(value)][0]} of those seen"
        self.seen[id(value)] = len(self.seen), value
        if isinstance(value, Mapping):
            return {str(name): self(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self(each) for each in value]
        if isinstance(value, type):
            return self._kind(value)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            return self._function(value) if self._own(value) else _name(value)
        if isinstance(value, MethodType):
            return [self(value.__func__), type(value.__self__).__qualname__]
        if isinstance(value, partial):
            return [self(value.func), self(value.args), self(value.keywords)]
        if isinstance(value, nn.Module):  # one that is no part of the module that holds it
            parts = [self.of_part(part) for part in value.modules()]
            return [*parts, self(dict(value.state_dict()))]
        if isinstance(value, ModuleType):
            file = getattr(value, "__file__", None) or ""
            own = file.endswith(".py") and self._is_own(value.__name__)
            return hash_source(Path(file)) if own else value.__name__
        if hasattr(value, "__wrapped__"):  # a function in a cache
            return self(value.__wrapped__)
        if is_dataclass(value):
            return [
                self(type(value)),
                {p.name: self(getattr(value, p.name)) for p in fields(value)},
            ]
        if self._own(type(value)) and hasattr(value, "__dict__"):
            return [self(type(value)), self(vars(value))]
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))

    def _kind(self, kind: type) -> Any:
        """A class by its name, one of the user's with its methods, constants and bases."""
        if not self._own(kind):
            return _name(kind)
        members = {}
        for name, member in vars(kind).items():
            found = _inside(member)
            # not what Python and dataclasses write: the module's name, annotations, descriptors
            if isinstance(found, FunctionType) or not (name.startswith("__") or _is_slot(found)):
                members[name] = self(found)
        return [kind.__qualname__, members, [self(base) for base in kind.__bases__]]

    def _function(self, function: FunctionType) -> list[Any]:
        """Its source, its defaults, and what it takes from around it."""
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        around = {
            name: self(function.__globals__[name])
            for name in sorted(set(_globals(function.__code__)))
            if name in function.__globals__
        }
        given = [self(function.__defaults__), self(function.__kwdefaults__), self(cells)]
        return [_source(function), *given, around]

    def _own(self, value: Any) -> bool:
        return self._is_own(getattr(value, "__module__", None) or "")

    def _is_own(self, module: str) -> bool:
        """Whether code is the user's: in the class's package, or in no installed one."""
        top = module.partition(".")[0]
        if top in _OURS:
            return False
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        return top == self.home or not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _name(value: Any) -> str:
    kind = type(value)
    name = getattr(value, "__qualname__", getattr(value, "__name__", kind.__qualname__))
    return f"{getattr(value, '__module__', kind.__module__)}.{name}"


def _inside(member: Any) -> Any:
    """The function in a class's attribute that Python wraps, or the attribute."""
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    return member.func if isinstance(member, cached_property) else member


def _is_slot(member: Any) -> bool:
    return isinstance(member, MemberDescriptorType | GetSetDescriptorType)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a class that is just being made
        return False


def _globals(code: CodeType) -> Iterator[str]:
    """The global names that code and the functions in it read."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)


def _source(function: FunctionType) -> str:
    """A hash of its source, or of its instructions where there is none (an interactive session)."""
    try:
        return hash_text(textwrap.dedent(inspect.getsource(function.__code__)).encode())
    except (OSError, TypeError):
        return hashlib.sha256(_instructions(function.__code__).encode()).hexdigest()[:16]


def _instructions(code: CodeType) -> str:
    return repr([code.co_code.hex(), code.co_names, code.co_varnames, *map(_said, code.co_consts)])


def _said(constant: object) -> str:
    if isinstance(constant, CodeType):
        return _instructions(constant)
    # a set has no order that lasts
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
