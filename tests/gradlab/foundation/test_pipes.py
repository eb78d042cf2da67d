"""A reader who leaves (`| head`) ends a command without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.foundation.pipes import ENDED, readers_may_leave

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize(
    "command", [["gradlab"], ["gradlab", "doctor"], ["studies"], ["studies.throughput", "--help"]]
)
def test_a_reader_who_leaves_is_no_mistake(command: list[str], buffered: bool) -> None:
    """Buffered output fails as it is flushed, unbuffered output as it is written."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, *([] if buffered else ["-u"]), "-m", *command],
            cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (ENDED, "")


def test_another_pipe_that_breaks_is_an_error() -> None:
    with pytest.raises(BrokenPipeError, match="a worker's"), readers_may_leave():
        raise BrokenPipeError("a worker's")


def test_what_ends_a_command_is_passed_on() -> None:
    with pytest.raises(SystemExit, match="3"), readers_may_leave():
        raise SystemExit(3)
