"""What one frame shows, as plain numbers: lines, flat faces, axes. No drawing library is needed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INK, GREY, FAINT = "#222222", "#8a8a8a", "#c4c4c4"
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe and Ito (2008)


class Line(NamedTuple):
    """A polyline in the plane or in space; a single point is drawn as its marker."""

    points: NDArray  # [n, d], in the units of the axes
    colour: str = INK
    width: float = 1.5  # [pt]
    dashes: str = "-"  # of matplotlib
    marker: str = ""  # of matplotlib
    label: str = ""  # written beside the last point


class Faces(NamedTuple):
    """Flat polygons in space with the same number of corners, counter-clockwise from outside."""

    corners: NDArray  # [n, corners, 3] [m]
    colour: str
    flat: bool = False  # seen from both sides, as a disc is


class Picture(NamedTuple):
    """One frame.

    `low` and `high` are the ends of the axes, two (plane) or three (space) of each.
    """

    title: str
    axes: tuple[str, ...]  # names with units
    low: NDArray  # [d]
    high: NDArray  # [d]
    lines: tuple[Line, ...] = ()
    faces: tuple[Faces, ...] = ()
    note: str = ""  # small print
    equal: bool = True  # one unit is equally long on every axis


def capsules(ends: NDArray, radii: NDArray, sides: int = 10, rings: int = 3) -> NDArray:
    """Quadrilaterals [n, 4, 3] on the surfaces of capsules with axes [m, 2, 3] and radii [m].

    A capsule of length 0 is a sphere. `rings` per half sphere, `sides` around [m].
    """
    start, end = ends[:, 0], ends[:, 1]
    axis = end - start
    size = np.linalg.norm(axis, axis=-1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])
    axis = np.where(size > 1e-12, axis / np.maximum(size, 1e-12), up)
    # any direction across the axis: that of the coordinate axis which is least along it
    helper = np.eye(3)[np.abs(axis).argmin(-1)]
    across = np.cross(axis, helper)
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    third = np.cross(axis, across)
    turn = np.linspace(0, 2 * np.pi, sides + 1)
    circle = (
        np.cos(turn)[:, None] * across[:, None, :] + np.sin(turn)[:, None] * third[:, None, :]
    )  # [m, sides + 1, 3]
    tilt = np.linspace(0, np.pi / 2, rings + 1)
    loops = []
    for centre, angles in ((start, -tilt[::-1]), (end, tilt)):
        for angle in angles:
            around = np.cos(angle) * circle + np.sin(angle) * axis[:, None, :]
            loops.append(centre[:, None, :] + radii[:, None, None] * around)
    grid = np.stack(loops, axis=1)  # [m, loops, sides + 1, 3]
    corners = (
        grid[:, :-1, :-1],
        grid[:, :-1, 1:],
        grid[:, 1:, 1:],
        grid[:, 1:, :-1],
    )
    return np.stack(corners, axis=-2).reshape(-1, 4, 3)


def circle(centre: NDArray, radius: float, normal: int = 2, corners: int = 48) -> NDArray:
    """A closed circle [corners + 1, 3] across a coordinate axis; radius [m]."""
    turn = np.linspace(0, 2 * np.pi, corners + 1)
    points = np.zeros((corners + 1, 3))
    points[:, (normal + 1) % 3] = radius * np.cos(turn)
    points[:, (normal + 2) % 3] = radius * np.sin(turn)
    return np.asarray(centre, dtype=float) + points
