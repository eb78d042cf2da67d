"""The figures of `throughput`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gradlab.study.tables import grouped
from studies.throughput.rows import LABELS, STREAM_LIMIT, Race, Stream, done, races_of, streams_of

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
    "moments": "zero_step",
    "moments_compiled": "pg",
    "pullback_checkpoint": "nstep",
    "pullback_compiled_checkpoint": "split",
    "brax_generalized": "qg",
    "brax_spring": "lambda_return",
    "forward": "relaxed_fog",
    "forward_compiled": "fog",
    "brax_generalized_forward": "qg",
    "brax_spring_forward": "lambda_return",
    "pullback_graph": "split",
    "moments_graph": "nstep",
    "jax_unrolled_8": "lambda_return",
    "brax_generalized_unrolled_8": "lambda_return",
    "limit": "pg",
    "mujoco": "pg",
}


AXES = {
    "samples": "samples per call N",
    "horizon": "horizon T [steps]",
    "samples_per_second": "samples/s, median of rounds",
    "peak_mib": "peak memory [MiB]",
}


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Per problem samples/s against N and against T, and memory against N; then the streams."""
    from gradlab.study import figures

    races, streams = done(races_of(rows)), streams_of(rows)
    problems = list(dict.fromkeys(race.problem for race in races))
    columns = len(problems) + bool(streams)
    if not columns:
        return
    with figures.style():
        figure, axes = figures.panels(
            3, columns, "How fast are per-sample gradients, and how much memory do they take?"
        )
        for column, problem in enumerate(problems):
            here = [race for race in races if race.problem == problem]
            samples, horizon = max(r.samples for r in here), max(r.horizon for r in here)
            longest = [race for race in here if race.horizon == horizon]
            largest = [race for race in here if race.samples == samples]
            _panel(axes[0, column], longest, "samples", "samples_per_second")
            _panel(axes[1, column], largest, "horizon", "samples_per_second")
            _panel(axes[2, column], longest, "samples", "peak_mib")
            axes[0, column].set_title(f"{problem}, T={horizon}")
            axes[1, column].set_title(f"{problem}, N={samples}")
            axes[2, column].set_title(f"{problem}, T={horizon}")
        if streams:
            _stream_panel(axes[0, -1], streams)
            for panel in axes[1:, -1]:
                panel.set_axis_off()
        figures.letters([panel for panel in axes.ravel() if panel.axison])
        figures.legend(figure, axes[:, : len(problems)] if problems else axes)
        figures.save(figure, path)


def _panel(axes: Axes, races: list[Race], x: str, y: str) -> None:
    """One curve per contender; `x` and `y` are fields of a race."""
    from gradlab.study import figures

    for name, mine in grouped(races, lambda race: race.contender).items():
        across, up = ([getattr(race, field) for race in mine] for field in (x, y))
        figures.line(axes, across, up, name=LOOKS[name], label=LABELS[name])
    axes.set(xscale="log", yscale="log", xlabel=AXES[x], ylabel=AXES[y])
    ticks = sorted({getattr(race, x) for race in races})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)


def _stream_panel(axes: Axes, streams: list[Stream]) -> None:
    from gradlab.study import figures

    counts, peaks = [one.samples for one in streams], [one.peak_mib for one in streams]
    figures.line(axes, counts, peaks, name="fog", label="stream")
    axes.axhline(STREAM_LIMIT, color="#555555", linewidth=0.8)
    axes.set(xscale="log", ylim=(0, None), title="streamed into moments")
    axes.set(xlabel="samples in all", ylabel="memory of the process [MiB]")
