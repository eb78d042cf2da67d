"""`python -m studies.throughput.goals`: on a GPU, its tests and each goal beside what was measured.

What has been measured is kept in a folder, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gradlab.foundation.errors import GradlabError
from gradlab.foundation.files import write_whole
from gradlab.study import text
from gradlab.study.provenance import git_revision, usable_cores
from studies.throughput.stopwatch import Race, separately

ROOT = Path(__file__).parents[2]
MINUTES = 10.0  # for everything
AT_ONCE = 3  # races whose code is compiled together
LEAST = 20.0  # left to begin another race with [s]
HIDDEN = (256, 128, 64)
JAX = ("jax", "jax_unrolled_8")
PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")  # without one jax finds no GPU
# what contenders need whose names begin so
PEERS = {"jax": ("jax", *PLUGINS), "brax": ("brax", *PLUGINS), "mujoco": ("mujoco",)}
QUAD = ("pullback_graph", "pullback_compiled", "moments_graph", "batched", "limit", *JAX)
ANT = ("pullback_graph", "pullback_compiled", "brax_generalized", "mujoco")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Goal:
    """A ratio of times in one race."""

    race: str
    ours: tuple[str, ...]  # the fastest of these
    others: tuple[str, ...]  # beside the fastest of these, all of which must have run
    at_most: float  # ours over theirs [1]
    words: str

    def measured(self, result: dict[str, Any]) -> float | str:
        """The median of the rounds' ratios, or why there is none."""
        seconds = result.get("seconds", {})
        missing = [name for name in self.others if name not in seconds]
        if not any(name in seconds for name in self.ours):
            missing.append(self.ours[0])
        if missing:
            reason = result.get("skipped", {}).get(missing[0])
            return reason or result.get("failed") or "not measured"
        ours, theirs = (
            min((seconds[n] for n in names if n in seconds), key=median)
            for names in (self.ours, self.others)
        )
        return median(a / b for a, b in zip(ours, theirs, strict=True))


def races() -> dict[str, Race]:
    """The races, the most telling first."""
    found: dict[str, Race] = {}
    for samples, repeats in ((256, 21), (4096, 15), (32_768, 7)):
        found[f"hovering {samples}"] = _race("hovering", QUAD, samples, 32, repeats)
    for problem in ("ant", "ant_convex"):
        for samples in (64, 1024):
            found[f"{problem} {samples}"] = _race(problem, ANT, samples, 8, 11)
    return found


def _race(problem: str, who: tuple[str, ...], samples: int, horizon: int, repeats: int) -> Race:
    return Race(problem, who, samples, horizon, HIDDEN, repeats, "wall", 4, "cuda", 0)


def goals() -> Iterator[Goal]:
    """Those of the project, on one GPU."""
    gradients = ("pullback_graph", "pullback_compiled")
    for samples in (256, 4096, 32_768):
        race = f"hovering {samples}"
        yield Goal(race, gradients, JAX, 1.0, "FOG per sample / the faster JAX twin")
        words = "FOG's statistics / JAX per sample"
        yield Goal(race, ("moments_graph",), JAX, 1 / 3, words)
    yield Goal("hovering 32768", gradients, ("limit",), 3.0, "FOG per sample / the limit")
    brax = ("brax_generalized",)
    for samples in (64, 1024):
        words = "FOG per sample / Brax generalized"
        yield Goal(f"ant {samples}", gradients, brax, 1 / 5, words)
        yield Goal(f"ant_convex {samples}", gradients, brax, 1.0, words)


def table(results: dict[str, dict[str, Any]], tests: str) -> str:
    """Every goal beside what was measured, and the tests; beneath it which of ours did not run."""
    lines = [("race, N", "time of", "measured", "goal", "")]
    without: dict[str, None] = {}
    for goal in goals():
        result = results.get(goal.race, {})
        found = goal.measured(result)
        if not isinstance(found, str):
            for name in (name for name in goal.ours if name not in result["seconds"]):
                without[f"{goal.race} without {name}: {result['skipped'][name]}"[:119]] = None
        told = found if isinstance(found, str) else f"{found:.2f}"
        met = "" if isinstance(found, str) else "met" if found <= goal.at_most else "NOT MET"
        lines.append((goal.race, goal.words, told, f"at most {goal.at_most:.2f}", met))
    return "\n".join([text.columns(lines, str.ljust), "", *without, f"tests: {tests}"])


