"""Figures: fixed looks, honest log axes, the same bytes each time."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from gradlab.study import figures


def test_every_family_has_its_own_colour_and_marker() -> None:
    looks = list(figures.FAMILIES.values())
    assert (
        len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(looks)
    )
    assert not {look.colour for look in looks} & {look.colour for look in figures._OTHERS}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("fog", "fog"),
        ("relaxed_fog(0.1)", "relaxed_fog"),
        ("nstep/tiled", "nstep"),
        ("foggy", "foggy"),
    ],
)
def test_a_name_has_the_look_of_its_family(name: str, family: str) -> None:
    assert figures.family(name) == family
    assert figures.look(name) == figures.look(family)


def draw(path: Path) -> None:
    x = np.array([1.0, 0.1, 0.01])
    with figures.style():
        figure, axes = figures.panels(1, 2, "A title")
        y = np.array([0.5, 0.02, -0.003])
        figures.line(axes[0, 0], x, y, y - 0.01, y + 0.01, name="relaxed_fog")
        figures.level(axes[0, 0], 0.3, 0.2, 0.4, name="pg")
        figures.signed_log(axes[0, 0], y)
        axes[0, 0].set_xlabel(figures.with_unit("width", "m"))
        figures.line(axes[0, 1], x, x, name="own")
        figures.signed_log(axes[0, 1], x)
        assert [panel.get_yscale() for panel in axes[0]] == ["symlog", "log"]
        figures.legend(figure, axes)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [
            "pg",
            "relaxed_fog",
            "own",
        ]
        figures.save(figure, path)
        # Every value is inside the panel, also the negative one.
        low, high = axes[0, 0].get_ylim()
        assert low < y.min() and high > y.max()


def test_a_figure_has_the_same_bytes_each_time_and_leaves_no_settings(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    draw(tmp_path / "one")
    draw(tmp_path / "two")
    assert dict(mpl.rcParams) == before
    for suffix in (".png", ".svg"):
        one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two and len(one) > 1000


@pytest.mark.parametrize("values", [[], [float("nan")], [0.0], [-1.0, -2.0], [1e-9, -1e-9, 1.0]])
def test_signed_log_takes_any_values(values: list[float]) -> None:
    _, axes = figures.panels(1, 1)
    figures.signed_log(axes[0, 0], values)
    assert axes[0, 0].get_yscale() == "symlog"


NOTE = "Bands are 95 % intervals of the mean. Dotted: what is known exactly. " * 3


def boxes(figure: Figure) -> list[Bbox]:
    """Boxes in pixels of what stands in the figure: panels with labels, title, note, legend."""
    figure.draw_without_rendering()
    below = figure.legends[0]
    lines = [text for text in figure.texts if text.get_text()]
    lines += [text for text in (below.get_title(),) if text.get_text()]
    entries = Bbox.union([text.get_window_extent() for text in below.get_texts()])
    panels = [box for panel in figure.axes if (box := panel.get_tightbbox())]
    return [*panels, *(text.get_window_extent() for text in lines), entries]


@pytest.mark.parametrize("first", ["note", "legend"])
@pytest.mark.parametrize("columns", [1, 3])
def test_note_and_legend_stand_apart(first: str, columns: int) -> None:
    """Whichever comes first, neither lies on the other or on a panel, all are in the figure."""
    with figures.style():
        figure, axes = figures.panels(1, columns, "A title")
        for name in ("pg", "fog", "split", "abpt", "nstep"):
            figures.line(axes[0, 0], [0.0, 1.0], [0.0, 1.0], name=name)
        axes[0, 0].set_xlabel(figures.with_unit("width", "m"))
        steps = {
            "note": lambda: figures.note(figure, NOTE),
            "legend": lambda: figures.legend(figure, axes, columns=3),
        }
        for name in sorted(steps, key=lambda name: name != first):
            steps[name]()
        found = boxes(figure)
    assert len(found) == columns + 3  # panels, title, note, legend
    for one, other in itertools.combinations(found, 2):
        assert not one.overlaps(other)
    whole = figure.bbox
    for box in found:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1
