"""The long form of `bias_vs_relaxation`: every comparison, truth and estimator, in tables."""

from __future__ import annotations

import math

import pandas as pd

from studies.bias_vs_relaxation.rows import (
    BLIND,
    CRITICS,
    HARD,
    NAMES,
    Row,
    Table,
    best_width,
    comparisons,
    levels,
    overall,
    policies,
    policy_of,
    relative,
    said,
)


def summarise(rows: Table) -> str:
    """Every comparison, every truth and every estimator, in tables with a sentence each."""
    compared, practical = comparisons(rows), overall(rows, "single", "B")
    sections = [LEGEND]
    if len(compared):
        sections += [_all_comparisons(compared), _by_truth(overall(rows, "pair", "A"))]
    sections.append(_practical(practical))
    return "\n\n".join(sections)


LEGEND = (
    "Relative bias is ‖E ĝ − ∇J‖/‖∇J‖, relative length ‖E ĝ‖/‖∇J‖, both debiased, with 95 % "
    "intervals; ∇J is the\ngradient of the hard task unless a line says otherwise. n is the window "
    "of N-step; published: one window and one\n0-step return, from s₀; tiled: windows cover the "
    "episode and the 0-step return is taken at every step. The aim of\nan estimator is Σ w_k g_k, "
    "with g_k the gradient through policy call k and w_k its weight in the estimator.\nWhat is left "
    "is √(1 − cosine²), the relative bias after the best rescaling."
)


def _all_comparisons(compared: Table) -> str:
    table = pd.DataFrame(_comparison(row) for _, row in compared.iterrows())
    return (
        "1. With and without the 0-step return, on the same episodes\n\n"
        f"{table.to_string(index=False)}\n\n"
        "Direction: told apart where the two cosines' intervals do not overlap. Bias: by the paired "
        "difference of squared\nrelative biases, p corrected over the table (Holm); blind: both "
        "estimates are as far from ∇J as no gradient at all."
    )


def _comparison(row: Row) -> dict[str, str]:
    biases = [row[f"{name}_relative_bias_low"] for name in ("abpt", "nstep")]
    blind = min(biases) >= BLIND
    out = {
        "task": f"{row['task']} {row['success_rate']:.0%}",
        "critic": row["critic_fit"],
        "form": row["form"],
        "n": f"{int(row['window'])}",
    }
    for name, who in (("abpt", "0-step + N"), ("nstep", "N")):
        out |= {
            f"cosine {who}": said(row, f"{name}_cosine"),
            f"length {who}": _number(row[f"{name}_relative_norm"]),
            f"bias {who}": said(row, f"{name}_relative_bias"),
            f"from aim {who}": _number(row[f"{name}_relative_bias_target"]),
            f"left {who}": _number(row[f"{name}_left_after_scaling"]),
        }
    return out | {
        "direction": row["direction"],
        "bias": "blind" if blind else row["bias"],
        "difference": said(row, "difference"),
        "p": "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}",
    }


def _by_truth(pairs: Table) -> str:
    """The same difference against ever sharper relaxations."""
    shown = pairs.assign(
        text=[said(row, "relative_difference") for _, row in pairs.iterrows()],
        width=[f"width {w:g}" if w > HARD else "hard" for w in pairs["truth_width"]],
    )
    keys = ["task", "stage", "critic_fit", "form", "window"]
    table = shown.pivot(index=keys, columns="width", values="text")
    order = dict.fromkeys(shown.sort_values("truth_width")["width"])
    return (
        "2. The difference of squared relative biases (0-step + N-step minus N-step alone) against "
        "relaxed truths\n\n"
        f"{table[list(order)].reset_index().to_string(index=False)}"
    )


def _practical(practical: Table) -> str:
    tables = [
        f"{group.iloc[0]['task']}, {policy_of(group.iloc[0])} (truth: {group.iloc[0]['truth']}, "
        f"‖∇J‖ = {group.iloc[0]['truth_norm']:.3g})\n\n"
        f"{errors(group).drop(columns='order').to_string(index=False)}"
        for group in policies(practical)
    ]
    return (
        "3. Every estimator of the hard gradient at a batch of 100\n\n"
        "A width is chosen by its MSE on one half of the samples and reported on the other half; "
        "there without an interval.\n\n" + "\n\n".join(tables)
    )


def errors_by_task(practical: Table) -> pd.DataFrame:
    """`errors` of every policy, with the task in front."""
    tables = [
        errors(group).drop(columns="order").assign(task=group.iloc[0]["task"])
        for group in policies(practical)
    ]
    table = pd.concat(tables)
    return table.loc[:, ["task", *table.columns.drop("task")]]


def errors(group: Table) -> pd.DataFrame:
    """MSE(100) of every estimator of one policy, the swept ones at the width chosen on one half."""
    table = relative(group)
    found = []
    for name in ("relaxed_fog", "split"):
        best = best_width(table[table["estimator"] == name])
        if best is not None:
            found.append(
                {
                    "estimator": f"{NAMES[name]}({best['width']:g})",
                    "cosine": said(best, "cosine"),
                    "relative bias": said(best, "relative_bias_odd"),
                    "MSE(100)/‖∇J‖²": f"{best['relative_mse_odd']:.2g}",
                    "order": best["relative_mse_odd"],
                }
            )
    for _, row in levels(table).iterrows():
        found.append(
            {
                "estimator": _described(row),
                "cosine": said(row, "cosine"),
                "relative bias": said(row, "relative_bias"),
                "MSE(100)/‖∇J‖²": said(row, "relative_mse"),
                "order": row["relative_mse"],
            }
        )
    return pd.DataFrame(found)


def _described(row: Row) -> str:
    name = NAMES.get(row["estimator"], row["estimator"])
    critic = "" if row["critic_fit"] == "-" else f", {CRITICS[row['critic_fit']]}"
    window = "" if math.isnan(row["window"]) else f", n = {int(row['window'])}, {row['form']}"
    return f"{name}{window}{critic}"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "unknown"
