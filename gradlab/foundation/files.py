"""Files that are either whole or not there, and what identifies their content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradlab.foundation.errors import BadValue, NotWritten


def write_whole(
    path: Path, write: Callable[[Path], object], failures: tuple[type[Exception], ...] = ()
) -> None:
    """Calls `write(temporary)`, forces it to disk and renames it to `path`: never half a file.

    Raises `NotWritten` for an OSError of `write`, or for one of the `failures` of its library.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _force_to_disk(temporary)
        os.replace(temporary, path)
    except (OSError, *failures) as error:
        raise NotWritten(
            f"cannot write {path} ({_reason(error)}); make room, or try another --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    if os.name != "nt":  # Windows has no way to force a folder
        _force_to_disk(path.parent)


def check_writable(folder: Path) -> None:
    """Makes the folder if there is none. Raises `BadValue` unless files can be written in it."""
    probe = folder / f".{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadValue(
            f"expected a folder to write to, got {folder} ({error.strerror}); try another --out"
        ) from None


def _reason(error: Exception) -> str:
    """In the system's words: pyarrow and safetensors give its number in their message only."""
    number = getattr(error, "errno", None)
    if found := re.search(r"(?:errno|os error) (\d+)", str(error)):
        number = int(found[1])
    return os.strerror(number) if number else first_line(error)


def _force_to_disk(path: Path) -> None:
    # Windows forces only what is open for writing
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n", "utf-8"))


def digest(value: Any) -> str:
    """A short stable hash of a JSON value; raises `BadValue` for anything else."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except TypeError as error:
        raise BadValue(
            f"expected JSON values (numbers, strings, lists, dicts), got one that is not: {error}; "
            "try converting it in the payload or the metadata"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
