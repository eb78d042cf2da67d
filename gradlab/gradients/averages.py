"""Means of samples that somebody found who formed these anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor

Rows = TypeVar("Rows", bound="Averages")


class Averages:
    """What samples and all rows of theirs know together; of anything else made of them nothing."""

    _averages: dict[tuple[int, int], Mapping[str, Tensor]] | None = None  # of rows begin..end−1
    _first: int = 0  # of the rows that these are

    def __len__(self) -> int:
        raise NotImplementedError

    def remember(self, mean: Mapping[str, Tensor]) -> None:
        """Have `mean` give this, here and of the same rows of what these are rows of."""
        self._shared()[self._first, self._first + len(self)] = mean

    def _remembered(self) -> dict[str, Tensor] | None:
        found = (self._averages or {}).get((self._first, self._first + len(self)))
        return None if found is None else dict(found)

    def _sharing(self, rows: Rows, begin: int) -> Rows:
        """Rows of these samples from `begin` on, which have the means in common."""
        object.__setattr__(rows, "_averages", self._shared())
        object.__setattr__(rows, "_first", self._first + begin)
        return rows

    def _shared(self) -> dict[tuple[int, int], Mapping[str, Tensor]]:
        if self._averages is None:
            object.__setattr__(self, "_averages", {})
        assert self._averages is not None
        return self._averages
