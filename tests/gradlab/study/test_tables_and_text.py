"""Rows come back as typed records or are refused by name, and words follow the interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import pytest

from gradlab.foundation.errors import BadValue, Missing
from gradlab.statistics import Interval
from gradlab.study import tables, text


@dataclass(frozen=True)
class Point:
    """A row of a table."""

    name: str
    count: int
    size: Interval
    rate: float
    window: int | None
    later: str = "none"


def table(**changes: object) -> pd.DataFrame:
    row = {"kind": "point", "name": "a", "count": 3, **tables.flat("size", Interval(1.0, 0.5, 2.0)),
           "rate": 0.25, "window": None}  # fmt: skip
    return pd.DataFrame([{"kind": "other", "name": "b"}, {**row, **changes}])


def test_rows_of_one_kind_become_records() -> None:
    (found,) = tables.read(Point, table(), kind="point")
    assert found == Point("a", 3, Interval(1.0, 0.5, 2.0), 0.25, None)
    assert isinstance(found.count, int)  # pandas made it a float, since the other row has none
    assert tables.read(Point, table(window=7), kind="point")[0].window == 7
    assert tables.read(Point, table(), kind="nothing") == []
    assert tables.read(Point, table(), sort="point") == []  # no such column


def test_a_missing_number_is_nan() -> None:
    (found,) = tables.read(Point, table(rate=None, size_low=None), kind="point")
    assert math.isnan(found.rate) and math.isnan(found.size.low) and found.size.high == 2.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 3}, "a str in column name, got 3"),
        ({"name": None}, "a str in column name, got nan"),
        ({"count": 2.5}, "a whole number in column count, got 2.5"),
        ({"count": None}, "a whole number in column count"),
        ({"rate": "fast"}, "a float in column rate, got 'fast'"),
        ({"size": "big"}, "in column size, got 'big'"),
    ],
)
def test_a_value_of_another_type_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        tables.read(Point, table(**changes), kind="point")


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(Missing, match="rows of Point lack the column size_high"):
        tables.read(Point, table().drop(columns="size_high"), kind="point")


def test_groups_keep_the_order_in_which_they_come() -> None:
    assert tables.grouped("bcab", str.upper) == {"B": ["b", "b"], "C": ["c"], "A": ["a"]}


@pytest.mark.parametrize(
    ("ends", "said"),
    [((1.1, 2.0), "yes"), ((0.0, 0.9), "no"), ((0.5, 1.5), "?"), ((1.0, 1.0), "?"),
     ((math.nan, math.nan), "?"), ((math.nan, 0.5), "no")],
)  # fmt: skip
def test_a_verdict_needs_the_whole_interval(ends: tuple[float, float], said: str) -> None:
    assert text.verdict(Interval(1.0, *ends), 1.0, "yes", "no", "?") == said


def test_a_tally_counts_what_cannot_be_told() -> None:
    known = [("a", Interval(2.0, 1.0, 3.0)), ("b", Interval(0.0, -1.0, 1.0)),
             ("c", Interval(-2.0, -3.0, -1.0))]  # fmt: skip
    tally = text.Tally.of(known, 0.5)
    assert (tally.yes, tally.no, tally.total, tally.unsure) == (["a"], ["c"], 3, 1)


def test_words_for_numbers() -> None:
    assert text.two_decimals(Interval(0.123, 0.119, 0.126)) == "0.12 [0.11, 0.13]"  # outwards
    assert text.two_decimals(Interval(0.05, 0.1, 0.2)) == "between 0.10 and 0.20"
    assert text.ratio(Interval(0.123, 0.119, 0.126)) == "0.12 [0.12, 0.13]"  # to the nearest
    assert text.ratio(Interval(math.nan, math.nan, math.nan)) == ""
    assert text.cosine(Interval(1.2, 0.9, 1.0)) == "above 0.90"
    assert text.signed(Interval(math.nan, -5.25, math.inf)) == "above -5.2"
    assert (text.short(None), text.short(math.nan), text.short(0.1234)) == (
        "unknown",
        "unknown",
        "0.12",
    )
    assert text.percent_range([0.501, 0.499]) == "50%"
    assert text.percent_range([0.4, 0.6]) == "between 40% and 60%"
    assert (text.several(["a", "b"]), text.several([])) == ("2 (a, b)", "none")
    assert text.millimetres(0.0005) == "0.5 mm"
    assert text.columns([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert text.columns([("a", "bb"), ("ccc", "d")], str.rjust) == "  a  bb\nccc   d"


def test_a_titled_table_has_a_row_per_line() -> None:
    said = text.titled("1. Cases", ({"case": name, "p": "0.1"} for name in ("lq", "gate")))
    assert said.splitlines()[:2] == ["1. Cases", ""]
    assert [line.split() for line in said.splitlines()[2:]] == [
        ["case", "p"], ["lq", "0.1"], ["gate", "0.1"],
    ]  # fmt: skip
