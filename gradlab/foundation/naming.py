"""Open tables of names: what comes with gradlab, what users register, what their packages offer.

A name leads to a builder: anything that can be called, whose signature is its options. Names are
looked up among the registered ones and the entry points of installed packages;
"package.module:name" and "folder/file.py:name" say where the builder is. Nothing of a package is
imported before it is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.foundation.arguments import got
from gradlab.foundation.errors import BadValue, Missing, UnknownName

Builder = Callable[..., Any]
OURS = ("gradlab", "estimators")  # packages whose modules nobody has to be told of


@dataclass(frozen=True)
class Names:
    """One table of names; the registered builders are the only thing in it that changes."""

    kind: str
    """What the names stand for, in messages: "problem"."""
    group: str
    """Entry points of this group of installed packages are names too."""
    accepts: Callable[[object], bool]
    """Whether a builder has built what it should."""
    expected: str
    """And what that is, in messages: "a gradlab.Problem"."""
    builders: dict[str, Builder] = field(default_factory=dict)

    def register(self, name: str, builder: Builder) -> None:
        """Give a builder a name. Raises `BadValue` for a name that is taken or cannot be one.

        The same function again, as when a notebook's cell runs twice, takes the place of the first.
        """
        if not isinstance(name, str) or not name.strip() or ":" in name:
            raise BadValue(
                f"expected a name without a colon for the {self.kind}, got {got(name)}; "
                f'try "my_{self.kind}"'
            )
        if not callable(builder):
            raise BadValue(
                f"{self.kind} {name!r} should be registered with a function that builds it, "
                f"got {got(builder)}; try a function that returns it"
            )
        before = self.builders.get(name)
        if before is not None and not _same(before, builder):
            raise BadValue(
                f"{self.kind} {name!r} is registered already, by {place(before)}; "
                "choose another name"
            )
        self.builders[name] = builder

    def names(self) -> list[str]:
        """All names, the registered ones first. Imports nothing."""
        return list(dict.fromkeys([*self.builders, *self.offered()]))

    def offered(self) -> list[str]:
        """Those names that installed packages offer."""
        return list(dict.fromkeys(point.name for point in self._offered()))

    def find(self, name: str) -> Builder:
        """The builder of a name.

        Raises `UnknownName` for a name that nobody has given, `BadValue` for one that two have,
        `Missing` where the module behind it cannot be imported.
        """
        if not isinstance(name, str):
            known = list(self.builders)
            raise BadValue(f'{self.kind}: expected a name, got {got(name)}; try "{known[0]}"')
        if name.endswith(".py"):
            raise BadValue(f"{self.kind}: say which name of the file is meant, {name}:NAME")
        if ":" in name:
            return self._builder(name, load(name, self.kind))
        offered = [point for point in self._offered() if point.name == name]
        owners = [f"package {_package(point)}" for point in offered]
        if name in self.builders:
            owners.insert(0, place(self.builders[name]))
        if len(owners) > 1:
            raise BadValue(
                f"{self.kind} {name!r} is offered twice, by {' and by '.join(owners)}; "
                "uninstall one, or change its name"
            )
        if name in self.builders:
            builder = self.builders[name]
            _note(_inner(builder).__module__)
            return builder
        if not offered:
            raise UnknownName(self.kind, name, self.names())
        return self._builder(name, _loaded(offered[0], self.kind))

    def build(self, name: str, options: Mapping[str, object], others: Iterable[str] = ()) -> Any:
        """What the builder of a name makes of the options;
        `others` are options that a caller takes, for hints.

        Raises `UnknownName` for an option that is not in the builder's signature, `BadValue` for
        one that is missing or a builder that returns something else, and what the builder raises.
        """
        builder = self.find(name)
        if inspect.isabstract(builder):
            lacking = ", ".join(sorted(getattr(builder, "__abstractmethods__", ())))
            raise BadValue(f"{place(builder)} lacks {lacking}; write that, then it can be built")
        signature = inspect.signature(builder)
        check_options(name, options, signature, others)
        try:
            signature.bind(**options)
        except TypeError as error:
            raise BadValue(f"{self.kind} {name!r} does not take these options: {error}") from None
        built = builder(**options)
        if not self.accepts(built):
            raise BadValue(
                f"{place(builder)} should build {self.expected} for {self.kind} {name!r}, "
                f"got {got(built)}; return one"
            )
        return built

    def _offered(self) -> tuple[EntryPoint, ...]:
        return _entry_points(self.group, tuple(sys.path))

    def _builder(self, name: str, found: object) -> Builder:
        """What a reference or an entry point leads to: a builder, or the thing itself."""
        if self.accepts(found):
            return lambda: found
        if not callable(found):
            raise BadValue(
                f"{self.kind} {name!r} should be {self.expected} or a function that builds one, "
                f"got {got(found)}"
            )
        return found


def check_options(
    name: str, options: Iterable[str], signature: inspect.Signature, others: Iterable[str] = ()
) -> None:
    """Raise `UnknownName` for an option that the signature lacks,
    with the nearest that there are.
    """
    parameters = signature.parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise UnknownName(f"option of {name}:", option, {*parameters, *others})


def place(builder: Builder) -> str:
    """Where a builder is from: "my_package.problems.docking"."""
    inner = _inner(builder)
    return f"{inner.__module__}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"


def _inner(builder: Builder) -> Any:
    """The function or class in a partial or a decorated one."""
    return inspect.unwrap(builder.func if isinstance(builder, partial) else builder)


def load(reference: str, kind: str) -> Any:
    """What "package.module:name" or "folder/file.py:name" names; `kind` is for messages.

    A file is imported once, under its own name where no other module has it. Raises `Missing` for a
    module or file that is not there or fails, `UnknownName` for a name that it lacks.
    """
    where, _, name = reference.rpartition(":")
    if where.endswith(".py"):
        path = Path(where).expanduser()
        if not path.is_file():
            raise Missing(
                f"{kind} {reference!r} names a file that is not there: {path.absolute()}; "
                "give its path from this folder"
            )
        module = _import(lambda: _from_file(path.resolve()), kind, reference, "mend the file")
    else:
        hint = "run from the folder that holds it, or give the path of a .py file"
        module = _import(lambda: importlib.import_module(where), kind, reference, hint)
    _note(module.__name__)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise UnknownName(f"name in {where}:", name, public)
    return getattr(module, name)


_NOTES: list[set[str]] = []


@contextlib.contextmanager
def noted() -> Iterator[set[str]]:
    """The modules that names lead to while inside, those that were imported before among them, but
    none of gradlab's own."""
    found: set[str] = set()
    _NOTES.append(found)
    try:
        yield found
    finally:
        _NOTES.pop()


