"""What runs in a worker: one artefact or one cell, on one thread, from files to a file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from gradlab.foundation.checkpoints import content_checksum, read_artefact, write_artefact
from gradlab.foundation.memory import keep_freed_memory
from gradlab.foundation.placement import Placement, placed
from gradlab.study.cells import Artefact, Cell
from gradlab.study.definition import Study
from gradlab.study.seeds import seed_for
from gradlab.study.storage import write_cell


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs to know; it may run in this process, another one, or on
    another host."""

    study: Study
    config: Any
    placement: Placement
    unit: Artefact | Cell
    path: Path
    """Where the result goes."""
    needs: Mapping[str, Path]
    """Files of the artefacts that the unit needs; they exist when the job starts."""
    header: Mapping[str, Any]
    """Kept in the result's file."""
    locks: Path
    """Folder of the locks that workers hold while they work."""

    @property
    def name(self) -> str:
        if isinstance(self.unit, Artefact):
            return f"artefact {self.unit.name}"
        return f"cell {self.unit.key}"

    def is_ready(self) -> bool:
        """Do the artefacts exist? (Files appear whole, and damaged ones were removed
        beforehand.)"""
        return all(path.exists() for path in self.needs.values())


def work(job: Job) -> str:
    """Does a job and returns its name. An exception carries the name as a note."""
    with _held(job.locks):
        _stop_if_alone()
        with _quiet_torch(seed_for(job.config.seed, job.name)), placed(job.placement):
            try:
                _do(job)
            except Exception as error:
                error.add_note(f"in {job.name}")
                raise
    return job.name


def pause() -> None:
    """Keeps a worker for a moment for which there is nothing to do yet."""
    time.sleep(0.05)


def _do(job: Job) -> None:
    begin = time.perf_counter()
    needs = {name: read_artefact(path)[0] for name, path in job.needs.items()}
    made_from = {name: content_checksum(saved) for name, saved in needs.items()}
    needs = {name: saved.to(job.placement.device) for name, saved in needs.items()}
    if isinstance(job.unit, Artefact):
        saved = job.unit.build(job.unit, needs)
        seconds = time.perf_counter() - begin
        write_artefact(job.path, saved, {**job.header, "seconds": seconds})
        return
    rows = [
        {"cell": job.unit.key, **row} for row in job.study.run_cell(job.config, job.unit, needs)
    ]
    seconds = time.perf_counter() - begin
    write_cell(job.path, rows, {**job.header, "needs": made_from, "seconds": seconds})


@contextmanager
def _quiet_torch(seed: int) -> Iterator[None]:
    """One thread, and a global generator that depends on the unit's name alone, should a unit use
    it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _held(locks: Path) -> Iterator[None]:
    """This process's own lock: the next run of the study waits until no worker of this one is at
    work."""
    with FileLock(locks / str(os.getpid())):
        yield


_study_process: list[int] = []  # of this worker; empty in a process that is no worker of ours


def stop_when_alone(process: int) -> None:
    """Ends this worker, a child of the study's `process`, soon after that was killed.

    Runs once when a worker starts, and watches from a thread. SIGTERM is left to the study's
    process, which also gets it where a cluster sends it to all: it says how to go on, and ends its
    workers. A change of parent is the one sign that does not depend on whether somebody has
    collected the dead process.
    """
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _study_process.append(process)

    def watch() -> None:
        while True:
            _stop_if_alone()
            time.sleep(0.25)

    threading.Thread(target=watch, daemon=True).start()


def _stop_if_alone() -> None:
    if _study_process and os.getppid() != _study_process[0]:
        os._exit(1)
