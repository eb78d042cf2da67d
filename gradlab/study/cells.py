"""The units of a study: cells, which give rows, and artefacts, which cells share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gradlab.foundation.checkpoints import Saved
from gradlab.foundation.errors import BadValue, UnknownName
from gradlab.foundation.files import digest

Row: TypeAlias = Mapping[str, Any]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+,-]*(/[A-Za-z0-9_][A-Za-z0-9_.=+,-]*)*")

_OTHER = re.compile(r"[^A-Za-z0-9_.=+,-]+")


def check_name(kind: str, name: str) -> None:
    """Raises `BadValue` unless `name` can be a file's name as it stands (so no two names share a
    file)."""
    if not _NAME.fullmatch(name):
        raise BadValue(
            f"expected a {kind} name of letters, digits, _ . = + , - with / between folders, got {name!r}; "
            "try replacing the other characters"
        )


def file_name(text: str) -> str:
    """A name as a part of a file's: "my_file.py:docking" is "my_file.py=docking"."""
    return _OTHER.sub("=", text).lstrip(".=+,-") or "_"


@dataclass(frozen=True)
class Artefact:
    """A thing made once and used by several cells: a policy, a critic, an oracle's truth.

    `build(artefact, needs)` must be a function at the top level of a module, and everything that
    decides its result (seed, task, sizes) must be in `payload`, as JSON values: it does not see the
    study's config. So a committed file can be used for exactly the artefacts that it equals.
    """

    name: str
    build: Callable[[Artefact, Mapping[str, Saved]], Saved]
    payload: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Names of the artefacts that the build reads."""
    cost: float = 1.0
    """Rough relative time; long ones start first and the progress bar counts them for more."""

    def __post_init__(self) -> None:
        check_name("artefact", self.name)


@dataclass(frozen=True)
class Cell:
    """The unit of parallel work, resume and seeding: one key, one file of rows."""

    key: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Whatever `run_cell` needs to know besides the config; must be picklable."""
    needs: tuple[str, ...] = ()
    """Names of the artefacts that `run_cell` reads."""
    cost: float = 1.0
    """Rough relative time, as for artefacts."""

    def __post_init__(self) -> None:
        check_name("cell", self.key)


def in_order(artefacts: Iterable[Artefact], cells: Iterable[Cell]) -> dict[str, Artefact]:
    """The artefacts that the cells need, directly or not, each after those it needs itself.

    Raises `UnknownName` for a need that no artefact has, `BadValue` for a repeated name or a cycle.
    """
    known: dict[str, Artefact] = {}
    for artefact in artefacts:
        if artefact.name in known:
            raise BadValue(f"expected artefacts with different names, got {artefact.name!r} twice")
        known[artefact.name] = artefact
    ordered: dict[str, Artefact] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name not in known:
            raise UnknownName("artefact", name, known)
        if name in above:
            raise BadValue(f"expected artefacts without cycles, got {' -> '.join([*above, name])}")
        for need in known[name].needs:
            visit(need, (*above, name))
        ordered[name] = known[name]

    for cell in cells:
        for need in cell.needs:
            visit(need, ())
    return ordered


def identities(ordered: Mapping[str, Artefact]) -> dict[str, str]:
    """What each artefact is, as a hash of its name, its payload and the identities of what it
    needs."""
    result: dict[str, str] = {}
    for name, artefact in ordered.items():
        result[name] = digest([name, dict(artefact.payload), [result[n] for n in artefact.needs]])
    return result
