"""Where episodes go on, and where they begin anew."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.generators import generator
from gradlab.foundation.moment import Moment
from gradlab.problems.problem import Problem
from gradlab.training.algorithm import Algorithm
from gradlab.training.state import TrainingState


class Onward(NamedTuple):
    """Where the next segments begin."""

    episodes: Moment
    anew: Bool[Tensor, " N"]  # it is another episode: all that were over, and with a `Replay` more
    whole: Bool[Tensor, " N"]  # its episode began at its beginning
    visited: Float[Tensor, "M K"]


def fresh(problem: Problem, count: int, seed: int, number: int, *piece: int) -> Moment:
    """Episodes at initial states, for the update of this number (or a piece of it)."""
    draws = generator("train", seed, "starts", number, *piece)
    brief = problem.replace(horizon=1)
    return brief.start(brief.draw(count, draws)).map(torch.Tensor.clone)


def onward(
    problem: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    end: Moment,
    over: Bool[Tensor, " N"],
    whole: Bool[Tensor, " N"],
    seen: Float[Tensor, "V K"] | None = None,
) -> Onward:
    """Where the next segment of every episode begins, from where the last one ended; `seen` are
    moments that a `Replay` shall remember.
    """
    seed, number, count = int(state.seed), int(state.updates) + 1, algorithm.episodes
    starts = fresh(problem, count, seed, number)
    anew, visited = over, state.visited
    replayed = torch.zeros_like(over)
    replay = algorithm.replay
    if replay is not None:
        anew = over if replay.when == "over" else torch.ones_like(over)
        visited = visited if seen is None else replay.remembered(visited, seen)
        if len(visited):
            draws = generator("train", seed, "replay", number)
            moments, replayed = replay.drawn(visited, problem, count, draws)
            replayed = replayed & anew
            starts = chosen(replayed, moments, starts)
    episodes = chosen(anew, starts, end).detach()
    return Onward(episodes, anew, torch.where(anew, ~replayed, whole), visited)


def chosen(mask: Bool[Tensor, " N"], first: Moment, second: Moment) -> Moment:
    """The first where the mask says so, and the second elsewhere."""
    parts = (
        torch.where(mask.view(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(first, second, strict=True)
    )
    return Moment(*parts)
