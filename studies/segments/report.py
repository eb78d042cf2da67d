"""The long form of what `segments` found."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradlab.study import text
from studies.segments.answer import claims
from studies.segments.rows import spread, worths
from studies.shared.curves import words

LEGEND = (
    "Gradients are those of each training's own policy, with its own critic, where a part of it ends: bias and\n"
    "variance relative to the gradient of whole episodes (FOG of as many other episodes, which does not see that\n"
    "success ends an episode); bias with its noise taken out, of which the sign is that of its square; variance is\n"
    "that of one episode. Median over seeds, with the least and the largest. Without weights a window that begins\n"
    "late counts more than in that gradient, which is a bias of its own."
)


def summarise(table: pd.DataFrame) -> str:
    """Gradients at every point where they were measured; then what all curves share."""
    parts = [LEGEND, text.titled("Gradients", _lines(table))]
    return "\n\n".join([*parts, words.summarise(table, claims(table))])


def _lines(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    for arm, by_point in worths(table).items():
        for point, rows in by_point.items():
            yield {
                "task": arm.task,
                "window": arm.variant,
                "after point": str(point),
                "bias": spread(rows, "bias"),
                "cosine": spread(rows, "cosine"),
                "variance": spread(rows, "variance"),
            }
