"""What `studies.throughput` runs in a process of its own: a race, a combination, or a long stream.

A process of its own has a known number of threads in every library, and a peak memory of its own.
`python -m studies.throughput.stopwatch '<json>'` prints one JSON object on its last line.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import math
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import gradlab
from estimators.pathwise import FOG
from gradlab.foundation.errors import BadValue, Unavailable, UnknownName
from gradlab.foundation.generators import generator
from gradlab.foundation.memory import keep_freed_memory
from gradlab.foundation.placement import Placement, current, placed
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.problem import Problem
from studies.throughput.combinations import calls_of
from studies.throughput.contenders import CONTENDERS, Call, Params
from studies.throughput.limit import Limit

MIB = 2**20
LINUX = sys.platform == "linux"
# name: problem of `gradlab.make` and its options
PROBLEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "hovering": ("hovering", {}),
    "hovering_rk4": ("hovering", {"integrator": "rk4", "substeps": 4}),
    "racing": ("racing", {}),
    "lq": ("lq", {}),
    # dFlex's ant in five sub-steps; the mass matrix once per control period, as dFlex has it
    "ant": ("ant", {"preset": "dflex", "substeps": 5, "mass_every": 5}),
    # the control period of Brax's ant, in as many sub-steps as its spring pipeline takes
    "ant_50ms": ("ant", {"preset": "dflex", "substeps": 10, "mass_every": 10, "dt": 0.05}),
    "ant_fresh": ("ant", {"preset": "dflex", "substeps": 5, "mass_every": 1}),
    "ant_convex": ("ant", {"preset": "brax", "contact": "convex"}),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Race:
    """One setting in which every contender computes the same gradients."""

    problem: str
    contenders: tuple[str, ...]
    samples: int  # N
    horizon: int  # [steps]
    hidden: tuple[int, ...]
    repeats: int  # rounds; in each one every contender runs once
    clock: str  # wall or cpu
    threads: int
    device: str
    seed: int


@dataclass(frozen=True)
class Stream:
    """One stream of FOG samples into `Moments`."""

    problem: str
    count: int  # samples in all
    chunk_size: int
    horizon: int  # [steps]
    hidden: tuple[int, ...]
    threads: int
    device: str
    seed: int


@dataclass(frozen=True)
class Mixing:
    """A combination of estimators beside its parts, on one problem."""

    problem: str
    combination: str
    samples: int  # N
    horizon: int  # [steps]
    hidden: tuple[int, ...]
    repeats: int  # rounds; in each one the combination and every part run once
    clock: str  # wall or cpu
    threads: int
    device: str
    seed: int


Task = Race | Mixing | Stream


def separately(task: Task, timeout: float | None = None) -> dict[str, Any]:
    """The result of `race`, `mixed` or `streamed` from a fresh process with `task.threads` threads.

    Raises `BadValue` with the last line of its complaint if the process fails, and if it takes
    longer than `timeout` [s].
    """
    threads = str(task.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, threads)}
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else XLA takes most of a GPU for itself
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    kind = type(task).__name__
    here = current() or Placement(task.device)
    message = {"kind": kind, "threads": task.threads, "noise": here.noise}
    text = json.dumps({**message, "task": dataclasses.asdict(task)})
    command = [sys.executable, "-m", "studies.throughput.stopwatch", text]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise BadValue(f"{kind.lower()} of {task.problem} took over {timeout:.0f} s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BadValue(f"{kind.lower()} of {task.problem} failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def build(task: Task) -> tuple[Problem, Params]:
    """The problem and its parameters. Raises `UnknownName` for an unknown problem."""
    if task.problem not in PROBLEMS:
        raise UnknownName("problem", task.problem, PROBLEMS)
    name, options = PROBLEMS[task.problem]
    problem = gradlab.make(name, horizon=task.horizon, device=task.device, **options)
    policy = GaussianPolicy(
        problem.task.observation_dim, problem.simulator.action_dim, tuple(task.hidden)
    )
    problem = problem.replace(policy=policy)
    draws = generator("race", task.seed, "policy")
    return problem, problem.init(draws)


def race(task: Race) -> dict[str, Any]:
    """Per contender the times of every round [s], that of its first call and its peak memory [MiB].

    In each round every contender runs once, so that a busy moment of the machine hits all alike.

    Contenders that cannot run here are in `skipped`, with the reason.
    """
    problem, params = build(task)
    if task.clock not in CLOCKS:
        raise UnknownName("clock", task.clock, CLOCKS)
    clock = CLOCKS[task.clock]
    noise = problem.draw(task.samples, generator("race", task.seed, "noise"))
    calls: dict[str, Call] = {}
    first: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for name in task.contenders:
        if name not in CONTENDERS:
            raise UnknownName("contender", name, CONTENDERS)
        try:
            call = CONTENDERS[name](problem, params, noise)
            first[name] = _timed(call, time.perf_counter)
        except (Unavailable, BadValue, RuntimeError) as error:  # such as memory that is not there
            skipped[name] = str(error).partition("\n")[0]
        else:
            calls[name] = call
    peaks = {name: _peak(call, noise.initial.is_cuda) for name, call in calls.items()}
    rounds = [
        {name: _timed(call, clock) for name, call in calls.items()} for _ in range(task.repeats)
    ]
    return {
        "seconds": {name: [turn[name] for turn in rounds] for name in calls},
        "first_seconds": first,
        "peak_mib": peaks,
        "skipped": skipped,
        "load": _load(),
    }


def _load() -> float:
    """Of the machine over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def mixed(task: Mixing) -> dict[str, Any]:
    """The times of every round [s], of the combination and of each part."""
    problem, params = build(task)
    noise = problem.draw(task.samples, generator("race", task.seed, "noise"))
    calls = calls_of(task.combination, problem, params, noise)
    for call in calls.values():  # the first is of another price
        call()
    clock = CLOCKS[task.clock]
    rounds = [
        {name: _timed(call, clock) for name, call in calls.items()} for _ in range(task.repeats)
    ]
    return {"seconds": {name: [turn[name] for turn in rounds] for name in calls}, "load": _load()}


