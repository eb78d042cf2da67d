"""Tables of a study as parquet files, cells with a header and a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from gradlab.foundation.checkpoints import KEY
from gradlab.foundation.errors import BadValue, Corrupt
from gradlab.foundation.files import first_line, write_whole
from gradlab.study.cells import Row

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


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
    stamped = table.replace_schema_metadata({KEY: json.dumps(full)})
    write_whole(path, lambda p: pq.write_table(stamped, p), (pa.ArrowException,))


def read_cell(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and header of a cell file. Raises `Corrupt` if it is not what was written."""
    try:
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {})[KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is damaged ({first_line(error)})") from None
    if header.get("rows") != table.num_rows or header.get("checksum") != _table_digest(table):
        raise Corrupt(f"{path} is damaged (its rows do not match its checksum)")
    return table.to_pylist(), header


def cell_header(path: Path) -> dict[str, Any]:
    """The header of a cell file, without its rows. Raises `Corrupt`."""
    try:
        return json.loads((pq.read_schema(path).metadata or {})[KEY.encode()])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is damaged ({first_line(error)})") from None


def write_rows(path: Path, rows: Iterable[Row]) -> pd.DataFrame:
    """Writes a whole table and returns it; the bytes depend on the rows alone."""
    table = table_of(rows)
    write_whole(path, lambda p: pq.write_table(table, p), (pa.ArrowException,))
    return table.to_pandas()
