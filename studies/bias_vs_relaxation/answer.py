"""The answer of `bias_vs_relaxation`, on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.bias_vs_relaxation.report import ERROR, errors, errors_by_task
from studies.bias_vs_relaxation.rows import (
    CRITICS,
    HARD,
    Comparison,
    Estimate,
    best_critic,
    by_policy,
    comparisons,
    estimates,
    pairs,
)
from studies.shared import stages

QUESTION = (
    "Does the 0-step return reduce the bias of N-step gradients where rewards are only partially "
    "differentiable?"
)


def answer(table: pd.DataFrame) -> Answer:
    """The question, the answer by length of the window, and a table of the best critics."""
    compared = comparisons(estimates(table, "A"), pairs(table))
    practical = estimates(table, "B")
    if not compared:
        return Answer(
            "How well does each estimator see the hard gradient?",
            _least_error(practical),
            _rests_on(practical),
            "Another policy, task, critic or batch; the estimators' order depends on all of them.",
            errors_by_task(practical).head(12),
        )
    fitted = best_critic([one.abpt for one in compared])
    best = [one for one in compared if one.abpt in fitted]
    forms = (("published", False), ("tiled", True))  # as trained with, and the best that it can do
    sentences = [_sentence(best, form, whole) for form, whole in forms]
    return Answer(
        QUESTION,
        " ".join(filter(None, sentences)),
        _rests_on(practical),
        _would_change(compared),
        _table(best),
    )


def _sentence(best: list[Comparison], form: str, whole: bool) -> str:
    """One sentence on windows short of T or over the whole episode;
    in the other form if need be.
    """
    group = [one for one in best if one.whole == whole]
    group = [one for one in group if one.abpt.form == form] or group
    if not group:
        return ""
    where = "Over the whole episode" if whole else "With a window shorter than the episode"
    how = "from s₀ alone, as published" if group[0].abpt.form == "published" else "at every step"
    biases = [one.bias for one in group]
    return (
        f"{where}, {_verdict(biases)}: the 0-step return ({how}) "
        f"{_direction([one.direction for one in group])} and {_bias(biases)} ({_example(group)})."
    )


def _example(group: list[Comparison]) -> str:
    """The last flight, or the last known-answer problem, at the middle one of its windows."""
    mine = [one for one in group if one.abpt.task not in stages.KNOWN] or group
    mine = [one for one in mine if one.abpt.task == mine[-1].abpt.task]
    mine.sort(key=lambda one: one.abpt.window or 0)
    abpt, nstep = mine[len(mine) // 2].abpt, mine[len(mine) // 2].nstep
    cosines = (text.cosine(row.cosine, decimals=True) for row in (abpt, nstep))
    biases = (text.two_decimals(row.relative_bias) for row in (abpt, nstep))
    return (
        f"{abpt.task}, n = {abpt.window}: cosine {' against '.join(cosines)} without it, length "
        f"{abpt.relative_norm.estimate:.2f} against {nstep.relative_norm.estimate:.2f} of ∇J's, relative bias "
        f"{' against '.join(biases)}"
    )


def _verdict(biases: list[str]) -> str:
    """Yes or no where every comparison says so."""
    if set(biases) in ({"falls"}, {"rises"}):
        return "yes" if biases[0] == "falls" else "no"
    return "it depends" if set(biases) - {"unclear"} else "it cannot be told"


def _direction(verdicts: list[str]) -> str:
    nearer, farther = verdicts.count("nearer"), verdicts.count("farther")
    parts = [f"turns the gradient towards ∇J in {nearer}"] if nearer else []
    parts += [f"turns it away from ∇J in {farther}"] if farther else []
    if not parts:
        return "does not turn the gradient as far as can be told"
    return f"{' and '.join(parts)} of {len(verdicts)} comparisons"


def _bias(verdicts: list[str]) -> str:
    lower, higher = verdicts.count("falls"), verdicts.count("rises")
    parts = [f"raises the relative bias in {higher}"] if higher else []
    parts += [f"lowers the relative bias in {lower}"] if lower else []
    if not parts:
        return "does not change the relative bias as far as can be told"
    return f"{' and '.join(parts)} of {len(verdicts)}"


def _table(best: list[Comparison]) -> pd.DataFrame:
    """The middle of the short windows and the whole episode, direction first."""
    chosen: list[Comparison] = []
    for group in grouped(best, lambda one: (one.abpt.task, one.abpt.stage, one.abpt.form)).values():
        short = sorted(
            (one for one in group if not one.whole), key=lambda one: one.abpt.window or 0
        )
        chosen += short[len(short) // 2 : len(short) // 2 + 1]
        chosen += [one for one in group if one.whole]
    return pd.DataFrame(
        {
            "task": one.abpt.task,
            "0-step at": "s₀" if one.abpt.form == "published" else "all",
            "n": f"{one.abpt.window}",
            "cosine with": text.cosine(one.abpt.cosine, decimals=True),
            "cosine without": text.cosine(one.nstep.cosine, decimals=True),
            "bias with": text.two_decimals(one.abpt.relative_bias),
            "bias without": text.two_decimals(one.nstep.relative_bias),
        }
        for one in chosen
    )


def _rests_on(practical: list[Estimate]) -> str:
    """Episodes, truths and critics; what rows share."""
    hard = [row for row in practical if row.truth_width == HARD]
    counts = sorted({row.count + row.nonfinite for row in hard})
    episodes = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    sentences = [
        f"{episodes} episodes per estimator, {_precision(row.task for row in hard)}.",
        f"∇J to a relative standard error of: {'; '.join(_truths(hard))}.",
        "Rows of a task share episodes and ∇J, and miss together.",
    ]
    if critics := list(_critics(hard)):
        sentences.append(
            "Share of the return's variance at t = 0 that the critic explains, and the most that any "
            f"could: {'; '.join(critics)}."
        )
    if bad := [row for row in hard if row.status != "ok"]:
        names = ", ".join(dict.fromkeys(row.label for row in bad))
        sentences.append(f"{names}: {'; '.join(sorted({row.status for row in bad}))}.")
    return " ".join(sentences)


def _precision(tasks: Iterable[str]) -> str:
    """The dtypes that tasks are computed in; float64 for known-answer problems goes without saying
    beside others."""
    tasks = list(dict.fromkeys(tasks))
    others = [task for task in tasks if task not in stages.KNOWN]
    said: dict[str, None] = {}
    for task in others or tasks:
        what = "flights" if task in stages.FLIGHTS else task if others else "known-answer problems"
        dtype = str(stages.problem_of(task).dtype).removeprefix("torch.")
        said[f"{dtype} for {what}"] = None
    return ", ".join(said)


def _truths(hard: list[Estimate]) -> Iterator[str]:
    for row, *_ in by_policy(hard):
        error = row.truth_relative_stderr
        how = "exact" if error == 0 else f"{error:.1%}"
        never = row.success_rate in (0.0, 1.0)
        rare = ", an event without a gradient: it never or always happens" if never else ""
        yield f"{row.task} ({row.policy}) {how}{rare}"


def _critics(hard: list[Estimate]) -> Iterator[str]:
    """What the best fitted critic of each policy explains, beside what any could."""
    fitted = [row for row in best_critic(hard) if row.critic_quality_start is not None]
    for row, *_ in by_policy(fitted):
        yield (
            f"{row.task} ({CRITICS[row.critic_fit]}) {row.critic_quality_start:.0%} of "
            f"{row.critic_ceiling_start:.0%} ± {row.critic_ceiling_start_stderr:.0%}"
        )


def _would_change(compared: list[Comparison]) -> str:
    sentences = []
    if poor := [one for one in compared if one.abpt.critic_fit == "none"]:
        sentences.append(
            f"An untrained critic: then both are as far from ∇J as no gradient at all in "
            f"{sum(one.blind for one in poor)} of {len(poor)} comparisons."
        )
    sentences.append(
        "A trainer that slides its window over the episode starts from many states, so that policy "
        "calls beyond n are not lost; and Adam ignores a gradient's length, so that only the "
        "direction counts there."
    )
    return " ".join(sentences)


def _least_error(practical: list[Estimate]) -> str:
    sentences = []
    for mine in by_policy(practical):
        table = errors(mine)
        least = table.loc[table["order"].idxmin()]
        sentences.append(
            f"On {mine[0].task} the least error at a batch of 100 is {least['estimator']}'s, "
            f"{ERROR} = {least[ERROR]}, with cosine {least['cosine']}."
        )
    return " ".join(sentences)
