"""The figure of `mixture_ratio`: α along a rollout, over training, and by AoBG's bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.study.tables import grouped
from studies.mixture_ratio.alphas import GAMMA, TAU
from studies.mixture_ratio.rows import PUBLISHED, Alpha, by_step, whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUNDS = {GAMMA: ("--", "AoBG by γ"), TAU: ("-", "AoBG by τ = γ − ε")}
READ = {PUBLISHED: "-", "not normalised": "--", "norms": ":"}  # dashes of SG + QG


def plot(table: pd.DataFrame, path: Path) -> None:
    """Three panels."""
    from gradlab.study import figures

    with figures.style():
        figure, axes = figures.panels(
            1, 3, "How much of the simulation gradient does a mixture take?", width=4.4, height=3.2
        )
        _along(axes[0, 0], table)
        _training(axes[0, 1], table)
        _bounds(axes[0, 2], table)
        for panel in axes[0]:
            panel.set_ylim(-0.03, 1.03)
        axes[0, 0].set_ylabel("α, the share of SG [1]")
        figures.letters(axes)
        figures.legend(figure, axes, columns=3)
        figures.save(figure, path)


def _name(one: Alpha) -> tuple[str, str, str]:
    """Look, dashes and label of a curve: a colour is a mixture."""
    if one.mixture == "sg+pg":
        return "inverse_variance", ("--" if one.window == 1 else "-"), f"SG + PG, {one.variant}"
    return "agpo", READ[one.variant], f"SG + QG, {one.variant}"


def _ends(found: Sequence[Alpha]) -> np.ndarray:
    return np.array([tuple(one.value) for one in found], dtype=float).T


def _along(axes: Axes, table: pd.DataFrame) -> None:
    """By time step, of the longest rollout that there is; else of the last policy."""
    from gradlab.study import figures

    found = by_step(table, "sg+qg") + by_step(table, "sg+pg")
    longest = max(one.horizon for one in found)
    policy = [one for one in found if one.horizon == longest][-1].policy
    mine = [one for one in found if one.policy == policy]
    for curve in grouped(mine, _name).values():
        name, dashes, label = _name(curve[0])
        colour, _ = figures.look(name)
        middle, low, high = _ends(curve)
        steps = [one.step for one in curve]
        if dashes == "-":  # bands of one colour on each other say nothing
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, middle, color=colour, label=label, linewidth=1.2, linestyle=dashes)
    axes.set_xlabel(f"time step of {policy} [1]")


def _training(axes: Axes, table: pd.DataFrame) -> None:
    from gradlab.study import figures

    found = [one for name in ("sg+qg", "sg+pg") for one in whole(table, name) if one.trained]
    methods = list(dict.fromkeys(one.method for one in found))
    for (method, *_), curve in grouped(found, lambda one: (one.method, *_name(one))).items():
        name, dashes, label = _name(curve[0])
        middle, low, high = _ends(curve)
        first = method == methods[0]
        figures.line(
            axes, [one.stage for one in curve], middle, low, high,
            name=name, label=label if first else f"_{label}", dashes=dashes,
        )  # fmt: skip
        if len(methods) > 1:
            last = max(curve, key=lambda one: one.stage)
            _beside(axes, last.stage, last.value.estimate, method)
    stages = sorted({one.stage for one in found})
    axes.set_xticks(stages, [f"{stage}" for stage in stages])
    axes.set_xlabel("updates of the training [1]")


def _bounds(axes: Axes, table: pd.DataFrame) -> None:
    """α by γ of every policy; the numbers stand at equal distances."""
    from gradlab.study import figures

    found = whole(table, "aobg")
    gammas = sorted({one.gamma for one in found if one.gamma is not None})
    for (reading, policy), curve in grouped(found, lambda one: (one.variant, one.policy)).items():
        dashes, label = BOUNDS[reading]
        mine = [one for one in curve if one.gamma is not None]
        middle, low, high = _ends(mine)
        first = policy == found[0].policy
        figures.line(
            axes, [gammas.index(one.gamma or 0.0) for one in mine], middle, low, high,
            name="alpha_order", label=label if first else f"_{label}", dashes=dashes,
        )  # fmt: skip
        if reading == TAU and len(mine) > 1:
            before = sorted(mine, key=lambda one: one.gamma or 0.0)[-2]
            said = f"{before.stage} updates" if before.trained else f"{before.horizon} steps"
            _beside(axes, gammas.index(before.gamma or 0.0), before.value.estimate, said)
    axes.set_xticks(range(len(gammas)), ["∞" if math.isinf(g) else f"{g:g}" for g in gammas])
    axes.set_xlabel("bound γ or τ [gradient]")


def _beside(axes: Axes, x: float, y: float, said: str) -> None:
    """A word at the left of a point."""
    axes.annotate(
        said, (x, y), (-5, 0), textcoords="offset points", ha="right", va="center",
        fontsize="x-small", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip
