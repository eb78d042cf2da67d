"""A study's output folder: who may write in it, which config it belongs to, where things lie."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.errors import BadValue, Conflict, Corrupt
from gradlab.study.storage import write_json


@dataclass(frozen=True)
class Folder:
    """Paths below one output folder, and its two locks."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def worker_lock(self) -> Path:
        return self.path / ".workers"

    def cell(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.parquet"

    def artefact(self, name: str) -> Path:
        return self.path / "artefacts" / f"{name}.safetensors"

    @contextmanager
    def locked(self, note: Callable[[str], None]) -> Iterator[None]:
        """Holds the folder for this process. Raises `Conflict` if another one holds it, `BadValue`
        if it cannot be written.

        Then waits for workers that outlived a killed run: they stop within a second, and until then
        they may still be finishing a cell.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+")
        except OSError as error:
            raise BadValue(
                f"expected a folder to write to, got {self.path} ({error.strerror}); try another --out"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Conflict(
                    f"{self.path} is in use by another run (process {file.read().strip() or 'unknown'}); "
                    "wait for it to end or try another --out"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._wait_for_workers(note)
            yield

    def _wait_for_workers(self, note: Callable[[str], None]) -> None:
        with self.worker_lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note("waiting for the workers of an earlier run to stop")
                fcntl.flock(file, fcntl.LOCK_EX)

    def claim(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the folder belong to `identity` (JSON values) and returns its manifest so far ({}
        if new).

        Raises `Conflict` with the differing fields if it belongs to another.
        """
        self._remove_temporaries()
        if not self.manifest.exists():
            write_json(self.manifest, {**identity, "completed": False})
            return {}
        try:
            found = json.loads(self.manifest.read_text())
            differences = list(_differences(found, identity))
        except (ValueError, AttributeError):
            raise Corrupt(
                f"{self.manifest} is damaged; try another --out, or delete the folder"
            ) from None
        if differences:
            raise Conflict(
                f"{self.path} holds the results of another config ({'; '.join(differences)}); "
                "try another --out, or delete the folder"
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
