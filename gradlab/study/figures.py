"""How every figure of the project looks: one style, one colour and marker per estimator, honest log
axes.

Import this inside a study's `plot`: workers then start without matplotlib and seaborn (about 2 s).
"""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import scipy  # its parts are imported when they are used
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from numpy.typing import ArrayLike, NDArray

from gradlab.foundation.files import write_whole

COLUMN_WIDTH = 3.4  # [in] of one panel
PANEL_HEIGHT = 2.7  # [in]
TITLE_WIDTH = 34  # characters of a title over one panel


class Look(NamedTuple):
    """Colour and marker that stand for one family of estimators in every figure."""

    colour: str
    marker: str


# The colours of Okabe and Ito (2008) and of Tol's muted scheme (2021), told apart with any colour
# vision; no two families share a marker either, so that figures survive a black-and-white printer.
FAMILIES = {
    "pg": Look("#000000", "o"),
    "fog": Look("#0072B2", "s"),
    "relaxed_fog": Look("#56B4E9", "^"),
    "qg": Look("#009E73", "D"),
    "zero_step": Look("#999933", "v"),
    "nstep": Look("#E69F00", "P"),
    "abpt": Look("#D55E00", "X"),
    "lambda_return": Look("#AA8833", "<"),
    "split": Look("#CC79A7", "*"),
    "evolution_strategies": Look("#882255", "h"),
    "inverse_variance": Look("#332288", ">"),
    "agpo": Look("#44AA99", "p"),
    "total_propagation": Look("#DDAA33", "d"),
    "action_mixture": Look("#EE3377", "8"),
    "inverse_variance_qg_pg": Look("#225555", "3"),
}
# labels that do not begin with the family's name
_SHORT = {
    "ivw": "inverse_variance",
    "ivw(qg, pg)": "inverse_variance_qg_pg",
    "ivw-h": "action_mixture",
    "aobg": "alpha_order",
    "bestlinear": "best_linear",
}
_OTHERS = [
    Look("#117733", "d"), Look("#CC6677", "8"),
    Look("#AA4499", "H"), Look("#777777", "1"), Look("#661100", "2"),
]  # fmt: skip


def family(name: str) -> str:
    """The family that an estimator's name or label belongs to: the longest one that it starts with,
    else the name.

    `nstep`, `nstep(n=8)`, `nstep/tiled`, `NStep(8)` are all "nstep".
    """
    said = _plain(name)
    known = [
        key
        for key in (*FAMILIES, *_SHORT)
        if said == _plain(key)
        or (said.startswith(_plain(key)) and not said[len(_plain(key))].isalnum())
    ]
    found = max(known, key=len, default=name)
    return _SHORT.get(found, found)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def look(name: str) -> Look:
    """Colour and marker of an estimator; a name outside `FAMILIES` gets one by a hash, always the
    same."""
    key = family(name)
    if key in FAMILIES:
        return FAMILIES[key]
    return _OTHERS[hashlib.sha256(key.encode()).digest()[0] % len(_OTHERS)]


@contextmanager
def style() -> Iterator[None]:
    """The project's style inside, matplotlib's settings untouched outside."""
    settings: dict[Any, Any] = {
        **sns.axes_style("ticks"),
        **sns.plotting_context("paper", font_scale=1.1),
        "axes.grid": True,
        "grid.color": "#e5e5e5",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.0,
    }
    with mpl.rc_context(settings):
        yield


def panels(
    rows: int,
    columns: int,
    title: str = "",
    width: float = COLUMN_WIDTH,
    height: float = PANEL_HEIGHT,
) -> tuple[Figure, NDArray]:
    """A figure of `rows` x `columns` panels of `width` x `height` [in] and its axes, shape [rows,
    columns]. Call it inside `style()`. The lines of the title are broken where the figure is too
    narrow for them."""
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    if title:
        figure.suptitle(fitted(figure, title))
    return figure, axes


def fitted(figure: Figure, text: str, size: float = 1.0) -> str:
    """The text with its lines broken where the figure is too narrow for them.

    `size` is that of the letters over those of a title.
    """
    wide = int(TITLE_WIDTH * figure.get_figwidth() / COLUMN_WIDTH / size)
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, wide))


NOTE = {"fontsize": "small", "color": "#444444"}


def note(figure: Figure, text: str) -> None:
    """How to read the figure, in small letters under the panels, above a legend."""
    figure.supxlabel(fitted(figure, text, 0.7), **NOTE)
    if figure.legends:
        _note_above(figure, figure.legends[-1])


def _note_above(figure: Figure, below: Legend) -> None:
    """Moves the note into the legend, as its title: the layout keeps room for either at the foot
    of the figure, and not for both."""
    below.set_title(figure.get_supxlabel(), prop=FontProperties(size=NOTE["fontsize"]))
    below.get_title().set(color=NOTE["color"], multialignment="center")
    figure.supxlabel("")


def with_unit(quantity: str, unit: str = "") -> str:
    """`quantity [unit]`, or the quantity alone when it has none."""
    return f"{quantity} [{unit}]" if unit else quantity


