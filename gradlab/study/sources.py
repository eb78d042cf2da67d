"""Which code and packages a study's numbers come from, as hashes,
and whether results are of that code.

Only what can change a number counts: comments, docstrings, the layout of the code, and modules that
draw and print do not. So a commit of documentation, or an edit of a report, keeps a long run's
cells.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import marshal
import platform
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gradlab.foundation.errors import Conflict
from gradlab.foundation.files import digest
from gradlab.foundation.syntax import hash_source
from gradlab.study.folder import Folder
from gradlab.study.progress import note

WHOLE = ("gradlab", "estimators")  # packages of which every module counts
SHOWN_ONLY = (
    "gradlab.__main__",
    "gradlab.commands",
    "gradlab.rendering",
    "gradlab.study.answer",
    "gradlab.study.commandline",
    "gradlab.study.figures",
    "gradlab.study.progress",
    "gradlab.study.text",
)
# what a study imports only to report: functions, and modules of its folder
REPORTS = {"answer", "figures", "plot", "report", "summarise"}
_PACKAGES = ("torch", "numpy", "scipy", "mujoco", "gymnasium")


@dataclass(frozen=True)
class Code:
    """Hashes of modules, and versions of packages."""

    modules: Mapping[str, str]
    packages: Mapping[str, str]

    @classmethod
    def of(cls, functions: Iterable[Callable[..., Any] | type], named: Iterable[str] = ()) -> Code:
        """The code behind a study's functions: gradlab and estimators whole, and the functions' own
        modules with what these import outside the standard library and installed packages.

        `named` are more modules, those that its options lead to (`naming.noted`).
        """
        modules = dict(_whole())
        starts, inline = {m for m in named if m.partition(".")[0] not in WHOLE}, {}
        for given in functions:
            function = given if hasattr(given, "__qualname__") else type(given)
            name = function.__module__
            if _source_of(name) is None:
                inline[f"{name}.{function.__qualname__}"] = _inline(function)
            elif name.partition(".")[0] not in WHOLE:
                starts.add(name)
        own = {name.partition(".")[0] for name in starts}
        for name, path in _closure(starts, own):
            modules[name] = hash_source(path)
        return cls({**modules, **inline}, _versions())

    @property
    def digest(self) -> str:
        return digest(asdict(self))

    def changes(self, before: Mapping[str, Any] | None) -> str:
        """In words, how this differs from an earlier one as JSON."""
        if not before:
            return "the code that made them is not recorded"
        said = [
            f"{name} {before['packages'].get(name)} -> {now}"
            for name, now in self.packages.items()
            if before["packages"].get(name) != now
        ]
        earlier = before["modules"]
        moved = [n for n in {**earlier, **self.modules} if earlier.get(n) != self.modules.get(n)]
        if moved:
            more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
            said.append(f"changed since: {', '.join(moved[:3])}{more}")
        return "; ".join(said) or "the code has changed since"


def accepted(
    folder: Folder, earlier: Mapping[str, Any], code: Code, keep: bool
) -> dict[str, list[str]]:
    """Per code (its hash), the other codes whose results are kept beside its own,
    as agreed by --keep.

    Raises `Conflict` if there are results of a code that has not been agreed to.
    """
    kept = dict(earlier.get("kept", {}))
    there = list(folder.codes())
    stale = [found for found in there if found not in (code.digest, *kept.get(code.digest, ()))]
    if not stale:
        return kept
    words = code.changes(earlier.get("code"))
    many = f"{len(stale)} result{'s' if len(stale) > 1 else ''} of other code ({words})"
    if not keep:
        raise Conflict(
            f"{folder.path} holds {many}; add --fresh to delete them and do them again, or --keep to go "
            "on with them"
        )
    note(f"going on with {many}: the table will mix both")
    return {**kept, code.digest: sorted({*kept.get(code.digest, ()), *stale})}


def _versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _whole() -> Iterator[tuple[str, str]]:
    for package in WHOLE:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            root = Path(folder)
            for path in sorted(root.rglob("*.py")):
                parts = path.relative_to(root.parent).with_suffix("").parts
                name = ".".join(parts).removesuffix(".__init__")
                if not any(f"{name}.".startswith(f"{shown}.") for shown in SHOWN_ONLY):
                    yield name, hash_source(path)


def _closure(starts: Iterable[str], own: set[str]) -> Iterator[tuple[str, Path]]:
    """The modules and those they import, directly or not, as far as they are the user's own."""
    waiting, seen = sorted(starts), set[str]()
    while waiting:
        name = waiting.pop()
        path = None if name in seen else _source_of(name)
        seen.add(name)
        if path is None or name.partition(".")[0] in WHOLE:
            continue
        if name.partition(".")[0] not in own and _installed(path):
            continue
        yield name, path
        waiting += _imports(name, path)


def _imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere; what it imports only to report is left out."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, node.module or ""]).strip(".") if node.level else node.module
            names = {alias.name for alias in node.names} - REPORTS
            if base and names:
                yield base
                yield from (f"{base}.{n}" for n in sorted(names))  # those that are modules


def _source_of(name: str) -> Path | None:
    """The Python file of a module, found without running it; None if there is none."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        origin = _find(name)
    return Path(origin) if origin and origin.endswith(".py") and Path(origin).exists() else None


def _find(name: str) -> str | None:
    path, spec, prefix = None, None, ""
    for part in name.split("."):
        prefix = f"{prefix}.{part}".strip(".")
        found = (finder.find_spec(prefix, path) for finder in sys.meta_path)
        try:
            spec = next((one for one in found if one is not None), None)
        except KeyError:  # a folder without __init__.py, of a package that nobody has imported
            path, spec = [str(Path(folder, part)) for folder in path or ()], None
            continue
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and prefix != name:
            return None
    return spec.origin if spec else None


def _installed(path: Path) -> bool:
    """Does a file belong to the standard library or to an installed package?"""
    if {"site-packages", "dist-packages"} & set(path.parts):  # also of a PYTHONPATH or a .pth file
        return True
    known = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    known |= {*site.getsitepackages(), site.getusersitepackages()}
    whole = path.resolve()
    return any(whole.is_relative_to(Path(folder).resolve()) for folder in known)


def _inline(function: Callable[..., Any] | type) -> str:
    """A hash of a function that is in no file, as in a notebook."""
    try:
        text = inspect.getsource(function).encode()
    except (OSError, TypeError):
        text = marshal.dumps(function.__code__) if hasattr(function, "__code__") else b""
    return hashlib.sha256(text).hexdigest()[:16]