def _note(module: str) -> None:
    if module.partition(".")[0] in OURS:
        return
    for found in _NOTES:
        found.add(module)


def _import(action: Callable[[], Any], kind: str, name: str, hint: str) -> Any:
    try:
        return action()
    except Exception as error:  # whatever the user's module raises
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise Missing(f"{kind} {name!r} cannot be imported ({said}); {hint}") from error


def _from_file(path: Path) -> ModuleType:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    name = path.stem
    if not name.isidentifier() or _taken(name, path):
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    # the files beside it can be imported from it; last, so that they hide nothing
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _taken(name: str, path: Path) -> bool:
    """Whether an import of the name finds, or has found, another file."""
    if name in sys.modules:
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path)


def _loaded(point: EntryPoint, kind: str) -> Any:
    hint = f"it is offered by package {_package(point)} as {point.value}; mend or uninstall that"
    found = _import(point.load, kind, point.name, hint)
    _note(point.module)
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


@lru_cache(maxsize=8)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Of the packages on a path; reading them all takes tens of milliseconds."""
    return tuple(metadata.entry_points(group=group))


def _same(before: Builder, builder: Builder) -> bool:
    """Whether a builder is another run of the same definition; all lambdas have one name."""
    return before is builder or (
        place(before) == place(builder) and "<lambda>" not in place(builder)
    )
