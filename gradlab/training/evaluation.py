"""How good a policy is: whole episodes on fixed seeds, returns undiscounted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.gradients.sampling import NOISE_BLOCK
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.statistics.intervals import Interval
from gradlab.tasks.base import Pursuing
from gradlab.training.optimiser import Tensors


class Evaluation(NamedTuple):
    """Whole episodes of a policy, one number each."""

    returns: Float[Tensor, " N"]  # undiscounted [reward]
    lengths: Float[Tensor, " N"]  # steps until an event ended it, or all [steps]
    counts: Float[Tensor, "N E"]  # how often each event of the task happened [1]

    @property
    def mean(self) -> Interval:
        """Of the returns, 95 %."""
        values = self.returns.double()
        mean, count = float(values.mean()), len(values)
        if count < 2:
            return Interval(mean, -math.inf, math.inf)
        reach = float(values.std()) / math.sqrt(count) * float(scipy.stats.t.ppf(0.975, count - 1))
        return Interval(mean, mean - reach, mean + reach)


def evaluate_policy(
    problem: Problem,
    params: Tensors,
    buffers: Tensors | None = None,
    *,
    episodes: int = 128,
    seed: int = 0,
    deterministic: bool = True,
) -> Evaluation:
    """Run `episodes` whole episodes of the stream `seed`, the same for every policy.

    By default the policy takes its mean action; the start and the process noise are random as they
    are. Raises `BadValue` for a segment.
    """
    problem = problem.replace(discount=1.0, buffers=buffers or None)
    parts: list[Evaluation] = []
    for _, result in _episodes(problem, params, episodes, seed, deterministic):
        alive = result.alive[:, :-1] > 0
        lengths = alive.sum(1).to(result.value)
        parts.append(Evaluation(result.value.sum(1), lengths, _counts(problem, result, alive)))
    return Evaluation(*(torch.cat(column) for column in zip(*parts, strict=True)))


def distances_to_goal(
    problem: Problem,
    params: Tensors,
    buffers: Tensors | None = None,
    *,
    last: int,
    episodes: int = 128,
    seed: int = 0,
    deterministic: bool = True,
) -> Float[Tensor, "N last"]:
    """Distances [m] to the point that the task pursues after each of the `last` steps of whole
    episodes, those of `evaluate_policy`.

    Infinite after an event that ended the episode. Raises `BadValue` for a task that pursues none,
    for more steps than an episode has, and for a segment.
    """
    task, horizon = problem.task, problem.horizon
    if not isinstance(task, Pursuing):
        raise BadValue(
            f"distances to a goal need a task that pursues one, got {problem.name}; "
            "try hovering or tracking"
        )
    if whole("last", last) > horizon:
        raise BadValue(f"last should be at most the {horizon} steps of {problem.name}, got {last}")
    problem = problem.replace(buffers=buffers or None)
    parts: list[Tensor] = []
    for path, result in _episodes(problem, params, episodes, seed, deterministic):
        position = path.state[:, horizon + 1 - last :, :3]
        goal = task.goal(problem.steps[horizon + 1 - last :])
        distance = torch.linalg.vector_norm(position - goal, dim=-1)
        parts.append(torch.where(result.alive[:, horizon + 1 - last :] > 0, distance, torch.inf))
    return torch.cat(parts)


def _episodes(
    problem: Problem, params: Tensors, episodes: int, seed: int, deterministic: bool
) -> Iterator[tuple[Trajectory, Outcome]]:
    """Whole episodes of the stream `seed`, in blocks."""
    problem.require_whole("an evaluation")
    episodes = whole("episodes", episodes)
    for block, begin in enumerate(range(0, episodes, NOISE_BLOCK)):
        count = min(NOISE_BLOCK, episodes - begin)
        noise = problem.draw(count, generator("evaluation", seed, block))
        if deterministic:
            noise = noise._replace(action=torch.zeros_like(noise.action))
        with torch.no_grad():
            path = rollout(problem, problem.bind(params), noise)
            yield path, evaluate(problem, path)


def _counts(problem: Problem, result: Outcome, alive: Bool[Tensor, "N T"]) -> Float[Tensor, "N E"]:
    """How often each event happened: one that switches, such as passing a gate, as often as it did;
    any other at most once.
    """
    times = ((result.margins > 0) & alive[..., None]).sum(1).to(result.value)
    most = [torch.inf if event.switches else 1.0 for event in problem.task.events]
    return torch.minimum(times, times.new_tensor(most)) if most else times
