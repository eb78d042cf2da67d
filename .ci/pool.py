"""What mostly waits for one core, two at a time: types, notebooks, the smoke preset of every study.

The smoke presets are forked from this process, which has imported what takes studies seconds to
import; each then runs as `python -m studies.NAME` does. Prints the output of every job when it is
done, and exits 1 if one failed.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

from gradlab.study.sources import Code

ROOT = Path(__file__).parents[1]
FORK = multiprocessing.get_context("fork")
LONG = (
    *("reward_robustness", "learning_curves", "mixture_ratio", "bias_vs_relaxation"),
    *("throughput", "horizon", "leaderboard"),
)
# With torch's compiler, which its optimisers import.
COMMON = ("torch._dynamo", "scipy.stats", "gradlab.study.figures")


def command(*words: str) -> Callable[[], int]:
    return lambda: subprocess.run(words, cwd=ROOT, check=False).returncode


def smoke(study: str, out: str) -> Callable[[], int]:
    """The study's command line in this process."""

    def run() -> int:
        sys.argv = [study, "--preset", "smoke", "--out", out, "--jobs", "1"]
        try:
            runpy.run_module(f"studies.{study}", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return 0

    return run


def studies() -> list[str]:
    """Packages that define STUDY, the longest first, so that none is left to run alone."""
    paths = ROOT.glob("studies/*/__init__.py")
    names = [p.parent.name for p in paths if re.search(r"^STUDY\b", p.read_text(), re.MULTILINE)]
    return sorted(names, key=lambda name: (LONG.index(name) if name in LONG else len(LONG), name))


def logged(job: Callable[[], int], log: Path) -> None:
    """The job, in a process of its own, whose output goes to the log."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(job())


def spent() -> float:
    """Processor time of the jobs that are over [s]."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(scratch: Path) -> int:
    jobs = {"types": command("make", "types")}
    for path in sorted(ROOT.glob("notebooks/*.ipynb"), reverse=True):
        options = ("-p", "no:xdist", "--nbmake", "--nbmake-timeout=600", "-q", str(path))
        jobs[f"notebook-{path.stem}"] = command(sys.executable, "-m", "pytest", *options)
    jobs |= {f"smoke-{name}": smoke(name, str(scratch / name)) for name in studies()}
    for name in COMMON:
        importlib.import_module(name)
    for name in studies():
        with contextlib.suppress(Exception):  # its own smoke will say what is wrong
            importlib.import_module(f"studies.{name}")
    Code.of([])  # hashes the sources, and keeps what it found
    waiting, running, failed = list(jobs.items()), {}, []
    while waiting or running:
        while waiting and len(running) < 2:
            name, job = waiting.pop(0)
            process = FORK.Process(target=logged, args=(job, scratch / f"{name}.log"))
            process.start()
            running[process.sentinel] = (name, process, time.monotonic())
        for sentinel in wait(running):
            name, process, begin = running.pop(sentinel)
            before = spent()
            process.join()
            code = process.exitcode
            print(f"=== {name}\n{(scratch / f'{name}.log').read_text(errors='replace')}", end="")
            said = "passed" if code == 0 else f"FAILED (exit {code})"
            seconds, own = time.monotonic() - begin, spent() - before
            print(f"--- {name}: {said} in {seconds:.0f} s, {own:.0f} s of a core", flush=True)
            failed += [name] if code else []
    print("FAILED: " + " ".join(failed) if failed else "the pool passed")
    return int(bool(failed))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        failures = main(Path(folder))
    sys.exit(failures)
