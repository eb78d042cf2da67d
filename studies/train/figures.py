"""The figure of a run: return, gradient, critic, weights and norms over the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gradlab.study import figures
from gradlab.training.healthy import HEALTHY
from studies.train.log import Row
from studies.train.options import Options

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colours told apart with any colour vision, of the palette of estimators
SEGMENT, WHOLE, CRITIC, OTHER = "fog", "abpt", "qg", "pg"
PARTS = ("fog", "pg", "split", "nstep")


def draw(options: Options, log: Sequence[Row], path: Path) -> None:
    """One panel for each thing that the log knows."""
    frame = pd.DataFrame(log)
    title = f"{options.algorithm} on {options.task}, seed {options.seed}"
    looked = "quality steps" in frame
    with figures.style():
        figure, axes = figures.panels(3 if looked else 1, 2, title)
        _return(axes[0, 0], frame)
        _norms(axes[0, 1], frame)
        if looked:
            _curves(
                axes[1, 0],
                frame,
                {"bias": (SEGMENT, "segment"), "whole bias": (WHOLE, "whole return")},
                "relative bias [1]",
            )
            _curves(
                axes[1, 1],
                frame,
                {"cosine": (SEGMENT, "segment"), "whole cosine": (WHOLE, "whole return")},
                "cosine to the true gradient [1]",
            )
            axes[1, 1].set_ylim(-1.05, 1.05)
            _curves(
                axes[2, 0], frame, {"snr": (SEGMENT, "signal to noise")}, "SNR of an update [1]"
            )
            axes[2, 0].set_yscale("log")
            _critic(axes[2, 1], frame)
        figures.letters(axes)
        for one in axes.flat:
            one.set_xlabel("updates [1]")
            if one.get_legend_handles_labels()[0]:
                one.legend(fontsize="x-small")
        figures.save(figure, path)


def _return(axes: Axes, frame: pd.DataFrame) -> None:
    figures.line(
        axes, frame["updates"], frame["return"], frame["low"], frame["high"], name=SEGMENT,
        label="mean action, 95 % interval",
    )  # fmt: skip
    axes.set_ylabel("return, undiscounted [reward]")


def _norms(axes: Axes, frame: pd.DataFrame) -> None:
    """Of gradients, and the critic's loss."""
    for name, look in (("gradient norm", SEGMENT), ("critic loss", CRITIC)):
        if name in frame and bool(frame[name].gt(0).any()):
            figures.line(
                axes, frame["updates"], frame[name].where(frame[name] > 0), name=look, label=name
            )
    axes.set_yscale("log")
    axes.set_ylabel("gradient norm [1], loss [reward²]")


def _curves(
    axes: Axes, frame: pd.DataFrame, names: Mapping[str, tuple[str, str]], quantity: str
) -> None:
    """Quantities with their intervals, and the end of the first one's healthy range."""
    for name, (look, label) in names.items():
        if name in frame:
            known = frame.dropna(subset=[name])
            columns = (known[f"{name}{end}"] for end in ("", "_low", "_high"))
            figures.line(axes, known["updates"], *columns, name=look, label=label)
    healthy = HEALTHY[next(iter(names))]
    edge = healthy.high if quantity.startswith("relative bias") else healthy.low
    axes.axhline(edge, color="#555555", linewidth=0.8, linestyle=":", label=f"healthy: {healthy}")
    axes.set_ylabel(quantity)


def _critic(axes: Axes, frame: pd.DataFrame) -> None:
    """What the critic explains, its ∇_a Q, and weights of a mixture."""
    parts = {"explained now": (CRITIC, "explained variance"), "explainable now": (OTHER, "a perfect critic's"),
             "action cosine": (WHOLE, "cosine of ∇_a Q")}  # fmt: skip
    weights = [name for name in frame if str(name).startswith("weight ")]
    for name, (look, label) in parts.items():
        if name in frame:
            known = frame.dropna(subset=[name])
            ends = (
                known[f"{name}{end}"].clip(lower=-1.0, upper=1.0) for end in ("", "_low", "_high")
            )
            figures.line(axes, known["updates"], *ends, name=look, label=label)
    for name, look in zip(weights, PARTS, strict=False):
        known = frame.dropna(subset=[name])
        figures.line(axes, known["updates"], known[name], name=look, label=str(name), dashes=":")
    axes.set_ylabel("critic and weights, cut at ±1 [1]")
