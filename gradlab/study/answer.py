"""What a study says first: the question, the answer, what it rests on, and one small table."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradlab.foundation.errors import BadValue

WIDTH = 100  # columns of the screen text
LINES = 37  # of the screen text, table included; with where the files are at most 40
_LABELS = {
    "question": "Question",
    "answer": "Answer",
    "rests_on": "It rests on",
    "would_change": "Would change it",
}
_INDENT = 2 + max(len(label) for label in _LABELS.values())


@dataclass(frozen=True)
class Answer:
    """A study's answer for a reader who knows nothing of it; `str` gives the screen text.

    Raises `BadValue` for an empty sentence or a table that is no pandas table.
    """

    question: str
    """What was asked, in one sentence."""
    answer: str
    """One or two sentences with the interval, direction before length."""
    rests_on: str
    """The critic's quality beside its ceiling, the oracle's error, episodes, precision."""
    would_change: str
    """What, if it were different, could turn the answer."""
    table: pd.DataFrame
    """About 12 rows of a few columns, as finished text under plain headers."""

    def __post_init__(self) -> None:
        for name in _LABELS:
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise BadValue(f"expected a sentence for Answer.{name}, got {value!r}")
        if not isinstance(self.table, pd.DataFrame):
            raise BadValue(
                f"expected a pandas DataFrame for Answer.table, got {type(self.table).__name__}"
            )

    def __str__(self) -> str:
        """At most 37 lines of at most 100 columns (where the table's columns fit them).

        Rows of the table for which there is no room are counted, not shown.
        """
        sentences = [line for name in _LABELS for line in self._wrapped(name)]
        if not len(self.table):
            return "\n".join(sentences)
        room = max(1, LINES - len(sentences) - 2)  # an empty line and the header
        hidden = len(self.table) - room if len(self.table) > room else 0
        shown = self.table.iloc[: room - 1] if hidden else self.table
        rows = _aligned(shown)
        if hidden:
            rows.append(f"... and {len(self.table) - len(shown)} more rows")
        return "\n".join([*sentences, "", *rows])

    def _wrapped(self, name: str) -> list[str]:
        return textwrap.wrap(
            " ".join(getattr(self, name).split()),
            WIDTH,
            initial_indent=f"{_LABELS[name]}:".ljust(_INDENT),
            subsequent_indent=" " * _INDENT,
            break_on_hyphens=False,
        )


def _aligned(table: pd.DataFrame) -> list[str]:
    """The header and the rows as text, columns two spaces apart; missing values are left empty."""
    lines = [[str(name) for name in table.columns]]
    lines += [[_text(value) for value in row] for row in table.itertuples(index=False)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
