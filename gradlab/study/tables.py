"""Rows of a study's table as typed records: read once, checked, and then used by attribute."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pandas as pd

from gradlab.foundation.errors import BadValue, Missing
from gradlab.statistics.intervals import Interval

Record = TypeVar("Record")
Key = TypeVar("Key", bound=Hashable)

ENDS = ("", "_low", "_high")  # of the columns of an interval
UNKNOWN = Interval(math.nan, math.nan, math.nan)  # a default where a table lacks one


def flat(name: str, interval: Interval) -> dict[str, float]:
    """The three columns that hold an interval: `name`, `name_low`, `name_high`."""
    return dict(zip((f"{name}{end}" for end in ENDS), interval, strict=True))


def read(record: type[Record], table: pd.DataFrame, **where: Any) -> list[Record]:
    """The rows of a table as records, in its order; those whose columns equal `where`, if given.

    `record` is a dataclass. A field is read from the column of its name, or of that in its metadata
    (`field(metadata={"column": "return"})`), and has one of the types str, int, float, bool,
    `Interval` (three columns, see `flat`), or one of these with `| None`. A missing value is None
    where the type has it, else NaN for floats and ends of intervals. A field with a default takes
    it where the table has no such column.

    Raises `Missing` for a column that is not there, `BadValue` for a value of another type.
    """
    for name, value in where.items():
        if name not in table.columns:
            return []
        table = table.loc[table[name] == value]
    if not len(table):
        return []
    hints = get_type_hints(record)
    columns = {}
    for field in fields(record):  # pyright: ignore[reportArgumentType]
        kind, optional = _kind(hints[field.name])
        column = field.metadata.get("column", field.name)
        needed = [f"{column}{end}" for end in (ENDS if kind is Interval else ENDS[:1])]
        lacking = [name for name in needed if name not in table.columns]
        if lacking and field.default is not MISSING:
            continue
        if lacking:
            raise Missing(
                f"the rows of {record.__name__} lack the column {lacking[0]}; "
                "they are of another version of the study, run it again"
            )
        parts = [[_value(x, kind, optional, name) for x in table[name].tolist()] for name in needed]
        columns[field.name] = list(map(Interval, *parts)) if kind is Interval else parts[0]
    return [
        record(**dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of a field without None, and whether None is one of its values."""
    if get_origin(hint) in (Union, UnionType):
        (kind,) = (one for one in get_args(hint) if one is not NoneType)
        return kind, True
    return hint, False


def _value(value: Any, kind: type, optional: bool, name: str) -> Any:
    value = math.nan if value is None else value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if optional and number and math.isnan(value):
        return None
    if kind in (float, Interval) and number:
        return float(value)
    if kind is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise BadValue(
        f"expected {'a whole number' if kind is int else f'a {kind.__name__}'} in column {name}, "
        f"got {value!r}; the table is damaged or of another version of the study, run it again"
    )


def grouped(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """The records by key; keys in the order in which they come first."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups
