"""Pictures as pixels by matplotlib, without a display and without pyplot's global state."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from gradlab.rendering.pictures import Faces, Line, Picture

DPI = 100
ELEVATION, AZIMUTH = 22.0, -58.0  # of the eye [deg]
LIGHT = (0.36, -0.48, 0.80)  # direction to the light, of length 1
SETTINGS: dict[Any, Any] = {"font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans"]}


def draw(picture: Picture, size: tuple[int, int]) -> NDArray:
    """The picture as uint8 [height, width, 3]; size is (width, height) [px]."""
    width, height = size
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        if len(picture.low) == 3:
            _space(figure, picture)
        else:
            _plane(figure, picture)
        figure.text(0.5, 0.965, picture.title, ha="center", va="top", fontsize=12)
        figure.text(
            0.985, 0.015, picture.note, ha="right", va="bottom", fontsize=8, color="#666666"
        )
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def _space(figure: Figure, picture: Picture) -> None:
    axes: Any = figure.add_axes((0.02, 0.04, 0.94, 0.91), projection="3d")
    low, high = picture.low, picture.high
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axes.set_box_aspect(high - low, zoom=_zoom(high - low))
    axes.view_init(ELEVATION, AZIMUTH)
    for axis, name, span in zip(
        (axes.xaxis, axes.yaxis, axes.zaxis), picture.axes, high - low, strict=True
    ):
        axis.set_label_text(name)
        axis.set_pane_color((0.96, 0.96, 0.97, 1.0))
        count = int(np.clip(round(6 * span / (high - low).max()), 2, 6))
        axis.set_major_locator(MaxNLocator(count))
    axes.zaxis.set_pane_color((0.90, 0.92, 0.90, 1.0))
    axes.tick_params(labelsize=8, pad=1)
    for line in picture.lines:
        _line(axes, line)
    if picture.faces:
        # one collection: polygons hide each other only within one
        polygons = [polygon for faces in picture.faces for polygon in faces.corners]
        colours = np.concatenate([_shade(faces) for faces in picture.faces])
        axes.add_collection3d(
            Poly3DCollection(polygons, facecolors=colours, edgecolors=colours, linewidths=0.3)
        )


def _zoom(size: NDArray) -> float:
    """How much larger a box of this size may be drawn so that it still fits, seen from the eye."""
    x, y, z = size / np.linalg.norm(size)
    up, around = np.radians(ELEVATION), np.radians(-AZIMUTH)
    width = x * np.sin(around) + y * np.cos(around)
    height = z * np.cos(up) + (x * np.cos(around) + y * np.sin(around)) * np.sin(up)
    return float(min(0.73 / height, 0.97 / width))  # by eye, with room for the labels


def _shade(faces: Faces) -> NDArray:
    """RGB of every polygon [n, 3]: brighter towards the light, never black."""
    a, b, c = (faces.corners[:, i] for i in (0, 1, 2))
    normal = np.cross(b - a, c - a)
    if faces.corners.shape[1] == 4:
        # of the diagonals: at the pole of a sphere two corners are the same
        normal = np.cross(c - a, faces.corners[:, 3] - b)
    size = np.linalg.norm(normal, axis=-1, keepdims=True)
    towards = (normal / np.maximum(size, 1e-12)) @ np.array(LIGHT)
    light = np.abs(towards) if faces.flat else 0.5 + 0.5 * towards
    return np.array(to_rgb(faces.colour)) * (0.55 + 0.45 * light[:, None])


def _plane(figure: Figure, picture: Picture) -> None:
    axes: Any = figure.add_axes((0.13, 0.15, 0.83, 0.74))
    low, high = picture.low, picture.high
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set(xlabel=picture.axes[0], ylabel=picture.axes[1])
    if picture.equal:
        axes.set_aspect("equal", adjustable="box")
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for line in picture.lines:
        _line(axes, line)


def _line(axes: Any, line: Line) -> None:
    """A polyline or a point, and its label."""
    columns = line.points.T
    axes.plot(
        *columns, color=line.colour, linewidth=line.width, linestyle=line.dashes, marker=line.marker
    )
    if line.label:
        place = line.points[-1]
        pad = "  " if len(place) == 2 or line.marker else ""
        axes.text(*place, pad + line.label, color=line.colour, fontsize=9, va="bottom")
