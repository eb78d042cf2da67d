"""The exceptions of the project: one line each, saying what was expected,
what came and what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GradlabError(Exception):
    """Base of every error that a user can cause; its message is a single line."""


class UnknownName(GradlabError):
    """A name that is in no registry; the message lists the nearest known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")
        self.kind, self.name, self.known, self.near = kind, name, names, near

    def __reduce__(self) -> tuple:
        return (UnknownName, (self.kind, self.name, self.known))


class BadShape(GradlabError):
    """A tensor of another shape than the problem asks for."""


class BadValue(GradlabError):
    """A value outside its range, such as a window longer than the horizon."""


class Missing(GradlabError):
    """Something that an estimator or a study needs and the problem does not have."""


class Conflict(GradlabError):
    """An output folder that holds the results of another configuration."""


class Corrupt(GradlabError):
    """A file that is truncated or is not what its name says."""


class NotWritten(GradlabError):
    """A result that could not be written: the disk is full, or the folder forbids it."""


class NotFinite(GradlabError):
    """NaN or infinity where a finite number is needed to go on."""


class Unavailable(GradlabError):
    """An optional feature that this machine lacks, such as a compiler or a GPU."""
