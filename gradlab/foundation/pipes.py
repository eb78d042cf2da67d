"""Output that nobody reads any more: `| head` ends a command, which is nobody's mistake."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

from gradlab.foundation.errors import NotWritten

Stream = Any  # a text file, or what stands in for one
ENDED = 141  # what a shell reports for a process that SIGPIPE ended


@contextlib.contextmanager
def readers_may_leave() -> Iterator[None]:
    """Inside, a reader of stdout or stderr who leaves ends the process without a word.

    Exits with 141, as programs do that SIGPIPE ends. Whatever else is raised inside is raised on: a
    mistake, an exit code, and a pipe to a worker that breaks. Raises `NotWritten` where what was
    printed cannot be written at the end, as on a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        left = [_unread(stream) for stream in (sys.stdout, sys.stderr)]
        if not any(left):
            raise
        raise SystemExit(ENDED) from None
    except SystemExit as stop:
        if _flushed() or stop.code:
            raise
        raise SystemExit(ENDED) from None
    except BaseException:
        with contextlib.suppress(NotWritten):
            _flushed()
        raise
    else:
        if not _flushed():
            raise SystemExit(ENDED)


def _flushed() -> bool:
    """Whether somebody reads what stdout still holds; else, and on a full disk, it goes nowhere."""
    stream = sys.stdout
    if _absent(stream):
        return True
    try:
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
        return False
    except OSError as error:
        _silence(stream)
        raise NotWritten(f"what was printed cannot be written: {error.strerror}") from None
    return True


def _unread(stream: Stream) -> bool:
    """Whether the reader has left; what is still to be written then goes nowhere."""
    # there is no poll on Windows, where a reader who leaves raises another error
    if _absent(stream) or not hasattr(select, "poll"):
        return False
    try:
        number = stream.fileno()
    except OSError:  # a stream that is no file
        return False
    asked = select.poll()
    asked.register(number, 0)  # errors are reported without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0)):
        return False
    _silence(stream)
    return True


def _absent(stream: Stream) -> bool:
    """Whether the process was started without it (`>&-`), or has closed it."""
    return stream is None or stream.closed


def _silence(stream: Stream) -> None:
    """What is still to be written would fail again as Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