def streamed(task: Stream) -> dict[str, Any]:
    """Time [s] and the largest memory [MiB]: of the process, or on a GPU what torch allocates."""
    problem, params = build(task)
    begin = time.perf_counter()
    whole = gradlab.measure(
        FOG(), problem, params, task.count, task.seed, chunk_size=task.chunk_size
    )
    moments = whole.single
    seconds = time.perf_counter() - begin
    cuda = torch.device(problem.device).type == "cuda"
    peak = torch.cuda.max_memory_allocated() if cuda else _largest_resident()
    return {"count": moments.count, "seconds": seconds, "peak_mib": peak / MIB}


def _largest_resident() -> float:
    """Of this process so far [bytes]; nan on Windows, which has no `resource`.

    On Linux that of `getrusage` begins with what the process that started this one had.
    """
    if LINUX:
        return _high_water()
    try:
        import resource
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _timed(call: Call, clock: Callable[[], float]) -> float:
    if isinstance(call, Limit):
        return call.seconds(clock)
    begin = clock()
    call()
    return clock() - begin


def _peak(call: Call, cuda: bool) -> float:
    """Memory that one call needs on top of what is held [MiB]; nan where it cannot be measured.

    On a GPU what torch allocates, without the memory that a graph holds, and nan of others, which
    it does not see; on Linux the high-water mark of resident memory, with freed memory given back
    to the system first.
    """
    if isinstance(call, Limit):
        return math.nan
    gc.collect()
    if cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before or math.nan) / MIB
    if not LINUX:
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the mark starts again from what is held
    except OSError:
        return math.nan
    before = _high_water()
    call()
    return max(_high_water() - before, mmap.PAGESIZE) / MIB  # less than a page is not seen


def _high_water() -> int:
    """Largest resident memory since the mark was reset [bytes]."""
    fields = dict(_status())
    return int(fields["VmHWM"].split()[0]) * 1024


def _status() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        yield name, value


def _main(text: str) -> None:
    message = json.loads(text)
    torch.set_num_threads(message["threads"])
    keep_freed_memory()
    if LINUX:  # XLA takes as many threads as the process may use cores
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-message["threads"] :])
    kinds: dict[str, Any] = {
        "Race": (Race, race),
        "Mixing": (Mixing, mixed),
        "Stream": (Stream, streamed),
    }
    kind, measure = kinds[message["kind"]]
    with placed(Placement(message["task"]["device"], message["noise"])):
        print(json.dumps(measure(kind(**message["task"]))), flush=True)
    if message["task"]["device"].startswith("cuda"):
        os._exit(
            0
        )  # torch 2.11 aborts at the end of a process whose CUDA threads have run backward


if __name__ == "__main__":
    _main(sys.argv[1])
