"""The answer of `bias_vs_relaxation`, on one screen."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradlab.study import Answer
from studies.bias_vs_relaxation.report import errors, errors_by_task
from studies.bias_vs_relaxation.rows import (
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
from studies.shared import stages

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
    forms = (("published", False), ("tiled", True))  # as trained with, and the best that it can do
    sentences = [_sentence(best, form, whole) for form, whole in forms]
    return Answer(
        QUESTION,
        " ".join(filter(None, sentences)),
        _rests_on(practical),
        _would_change(compared),
        _table(best),
    )


def _sentence(best: Table, form: str, whole: bool) -> str:
    """One sentence on windows short of T or over the whole episode;
    in the other form if need be.
    """
    group = best[best["whole"] == whole]
    if not len(group):
        return ""
    chosen = group[group["form"] == form]
    group = chosen if len(chosen) else group
    where = "Over the whole episode" if whole else "With a window shorter than the episode"
    form = (
        "from s₀ alone, as published" if group.iloc[0]["form"] == "published" else "at every step"
    )
    return (
        f"{where}, {_verdict(group['bias'])}: the 0-step return ({form}) "
        f"{_direction(group['direction'])} and {_bias(group['bias'])} ({_example(group)})."
    )


def _example(group: Table) -> str:
    """The last flight, or the last known-answer problem, at the middle one of its windows."""
    flights = group[~group["task"].isin(stages.KNOWN)]
    mine = flights if len(flights) else group
    mine = mine[mine["task"] == mine.iloc[-1]["task"]].sort_values("window")
    row = mine.iloc[len(mine) // 2]
    return (
        f"{row['task']}, n = {int(row['window'])}: cosine {_with_and_without(row, 'cosine')} "
        f"without it, length {row['abpt_relative_norm']:.2f} against "
        f"{row['nstep_relative_norm']:.2f} of ∇J's, relative bias "
        f"{_with_and_without(row, 'relative_bias')}"
    )


def _verdict(biases: Table) -> str:
    """Yes or no where every comparison says so."""
    lower, higher = ((biases == word) for word in ("falls", "rises"))
    if lower.all() or higher.all():
        return "yes" if lower.all() else "no"
    return "it depends" if lower.any() or higher.any() else "it cannot be told"


def _direction(verdicts: Table) -> str:
    nearer, farther = (int((verdicts == word).sum()) for word in ("nearer", "farther"))
    if not nearer and not farther:
        return "does not turn the gradient as far as can be told"
    parts = [f"turns the gradient towards ∇J in {nearer}"] if nearer else []
    parts += [f"turns it away from ∇J in {farther}"] if farther else []
    return f"{' and '.join(parts)} of {len(verdicts)} comparisons"


def _bias(verdicts: Table) -> str:
    lower, higher = (int((verdicts == word).sum()) for word in ("falls", "rises"))
    if not lower and not higher:
        return "does not change the relative bias as far as can be told"
    parts = [f"raises the relative bias in {higher}"] if higher else []
    parts += [f"lowers the relative bias in {lower}"] if lower else []
    return f"{' and '.join(parts)} of {len(verdicts)}"


def _with_and_without(row: Row, quantity: str) -> str:
    return f"{said(row, f'abpt_{quantity}')} against {said(row, f'nstep_{quantity}')}"


def _table(best: Table) -> pd.DataFrame:
    """The middle of the short windows and the whole episode, direction first."""
    chosen = []
    for _, group in best.groupby(["task", "stage", "form"], sort=False):
        short = group[~group["whole"]].sort_values("window")
        chosen += [short.iloc[[len(short) // 2]]] if len(short) else []
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
        f"{_range(counts)} episodes per estimator, float32 for flights.",
        f"∇J to a relative standard error of: {'; '.join(_truths(hard))}.",
        "Rows of a task share episodes and ∇J, and miss together.",
    ]
    if critics := list(_critics(hard)):
        sentences.append(
            "Share of the return's variance at t = 0 that the critic explains, and the most that any "
            f"could: {'; '.join(critics)}."
        )
    if bad := sorted(set(hard.loc[hard["status"] != "ok", "status"].dropna())):
        names = dict.fromkeys(hard.loc[hard["status"] != "ok", "label"])
        sentences.append(f"{', '.join(names)}: {'; '.join(bad)}.")
    return " ".join(sentences)


def _range(counts: list[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _truths(hard: Table) -> Iterator[str]:
    for group in policies(hard):
        row = group.iloc[0]
        error = row["truth_relative_stderr"]
        how = "exact" if error == 0 else f"{error:.1%}"
        never = row["success_rate"] in (0.0, 1.0)
        rare = ", an event without a gradient: it never or always happens" if never else ""
        yield f"{row['task']} ({policy_of(row)}) {how}{rare}"


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
            f"{row['task']} ({CRITICS[row['critic_fit']]}) {explains:.0%} of {ceiling:.0%} ± {error:.0%}"
        )


def _would_change(compared: Table) -> str:
    sentences = []
    poor = compared[compared["critic_fit"] == "none"]
    if len(poor):
        blind = (poor[["abpt_relative_bias_low", "nstep_relative_bias_low"]] >= BLIND).all(axis=1)
        sentences.append(
            f"An untrained critic: then both are as far from ∇J as no gradient at all in "
            f"{int(blind.sum())} of {len(poor)} comparisons."
        )
    sentences.append(
        "A trainer that slides its window over the episode starts from many states, so that policy "
        "calls beyond n are not lost; and Adam ignores a gradient's length, so that only the "
        "direction counts there."
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
