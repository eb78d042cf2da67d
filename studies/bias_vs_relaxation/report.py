"""The long form of `bias_vs_relaxation`: every comparison, truth and estimator, in tables."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from gradlab.study import text
from studies.bias_vs_relaxation.rows import (
    CRITICS,
    HARD,
    NAMES,
    Comparison,
    Estimate,
    Pair,
    best_width,
    by_policy,
    comparisons,
    estimates,
    levels,
    pairs,
)

LEGEND = (
    "Relative bias is ‖E ĝ − ∇J‖/‖∇J‖, relative length ‖E ĝ‖/‖∇J‖, both debiased, with 95 % "
    "intervals; ∇J is the\ngradient of the hard task unless a line says otherwise. n is the window "
    "of N-step; published: one window and one\n0-step return, from s₀; tiled: windows cover the "
    "episode and the 0-step return is taken at every step. The aim of\nan estimator is Σ w_k g_k, "
    "with g_k the gradient through policy call k and w_k its weight in the estimator.\nWhat is left "
    "is √(1 − cosine²), the relative bias after the best rescaling."
)
ERROR = "MSE(100)/‖∇J‖²"


def summarise(table: pd.DataFrame) -> str:
    """Every comparison, every truth and every estimator, in tables with a sentence each."""
    paired = pairs(table)
    compared = comparisons(estimates(table, "A"), paired)
    sections = [_all_comparisons(compared), _by_truth(paired)] if compared else []
    return "\n\n".join([LEGEND, *sections, _practical(estimates(table, "B"))])


def _all_comparisons(compared: list[Comparison]) -> str:
    table = pd.DataFrame([_comparison(one) for one in compared])
    return (
        "1. With and without the 0-step return, on the same episodes\n\n"
        f"{table.to_string(index=False)}\n\n"
        "Direction: told apart where the two cosines' intervals do not overlap. Bias: by the paired "
        "difference of squared\nrelative biases, p corrected over the table (Holm); blind: both "
        "estimates are as far from ∇J as no gradient at all."
    )


def _comparison(one: Comparison) -> dict[str, str]:
    row = one.abpt
    out = {
        "task": f"{row.task} {row.success_rate:.0%}",
        "critic": row.critic_fit,
        "form": row.form,
        "n": f"{row.window}",
    }
    for mine, who in ((one.abpt, "0-step + N"), (one.nstep, "N")):
        out |= {
            f"cosine {who}": text.cosine(mine.cosine, decimals=True),
            f"length {who}": text.decimal(mine.relative_norm.estimate),
            f"bias {who}": text.two_decimals(mine.relative_bias),
            f"from aim {who}": text.decimal(mine.relative_bias_target.estimate),
            f"left {who}": text.decimal(mine.left_after_scaling.estimate),
        }
    return out | {
        "direction": one.direction,
        "bias": "blind" if one.blind else one.bias,
        "difference": text.signed(one.difference),
        "p": "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}",
    }


def _by_truth(paired: list[Pair]) -> str:
    """The same difference against ever sharper relaxations."""
    widths = {
        width: f"width {width:g}" if width > HARD else "hard"
        for width in sorted({pair.truth_width for pair in paired})
    }
    keys = ["task", "stage", "critic_fit", "form", "window"]
    lines = [
        {**{key: getattr(pair, key) for key in keys}, "window": float(pair.window),
         "width": widths[pair.truth_width], "text": text.signed(pair.relative_difference)}
        for pair in paired
    ]  # fmt: skip
    table = pd.DataFrame(lines).pivot(index=keys, columns="width", values="text")
    return (
        "2. The difference of squared relative biases (0-step + N-step minus N-step alone) against "
        "relaxed truths\n\n"
        f"{table[list(widths.values())].reset_index().to_string(index=False)}"
    )


def _practical(practical: list[Estimate]) -> str:
    tables = [
        f"{mine[0].task}, {mine[0].policy} (truth: {mine[0].truth}, ‖∇J‖ = {mine[0].truth_norm:.3g})\n\n"
        f"{errors(mine).drop(columns='order').to_string(index=False)}"
        for mine in by_policy(practical)
    ]
    return (
        "3. Every estimator of the hard gradient at a batch of 100\n\n"
        "A width is chosen by its MSE on one half of the samples and reported on the other half; "
        "there without an interval.\n\n" + "\n\n".join(tables)
    )


def errors_by_task(practical: Iterable[Estimate]) -> pd.DataFrame:
    """`errors` of every policy, with the task in front."""
    tables = [errors(mine).assign(task=mine[0].task) for mine in by_policy(practical)]
    table = pd.concat(tables).drop(columns="order")
    return table.loc[:, ["task", *table.columns.drop("task")]]


def errors(rows: list[Estimate]) -> pd.DataFrame:
    """MSE(100) of every estimator of one policy, the swept ones at the width chosen on one half."""
    found = []
    for name in ("relaxed_fog", "split"):
        best = best_width(row for row in rows if row.estimator == name)
        if best is not None:
            bias, error = best.relative_bias_odd, best.relative_mse_odd
            found.append(
                (f"{NAMES[name]}({best.width:g})", best.cosine, bias, f"{error:.2g}", error)
            )
    for row in levels(rows):
        error = row.relative_mse
        found.append((_described(row), row.cosine, row.relative_bias, str(error), error.estimate))
    return pd.DataFrame(
        {
            "estimator": name,
            "cosine": text.cosine(cosine, decimals=True),
            "relative bias": text.two_decimals(bias),
            ERROR: said,
            "order": error,
        }
        for name, cosine, bias, said, error in found
    )


def _described(row: Estimate) -> str:
    critic = "" if row.critic_fit == "-" else f", {CRITICS[row.critic_fit]}"
    window = "" if row.window is None else f", n = {row.window}, {row.form}"
    return f"{row.name}{window}{critic}"
