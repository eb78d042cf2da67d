"""What `leaderboard` answers first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from gradlab.statistics import Interval
from gradlab.study import Answer, text
from gradlab.study.tables import grouped
from studies.leaderboard.rows import Board, Entry, LeftOut, boards, budget_of, empty
from studies.shared.guests import is_guest

QUESTION = "Which gradient estimator should I take, for this task, policy and budget?"
NAMED = 3  # of those that are as good, the others are counted


def answer(table: pd.DataFrame) -> Answer:
    """Who is most often not told from the best, and a line per task, policy and budget."""
    found, nobody = boards(table), [_nobody(left) for left in empty(table)]
    several = len({(board.currency, board.amount) for board in found}) > 1
    rest = {"take": "nobody", **dict.fromkeys(HEADERS, "")}
    return Answer(
        question=QUESTION,
        answer=" ".join([*overall(found), *(f"Nobody can take part: {one}." for one in nobody)]),
        rests_on=_rests_on(found),
        would_change=(
            "Another budget (--steps, --seconds), more --repeats, another policy (--stages) or critic: critics "
            "are given here, and what fitting them cost is in no budget. Other widths of relaxed_fog and split, or windows, "
            "which are half the horizon: name yours with --estimators my_file.py:Mine."
        ),
        table=pd.DataFrame(
            [
                *(line(board, several) for board in found),
                *({"setting": one, **rest} for one in nobody),
            ]
        ),
    )


def _nobody(left: LeftOut) -> str:
    return f"{left.task}, {budget_of(left.currency, left.amount)}"


def overall(found: Sequence[Board]) -> Iterator[str]:
    """Over all boards; of a single one its advice, of none nothing."""
    if len(found) == 1:
        yield advice(found[0])
        return
    told = [board for board in found if board.told]
    if found and not told:
        yield "It cannot be told at this budget: in no setting does the gain of a step tell them apart."
    if not told:
        return
    takers = grouped(told, lambda board: board.taken().name)
    ordered = sorted(takers.items(), key=lambda item: -len(item[1]))
    wins = [f"{name} ({_places(boards)})" for name, boards in ordered]
    yield (
        f"Take {text.listed(wins)}: by what one step gains at equal cost none is told to be more than a tenth better."
    )
    # where a step along the truth is not told to gain there is nothing to have a share of
    if shares := [board for board in told if not math.isnan(board.taken().share.estimate)]:
        least = min(shares, key=lambda board: board.taken().share.estimate)
        yield f"Such a step gains {gained(least, least.taken())} ({least.case}) or more."
    if len(told) > 1:
        yield from _always(told)
    if harm := list(_harm(told)):
        yield f"A step lowers the true objective with {'; '.join(harm)}."
    if unsure := [board.case for board in found if not board.told]:
        yield f"It cannot be told for {', '.join(unsure)}."


def _always(told: Sequence[Board]) -> Iterator[str]:
    """Who is as good as the best in every setting."""
    everywhere = set.intersection(*({entry.name for entry in board.by_gain()} for board in told))
    always = [entry.judged for entry in told[0].by_gain() if entry.name in everywhere]
    free, rest = (
        text.listed([one.estimator for one in always if one.needs_critic == needs])
        for needs in (False, True)
    )
    found = [free] if free else []
    found += [f"with a critic {rest}"] if rest else []
    yield f"As good as the best in all settings, as far as can be told: {'; '.join(found) or 'none'}."


def _places(found: Sequence[Board]) -> str:
    """Where, each case once."""
    return ", ".join(dict.fromkeys(board.case for board in found))


def _harm(found: Sequence[Board]) -> Iterator[str]:
    for board in found:
        names = [entry.name for entry in board.entries if entry.gain.high < 0]
        if names:
            yield f"{_some(names)} ({board.case})"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return text.listed(names) if more < 1 else f"{', '.join(names[:NAMED])} and {more} more"


def advice(board: Board) -> str:
    """One sentence on one board."""
    where = f"{board.task}, {board.policy}, {board.budget}"
    if not board.told:
        said = f"{where}: cannot be told at this budget: no step is told from the best by its gain"
        least = board.by_error()[0]
        mse = f"; the least error has {least.name}, MSE/‖∇J‖² {least.relative_mse}"
        return f"{said}{mse if board.error_told else ''}."
    best = board.taken()
    others = [entry.name for entry in board.by_gain() if entry is not best]
    parts = [f"take {best.name}, a step along which gains {gained(board, best)}"]
    if others:
        parts.append(f"as good, as far as can be told: {_some(others)}")
    parts.append(_error(board, best))
    first = board.entries[0]
    if first is not best:
        parts.append(f"the best rank has {first.name} ({gained(board, first)})")
    if best.judged.needs_critic and (free := board.without_critic()):
        parts.append(f"without a critic {free[0].name} ({gained(board, free[0])})")
    return f"{where}: {'; '.join(parts)}."


def gained(board: Board, entry: Entry) -> str:
    """What its step gains: as a share of what one along the truth does, else in the objective."""
    if board.truth_gain.low > 0:
        return f"{text.ratio(entry.share)} of what one along ∇J does"
    return f"{text.signed(entry.gain)}"


def _error(board: Board, best: Entry) -> str:
    """What the other ranking says of it."""
    least = board.by_error()
    if not board.truth_precise:
        return f"errors cannot be told, as the truth is known to {board.truth_relative_stderr:.0%} only"
    if not board.error_told:
        return "the errors of gradients cannot be told apart"
    mse = f"MSE/‖∇J‖² {best.relative_mse}"
    if best in least:
        return f"{'it has the least error too' if len(least) == 1 else 'no error is told to be less'}, {mse}"
    return f"the least error has {least[0].name}, MSE/‖∇J‖² {least[0].relative_mse} against {best.relative_mse}"


HEADERS = ("of ∇J's gain", "as good", "best rank", "of ∇J's", "least error")


def line(board: Board, budget: bool = True) -> dict[str, str]:
    """One board of the table; its budget is left out where all have the same."""
    where = f"{board.case}, {board.budget}" if budget else board.case
    best, first = board.taken(), board.entries[0]
    cells = (
        where,
        best.name if board.told else "cannot be told",
        share(best.share) if board.told else "",
        f"{len(board.by_gain()) - 1} more" if board.told else "",
        first.name,
        share(first.share),
        board.by_error()[0].name if board.error_told else "cannot be told",
    )
    return dict(zip(("setting", "take", *HEADERS), cells, strict=True))


def share(interval: Interval) -> str:
    """A share of what the truth gains, short; it may be negative."""
    return text.ratio(interval)


def _rests_on(found: Sequence[Board]) -> str:
    if not found:
        return "Nothing: the budgets buy nobody one group of samples. Reasons are in the summary."
    one = found[0]
    repeats = len(one.entries[0].gains)
    ranked = sorted({len(board.entries) for board in found})
    many = " to ".join(str(n) for n in dict.fromkeys((ranked[0], ranked[-1])))
    said = (
        f"{repeats} independent gradients and steps of {many} estimators; brackets are 95 % intervals, and "
        f"ranks are told apart at a level of {one.level:.2g} per setting (Friedman, Nemenyi, Wilcoxon)."
    )
    sentences = [said]
    sentences.append(_truths(found))
    return " ".join([*sentences, *_left(found)])


def _truths(found: Sequence[Board]) -> str:
    """How well the gradients that all are judged by are known."""
    sampled = [
        f"{b.case} {b.truth_relative_stderr:.1%}" for b in found if b.truth_relative_stderr > 0
    ]
    if not sampled:
        return "∇J is exact."
    exact = ["all others exact"] if len({*sampled}) < len({b.case for b in found}) else []
    known = ", ".join([*dict.fromkeys(sampled), *exact])
    return f"∇J to a relative standard error of: {known}."


def _left(found: Sequence[Board]) -> Iterator[str]:
    """Who does not take part; of a user's own estimator with the reason."""
    left = [out for board in found for out in board.left_out]
    own = {out.estimator: out.reason for out in left if is_guest(out.estimator)}
    yield from (f"Left out: {name}, {reason}." for name, reason in own.items())
    others = Counter(out.estimator for out in left if out.estimator not in own)
    if others:
        said = ", ".join(f"{name} ({count}x)" for name, count in others.items())
        yield f"Left out, see the summary for reasons: {said}."
