"""Which episodes of which noise stream went into a statistic:
what is compared must not share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Stream(NamedTuple):
    """Episodes begin..end−1 of the noise stream `seed`, drawn for the problem of that name."""

    seed: int
    begin: int
    end: int
    problem: str

    def __str__(self) -> str:
        return f"seed {self.seed}, episodes {self.begin} to {self.end - 1} of {self.problem}"


def joined(streams: Iterable[Stream]) -> tuple[Stream, ...]:
    """The same episodes in order, with adjoining pieces in one."""
    out: list[Stream] = []
    for piece in sorted(streams, key=lambda s: (s.problem, s.seed, s.begin)):
        last = out[-1] if out else None
        same = last is not None and (last.problem, last.seed) == (piece.problem, piece.seed)
        if last is not None and same and piece.begin <= last.end:
            out[-1] = last._replace(end=max(last.end, piece.end))
        else:
            out.append(piece)
    return tuple(out)


def shared(one: Iterable[Stream], other: Iterable[Stream]) -> Stream | None:
    """Episodes that both have drawn, or None.

    The problem's name does not matter: a relaxed copy of a task has the noise of the hard one.
    """
    others = tuple(other)
    for a in one:
        for b in others:
            begin, end = max(a.begin, b.begin), min(a.end, b.end)
            if a.seed == b.seed and begin < end:
                return Stream(a.seed, begin, end, a.problem)
    return None
