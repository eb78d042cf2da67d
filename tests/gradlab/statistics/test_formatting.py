"""What is printed for an interval: enough digits, and no estimate outside its own ends."""

from __future__ import annotations

import math
import random
import re

import pytest

from gradlab.statistics import format_interval
from gradlab.statistics.intervals import Interval

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.31, 0.25, 0.37), "0.31 [0.25, 0.37]"),
        ((0.503, 0.501, 0.505), "0.503 [0.501, 0.505]"),
        ((1764.2, 1600, 1933), "1764 [1600, 1933]"),
        ((0.02, 0.0, 0.54), "0.02 [0.00, 0.54]"),
        ((1.234e-7, 1.1e-7, 1.37e-7), "1.23e-07 [1.1e-07, 1.37e-07]"),
        ((2_345_678, 2_345_600, 2_345_700), "2.34568e+06 [2.3456e+06, 2.3457e+06]"),
        ((0.5, 0.1, INF), "0.50 [0.10, not known]"),
        ((0.019, 0.0062, 9.4e5), "0.019 [0.006, not known]"),
        ((0.0001, 0.0, 0.5), "0.00 [0.00, 0.50]"),
        ((1.0, 1.0, 1.0), "1.0 [1.0, 1.0]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        # noise took more off than there was
        ((-0.22, 0.0, 0.54), "below 0.54"),
        ((-0.22, 0.0, INF), "unknown"),
        ((0.1, 0.2, 0.5), "between 0.20 and 0.50"),
        ((NAN, 0.0, INF), "unknown"),
        ((NAN, 0.4, INF), "above 0.40"),
        ((None, None, None), "unknown"),
        ((0.5, NAN, NAN), "0.50"),
    ],
)
def test_sizes(values: tuple[float, float, float], text: str) -> None:
    assert format_interval(*values) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((NAN, -1.0, 1.0), "unknown"),
        ((NAN, -1.0, 0.71), "below 0.71"),
        ((NAN, -0.31, 1.0), "above -0.31"),
        ((-0.4, -0.51, -0.32), "-0.40 [-0.51, -0.32]"),
        ((-0.001, -0.31, 0.3), "0.00 [-0.31, 0.30]"),
        # the side of 0 on which an end lies
        ((0.094, -0.0047, 0.19), "0.09 [-0.005, 0.19]"),
        ((0.19, 0.0034, 0.38), "0.19 [0.003, 0.38]"),
        ((0.19, 0.00034, 0.38), "0.19 [0.0003, 0.38]"),
        ((0.004, 0.003, 0.38), "0.004 [0.003, 0.38]"),
        ((0.026, 0.0016, 2.3), "0.026 [0.002, 2.3]"),
        ((0.007, 0.006, 5.0), "0.007 [0.006, 5.0]"),
        ((-0.001, -0.31, -0.0006), "-0.0010 [-0.31, -0.0006]"),
        ((0.19, 1e-9, 0.38), "0.19 [0.00, 0.38]"),
    ],
)
def test_cosines(values: tuple[float, float, float], text: str) -> None:
    assert format_interval(*values, within=(-1, 1)) == text


def test_an_interval_prints_itself_so() -> None:
    """`print(row.relative_bias)` is what the pages tell people to write."""
    assert str(Interval(-0.22, 0.0, 0.54)) == f"{Interval(-0.22, 0.0, 0.54)}" == "below 0.54"
    assert str(Interval(0.31, 0.25, 0.37)) == "0.31 [0.25, 0.37]"


def test_no_estimate_is_printed_outside_its_own_ends() -> None:
    generator = random.Random(0)
    shown = 0
    for _ in range(20_000):
        size = 10 ** generator.uniform(-6, 4)
        signed = (generator.choice((-1, 1, 1)) * 10 ** generator.uniform(-5, 3) for _ in range(3))
        low, middle, high = sorted(size * value for value in signed)
        text = format_interval(middle, low, high, within=(-INF, INF))
        found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", text)
        if found and "not known" not in text:
            estimate, least, most = map(float, found.groups())
            assert least <= estimate <= most, text
            shown += 1
    assert shown > 10_000
