"""Output that nobody reads any more: `| head` ends a command, which is nobody's mistake."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

Stream = Any  # a text file, or what stands in for one
ENDED = 141  # what a shell reports for a process that SIGPIPE ended
# what a disk says that takes no more
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}


@contextlib.contextmanager
def readers_may_leave() -> Iterator[None]:
    """Inside, a reader of stdout or stderr who leaves ends the process without a word.

    Exits with 141, as programs do that SIGPIPE ends, and with 1 after one line where what was
    printed cannot be written, as on a full disk. Whatever else is raised inside is raised on: a
    mistake, an exit code, and a pipe to a worker that breaks. A process without stdout or stderr
    (`>&-`) writes to nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for the process's life)
    try:
        yield
    except BrokenPipeError:
        left = [_unread(stream) for stream in (sys.stdout, sys.stderr)]
        if not any(left):
            raise
        raise SystemExit(ENDED) from None
    except OSError as error:
        if error.errno not in DISK:
            raise
        _end(error)
    except SystemExit as stop:
        if not stop.code:  # after --help
            _flush()
        _give_up()
        raise
    except BaseException:
        _give_up()
        raise
    else:
        _flush()


def say(line: str) -> None:
    """Prints a line to stderr, if somebody can read it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def _flush() -> None:
    """Writes what stdout still holds."""
    try:
        if not getattr(sys.stdout, "closed", False):
            sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        raise SystemExit(ENDED) from None
    except OSError as error:
        _end(error)


def _end(error: OSError) -> NoReturn:
    say(f"what was printed cannot be written: {error.strerror}")
    _give_up()
    raise SystemExit(1) from None


def _give_up() -> None:
    """Writes what can be written, and loses the rest: something has ended the process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if not getattr(stream, "closed", False):
                stream.flush()
        except OSError:
            _silence(stream)


def _unread(stream: Stream) -> bool:
    """Whether the reader has left; what is still to be written then goes nowhere."""
    if not hasattr(select, "poll"):  # Windows, where a reader who leaves raises another error
        return False
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # a stream that is no file, or closed
        return False
    asked = select.poll()
    asked.register(number, 0)  # errors are reported without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0)):
        return False
    _silence(stream)
    return True


def _silence(stream: Stream) -> None:
    """What is still to be written would fail again as Python ends."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
