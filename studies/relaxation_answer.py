"""The answer of `bias_vs_relaxation`, on one screen."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradlab.study import Answer
from studies.relaxation_report import errors, errors_by_task
from studies.relaxation_table import (
    BLIND,
    CRITICS,
    HARD,
    Row,
    Table,
    best_critic,
    comparisons,
    overall,
    policies,
    policy_of,
    said,
)

QUESTION = (
    "Does the 0-step return reduce the bias of N-step gradients where rewards are only partially "
    "differentiable?"
)


def answer(rows: Table) -> Answer:
    """The question, the answer by length of the window, and a table of the best critics."""
    compared = comparisons(rows)
    practical = overall(rows, "single", "B")
    if not len(compared):
        return Answer(
            "How well does each estimator see the hard gradient?",
            _least_error(practical),
            _rests_on(practical),
            "Another policy, task, critic or batch; the estimators' order depends on all of them.",
            errors_by_task(practical).head(12),
        )
    best = best_critic(compared)
    sentences = [_group(group) for _, group in best.groupby(["whole", "form"], sort=True)]
    return Answer(
        QUESTION, " ".join(sentences), _rests_on(practical), _would_change(compared), _table(best)
    )


def _group(group: Table) -> str:
    """One sentence on the comparisons of one form, over windows short of T or over the whole episode."""
    shown = group.iloc[(len(group) - 1) // 2]
    where = "Over the whole episode" if shown["whole"] else "With a window shorter than the episode"
    form = {"published": "from s₀ alone, as published", "tiled": "at every step"}[shown["form"]]
    return (
        f"{where}, the 0-step return ({form}) {_direction(group['direction'])} and "
        f"{_bias(group['bias'])}: on {shown['task']} at n = {int(shown['window'])} the cosine is "
        f"{_with_and_without(shown, 'cosine')} without it, the relative length "
        f"{shown['abpt_relative_norm']:.2f} against {shown['nstep_relative_norm']:.2f}, the relative "
        f"bias {_with_and_without(shown, 'relative_bias')}."
    )


def _direction(verdicts: Table) -> str:
    nearer, farther = (int((verdicts == word).sum()) for word in ("nearer", "farther"))
    if not nearer and not farther:
        return "does not turn the gradient as far as can be told"
    parts = [f"turns the gradient towards ∇J in {_of(nearer, len(verdicts))}"] if nearer else []
    parts += [f"turns it away from ∇J in {_of(farther, len(verdicts))}"] if farther else []
    return " and ".join(parts)


def _bias(verdicts: Table) -> str:
    lower, higher = (int((verdicts == word).sum()) for word in ("falls", "rises"))
    if not lower and not higher:
        return "does not change the relative bias as far as can be told"
    parts = [f"raises the relative bias in {_of(higher, len(verdicts))}"] if higher else []
    parts += [f"lowers it in {_of(lower, len(verdicts))}"] if lower and higher else []
    parts += [f"lowers the relative bias in {_of(lower, len(verdicts))}"] if not higher else []
    return " and ".join(parts)


def _of(count: int, total: int) -> str:
    return f"{count} of {total} comparisons"


def _with_and_without(row: Row, quantity: str) -> str:
    return f"{said(row, f'abpt_{quantity}')} against {said(row, f'nstep_{quantity}')}"


def _table(best: Table) -> pd.DataFrame:
    """The middle of the short windows and the whole episode, direction first."""
    chosen = []
    for _, group in best.groupby(["task", "stage", "form"], sort=False):
        short = group[~group["whole"]].sort_values("window")
        chosen += [short.iloc[[(len(short) - 1) // 2]]] if len(short) else []
        chosen.append(group[group["whole"]])
    table = pd.concat(chosen)
    columns: dict[str, list[str]] = {
        "task": list(table["task"]),
        "0-step at": ["s₀" if form == "published" else "all" for form in table["form"]],
        "n": [f"{int(w)}" for w in table["window"]],
    }
    for quantity, header in (("cosine", "cosine"), ("relative_bias", "bias")):
        for name, who in (("abpt", "with"), ("nstep", "without")):
            texts = [said(row, f"{name}_{quantity}") for _, row in table.iterrows()]
            columns[f"{header} {who}"] = texts
    return pd.DataFrame(columns)


def _rests_on(practical: Table) -> str:
    """Episodes, truths and critics; what rows share."""
    hard = practical[practical["truth_width"] == HARD]
    counts = sorted(set(hard["count"] + hard["nonfinite"]))
    sentences = [
        f"{_range(counts)} episodes per estimator in float32 (known-answer problems in float64).",
        f"∇J: {'; '.join(_truths(hard))}.",
        "All rows of a task share episodes and ∇J, and miss together if these miss.",
    ]
    if critics := list(_critics(hard)):
        sentences.append(f"Critics: {'; '.join(critics)}.")
    if bad := sorted(set(hard.loc[hard["status"] != "ok", "status"].dropna())):
        sentences.append(f"What rows say of their samples: {'; '.join(bad)}.")
    return " ".join(sentences)


def _range(counts: list[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _truths(hard: Table) -> Iterator[str]:
    for group in policies(hard):
        row = group.iloc[0]
        error = row["truth_relative_stderr"]
        how = "exact" if error == 0 else f"to {error:.1%}"
        never = row["success_rate"] in (0.0, 1.0)
        rare = ", an event without a gradient: it never or always happens" if never else ""
        yield f"{row['task']}, {policy_of(row)}, {how}{rare}"


def _critics(hard: Table) -> Iterator[str]:
    """What the best fitted critic of each policy explains, beside what any could."""
    for group in policies(best_critic(hard)):
        fitted = group[group["critic_quality_start"].notna()]
        if not len(fitted):
            continue
        row = fitted.iloc[0]
        explains, ceiling = row["critic_quality_start"], row["critic_ceiling_start"]
        error = row["critic_ceiling_start_stderr"]
        yield (
            f"{row['task']}, {CRITICS[row['critic_fit']]} explains {explains:.0%} of the return's "
            f"variance at t = 0, the best possible {ceiling:.0%} ± {error:.0%}"
        )


def _would_change(compared: Table) -> str:
    sentences = []
    poor = compared[compared["critic_fit"] == "none"]
    if len(poor):
        blind = (poor[["abpt_relative_bias_low", "nstep_relative_bias_low"]] >= BLIND).all(axis=1)
        sentences.append(
            f"The critic: untrained, both estimates are as far from ∇J as no gradient at all in "
            f"{int(blind.sum())} of {len(poor)} comparisons."
        )
    sentences.append(
        "Training: a trainer that slides its window over the episode starts from many states, so "
        "that policy calls beyond n are not lost; and Adam ignores a gradient's length, so that "
        "only its direction counts there."
    )
    return " ".join(sentences)


def _least_error(practical: Table) -> str:
    sentences = []
    for group in policies(practical):
        table = errors(group)
        least = table.loc[table["order"].idxmin()]
        sentences.append(
            f"On {group.iloc[0]['task']} the least error at a batch of 100 is {least['estimator']}'s, "
            f"MSE(100)/‖∇J‖² = {least['MSE(100)/‖∇J‖²']}, with cosine {least['cosine']}."
        )
    return " ".join(sentences)
