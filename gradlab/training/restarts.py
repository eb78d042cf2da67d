"""Where episodes go on, and where they begin anew."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.generators import generator
from gradlab.foundation.moment import Moment
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, moment_at
from gradlab.rollouts.rollout import Trajectory
from gradlab.training.algorithm import Algorithm
from gradlab.training.state import TrainingState


class Onward(NamedTuple):
    """Where the next segments begin."""

    episodes: Moment
    over: Bool[Tensor, " N"]  # the episode before it had ended, or run out of time, or of numbers
    anew: Bool[Tensor, " N"]  # it is another episode: all that were over, and with a `Replay` more
    whole: Bool[Tensor, " N"]  # its episode began at its beginning
    visited: Float[Tensor, "M K"]


def fresh(problem: Problem, count: int, seed: int, number: int) -> Moment:
    """Episodes at initial states, for the update of this number."""
    draws = generator("train", seed, "starts", number)
    brief = problem.replace(horizon=1)
    return brief.start(brief.draw(count, draws)).map(torch.Tensor.clone)


def onward(
    problem: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    path: Trajectory,
    result: Outcome,
    fine: Bool[Tensor, " N"],
) -> Onward:
    """Where the next segment of every episode begins; `fine` are those with finite numbers."""
    end = moment_at(path, result)
    over = end.ended | (end.step >= problem.horizon) | ~fine
    seed, number, count = int(state.seed), int(state.updates) + 1, algorithm.episodes
    starts = fresh(problem, count, seed, number)
    anew, visited = over, state.visited
    replayed = torch.zeros_like(over)
    replay = algorithm.replay
    if replay is not None:
        anew = over if replay.when == "over" else torch.ones_like(over)
        visited = replay.remembered(visited, end, ~over)
        if len(visited):
            draws = generator("train", seed, "replay", number)
            moments, replayed = replay.drawn(visited, problem, count, draws)
            replayed = replayed & anew
            starts = _chosen(replayed, moments, starts)
    episodes = _chosen(anew, starts, end).detach()
    whole = torch.where(anew, ~replayed, state.whole)
    return Onward(episodes, over, anew, whole, visited)


def _chosen(mask: Bool[Tensor, " N"], first: Moment, second: Moment) -> Moment:
    """The first where the mask says so, and the second elsewhere."""
    parts = (
        torch.where(mask.view(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(first, second, strict=True)
    )
    return Moment(*parts)
