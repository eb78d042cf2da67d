"""How far two policies are from each other: in parameters, in actions and in return."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.generators import generator
from gradlab.foundation.moment import Moment, concatenate
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, moment_at
from gradlab.rollouts.rollout import rollout

RANGE = 2.0  # of an action, which is in [−1, 1]

Params = dict[str, Tensor]


def distance(one: Params, other: Params) -> float:
    """‖θ − θ'‖ of all parameters together, in float64."""
    squares = (float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return math.sqrt(sum(squares))


class Visited(NamedTuple):
    """What a policy met in whole episodes, with its own noise."""

    obs: Float[Tensor, "N T no"]
    alive: Bool[Tensor, "N T"]
    segments: Moment  # where segments of a given length begin, of episodes that had not ended


def visit(problem: Problem, params: Params, count: int, length: int, seed: int) -> Visited:
    """`count` whole episodes of a policy; the same noise for every policy."""
    noise = problem.draw(count, generator("parameter residual", "visited", seed))
    with torch.no_grad():
        path = rollout(problem, problem.bind(params).frozen, noise)
        result = evaluate(problem, path)
    starts = [moment_at(path, result, time) for time in range(0, problem.horizon, length)]
    whole = [one.take((~one.ended).nonzero()[:, 0]) for one in starts]
    return Visited(
        path.obs[:, : problem.horizon], result.alive[:, :-1] > 0, concatenate(whole).detach()
    )


def mean_actions(
    problem: Problem, params: Params, obs: Float[Tensor, "N T no"]
) -> Float[Tensor, "N T nu"]:
    """What the policy does at these observations without its noise."""
    with torch.no_grad():
        policy = problem.policy
        z, _ = policy.apply(params, policy.buffers(dtype=obs.dtype, device=obs.device), obs, None)
        return policy.mean_action(z)


def action_gap(problem: Problem, one: Params, other: Params, visited: Visited) -> float:
    """Root mean square difference of mean actions at visited states, per component, as a share of
    the action's range.
    """
    gap = mean_actions(problem, one, visited.obs) - mean_actions(problem, other, visited.obs)
    return float(gap.double()[visited.alive].square().mean().sqrt()) / RANGE
