"""Words that the answers and reports of studies share; an `Interval` prints itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from gradlab.statistics.formatting import format_interval
from gradlab.statistics.intervals import Interval


def verdict(interval: Interval, bound: float, yes: str, no: str, unsure: str) -> str:
    """`yes` where the whole interval is above the bound, `no` where it is below, else `unsure`.

    An interval with an end that is NaN is `unsure`, unless the other end decides.
    """
    return yes if interval.low > bound else no if interval.high < bound else unsure


class Tally(NamedTuple):
    """Of how many things a verdict is yes, and of how many no."""

    yes: list[str]
    no: list[str]
    total: int

    @classmethod
    def of(cls, intervals: Iterable[tuple[str, Interval]], bound: float) -> Tally:
        """By the name of each interval, whether it lies above or below the bound."""
        known = list(intervals)
        yes = [name for name, interval in known if interval.low > bound]
        no = [name for name, interval in known if interval.high < bound]
        return cls(yes, no, len(known))

    @property
    def unsure(self) -> int:
        """How many intervals hold the bound."""
        return self.total - len(self.yes) - len(self.no)


def cosine(interval: Interval, decimals: bool = False) -> str:
    """A direction with its interval, which ends at −1 and 1; with two decimals if asked for."""
    within = (-1.0, 1.0)
    return two_decimals(interval, within) if decimals else format_interval(*interval, within=within)


def signed(interval: Interval) -> str:
    """A difference with its interval, which may be of either sign."""
    return format_interval(*interval, within=(-math.inf, math.inf))


def two_decimals(interval: Interval, within: tuple[float, float] = (0.0, math.inf)) -> str:
    """An interval with two decimals in all three places, its ends rounded outwards; as
    `format_interval` has it where the interval is not a finite one around its estimate."""
    if not interval.low <= interval.estimate <= interval.high < math.inf:
        return format_interval(*interval, within=within)
    low, high = math.floor(100 * interval.low) / 100, math.ceil(100 * interval.high) / 100
    return f"{interval.estimate:.2f} [{low:.2f}, {high:.2f}]"


def ratio(interval: Interval) -> str:
    """A ratio as measured, two decimals in all three places; empty where there is none."""
    if math.isnan(interval.estimate):
        return ""
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def short(value: float | None) -> str:
    """Two digits, or "unknown"."""
    return "unknown" if value is None or math.isnan(value) else f"{value:.2g}"


def decimal(value: float) -> str:
    """Two decimals, or "unknown"."""
    return f"{value:.2f}" if math.isfinite(value) else "unknown"


def percent_range(values: Iterable[float], between: str = "between {} and {}") -> str:
    """The least and the largest share, or the one where both read the same."""
    known = list(values)
    low, high = f"{min(known):.0%}", f"{max(known):.0%}"
    return low if low == high else between.format(low, high)


def several(names: Sequence[str]) -> str:
    """How many, and which: "2 (a, b)"; "none"."""
    return f"{len(names)} ({', '.join(names)})" if names else "none"


FEW_EVENTS = 20  # below which an interval of a bias may be far too short: docs/statistics.md


def events(counts: Mapping[str, int], episodes: int) -> str:
    """How often each event happened, and what that leaves unseen; empty without events."""
    return " ".join(_event(name, count, episodes) for name, count in counts.items())


def _event(name: str, count: int, episodes: int) -> str:
    if count == 0:
        return (
            f"{name} never happened in {episodes:,} episodes: FOG, RelaxedFOG and Split cannot differ "
            "by it but through a relaxed step's tail, and no bias from it can be seen."
        )
    said = f"{name} happened in {count:,} of {episodes:,} episodes"
    if count < FEW_EVENTS:
        return f"{said}: few samples decide, intervals of bias can be too short."
    return f"{said}."


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def millimetres(length: float) -> str:
    """A length [m] in millimetres: "3 mm"."""
    return f"{length * 1e3:g} mm"


def columns(lines: Sequence[Sequence[str]], place: Callable[[str, int], str] = str.ljust) -> str:
    """Lines of cells as text, columns two spaces apart; `place` is str.ljust or str.rjust."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(place(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def titled(title: str, lines: Iterable[Mapping[str, str]]) -> str:
    """A section of a report: its title, an empty line, and a table with a row per line."""
    return f"{title}\n\n{pd.DataFrame(list(lines)).to_string(index=False)}"


def lost(what: str, table: pd.DataFrame) -> list[str]:
    """A sentence where values that are not finite were left out of rows, else none."""
    rows = len(table.loc[table["nonfinite"].fillna(0) > 0])
    sentence = (
        f"{what} that are not finite were left out of {rows} rows (column nonfinite): what is said "
        "of those is biased."
    )
    return [sentence] if rows else []
