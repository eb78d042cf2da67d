"""The figure of `parameter_residual`: residuals along training, and by part at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gradlab.statistics import Interval
from studies.parameter_residual.config import ALL
from studies.parameter_residual.rows import Found, Gap
from studies.parameter_residual.trainings import NONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"nstep": "N-step, parts detached", "abpt": "ABPT, parts detached"}
OWN = "ABPT, from ABPT with nothing detached (dotted, hollow)"
CHANCE = "nothing detached, other random numbers"
GREY = "#888888"
LABELS = {
    "relative": "‖θ − θ_full‖ / ‖θ_full − θ₀‖ [1]",
    "actions": "RMS difference [range of an action]",
    "gain": "less the full training's [reward]",
}
TITLES = {
    "relative": "parameters at the end",
    "actions": "actions at the end",
    "gain": "return at the end",
}
TITLE = (
    "Does the 0-step return (ABPT) bring a training with detached rewards back to that of the full "
    "gradient?"
)
NOTE = (
    "Distances are from the policy that the full n-step gradient trains, from the same start on the same "
    "random numbers, unless it is said; bands and bars are 95 % over seeds. Lower is nearer; grey is "
    "what other random numbers alone do."
)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Parameters along training; parameters, actions and return by part; gradients."""
    from gradlab.study import figures

    found = Found.of(table)
    shown, first = found.parts[-1], found.parts[0]
    with figures.style():
        figure, axes = figures.panels(2, 3, TITLE, width=3.9, height=3.1)
        _along(axes[0, 0], found, shown)
        _along(axes[0, 1], found, first)
        _by_part(axes[0, 2], found, "relative")
        _by_part(axes[1, 0], found, "actions")
        _by_part(axes[1, 1], found, "gain")
        _cosines(axes[1, 2], found, shown)
        figures.letters(axes)
        figures.note(figure, NOTE)
        figures.legend(figure, axes, columns=2)
        figures.save(figure, path)


def _along(axes: Axes, found: Found, part: str) -> None:
    """Residuals at every checkpoint, with one part detached."""
    from gradlab.study import figures

    updates = found.updates

    def ends(method: str, reference: str, which: str, other: bool = False) -> np.ndarray:
        arms = (found.of_arm(method, which, reference, other=other, updates=at) for at in updates)
        return np.array([tuple(found.over_seeds(gaps, "relative")) for gaps in arms]).T

    for method, label in NAMES.items():
        middle, low, high = ends(method, "full", part)
        figures.line(axes, updates, middle, low, high, name=method, label=label)
    middle, low, high = ends("abpt", "own", part)
    figures.line(axes, updates, middle, low, high, name="abpt", label=OWN, dashes=":")
    middle, low, high = ends("nstep", "full", NONE, other=True)
    axes.fill_between(updates, low, high, color=GREY, alpha=0.2, linewidth=0)
    axes.plot(updates, middle, color=GREY, label=CHANCE)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("updates [1]")
    axes.set_ylabel(LABELS["relative"])
    axes.set_title(f"parameters, {_words(part)} detached", fontsize="medium")


def _words(part: str) -> str:
    return {ALL: "all parts"}.get(part, part)


def _by_part(axes: Axes, found: Found, of: str) -> None:
    """One column of every part at the end, with the band of other random numbers."""
    parts = (*found.parts, NONE)
    value: Callable[[Sequence[Gap]], Interval] = lambda gaps: found.over_seeds(gaps, of)
    series = {
        ("nstep", NAMES["nstep"], False): [
            value(found.of_arm("nstep", part)) if part != NONE else None for part in parts
        ],
        ("abpt", NAMES["abpt"], False): [value(found.of_arm("abpt", part)) for part in parts],
        ("abpt", OWN, True): [
            value(found.of_arm("abpt", part, "own")) if part != NONE else None for part in parts
        ],
    }
    chance = value(found.of_arm("nstep", NONE, other=True))
    axes.axhspan(chance.low, chance.high, color=GREY, alpha=0.2, linewidth=0)
    axes.axhline(chance.estimate, color=GREY, label=CHANCE)
    for place, ((method, name, hollow), intervals) in enumerate(series.items()):
        _points(axes, intervals, method, name, 0.22 * (place - 1), hollow)
    _name_parts(axes, parts)
    if of != "gain":
        axes.set_ylim(bottom=0.0)
    axes.set_ylabel(LABELS[of])
    axes.set_title(TITLES[of], fontsize="medium")


def _cosines(axes: Axes, found: Found, part: str) -> None:
    """The gradient's direction at states of the full training."""
    from gradlab.study import figures

    updates = [0, *found.updates]
    for method, label in NAMES.items():
        means = [found.angle("cosine", method, part, at) for at in updates]
        figures.line(axes, updates, *np.array(means).T, name=method, label=label)
    axes.axhline(1.0, color="#555555", linewidth=0.8)
    axes.set_xlabel("updates [1]")
    axes.set_ylabel("cosine with the full gradient [1]")
    axes.set_title(
        f"gradient at the full training's states,\n{_words(part)} detached", fontsize="medium"
    )


def _points(
    axes: Axes,
    intervals: Sequence[Interval | None],
    method: str,
    label: str,
    shift: float,
    hollow: bool,
) -> None:
    from gradlab.study import figures

    colour, marker = figures.look(method)
    known = [(k + shift, one) for k, one in enumerate(intervals) if one is not None]
    x = np.array([place for place, _ in known])
    middle, low, high = np.array([tuple(one) for _, one in known]).T
    axes.errorbar(
        x, middle, yerr=np.stack([middle - low, high - middle]), color=colour, marker=marker,
        linestyle="none", label=label, markerfacecolor="white" if hollow else colour,
    )  # fmt: skip


def _name_parts(axes: Axes, parts: Sequence[str]) -> None:
    axes.set_xticks(range(len(parts)), parts, rotation=25)
    axes.set_xlabel("detached")
    axes.set_xlim(-0.5, len(parts) - 0.5)
