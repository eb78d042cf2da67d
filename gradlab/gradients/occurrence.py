"""How often the events of a task happen in a stream of episodes."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.gradients.sampling import noise_stream
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout


def event_counts(
    problem: Problem, params: dict[str, Tensor], count: int, seed: int
) -> dict[str, int]:
    """In how many episodes each event happens while alive, by its name.

    The first `count` episodes of the stream `seed`. Margins alone decide; a relaxed problem counts
    what happened in its own episodes. Raises `BadValue` for a count below 1.
    """
    names = [event.name for event in problem.task.events]
    if not names:
        return {}
    totals = torch.zeros(len(names), dtype=torch.long)
    with torch.no_grad():
        for noise in noise_stream(problem, count, seed):
            result = evaluate(problem, rollout(problem, problem.bind(params), noise))
            hit = (result.margins > 0) & (result.alive[..., :-1, None] > 0)
            totals += hit.any(-2).sum(0).cpu()
    return dict(zip(names, totals.tolist(), strict=True))
