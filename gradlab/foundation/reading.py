"""What the host reads of a device, at a handful of places, each through one of these functions.

A run that is captured as a graph of a GPU reads nothing. It takes the answers of a run before it
for granted (`Reads`), and the graph itself says afterwards whether they still were right.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gradlab.foundation.errors import Unavailable


class Reads:
    """The answers of one run of a function, and in a second run what would prove them wrong.

    The second run must ask the same questions in the same order.
    """

    def __init__(self) -> None:
        self.unusual = False  # an answer that leads somewhere else than nearly always
        self._answers: list[tuple[Tensor, Any]] = []
        self._next: int | None = None  # None: the first run
        self._kept: list[Tensor] = []
        self._usual: list[Tensor] = []

    @contextmanager
    def watching(self, *, again: bool) -> Iterator[None]:
        """The first run, or the one that is captured (`again`)."""
        self._next = 0 if again else None
        before = getattr(_NOW, "reads", None)
        _NOW.reads = self
        try:
            yield
        finally:
            _NOW.reads = before

    def right(self, like: Tensor) -> Tensor:
        """[2] booleans, of the second run: are answers that differ from problem to problem still
        the same, and are those as usual that nearly always are? On the device of `like`."""
        yes = torch.ones((), dtype=torch.bool, device=like.device)
        both = [torch.stack([yes, *flags]).all() for flags in (self._kept, self._usual)]
        return torch.stack(both)

    def ask(self, value: Tensor) -> Any:
        """The numbers of a tensor, as lists."""
        if self._next is None:
            found = value.tolist()
            self._answers.append((value.detach().clone(), found))
            return found
        then, found = self._answers[self._next]
        self._next += 1
        self._kept.append((value == then).all())
        return found

    def expect(self, flag: Tensor, usual: bool) -> bool:
        """A flag that is nearly always the same."""
        if self._next is None:
            found = bool(flag)
            self.unusual |= found != usual
            return found
        self._usual.append(flag if usual else ~flag)
        return usual

    @property
    def asked(self) -> list[Tensor]:
        """What answers are compared with: a graph reads them, so that they must live as long."""
        return [then for then, _ in self._answers]


_NOW = threading.local()  # the `Reads` of this thread, if there are any


def _current() -> Reads | None:
    return getattr(_NOW, "reads", None)


def numbers(value: Tensor) -> Any:
    """The whole numbers or booleans of a tensor, as lists."""
    reads = _current()
    return value.tolist() if reads is None else reads.ask(value)


def true(flag: Tensor) -> bool:
    """Whether a flag is set that may be either way."""
    return bool(numbers(flag))


def expected(flag: Tensor, usual: bool = True) -> bool:
    """Whether a flag is set that nearly always is `usual`: it is not, where something is lost."""
    reads = _current()
    return bool(flag) if reads is None else reads.expect(flag, usual)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape and numbers."""
    if a is b:
        return True
    if _current() is None:
        return torch.equal(a, b)
    return a.shape == b.shape and true((a == b).all())


def drawing(who: str) -> None:
    """Raise `Unavailable` where random numbers of the host would become part of a graph."""
    _refuse(f"{who} draws random numbers on the host")


def waiting(who: str) -> None:
    """Raise `Unavailable` where torch would wait for the device in the middle of a graph."""
    _refuse(f"{who} waits for the device")


def _refuse(what: str) -> None:
    if _current() is not None:
        raise Unavailable(f"{what} in every call, which a captured graph cannot; use compile=True")
