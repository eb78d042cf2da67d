"""What an update runs: segments of all episodes, or pieces of them that new episodes fill up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradlab.foundation.generators import generator
from gradlab.foundation.moment import Moment
from gradlab.problems.problem import Problem
from gradlab.problems.segment import packed
from gradlab.rollouts.outcome import moment_at
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import Ascent, gradient_of
from gradlab.training.nonfinite import sound
from gradlab.training.optimiser import Tensors
from gradlab.training.restarts import chosen, fresh
from gradlab.training.state import TrainingState


class Piece(NamedTuple):
    """Steps of some of the episodes, all as many."""

    rows: Int[Tensor, " n"]  # of the update's N
    start: Moment
    ascent: Ascent
    fine: Bool[Tensor, " n"]  # all of its numbers are finite
    end: Moment
    over: Bool[Tensor, " n"]  # after it the episode has ended, or run out of time, or of numbers

    @property
    def ran(self) -> Bool[Tensor, "n L"]:
        """Steps in which the episode was alive, with finite numbers."""
        return (self.ascent.result.alive[:, :-1] > 0) & self.fine[:, None]


def pieces_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> list[Piece]:
    """The segments of the next update, in one piece unless episodes restart inside of them.

    Then an episode that is over within its segment is followed by a new one for the steps that are
    left, and one whose time runs out has a piece up to there; V of its own last state counts, as at
    a segment's end. Pieces have one length each: there are as many as lengths occur.
    """
    count = algorithm.episodes
    everyone = torch.arange(count, device=state.episodes.step.device)
    if algorithm.restart == "between":
        return [_piece(problem, algorithm, state, everyone, state.episodes, 0)]
    now, left = state.episodes, torch.full_like(everyone, algorithm.length)
    parts: list[Piece] = []
    while bool((left > 0).any()):
        room = torch.minimum(left, (problem.horizon - now.step).long())
        length = int(room[left > 0].max())
        rows = everyone[(left > 0) & (room == length)]
        some = replace(algorithm, length=length, episodes=len(rows))
        part = _piece(problem, some, state, rows, now.take(rows), len(parts))
        parts.append(part)
        taken = (part.ascent.result.alive[:, :-1] > 0).sum(1)
        left[rows] = torch.where(part.over & part.fine, left[rows] - taken, 0)
        names = int(state.seed), int(state.updates), len(parts)
        starts = fresh(problem, len(rows), *names)
        after = chosen(part.over & (left[rows] > 0), starts, part.end)
        now = Moment(*(old.index_copy(0, rows, new) for old, new in zip(now, after, strict=True)))
    return parts


def seen_of(problem: Problem, state: TrainingState, part: Piece) -> Float[Tensor, "V K"]:
    """Moments of this piece to begin at again: of all episodes that were alive, with time left, at
    one of its steps.
    """
    path, result = part.ascent.path, part.ascent.result
    draws = generator("train", int(state.seed), "seen", int(state.updates))
    time = 1 + int(torch.randint(path.action.shape[1], (), generator=draws))
    moment = moment_at(path, result, time)
    return packed(moment)[part.fine & ~moment.ended & (moment.step < problem.horizon)]


def joined(parts: Sequence[Piece], count: int, gradient: Callable[[Piece], Tensors]) -> Tensors:
    """The mean over N segments of the gradients of their pieces."""
    total: Tensors = {}
    for part in parts:
        share = len(part.rows) / count
        for name, value in gradient(part).items():
            total[name] = share * value + total[name] if name in total else share * value
    return total


class Ends(NamedTuple):
    """Where the segments end, and the episodes that were over up to there."""

    end: Moment
    over: Bool[Tensor, " N"]
    returns: Float[Tensor, " N"]  # undiscounted, of the episode at the end
    whole: Bool[Tensor, " N"]  # it began at its beginning
    finished: Int[Tensor, ""]  # whole episodes that were over, also inside of segments
    of_returns: Float[Tensor, ""]  # the sum of theirs
    of_lengths: Float[Tensor, ""]  # and of their steps


def ends_of(problem: Problem, state: TrainingState, parts: Sequence[Piece]) -> Ends:
    """What the pieces came to. A return counts up to the time limit, which a segment may pass."""
    returns, whole, end = state.returns, state.whole, state.episodes
    over = torch.zeros_like(whole)
    finished, totals = torch.zeros((), dtype=torch.int64, device=over.device), []
    for part in parts:
        rows, ran = part.rows, part.ran
        reward = part.ascent.result.reward
        steps = part.start.step[:, None] + torch.arange(ran.shape[1], device=ran.device)
        within = ran & (steps < problem.horizon)
        # an episode that went on from an earlier piece is over, and its return is told
        before = torch.where(over[rows], 0.0, returns[rows])
        begun = whole[rows] | over[rows]
        earned = before + torch.where(within, reward, 0.0).sum(1)
        counted = part.over & part.fine & begun
        finished = finished + counted.sum()
        lengths = part.start.step + within.sum(1)
        totals.append([torch.where(counted, each, 0.0).sum() for each in (earned, lengths)])
        returns, whole = returns.index_copy(0, rows, earned), whole.index_copy(0, rows, begun)
        over = over.index_copy(0, rows, part.over)
        end = Moment(
            *(old.index_copy(0, rows, new) for old, new in zip(end, part.end, strict=True))
        )
    of_returns, of_lengths = (torch.stack(column).sum() for column in zip(*totals, strict=True))
    return Ends(end, over, returns, whole, finished, of_returns, of_lengths)


def _piece(
    problem: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    rows: Int[Tensor, " n"],
    start: Moment,
    number: int,
) -> Piece:
    ascent = gradient_of(problem, algorithm, state._replace(episodes=start), number)
    fine = sound(ascent.path, ascent.result)
    end = moment_at(ascent.path, ascent.result)
    over = end.ended | (end.step >= problem.horizon) | ~fine
    return Piece(rows, start, ascent, fine, end.detach(), over)
