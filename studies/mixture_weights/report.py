"""The long form of what `mixture_weights` found."""

from __future__ import annotations

import pandas as pd

from gradlab.study import text
from studies.mixture_weights.answer import line, percent
from studies.mixture_weights.rows import Contrast, Error, contrasts, errors

LEGEND = (
    "Along: ⟨E ĝ − g*, g*⟩/‖g*‖², the shift of the expected mixture along the truth. MSE: expected squared distance of\n"
    "the mean of N samples from the truth, over ‖g*‖². Same: weights from the N samples that they weigh; cross: from the\n"
    "other half of them; pilot: from N other episodes. Ratios are paired, on the same episodes. p is Holm's over\n"
    "the whole section. Intervals are 95 % each. *: a part is biased, or not known to be unbiased."
)


def summarise(table: pd.DataFrame) -> str:
    """Every way of weighing, and every contrast."""
    names = "same/cross", "pilot/cross"
    shifts, sources = contrasts(table, "shift"), contrasts(table, *names)
    main = contrasts(table, "shift", first=True), contrasts(table, *names, first=True)
    parts = [
        LEGEND,
        text.titled("1. By source", (line(one, main[1]) for one in main[0])),
        text.titled("2. Shift by weights from the same samples", map(_contrast, shifts)),
        text.titled("3. Error by source, against cross-fitting", map(_contrast, sources)),
    ]
    for number, (kind, title) in enumerate({"level": "levels", "rule": "rules"}.items(), start=4):
        if found := contrasts(table, kind):
            parts.append(
                text.titled(f"{number}. Error by {title}, cross-fitted", map(_contrast, found))
            )
    parts.append(
        text.titled("6. Bias, variance and error of everything", map(_error, errors(table)))
    )
    return "\n\n".join(parts)


def _contrast(one: Contrast) -> dict[str, str]:
    shift = one.contrast == "shift"
    return {
        "task (parts)": one.setting + ("" if one.unbiased else "*"),
        "N": f"{one.size}",
        "rule": one.rule,
        "level": one.level,
        "contrast": one.contrast,
        "value": percent(one.value) if shift else text.ratio(one.value),
        "p (Holm)": f"{one.p_value:.2g}",
        "says": one.shift if shift else one.side,
    }


def _error(one: Error) -> dict[str, str]:
    return {
        "task": one.task,
        "parts": one.pair,
        "N": f"{one.size}",
        "rule": one.rule,
        "level": one.level,
        "source": one.source,
        "along": percent(one.along),
        "relative bias": f"{one.relative_bias}",
        "variance": f"{one.variance}",
        "MSE": f"{one.mse}",
        "status": one.status,
    }
