"""Figures of studies are drawn in full by the pool of `.ci/run`, and here without their layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gradlab.study import figures


def draft(figure: Figure, path: Path) -> None:
    """Every line and label of `path`.png, not spaced out, and no svg: under half of the time."""
    figure.set_layout_engine("none")
    figure.savefig(f"{path}.png", dpi=60)


@pytest.fixture(scope="module", autouse=True)
def drafts() -> Iterator[None]:
    """`tests/gradlab/study/test_study_figures.py` is where the files themselves are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", draft)
        yield
