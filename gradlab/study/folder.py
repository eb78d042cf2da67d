"""A study's output folder: who may write in it, which config it belongs to, where things lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gradlab.foundation.checkpoints import read_header
from gradlab.foundation.errors import BadValue, Conflict, Corrupt
from gradlab.foundation.files import write_json, write_whole
from gradlab.study.storage import cell_header

_RESULTS = ("rows.parquet", "timings.parquet", "summary.txt")


@dataclass(frozen=True)
class Folder:
    """Paths below one output folder, and its two locks."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def worker_locks(self) -> Path:
        return self.path / ".locks"

    def cell(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.parquet"

    def artefact(self, name: str) -> Path:
        return self.path / "artefacts" / f"{name}.safetensors"

    def check(self) -> None:
        """Raises `BadValue` for a folder that holds other things than a study's results."""
        if self.manifest.exists() or not self.path.is_dir():
            return
        there = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
        if foreign := sorted(set(there) - {"cells", "artefacts", *_RESULTS}):
            raise BadValue(
                f"expected a new folder or one of a study for --out, got {self.path}, which holds "
                f"{foreign[0]}; try another --out"
            )

    @contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[None]:
        """Holds the folder for this process. Raises `Conflict` if another one holds it, `BadValue`
        if it cannot be written.

        Then waits for workers that outlived a killed run: they stop within a second, and until then
        they may still be finishing a cell.
        """
        lock, holder = FileLock(self.path / ".lock"), self.path / ".holder"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            who = holder.read_text() if holder.exists() else "unknown"
            raise Conflict(
                f"{self.path} is in use by another run (process {who}); "
                "wait for it to end or try another --out"
            ) from None
        except OSError as error:
            raise BadValue(
                f"expected a folder to write to, got {self.path} ({error.strerror}); try another --out"
            ) from None
        try:
            write_whole(holder, lambda p: p.write_text(str(os.getpid())))
            self._wait_for_workers(note)
            yield
        finally:
            lock.release()

    def _wait_for_workers(self, note: Callable[[str], None]) -> None:
        """Each worker holds a lock of its own below `worker_locks` while it is at work."""
        self.worker_locks.mkdir(exist_ok=True)
        for path in self.worker_locks.iterdir():
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                note("waiting for the workers of an earlier run to stop")
                lock.acquire()
            lock.release()
            path.unlink(missing_ok=True)

    def codes(self) -> Iterator[str]:
        """The hash of the code that made each cell and each artefact here ("": not recorded)."""
        for path in [*self._files("cells", "parquet"), *self._files("artefacts", "safetensors")]:
            try:
                header = read_header(path) if path.suffix == ".safetensors" else cell_header(path)
            except Corrupt:
                continue  # the survey names it and has it made again
            yield header.get("code", "")

    def _files(self, kind: str, ending: str) -> list[Path]:
        return sorted((self.path / kind).rglob(f"[!.]*.{ending}"))

    def clear(self, study: str) -> None:
        """Deletes the results here. Raises `Conflict` if they are another study's."""
        if self.manifest.exists() and (found := self._read_manifest().get("study")) != study:
            raise Conflict(f"{self.path} holds the results of {found}; try another --out")
        doomed = [*self._files("cells", "parquet"), *self._files("artefacts", "safetensors")]
        doomed += [self.path / name for name in _RESULTS]
        for path in [*doomed, *self.path.glob("figure*.png"), *self.path.glob("figure*.svg")]:
            path.unlink(missing_ok=True)
        self.manifest.unlink(missing_ok=True)

    def _read_manifest(self) -> dict[str, Any]:
        try:
            found = json.loads(self.manifest.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Corrupt(f"{self.manifest} is damaged; try another --out, or delete the folder")
        return found

    def claim(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the folder belong to `identity` (JSON values) and returns its manifest so far ({}
        if new).

        Raises `Conflict` with the differing fields if it belongs to another.
        """
        self._remove_temporaries()
        if not self.manifest.exists():
            write_json(self.manifest, {**identity, "completed": False})
            return {}
        found = {"device": "cpu", "noise": "cpu", **self._read_manifest()}  # unless it says others
        if differences := list(_differences(found, identity)):
            raise Conflict(
                f"{self.path} holds the results of another config ({'; '.join(differences)}); "
                "try another --out, or --fresh to delete them"
            )
        return found

    def _remove_temporaries(self) -> None:
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def _differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], above: str = ""
) -> Iterator[str]:
    """'field: there ..., now ...' for every field of `wanted` that differs; fields of a config are
    named bare."""
    for name in dict.fromkeys([*wanted, *(found if above else ())]):
        there, now = found.get(name), wanted.get(name)
        if isinstance(there, dict) and isinstance(now, dict):
            yield from _differences(
                there, now, "" if name == "config" and not above else f"{above}{name}."
            )
        elif there != now:
            yield f"{above}{name} there {there!r}, now {now!r}"
