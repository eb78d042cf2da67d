"""A reader who leaves (`| head`) ends a command without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from gradlab.foundation.pipes import ENDED, readers_may_leave

ROOT = Path(__file__).parents[3]


def _run(args: list[str], out: int | IO[str]) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize(
    "command", [["gradlab"], ["gradlab", "doctor"], ["studies"], ["studies.throughput", "--help"]]
)
def test_a_reader_who_leaves_is_no_mistake(command: list[str], buffered: bool) -> None:
    """Buffered output fails as it is flushed, unbuffered output as it is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run([*([] if buffered else ["-u"]), "-m", *command], writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (ENDED, "")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("command", [["gradlab", "study", "--help"], ["studies.jumps", "--help"]])
def test_a_full_disk_is_one_line(command: list[str], buffered: bool) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = _run([*([] if buffered else ["-u"]), "-m", *command], full)
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="shells differ")
def test_a_process_without_stdout_is_none() -> None:
    """`>&-`: there is nobody to read, and nothing to flush."""
    line = f"{sys.executable} -m studies >&-"
    done = subprocess.run(
        line, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


UNREAD = """
from gradlab.foundation.pipes import readers_may_leave
with readers_may_leave():
    print("x")
    raise {}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [("RuntimeError('a real bug')", 1, "a real bug"), ("SystemExit(3)", 3, ""), ("SystemExit", ENDED, "")],
)  # fmt: skip
def test_a_mistake_is_told_though_nobody_reads(raised: str, code: int, said: str) -> None:
    """What stdout still holds is not what ended the process."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run(["-c", UNREAD.format(raised)], writer)
    finally:
        os.close(writer)
    assert done.returncode == code
    assert said in done.stderr and bool(done.stderr) == bool(said)


def test_another_pipe_that_breaks_is_an_error() -> None:
    with pytest.raises(BrokenPipeError, match="a worker's"), readers_may_leave():
        raise BrokenPipeError("a worker's")


def test_what_ends_a_command_is_passed_on() -> None:
    with pytest.raises(SystemExit, match="3"), readers_may_leave():
        raise SystemExit(3)
