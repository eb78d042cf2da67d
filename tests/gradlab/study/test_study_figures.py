"""Figures: fixed looks, honest log axes, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

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