def line(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    *,
    name: str,
    label: str | None = None,
    dashes: str = "-",
    drawn: Look | None = None,
) -> None:
    """A curve in the look of estimator `name`, or `drawn` so, with a band from `low` to `high` (its
    interval), both [n].

    Points are sorted by x. Points that are not finite are left out of the curve.
    """
    order = np.argsort(np.asarray(x, dtype=float))
    x, y = np.asarray(x, dtype=float)[order], np.asarray(y, dtype=float)[order]
    colour, marker = drawn or look(name)
    if low is not None and high is not None:
        bottom, top = (np.asarray(v, dtype=float)[order] for v in (low, high))
        axes.fill_between(x, bottom, top, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, y, color=colour, marker=marker, linestyle=dashes, label=label or name)


def level(
    axes: Axes,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    name: str,
    label: str | None = None,
    dashes: str = "--",
) -> None:
    """A horizontal line across the panel, with a band: something that does not depend on x."""
    colour, _ = look(name)
    if low is not None and high is not None:
        axes.axhspan(low, high, color=colour, alpha=0.10, linewidth=0)
    axes.axhline(value, color=colour, linestyle=dashes, label=label or name)


def signed_log(axes: Axes, values: Iterable[float], floor: float | None = None) -> None:
    """A log scale for y that also shows zero and negative values, where debiased estimates of a
    small quantity often are: dropping them would leave the large half and look like a bias.

    Linear within +-`floor` (grey: smaller than the scale resolves), logarithmic beyond on either
    side. Default `floor`: the power of ten at or below the 5 % quantile of the positive values, at
    most four decades below the largest. With positive values only, the scale is an ordinary log.
    """
    finite = np.array([v for v in values if math.isfinite(v)], dtype=float)
    positive = finite[finite > 0]
    if len(positive) == len(finite) > 0:
        axes.set_yscale("log")
        return
    if floor is None:
        largest = float(np.abs(finite).max(initial=0.0)) or 1.0
        small = float(np.quantile(positive, 0.05)) if len(positive) else largest / 10
        floor = 10.0 ** math.floor(math.log10(max(small, largest * 1e-4)))
    axes.set_yscale("symlog", linthresh=floor, linscale=0.6)
    axes.axhspan(-floor, floor, color="#888888", alpha=0.12, linewidth=0, zorder=0)
    axes.axhline(0.0, color="#555555", linewidth=0.8, zorder=0.5)


def legend(figure: Figure, axes: Sequence[Axes] | NDArray, columns: int = 4) -> None:
    """One legend under the figure, each label once, families in the order of `FAMILIES`; a note
    stands above it."""
    found: dict[str, Artist] = {}
    for panel in np.ravel(np.asarray(axes, dtype=object)):
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    rank = {name: index for index, name in enumerate(FAMILIES)}
    labels = sorted(found, key=lambda label: rank.get(family(label), len(rank)))
    if labels:
        below = figure.legend(
            [found[label] for label in labels], labels, loc="outside lower center", ncols=columns
        )
        if figure.get_supxlabel():
            _note_above(figure, below)


def letters(axes: Sequence[Axes] | NDArray) -> None:
    """a, b, c, ... at the upper left of the panels, row by row."""
    for index, panel in enumerate(np.ravel(np.asarray(axes, dtype=object))):
        panel.set_title(chr(ord("a") + index), loc="left", fontweight="bold")


LABEL_SIZE = 8.0  # [pt] of a name at its line
_LABEL_GAP = 1.25 * LABEL_SIZE / 72 / (0.7 * PANEL_HEIGHT)  # of a panel's height


def label_lines(axes: Axes) -> None:
    """Writes each line's name at its right end, in its colour; names that would overlap move apart.

    Call it when the limits of the axes are final. A line without a point inside the axes is named
    at the nearer edge. Lines whose label starts with "_" have no name.
    """
    found = []
    for curve in axes.get_lines():
        name = str(curve.get_label())
        y = np.asarray(curve.get_ydata(), dtype=float)
        y = y[np.isfinite(y)]
        if name.startswith("_") or not len(y):
            continue
        height = axes.transAxes.inverted().transform(axes.transData.transform((0.0, y[-1])))[1]
        found.append((float(np.clip(height, 0.0, 1.0)), name, curve.get_color()))
    found.sort(key=lambda item: item[0])
    for (height, name, colour), place in zip(
        found, _spread([item[0] for item in found], _LABEL_GAP), strict=True
    ):
        axes.annotate(
            name,
            xy=(1.0, height),
            xytext=(1.05, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=LABEL_SIZE,
            color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 0},
        )


def _spread(heights: list[float], gap: float) -> list[float]:
    """The nearest heights, in squares, that are `gap` apart and in the same order (ascending)."""
    steps = gap * np.arange(len(heights))
    if not heights:
        return []
    return list(scipy.optimize.isotonic_regression(np.asarray(heights) - steps).x + steps)


def save(figure: Figure, path: Path) -> None:
    """Writes `path`.png and `path`.svg (`path` is a stem); the bytes depend on the figure alone.

    The layout is computed once, and then stays: it takes as long as the drawing.
    """
    with mpl.rc_context({"svg.hashsalt": "gradlab"}):
        write_whole(
            Path(f"{path}.png"),
            lambda p: figure.savefig(p, format="png", dpi=160, metadata={"Software": None}),
        )
        figure.set_layout_engine("none")
        write_whole(
            Path(f"{path}.svg"), lambda p: figure.savefig(p, format="svg", metadata={"Date": None})
        )
