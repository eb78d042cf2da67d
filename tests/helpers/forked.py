"""`python -m MODULE` and `python -c PROGRAM` in processes that need not import torch and gradlab.

A server imports them once, without the checks of annotations, and each run is a fork of it. Where
there is no such thing (Windows), and for whatever a test does to a running process, use
`subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["gradlab.study", "scipy.stats", "estimators", "torch._dynamo", "tests.helpers.warm"]
)


class Done(NamedTuple):
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


def run_module(module: str, *arguments: str, cwd: Path) -> Done:
    """`python -m module *arguments` in the folder `cwd`, which may hold the module."""
    return _run(_module, module, arguments, cwd)


def run_code(program: str, *arguments: str) -> Done:
    """`python -c program *arguments` in an empty folder.

    Programs whose subject is compiled code need it: checked annotations cannot be traced.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(_code, program, arguments, Path(folder))


def _run(run: Callable[[str], object], what: str, arguments: tuple[str, ...], cwd: Path) -> Done:
    files = cwd / ".stdout", cwd / ".stderr"
    process = _server.Process(target=_inside, args=(run, what, arguments, cwd, files))
    process.start()
    process.join()
    code = process.exitcode
    assert code is not None
    texts = [file.read_text() for file in files]
    for file in files:
        file.unlink()
    # Python takes bytecode for current by the second and the size of its source, and two runs of
    # such processes fit into a second: an edit of one number between them would not be seen
    if not ROOT.is_relative_to(cwd):
        for cache in [*cwd.rglob("__pycache__")]:
            shutil.rmtree(cache)
    return Done(code, *texts)


def _inside(
    run: Callable[[str], object],
    what: str,
    arguments: tuple[str, ...],
    cwd: Path,
    files: tuple[Path, Path],
) -> None:
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(cwd)])
    sys.path[:0] = [str(cwd)]
    sys.argv = [what, *arguments]
    try:
        run(what)
    finally:
        sys.stdout.flush()


def _module(name: str) -> None:
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _code(program: str) -> None:
    exec(compile(program, "<program>", "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102
