"""The figures of `throughput`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from studies.throughput.report import LABELS, STREAM_LIMIT, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# the palette of the estimators, used here for contenders
LOOKS = {
    "batched": "pg",
    "batched_compiled": "zero_step",
    "pullback": "relaxed_fog",
    "pullback_compiled": "fog",
    "vmap": "abpt",
    "jax": "qg",
    "jax_unrolled": "lambda_return",
    "pullback_checkpoint": "nstep",
    "pullback_compiled_checkpoint": "split",
    "brax_generalized": "qg",
    "brax_spring": "lambda_return",
    "forward": "relaxed_fog",
    "forward_compiled": "fog",
    "brax_generalized_forward": "qg",
    "brax_spring_forward": "lambda_return",
}


AXES = {
    "samples": "samples per call N",
    "horizon": "horizon T [steps]",
    "samples_per_second": "samples/s",
    "peak_mib": "peak memory [MiB]",
}


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Per problem samples/s against N and against T, and memory against N; then the streams."""
    from gradlab.study import figures

    records = rows.to_dict("records")
    races = [row for row in records if row["kind"] == "race" and row["status"] == "ok"]
    streams = [row for row in records if row["kind"] == "stream"]
    problems = list(dict.fromkeys(row["problem"] for row in races))
    columns = len(problems) + bool(streams)
    if not columns:
        return
    with figures.style():
        figure, axes = figures.panels(3, columns)
        for column, problem in enumerate(problems):
            here = [row for row in races if row["problem"] == problem]
            samples = max(row["samples"] for row in here)
            horizon = max(row["horizon"] for row in here)
            longest = [row for row in here if row["horizon"] == horizon]
            largest = [row for row in here if row["samples"] == samples]
            _panel(axes[0, column], longest, "samples", "samples_per_second")
            _panel(axes[1, column], largest, "horizon", "samples_per_second")
            _panel(axes[2, column], longest, "samples", "peak_mib")
            axes[0, column].set_title(f"{problem}, T={horizon}")
            axes[1, column].set_title(f"N={samples}")
        if streams:
            _stream_panel(axes[0, -1], streams)
            for panel in axes[1:, -1]:
                panel.set_axis_off()
        figures.legend(figure, axes[:, : len(problems)] if problems else axes)
        figures.save(figure, path)


def _panel(axes: Axes, rows: list[Record], x: str, y: str) -> None:
    """One curve per contender."""
    from gradlab.study import figures

    for name in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in rows if row["contender"] == name]
        across, up = [row[x] for row in mine], [row[y] for row in mine]
        figures.line(axes, across, up, name=LOOKS[name], label=LABELS[name])
    axes.set(xscale="log", yscale="log", xlabel=AXES[x], ylabel=AXES[y])
    ticks = sorted({row[x] for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)


def _stream_panel(axes: Axes, streams: list[Record]) -> None:
    from gradlab.study import figures

    counts, peaks = [row["samples"] for row in streams], [row["peak_mib"] for row in streams]
    figures.line(axes, counts, peaks, name="fog", label="stream")
    axes.axhline(STREAM_LIMIT, color="#555555", linewidth=0.8)
    axes.set(xscale="log", ylim=(0, None), title="streamed into moments")
    axes.set(xlabel="samples in all", ylabel="peak memory of the process [MiB]")
