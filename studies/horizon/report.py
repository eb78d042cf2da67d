"""The long form of what `horizon` found."""

from __future__ import annotations

import pandas as pd

from gradlab.study import text
from studies.horizon.answer import line, scaling, times, variance_sentence
from studies.horizon.rows import Bound, Single, Sweep, bounds_of, singles_of, verdicts

LEGEND = (
    "Estimators: windows of h steps tile the episode, so that all aim at ∇J (AGPO but for what its β takes from\n"
    "later calls). Variance and MSE (a batch of 64) are over ‖∇J‖². Theorem: AGPO over one window from the start,\n"
    "divided by h, α fixed by a pilot, no early cut; beside it N-step alone, to which the theorem makes no claim.\n"
    "Typical: the bound with root-mean-square slopes in place of the largest, which bounds nothing but tells how\n"
    "much of the looseness is the largest slope's. Calls: Σ β_{i−1}, the policy calls that AGPO counts. Steps are\n"
    "simulator steps and ms processor time, per sample. Intervals are 95 %."
)


def summarise(table: pd.DataFrame) -> str:
    """Windows, every estimator, both bounds."""
    bounds, singles = bounds_of(table), singles_of(table)
    parts = [
        LEGEND,
        f"{variance_sentence(verdicts(bounds)['variance'])} {scaling(bounds)}",
        text.titled("1. From the shortest window to the longest", map(line, Sweep.of(singles))),
        text.titled("2. Estimators", map(_single, singles)),
        text.titled("3. Variance and its bound", map(_variance, bounds)),
    ]
    biased = [row for row in bounds if row.bias_bound_total > 0]
    if biased:
        parts.append(text.titled("4. Bias and its bound", map(_bias, biased)))
    return "\n\n".join(parts)


def _single(row: Single) -> dict[str, str]:
    return {
        "task": row.task,
        "critic": row.critic,
        "h": f"{row.window}",
        "estimator": row.estimator,
        "relative bias": f"{row.relative_bias}",
        "cosine": text.cosine(row.cosine),
        "variance": f"{row.relative_variance}",
        "MSE(64)": f"{row.relative_mse}",
        "steps": f"{row.environment_steps:g}",
        "ms": f"{1e3 * row.processor_seconds:.2g}",
        "status": row.status,
    }


def _variance(row: Bound) -> dict[str, str]:
    return {
        "task": row.task,
        "critic": row.critic,
        "h": f"{row.window}",
        "estimator": row.estimator,
        "variance": f"{row.variance}",
        "bound": f"{row.variance_bound:.2g}",
        "bound/variance": times(1 / row.variance_share.estimate),
        "typical/variance": times(row.typical_bound / row.variance.estimate),
        "calls": "" if row.looked_at is None else f"{row.looked_at:.2f}",
        "L_Q": f"{row.l_q:.3g}",
        "L_θ": f"{row.l_theta:.3g}",
    }


def _bias(row: Bound) -> dict[str, str]:
    return {
        "task": row.task,
        "critic": row.critic,
        "h": f"{row.window}",
        "bias": f"{row.bias}",
        "bound, by action": f"{row.bias_bound_action:.2g}",
        "bias/bound": f"{row.bias_share_action}",
        "bound, through states": f"{row.bias_bound_total:.2g}",
        "bias/bound ": f"{row.bias_share_total}",
    }
