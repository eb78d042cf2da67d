"""Memory that a process keeps for itself instead of handing it back and asking for it anew."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_LARGE = 2**31 - 1  # [bytes]


def keep_freed_memory() -> bool:
    """Let this process keep the blocks it frees; says whether that is possible here (glibc).

    Gradients of every chunk need the same tens of megabytes again. glibc hands blocks of that size
    back to the system when they are freed, which clears them anew page by page: a fifth of the time
    of per-sample gradients. What the process has used at its peak it then keeps until it ends.
    Studies and the command `gradlab` do this by themselves; in a program of your own, call it once
    at the start.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _LARGE)) and bool(mallopt(_MMAP_THRESHOLD, _LARGE))
