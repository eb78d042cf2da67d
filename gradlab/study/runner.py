"""Runs a study: finds what is left to do, has workers do it, and gathers the table."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from joblib.parallel import LokyBackend, get_active_backend

from gradlab.foundation import naming
from gradlab.foundation.checkpoints import read_header
from gradlab.foundation.errors import BadValue, Missing, Unavailable
from gradlab.foundation.files import digest, write_json, write_whole
from gradlab.foundation.placement import Placement, placed
from gradlab.study.answer import Answer
from gradlab.study.cells import Artefact, Cell, in_order
from gradlab.study.definition import Study, as_json, check_numbers
from gradlab.study.folder import Folder
from gradlab.study.progress import Progress, note
from gradlab.study.provenance import git_revision, usable_cores, versions
from gradlab.study.sources import Code, accepted
from gradlab.study.storage import read_cell, write_rows
from gradlab.study.survey import Survey
from gradlab.study.worker import Job, pause, stop_when_alone, work

CPU = Placement()


class Result(NamedTuple):
    """What a finished study gives."""

    rows: pd.DataFrame
    answer: Answer
    summary: str
    """The long form; summary.txt holds the answer and then this."""
    out: Path


def run_study(
    study: Study,
    config: Any,
    out: Path,
    *,
    jobs: int | None = None,
    placement: Placement = CPU,
    retrain: bool = False,
    fresh: bool = False,
    keep: bool = False,
    preset: str = "",
    command: str = "",
) -> Result:
    """Does what is missing in `out`, then writes the table, the figure, the summary and the
    manifest.

    Args:
        config: an instance of `study.config`; with `study`, `placement` and `retrain` it identifies
        the folder.
        jobs: workers; default: the usable cores, on a GPU one. No part of the identity: results do
        not depend on it.
        placement: device and noise of every problem that is made.
        retrain: build committed artefacts anew.
        fresh: delete the results in `out` first.
        keep: go on with results there that other code made.
        preset, command: recorded in the manifest and in artefacts.

    Raises:
        Conflict: `out` belongs to another config, or another process is at work there, or it holds
            results of other code and neither `fresh` nor `keep` is given.
        BadValue: `jobs` < 1, cells or artefacts that contradict each other, or a folder of other
            things.
        NotWritten: the disk is full.
    """
    if jobs is not None and jobs < 1:
        raise BadValue(f"expected jobs >= 1, got {jobs}; leave it out to use every core")
    check_numbers(config)
    check_placement(study, placement)
    folder = Folder(Path(out))
    identity = {"study": study.name, "config": as_json(config), "retrain": retrain}
    where = {"device": placement.device, "noise": placement.drawn}
    # tasks and estimators of users' own modules
    with naming.noted() as named, placed(placement):
        cells = list(study.cells(config))
        if not cells:
            raise BadValue(f"{study.name} has nothing to do with these options; ask for more")
        artefacts = in_order(study.artefacts(config), cells)
    if repeated := _repeated([cell.key for cell in cells]):
        raise BadValue(f"expected cells with different keys, got {repeated!r} twice")
    if fresh and keep:
        raise BadValue("expected one of --fresh and --keep, got both; leave one out")
    folder.check()
    with folder.locked(note):
        begin = time.perf_counter()
        if fresh:
            folder.clear(study.name)
        earlier = folder.claim({**identity, **where})
        code = _code(study, artefacts, named)
        made_by = {"command": command, "git_revision": git_revision(), "versions": versions()}
        record = {
            **identity,
            **made_by,
            "preset": preset,
            "code": asdict(code),
            "kept": accepted(folder, earlier, code, keep),
            **where,
            **_conditions(placement),
        }
        write_json(folder.manifest, {**record, "completed": False})
        committed = None if retrain else study.committed
        # of runs on the CPU as it was before there were others
        fingerprint = digest(identity if _usual(placement) else {**identity, **where})
        survey = Survey.of(folder, artefacts, cells, fingerprint, committed)
        header = {**made_by, **where, "code": code.digest}
        run = _Run(study, config, placement, folder, survey, header)
        used = _carry_out(run, jobs, _minutes(study, config, preset))
        rows, headers = _gather(study, folder, cells)
        if (now := _code(study, artefacts, named)).digest != code.digest:
            note(
                f"the code changed while it ran ({now.changes(asdict(code))}): run again with --fresh"
            )
        result = _shown(study, rows, folder.path)
        record |= {
            "completed": True,
            "jobs": used,
            "seconds_of_last_run": time.perf_counter() - begin,
            "artefacts": {name: _origin(path, folder) for name, path in survey.paths.items()},
            "cells": {
                header["cell"]: _some(header, "rows", "seconds", "git_revision", "code")
                for header in headers
            },
        }
        write_json(folder.manifest, record)
    return result


def _shown(study: Study, rows: pd.DataFrame, out: Path) -> Result:
    """Draws the figures and writes summary.txt."""
    study.plot(rows, out / "figure")
    result = Result(rows, study.answer(rows), study.summarise(rows), out)
    text = f"{result.answer}\n\n\n{result.summary}\n"
    write_whole(out / "summary.txt", lambda path: path.write_text(text, encoding="utf-8"))
    return result


def check_placement(study: Study, placement: Placement) -> None:
    """Raises `Unavailable` for a GPU that is not there or where a study can use none, `BadValue`
    for what is no device; says what stays on the CPU."""
    if study.cpu_only is not None and not placement.on_cpu:
        raise Unavailable(
            f"this study runs on the CPU alone, since {study.cpu_only}; leave out "
            f"--device {placement.device}"
        )
    placement.check()
    if study.cpu_part is not None and not placement.on_cpu:
        note(f"{study.name}: {study.cpu_part} on the CPU, the rest on {placement.device}")


def _usual(placement: Placement) -> bool:
    return placement.on_cpu and placement.drawn == "cpu"


def _conditions(placement: Placement) -> dict[str, Any]:
    """On what and in which precision a run computes."""
    on_gpu = torch.device(placement.device).type == "cuda"
    return {
        **({"gpu": torch.cuda.get_device_name(placement.device)} if on_gpu else {}),
        "dtype": str(torch.get_default_dtype()),
        "host_cores": os.cpu_count(),
    }


def _code(study: Study, artefacts: Mapping[str, Artefact], named: Iterable[str]) -> Code:
    builds = [artefact.build for artefact in artefacts.values()]
    return Code.of([study.config, study.cells, study.run_cell, study.artefacts, *builds], named)


class _Run(NamedTuple):
    """What every job of a run is made of."""

    study: Study
    config: Any
    placement: Placement
    folder: Folder
    survey: Survey
    header: Mapping[str, Any]


def _carry_out(run: _Run, jobs: int | None, typical: float | None) -> int:
    """Does everything that is left; returns the number of jobs used."""
    survey = run.survey
    units = [*survey.artefacts.values(), *survey.cells]
    waiting = [_job(run, unit) for unit in survey.left]
    costs = {job.name: job.unit.cost for job in waiting}
    progress = Progress(run.study.name, len(units), sum(unit.cost for unit in units))
    progress.skip(len(units) - len(waiting), sum(u.cost for u in units) - sum(costs.values()))
    used = max(1, min(jobs or (usable_cores() if run.placement.on_cpu else 1), len(waiting)))

    def feed() -> Iterator[Any]:
        """The next unit whose artefacts exist, asked for whenever a worker is free."""
        while waiting:
            ready = next((job for job in waiting if job.is_ready()), None)
            if ready is None:
                yield delayed(pause)()
                continue
            waiting.remove(ready)
            progress.started(ready.name)
            yield delayed(work)(ready)

    if not waiting:
        return used
    print(_plan(survey, run.folder, used, typical), file=sys.stderr, flush=True)
    # One unit at a time for each worker, chosen when it is free. (joblib's stubs know only
    # strings.)
    single: Any = 1
    with progress.shown(), _workers(), warnings.catch_warnings():
        # joblib replaces a worker that has grown by 300 MB since it began, and says so
        warnings.filterwarnings(
            "ignore", "A worker stopped while some jobs were given", UserWarning
        )
        parallel = Parallel(
            used, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=single
        )
        for name in parallel(feed()):
            if name is not None:
                progress.finished(name, costs[name])
    return used


def _minutes(study: Study, config: Any, preset: str) -> float | None:
    """What the preset takes on two cores [min], if it is known and nothing else was asked for."""
    known = preset in study.minutes and study.preset(preset)[0] == config
    return study.minutes[preset] if known else None


def _plan(survey: Survey, folder: Folder, jobs: int, typical: float | None) -> str:
    """One line: what will be done, where, and roughly how long it takes."""
    units = [*survey.artefacts.values(), *survey.cells]
    new = sum(isinstance(unit, Cell) for unit in survey.left)
    parts = [f"{new} of {len(survey.cells)} cells"]
    if more := len(survey.left) - new:
        parts.append(f"{more} artefact{'s' if more > 1 else ''}")
    if typical is None:
        long = "the time left is shown once the first is done"
    else:
        share = sum(u.cost for u in survey.left) / sum(u.cost for u in units)
        long = f"about {max(1, round(typical * share))} min on two free cores"
    workers = f"{jobs} worker{'s' if jobs > 1 else ''}"
    return f"{' and '.join(parts)} to do in {folder.path} with {workers}; {long}"


def _job(run: _Run, unit: Artefact | Cell) -> Job:
    folder, survey = run.folder, run.survey
    stamp: dict[str, Any]
    if isinstance(unit, Artefact):
        path = folder.artefact(unit.name)
        identity = survey.identities[unit.name]
        stamp = {"name": unit.name, "payload": dict(unit.payload), "identity": identity}
    else:
        path = folder.cell(unit.key)
        stamp = {"cell": unit.key, "config": survey.fingerprint}
    return Job(
        study=run.study,
        config=run.config,
        placement=run.placement,
        unit=unit,
        path=path,
        needs={name: survey.paths[name] for name in unit.needs},
        header={**run.header, **stamp},
        locks=folder.worker_locks,
    )


@contextmanager
def _workers() -> Iterator[None]:
    """Inside, joblib's own workers start with one BLAS thread on any machine, and stop when this
    process is killed.

    A backend that the caller chose (`joblib.parallel_config("dask")`) stays, and minds its own
    workers.
    """
    if not isinstance(get_active_backend()[0], LokyBackend):
        yield
        return
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        with parallel_config("loky", initializer=stop_when_alone, initargs=(os.getpid(),)):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _gather(
    study: Study, folder: Folder, cells: list[Cell]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Writes rows.parquet in the order of the cells, and timings.parquet.

    Returns both as one table, and the headers of the cells.
    """
    files = [read_cell(folder.cell(cell.key)) for cell in cells]
    everything = [row for rows, _ in files for row in rows]
    headers = [header for _, header in files]
    measured = set(study.measured)
    rows = write_rows(
        folder.path / "rows.parquet",
        [{k: v for k, v in row.items() if k not in measured} for row in everything],
    )
    if not measured:
        return rows, headers
    timings = write_rows(
        folder.path / "timings.parquet",
        [{k: v for k, v in row.items() if k in measured or k == "cell"} for row in everything],
    )
    return pd.concat([rows, timings.drop(columns="cell")], axis="columns"), headers


def read_rows(out: Path | str) -> pd.DataFrame:
    """The whole table of a finished study, with what a clock filled in: what `plot` is given.

    Raises `Missing` where there is no finished table.
    """
    table, timings = Path(out) / "rows.parquet", Path(out) / "timings.parquet"
    if not table.exists():
        raise Missing(f"{table} does not exist; run the study with --out {out} first")
    rows = pd.read_parquet(table)
    if not timings.exists():
        return rows
    return pd.concat([rows, pd.read_parquet(timings).drop(columns="cell")], axis="columns")


def _origin(path: Path, folder: Folder) -> dict[str, Any]:
    source = "made here" if path.is_relative_to(folder.path) else "committed"
    return {
        "source": source,
        **_some(read_header(path), "command", "git_revision", "seconds", "checksum"),
    }


def _some(header: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: header.get(name) for name in names}


def _repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)
