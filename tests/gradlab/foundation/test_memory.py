"""Freed memory that a process keeps is not cleared anew, page by page."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.forked import run_code

PROGRAM = """
import resource, torch
from gradlab.foundation.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**24)  # 64 MiB, in pages of 4 KiB or larger ones
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

handed_back = faults()
kept = keep_freed_memory()
faults()  # the heap grows once or twice
print(int(kept), handed_back, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is asked")
def test_kept_memory_is_not_cleared_again() -> None:
    done = run_code(PROGRAM)
    assert done.returncode == 0, done.stderr
    kept, handed_back, after = map(int, done.stdout.split())
    if not kept:
        pytest.skip("another C library")
    assert after * 8 < handed_back
