"""One step along a gradient, and what it does to the true objective.

Every estimator takes steps of the same lengths ‖Δθ‖, whatever the length of its gradient: Adam and
clipped or normalised ascent ignore that too, and the mean square error judges it. What length is
sensible depends on the problem, so that the unit is the best step along the true gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import noise_stream
from gradlab.policies.stacked import StackedPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout

Params = dict[str, Tensor]
HALVINGS = range(-1, 23)  # of the parameters' length, among which the unit is searched
SEARCHED = 1024  # episodes of that search
AT_ONCE = 2048  # episodes


def length_of(tensors: Mapping[str, Tensor]) -> float:
    """√(Σ x²) over all parameters, in float64."""
    return math.sqrt(sum(float(x.double().square().sum()) for x in tensors.values()))


def moved(params: Params, direction: Mapping[str, Tensor], lengths: Sequence[float]) -> Params:
    """θ + r g/‖g‖ for every length r, stacked: {name: [lengths, *param]}; θ itself where the
    direction g is zero or not finite."""
    size = length_of(direction)
    if not 0 < size < math.inf:
        return {n: p.expand(len(lengths), *p.shape).clone() for n, p in params.items()}
    steps = torch.tensor(lengths, dtype=torch.float64) / size
    stacked: Params = {}
    for name, param in params.items():
        along = direction[name].to(param.device, torch.float64)
        moves = steps.to(param.device).reshape(-1, *[1] * param.ndim) * along
        stacked[name] = param + moves.to(param.dtype)
    return stacked


def mean_returns(
    problem: Problem, stacked: Params, count: int, seed: int
) -> Float[Tensor, " points"]:
    """The hard objective at every point, by the first `count` episodes of the stream `seed`.

    All points see the same episodes. In float64; NaN where a return is not finite.
    """
    points = len(next(iter(stacked.values())))
    policy = StackedPolicy(problem.policy)
    buffers = problem.bind({name: p[0] for name, p in stacked.items()}).buffers
    total = torch.zeros(points, dtype=torch.float64)
    with torch.no_grad():
        for noise in noise_stream(problem, count, seed, max(1, AT_ONCE // points)):
            episodes = Noise(*(x.expand(points, *x.shape) for x in noise))
            path = rollout(problem, policy.bind(stacked, buffers), episodes)
            total += evaluate(problem, path).value.sum(-1).double().sum(-1).cpu()
    return torch.where(total.isfinite(), total / count, torch.nan)


def best_length(
    problem: Problem, params: Params, direction: Mapping[str, Tensor], seed: int
) -> float:
    """The length of the best step along a direction, up to a factor of two.

    The unit of all lengths. Twice the parameters' length, halved again and again; parameters that
    are all zero count as 1 long. A direction along which nothing gains gives the shortest.
    """
    whole = length_of(params) or 1.0
    lengths = [whole * 2.0**-k for k in HALVINGS]
    points = moved(params, direction, [0.0, *lengths])
    values = torch.cat(
        [
            mean_returns(problem, {n: p[i : i + 4] for n, p in points.items()}, SEARCHED, seed)
            for i in range(0, len(lengths) + 1, 4)
        ]
    )
    gains = (values[1:] - values[0]).nan_to_num(nan=-math.inf)
    best = int(gains.argmax())
    return lengths[best] if float(gains[best]) > 0 else lengths[-1]
