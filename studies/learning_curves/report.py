"""The long form of what `learning_curves` found."""

from __future__ import annotations

import pandas as pd

from studies.learning_curves.answer import claims
from studies.shared.curves import words


def summarise(table: pd.DataFrame) -> str:
    """Claims, arms, what it took to learn, and all pairs."""
    return words.summarise(table, claims(table))
