"""The long form of what `leaderboard` found."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from gradlab.study import text
from studies.leaderboard.answer import advice, share
from studies.leaderboard.rows import Board, Entry, boards, budget_of, empty

LEGEND = (
    "Every estimator gets the samples that the budget buys (by `Estimator.cost`, or by its time), in whole groups.\n"
    "Rank: mean over repeats of its place by the gain of one step, 1 is best. Gain: of the hard objective, by one step\n"
    "of a length that the other half of the repeats chose for it (length: of even and odd repeats, in units of the best\n"
    "step along the true gradient). Of ∇J's: that gain over what a step along the true gradient gains; at length 1: of\n"
    "steps that are equally long for all. Cosine: of the mean of its samples with ∇J. MSE: of that mean, over ‖∇J‖².\n"
    "Time: of all its samples on one core; MSE at equal time: with the samples that fit in the time of the reference.\n"
    "* marks who cannot be told from the best, by the gain or by the squared errors of the gradients: neither by Nemenyi's\n"
    "critical difference of mean ranks nor by Wilcoxon's signed ranks (Holm), each for all pairs of a board at half its level;\n"
    "boards share the level. 95 % intervals are of each number alone.\n"
    "As good, in the advice: not told from the best by rank, or surely with 90 % of its gain or more."
)


def summarise(table: pd.DataFrame) -> str:
    """Every board: its advice, all entries, who is left out."""
    found = boards(table)
    parts = [LEGEND, "Advice\n\n" + "\n".join(advice(board) for board in found)]
    parts += [_board(k + 1, board) for k, board in enumerate(found)]
    parts += [
        f"{left.task}, {budget_of(left.currency, left.amount)}: nobody takes part. {left.estimator}: {left.reason}."
        for left in empty(table)
    ]
    return "\n\n".join(parts)


def _board(number: int, board: Board) -> str:
    ranks = board.ranks
    title = f"{number}. {board.task}, {board.policy}, {board.budget}"
    level = f"at a level of {ranks.level:.2g}"
    test = (
        f"Friedman's test: p = {ranks.p_value:.2g}; critical difference {ranks.critical_difference:.1f} ranks {level}. A "
        f"step along ∇J gains {text.signed(board.truth_gain)}. The truth is {board.truth}, known to "
        f"{board.truth_relative_stderr:.1%}. Equal time: that of {board.reference}."
    )
    parts = [title, test, pd.DataFrame(list(_lines(board))).to_string(index=False)]
    parts += [
        f"{entry.name}: {entry.judged.status}."
        for entry in board.entries
        if entry.judged.status != "ok"
    ]
    parts += [f"Left out: {out.estimator}: {out.reason}." for out in board.left_out]
    return "\n".join(parts)


def _lines(board: Board) -> Iterator[dict[str, str]]:
    by_gain = [board.entries[i] for i in board.ranks.as_good()]
    by_error = board.by_error()
    for entry, rank in zip(board.entries, board.ranks.mean_ranks, strict=True):
        judged = entry.judged
        yield {
            "estimator": entry.name,
            "as": judged.label,
            "samples": f"{judged.samples}",
            "rank": f"{rank:.1f}{_star(entry, by_gain)}",
            "gain": text.signed(entry.gain),
            "of ∇J's": share(entry.share),
            "at length 1": share(entry.shared_share),
            "length": " ".join(f"{length:g}" for length in entry.lengths),
            "cosine": text.cosine(judged.cosine_batch),
            "MSE": f"{entry.relative_mse}{_star(entry, by_error)}",
            "time [ms]": f"{1e3 * entry.seconds:.3g}",
            "MSE at equal time": _timed(entry),
            "critic": "yes" if judged.needs_critic else "",
        }


def _timed(entry: Entry) -> str:
    few = entry.timed_samples < entry.judged.group
    return "no group fits" if few else f"{entry.relative_timed_mse}"


def _star(entry: Entry, among: list[Entry]) -> str:
    return "*" if entry in among else ""
