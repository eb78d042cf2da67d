"""Files that are either whole or not there: cells as parquet, artefacts as safetensors, each with a
checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradlab.errors import BadValue, Corrupt, NotWritten
from gradlab.study.cells import Row, Saved, digest

_KEY = "gradlab"
_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary)`, forces it to disk and renames it to `path`: never half a file under
    that name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _force_to_disk(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError, pa.ArrowException) as error:
        raise NotWritten(
            f"cannot write {path} ({_reason(error)}); make room, or try another --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    if os.name != "nt":  # Windows has no way to force a folder
        _force_to_disk(path.parent)


def _reason(error: Exception) -> str:
    """In the system's words: pyarrow and safetensors give its number in their message only."""
    number = getattr(error, "errno", None)
    if found := re.search(r"(?:errno|os error) (\d+)", str(error)):
        number = int(found[1])
    return os.strerror(number) if number else _first_line(error)


def _force_to_disk(path: Path) -> None:
    # Windows forces only what is open for writing
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n", "utf-8"))


def _plain(value: Any) -> Any:
    """Numbers out of numpy and torch; everything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
        return value.item()
    return value


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table: columns in order of first appearance, missing values null.

    A column's type follows from all of its values (int and float make float64; only nulls make
    float64), so it does not depend on which row comes first. Raises `BadValue` for a mixture, or a
    value that is no number, string, bool or None.
    """
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    names = list(dict.fromkeys(name for row in plain for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in plain]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            kinds, values = {float}, [None if v is None else float(v) for v in values]
        if len(kinds) > 1 or not kinds <= set(_TYPES):
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise BadValue(
                f"expected one of bool, int, float, str in column {name!r}, got {found}; "
                "try converting the value in run_cell"
            )
        columns[name] = pa.array(values, _TYPES[kinds.pop()] if kinds else pa.float64())
    return pa.table(columns)


def _table_digest(table: pa.Table) -> str:
    # repr keeps every bit of a float and tells NaN from null.
    text = repr(
        [(name, str(table[name].type), table[name].to_pylist()) for name in table.column_names]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_cell(path: Path, rows: Iterable[Row], header: dict[str, Any]) -> None:
    """Writes one cell's rows; `header` is kept in the file, with the row count and a checksum."""
    table = table_of(rows)
    full = {**header, "rows": table.num_rows, "checksum": _table_digest(table)}
    stamped = table.replace_schema_metadata({_KEY: json.dumps(full)})
    write_whole(path, lambda p: pq.write_table(stamped, p))


def read_cell(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and header of a cell file. Raises `Corrupt` if it is not what was written."""
    try:
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {})[_KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is damaged ({_first_line(error)})") from None
    if header.get("rows") != table.num_rows or header.get("checksum") != _table_digest(table):
        raise Corrupt(f"{path} is damaged (its rows do not match its checksum)")
    return table.to_pylist(), header


def cell_header(path: Path) -> dict[str, Any]:
    """The header of a cell file, without its rows. Raises `Corrupt`."""
    try:
        return json.loads((pq.read_schema(path).metadata or {})[_KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is damaged ({_first_line(error)})") from None


def write_rows(path: Path, rows: Iterable[Row]) -> pd.DataFrame:
    """Writes a whole table and returns it; the bytes depend on the rows alone."""
    table = table_of(rows)
    write_whole(path, lambda p: pq.write_table(table, p))
    return table.to_pandas()


def content_checksum(saved: Saved) -> str:
    """A hash of names, types, shapes, values and metadata."""
    running = hashlib.sha256(digest(saved.metadata).encode())
    for name in sorted(saved.tensors):
        tensor = saved.tensors[name].detach().cpu().contiguous()
        running.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        running.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return running.hexdigest()[:32]


def write_artefact(path: Path, saved: Saved, header: dict[str, Any]) -> None:
    """Writes tensors and metadata as safetensors, with `header` and a checksum in the file's own
    header."""
    # One key only: the library does not keep the order of several.
    full = {**header, "metadata": saved.metadata, "checksum": content_checksum(saved)}
    tensors = {n: t.detach().cpu().contiguous().clone() for n, t in sorted(saved.tensors.items())}
    write_whole(path, lambda p: save_file(tensors, p, {_KEY: json.dumps(full)}))


def read_header(path: Path) -> dict[str, Any]:
    """The header of an artefact file, without its tensors. Raises `Corrupt`."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is damaged ({_first_line(error)})") from None


def read_artefact(path: Path) -> tuple[Saved, dict[str, Any]]:
    """What was saved, and the header. Raises `Corrupt` if the file is not what was written."""
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Corrupt(f"{path} is damaged ({_first_line(error)})") from None
    saved = Saved(tensors, header.get("metadata", {}))
    if header.get("checksum") != content_checksum(saved):
        raise Corrupt(f"{path} is damaged (its values do not match its checksum)")
    return saved, header


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
