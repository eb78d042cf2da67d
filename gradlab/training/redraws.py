"""A training's next update, drawn again and again from where the training is.

Every draw has each of the state's N moments once, and noise of generators that no training draws
from. So a mean over the N episodes is the gradient of that very update, with other noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue, NotFinite
from gradlab.foundation.generators import generator
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Factored
from gradlab.gradients.sampling import Sampler
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import View
from gradlab.problems.problem import Problem
from gradlab.statistics.moments import Moments
from gradlab.statistics.truth import OracleGradient
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import segment_of
from gradlab.training.state import TrainingState

AT_ONCE = 16_384  # simulator steps that are differentiated through at once


def objective_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> Problem:
    """The segment whose return the update is to ascend: L steps, and V̂ of the state after them.

    For an estimator with its own tail V̂(s) is the mean of its Q over the policy's actions at s.
    """
    segment, algorithm = segment_of(problem, algorithm, state), algorithm.now(state)
    if algorithm.tail != "own":
        return segment
    q = segment.require_q("the state after a segment")
    policy = segment.bind(state.params).frozen
    if policy.policy.carry_dim:
        raise BadValue(
            "V of a Q critic is not known for a recurrent policy, whose action depends on what it "
            "remembers; try tail='v'"
        )
    assert segment.critic is not None
    critic = replace(segment.critic, v=lambda view: mean_over_actions(q, policy, view))
    longer = segment.replace(horizon=segment.episode, segment=None, critic=critic)
    return longer.from_moments(algorithm.length)


def mean_over_actions(
    q: Callable[[View, Tensor], Tensor], policy: BoundPolicy, view: View
) -> Float[Tensor, "*batch"]:
    """E Q(s, a) over the Gaussian latent, by its 2 nu points at √nu standard deviations along the
    axes: exact where Q is a polynomial of degree 3 in the latent.
    """
    z = policy(view.obs)
    nu = policy.policy.action_dim
    axes = math.sqrt(nu) * torch.eye(nu, dtype=z.dtype, device=z.device)
    values = [
        q(view, policy.action(policy.latent(z, point.expand(*z.shape[:-1], nu))))
        for point in torch.cat([axes, -axes])
    ]
    return torch.stack(values).mean(0)


@dataclass(frozen=True)
class Redraws:
    """The next update of a state, to be drawn anew."""

    state: TrainingState

    def noise(self, segment: Problem, use: str, begin: int, count: int) -> Noise:
        """Of so many updates, one after another: each has every moment of the state once."""
        starts = self.state.episodes.map(lambda part: part.repeat(count, *[1] * (part.ndim - 1)))
        names = int(self.state.seed), int(self.state.updates)
        return segment.noise_from(starts, generator("quality", *names, use, begin))

    def seed(self, use: str) -> int:
        """Of a stream that is drawn by its number."""
        names = int(self.state.seed), int(self.state.updates)
        return int(torch.randint(2**62, (), generator=generator("quality", *names, use)))

    def draws(self, segment: Problem, use: str, count: int) -> Iterator[tuple[int, Noise]]:
        """The first of the updates, and the noise of as many as fit in memory."""
        steps = len(self.state.episodes.step) * segment.horizon
        size = max(1, AT_ONCE // steps)
        for begin in range(0, count, size):
            yield begin, self.noise(segment, use, begin, min(size, count - begin))

    def moments(
        self,
        estimator: Sampler,
        segment: Problem,
        use: str,
        count: int,
        weights: Float[Tensor, " T"] | None = None,
    ) -> Moments:
        """Statistics of an estimator's mean over the episodes of an update."""
        total: Moments | None = None
        for begin, noise in self.draws(segment, use, count):
            samples = estimator(segment, self.state.params, noise)
            if weights is not None:
                if not isinstance(samples, Factored):
                    raise BadValue(
                        f"the unbiased estimator should give policy calls, got {estimator.label}; "
                        "try estimators.Split()"
                    )
                samples = samples.weight_steps(weights.to(samples.cotangent))
            means = samples.group_means(len(self.state.episodes.step))
            piece = means.moments(None, begin, None if total is None else total.pilot)
            total = piece if total is None else total.merge(piece)
        assert total is not None
        return total

    def truth(
        self,
        estimator: Sampler,
        segment: Problem,
        use: str,
        count: int,
        weights: Float[Tensor, " T"] | None = None,
    ) -> OracleGradient | None:
        """A mean of so many; None where one of them is not finite."""
        found = self.moments(estimator, segment, use, count, weights)
        try:
            return OracleGradient.sampled(found, f"{estimator.label} x {count}")
        except NotFinite:
            return None