def measured(out: Path, left: Callable[[], float], say: Say) -> dict[str, dict[str, Any]]:
    """The result of every race: from the folder, or measured while there is time `left` [s]."""
    results: dict[str, dict[str, Any]] = {}
    wanted = races()
    for number, (name, race) in enumerate(wanted.items(), 1):
        place = _place(out, name)
        if (before := _before(place)) is not None:
            results[name] = before
            say(f"[{number}/{len(wanted)}] {name}: measured before")
            continue
        if left() < LEAST:
            results[name] = {"failed": "no time left; run it again"}
            continue
        say(f"[{number}/{len(wanted)}] {name}: {', '.join(race.contenders)}")
        began = time.monotonic()
        try:
            results[name] = separately(race, timeout=left())
        except GradlabError as error:
            results[name] = {"failed": str(error)}
            say(f"    {error}")
            continue
        say(f"    {time.monotonic() - began:.0f} s")
        for who, reason in results[name]["skipped"].items():
            say(f"    left out: {who} ({reason})")
        kept = {**results[name], "found": sorted(_found(PEERS)), "race": dataclasses.asdict(race)}
        _keep(place, json.dumps(kept))
    return results


def compiled(out: Path, left: Callable[[], float]) -> None:
    """Fills the compilers' caches on disk, by a round of several races at once that nobody times.

    Not of the largest, whose memory may not be there twice. What fails says so when it is raced.
    Every core compiles; a race has a few.
    """
    wanted = [
        dataclasses.replace(race, repeats=1, threads=max(race.threads, usable_cores()))
        for name, race in races().items()
        if race.samples <= 4096 and _before(_place(out, name)) is None
    ]

    def run(race: Race) -> None:
        with contextlib.suppress(GradlabError):
            separately(race, timeout=max(1.0, left()))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, wanted))


def folder_of(out: Path, device: str) -> Path:
    """Where results of this device, torch and code are kept: other code is measured anew."""
    parts = (f"{device}_torch_{torch.__version__}", git_revision())
    return out.joinpath(*(re.sub(r"\W+", "_", part) for part in parts))


def _place(out: Path, name: str) -> Path:
    return out / f"{name.replace(' ', '_')}.json"


def _before(place: Path) -> dict[str, Any] | None:
    """A result that is there; none where a peer was left out that has been installed since."""
    if not place.exists():
        return None
    result = json.loads(place.read_text(encoding="utf-8"))
    peers = {who.partition("_")[0] for who in result.get("skipped", {})} & PEERS.keys()
    return None if _found(peers) - set(result.get("found", ())) else result


def _found(peers: Iterable[str]) -> set[str]:
    """Which packages of these peers are installed."""
    return {name for peer in peers for name in PEERS[peer] if importlib.util.find_spec(name)}


def _keep(place: Path, words: str) -> None:
    write_whole(place, lambda path: path.write_text(words, encoding="utf-8"))


def tested(out: Path, left: Callable[[], float], say: Say) -> str:
    """One line on the tests marked gpu: from the folder, or run now."""
    place = out / "tests.txt"
    if place.exists():
        return place.read_text(encoding="utf-8")
    if left() < LEAST:
        return "not run, no time left; run it again"
    say("tests marked gpu")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu and not slow",
        "-p",
        "no:nbmake",
        *_files_marked_gpu(),
    ]
    env = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": str(usable_cores())}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=left(), check=False
        )
    except subprocess.TimeoutExpired:
        return "stopped, no time left; run python -m pytest -m gpu"
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    last = re.sub(r"^=+ | =+$", "", last)
    if done.returncode not in (0, 5) and not re.search(r"\d+ (passed|failed|error)", last):
        last = f"failed: pytest ended with status {done.returncode} before it was through"
    if done.returncode == 0:
        _keep(place, last)
    else:
        say(done.stdout[-2000:])
    return last


def _files_marked_gpu() -> list[str]:
    """Others may need packages that are not there, and take half a minute to be looked through."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [path for path in paths if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    return [path.relative_to(ROOT).as_posix() for path in marked]


def main(arguments: list[str] | None = None) -> int:
    """The command line; see `status` for what it exits with, and 1 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where results are kept")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("make gpu needs a CUDA device, and torch finds none here", file=sys.stderr)
        return 1
    end = time.monotonic() + 60 * options.minutes

    def left() -> float:
        return end - time.monotonic()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    name = torch.cuda.get_device_name()
    out = folder_of(options.out, name)
    say(f"{name}, torch {torch.__version__}; results in {out}")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((out.parent / "inductor").resolve())
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str((out.parent / "xla").resolve())
    say("compiling for all races at once")
    compiled(out, lambda: left() / 2)
    tests = tested(out, lambda: left() / 2, say)
    results = measured(out, left, say)
    print(
        f"{name}, torch {torch.__version__}, float32, T = 32 (hovering) and 8 (ants), wall clock\n"
    )
    print(table(results, tests))
    return status(results, tests)


def status(results: dict[str, dict[str, Any]], tests: str) -> int:
    """2 where a goal or a test is not met, 3 where one was not measured or run, else 0."""
    found = [(goal.measured(results.get(goal.race, {})), goal.at_most) for goal in goals()]
    if any(not isinstance(ratio, str) and not ratio <= most for ratio, most in found):
        return 2
    if re.search(r"\b(\d+ failed|\d+ errors?|failed:)", tests):
        return 2
    return 0 if "passed" in tests and not any(isinstance(r, str) for r, _ in found) else 3


if __name__ == "__main__":
    sys.exit(main())
