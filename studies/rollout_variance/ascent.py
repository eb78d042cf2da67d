"""The second half of AGPO's Figure 2: ascent of r + γQ from one state by one-step SG,
and how its path looks.

At a fixed state a policy that starts at random is improved by Adam with the mean of a few one-step
SG gradients. Several states and several seeds go side by side: every path has parameters of its
own, so one backward pass of the sum gives all their gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.foundation.moment import Moment
from gradlab.gradients.sampling import block_generator
from gradlab.policies.stacked import StackedPolicy
from gradlab.problems.problem import Problem
from gradlab.study import seed_for
from studies.rollout_variance.gradients import one_step, step_noise

Stacked = Mapping[str, Tensor]  # parameters of A policies, [A, *param]


class Paths(NamedTuple):
    """What ascent did from each of S states with each of R seeds."""

    value: Float[Tensor, "S R K"]  # E[r + γQ] before each update, and after the last [reward]
    gradient: Float[Tensor, "S R updates"]  # norm of each update's gradient [reward]


class Apart(NamedTuple):
    """How a path of values moved."""

    gain: Float[Tensor, "..."]  # last value less the first [reward]
    fallen: Float[Tensor, "..."]  # share of all movement that was downwards [1]
    largest: Float[Tensor, "..."]  # largest single fall over the range of the path [1]


def ascend(
    problem: Problem,
    starts: Moment,
    *,
    seeds: int,
    updates: int,
    samples: int,
    judged: int,
    learning_rate: float,
    seed: int,
) -> Paths:
    """Adam ascent of r + γ alive' Q_{t+1} from each state of `starts` with each
    of `seeds` fresh policies.

    Seed number r has the same policy and noise at every state, so that states are compared in
    pairs. The value is the mean over `judged` noises that stay the same along a path; a gradient is
    the mean over `samples` fresh ones.
    """
    states = len(starts.state)
    policies = [_fresh(problem, seed_for(seed, "policy", r)) for r in range(seeds)]
    first = {name: torch.stack([p[name] for p in policies]) for name in policies[0]}
    leaves = {
        name: torch.nn.Parameter(value.repeat(states, *[1] * (value.ndim - 1)))
        for name, value in first.items()
    }
    adam = torch.optim.Adam(leaves.values(), lr=learning_rate, betas=(0.9, 0.95))
    paths = states * seeds
    yardstick = _noise(problem, seed, seeds, -1, judged)
    values, norms = [], []
    for update in range(updates + 1):
        fixed = {name: leaf.detach() for name, leaf in leaves.items()}
        with torch.no_grad():
            seen = _values(problem, fixed, starts, yardstick, seeds)
        values.append(seen.unflatten(0, (paths, judged)).mean(1))
        if update == updates:
            break
        fresh = _noise(problem, seed, seeds, update, samples)
        with torch.enable_grad():
            mean = _values(problem, leaves, starts, fresh, seeds).sum() / samples
        gradients = torch.autograd.grad(mean, list(leaves.values()))
        norms.append(sum(g.double().flatten(1).square().sum(1) for g in gradients))
        for leaf, gradient in zip(leaves.values(), gradients, strict=True):
            leaf.grad = -gradient
        adam.step()
    gradient = torch.stack([torch.as_tensor(n) for n in norms], dim=-1).sqrt()
    shape = (states, seeds)
    return Paths(torch.stack(values, dim=-1).unflatten(0, shape), gradient.unflatten(0, shape))


def _fresh(problem: Problem, seed: int) -> dict[str, Tensor]:
    return problem.init(block_generator(seed, -1))


def _noise(
    problem: Problem, seed: int, seeds: int, update: int, count: int
) -> Float[Tensor, "R count 2 nu"]:
    """Noise of both calls of each seed; update −1 is the yardstick of the values."""
    size = (count, 2, problem.simulator.action_dim)
    parts = [
        torch.randn(
            *size,
            generator=block_generator(seed_for(seed, "ascent", r, update), 0),
            dtype=torch.float64,
        )
        for r in range(seeds)
    ]
    return torch.stack(parts).to(problem.device, problem.dtype)


def _values(
    problem: Problem,
    params: Stacked,
    starts: Moment,
    noise: Float[Tensor, "R count 2 nu"],
    seeds: int,
) -> Float[Tensor, " N"]:
    """r + γQ of every state, seed and noise, in this order."""
    states, count = len(starts.state), noise.shape[1]
    rows = starts.repeat(seeds * count)
    action = noise.flatten(0, 1).repeat(states, 1, 1)
    stacked = StackedPolicy(problem.policy).bind(dict(params))

    def policy(obs: Tensor) -> Tensor:
        """Rows 0..count−1 belong to the first parameters, and so on."""
        grouped = obs.unflatten(0, (-1, count))
        return stacked(grouped).flatten(0, 1)

    return one_step(problem, policy, step_noise(problem, action), rows).value


def apart(value: Float[Tensor, "*batch K"]) -> Apart:
    """How erratic paths are; a path that does not move has fallen by 0."""
    change = value.diff(dim=-1)
    moved = change.abs().sum(-1)
    down = (-change).clamp(min=0)
    span = value.amax(-1) - value.amin(-1)
    return Apart(
        gain=value[..., -1] - value[..., 0],
        fallen=down.sum(-1) / torch.where(moved > 0, moved, 1.0),
        largest=down.amax(-1) / torch.where(span > 0, span, 1.0),
    )


def chosen(variance: Float[Tensor, "T N"], share: float, count: int) -> Int[Tensor, "count 2"]:
    """(step, state) of the `count` variances nearest to the quantile `share`,
    each of another state.

    Entries that are not finite are never chosen; fewer than `count` if there are no more states.
    """
    flat = variance.double().flatten()
    known = flat.isfinite() & (flat > 0)
    target = flat[known].log().quantile(share)
    distance = torch.where(known, (flat.clamp(min=1e-300).log() - target).abs(), torch.inf)
    picked: list[tuple[int, int]] = []
    used: set[int] = set()
    for index in distance.argsort(stable=True).tolist():
        step, state = divmod(index, variance.shape[1])
        if not known[index] or len(picked) == count:
            break
        if state not in used:
            used.add(state)
            picked.append((step, state))
    return torch.tensor(picked, dtype=torch.long).reshape(-1, 2)
