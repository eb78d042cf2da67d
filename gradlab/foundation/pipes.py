"""Output that nobody reads any more: `| head` ends a command, which is nobody's mistake."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

ENDED = 141  # what a shell reports for a process that SIGPIPE ended


@contextlib.contextmanager
def readers_may_leave() -> Iterator[None]:
    """Inside, a reader of stdout or stderr who leaves ends the process without a word.

    Exits with 141, as programs do that SIGPIPE ends. A pipe to a worker that breaks is an error as
    ever.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        left = [_unread(stream) for stream in (sys.stdout, sys.stderr)]
        if not any(left):
            raise
        raise SystemExit(ENDED) from None


def _unread(stream: TextIO) -> bool:
    """Whether the reader has left; what is still to be written then goes nowhere."""
    if not hasattr(select, "poll"):  # Windows, where a reader who leaves raises another error
        return False
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # a stream that is no file
        return False
    asked = select.poll()
    asked.register(number, 0)  # errors are reported without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True
