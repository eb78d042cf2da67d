"""Learning curves: interquartile means over seeds with bootstrap bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics import Interval
from studies.shared.curves.rows import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# variants of one algorithm, in the order in which they come
VARIANTS = ("abpt", "fog", "qg", "nstep", "split", "pg", "zero_step")
AXES: dict[str, Callable[[Curve], NDArray]] = {
    "environment steps": lambda curve: curve.steps,
    "gradient steps": lambda curve: curve.gradient_steps,
    "processor time [s]": lambda curve: curve.seconds,
}
FAR = 1_000  # gradient steps from which on a linear axis would hide who takes few
NOTE = (
    "Interquartile mean over seeds, with bootstrap bands at 95 % that are too short with few seeds; "
    "mean actions on whole episodes, undiscounted."
)


def draw(
    path: Path,
    title: str,
    panels: Mapping[str, list[Curve]],
    across: tuple[str, ...] = ("environment steps",),
    goal: bool = False,
) -> None:
    """One column per panel and one row per axis; `goal` draws how often goals are reached."""
    from gradlab.study import figures

    # one panel for each: a single task's lie side by side
    shape = (len(across), len(panels)) if len(panels) > 1 else (1, len(across))
    with figures.style():
        figure, axes = figures.panels(*shape, title)
        places = iter(axes.ravel())
        for name in across:
            for heading, known in panels.items():
                panel = next(places)
                for place, curve in enumerate(known):
                    _curve(panel, curve, name, goal, place, known)
                _label(panel, name, known)
                panel.set_title(heading)
                panel.set_ylabel(f"{known[0].goal_name} per episode" if goal else "return")
        figures.note(figure, NOTE)
        figures.legend(figure, axes, columns=2 * shape[1])
        figures.save(figure, path)


def ends(path: Path, title: str, panels: Mapping[str, list[Curve]], full: str) -> None:
    """What every variant reaches, one panel per heading; the band is the interval of `full`."""
    from gradlab.study import figures

    most = max(map(len, panels.values()))
    with figures.style():
        figure, axes = figures.panels(1, len(panels), title, height=0.26 * most + 0.8)
        for panel, (heading, known) in zip(axes.ravel(), panels.items(), strict=True):
            _ends(panel, known, full)
            panel.set_title(heading)
            panel.set_xlabel("return after training")
        figures.note(figure, NOTE)
        figures.save(figure, path)


def _ends(panel: Axes, known: list[Curve], full: str) -> None:
    from gradlab.study import figures

    for place, curve in enumerate(known):
        middle, low, high = curve.band[-1]
        is_full = curve.arm.variant == full
        colour, marker = figures.look(VARIANTS[0 if is_full else 1])
        if is_full:
            panel.axvspan(low, high, color=colour, alpha=0.15, linewidth=0)
        panel.plot([low, high], [place, place], color=colour)
        panel.plot([middle], [place], color=colour, marker=marker, linestyle="none")
    panel.set_yticks(range(len(known)), [curve.arm.variant for curve in known])
    panel.invert_yaxis()
    panel.locator_params(axis="x", nbins=5)


def _label(panel: Axes, across: str, known: list[Curve]) -> None:
    from matplotlib.ticker import EngFormatter

    panel.set_xlabel(across)
    if across == "environment steps":  # 250k: zeros would run together
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if across == "gradient steps" and max(AXES[across](curve).max() for curve in known) > FAR:
        panel.set_xscale("symlog", linthresh=10)
    else:
        panel.locator_params(axis="x", nbins=4)


def _curve(
    panel: Axes, curve: Curve, across: str, goal: bool, place: int, known: list[Curve]
) -> None:
    from gradlab.study import figures
    from studies.shared.looks import look_of

    one_algorithm = len({other.arm.algorithm for other in known}) == 1
    drawn = look_of(curve.arm.algorithm)
    if one_algorithm:
        drawn = figures.look(VARIANTS[place % len(VARIANTS)])
    band: list[Interval] = curve.goal_band if goal else curve.band
    middle, low, high = np.array(band).T
    label = (curve.arm.variant or curve.arm.label) if one_algorithm else curve.arm.algorithm
    x = AXES[across](curve).mean(axis=0)
    figures.line(panel, x, middle, low, high, name=label, drawn=drawn)
