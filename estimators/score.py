"""Zeroth-order gradients: the score function, with its baselines and return kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, Params, TwoPassEstimator
from estimators.outputs import at_outputs, reads_outputs
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Context
from gradlab.gradients.samples import GradientSamples
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate, reward_to_go, views, while_alive
from gradlab.rollouts.rollout import Trajectory, rollout


class Scored(NamedTuple):
    """What the score function multiplies, as constants."""

    obs: Float[Tensor, "N T no"]
    output: Float[Tensor, "N T nz"]  # z, what the policy said there
    advantage: Float[Tensor, "N T"]


@dataclass(frozen=True)
class PG(TwoPassEstimator):
    """Zeroth-order policy gradient (ZOG, REINFORCE): Σ_t ∇log π(a_t|s_t) (G_t − γ^t alive_t b_t).

    Estimates: ∇J; call weights 1. G_t = Σ_{k>=t} γ^k alive_k r_k, γ counted from the start.
    Requires: nothing; `baseline="v"` and `returns="gae"` a V critic, `baseline="q"` a Q critic
    (b_t = Q(s_t, μ(s_t)), papers/003 appendix B). `baseline="loo"` is the mean of G_t over the
    other samples of a group of `group_size`.
    Unbiased when: always, for any baseline here and `returns="start"`. `returns="discounted"`
    counts γ from t (the common implementation) and `returns="gae"` uses V inside the advantage
    (exact only with λ = 1 or an exact V): named, biased options.
    Cost: T environment steps, no backward pass through the simulator.
    Reference: Williams 1992; ABPT eq. 4; GAE: Schulman et al. 2016 eq. 16.
    """

    baseline: Literal["none", "loo", "v", "q"] = "none"
    returns: Literal["start", "discounted", "gae"] = "start"
    gae_lambda: float = 0.95
    group_size: int = 50  # samples of one leave-one-out group: half of ABPT's actor batch of 100

    @property
    def group(self) -> int:
        return self.group_size if self.baseline == "loo" else 1

    def check(self, problem: Problem) -> None:
        if self.baseline not in ("none", "loo", "v", "q"):
            raise BadValue(f"PG baseline must be none, loo, v or q, got {self.baseline!r}")
        if self.returns not in ("start", "discounted", "gae"):
            raise BadValue(f"PG returns must be start, discounted or gae, got {self.returns!r}")
        if self.returns == "gae" and self.baseline != "none":
            raise BadValue(
                f'returns="gae" has V inside and takes no baseline, got {self.baseline!r}; '
                'use baseline="none"'
            )
        if self.baseline == "loo" and self.group_size < 2:
            raise BadValue(f"leave-one-out needs group_size >= 2, got {self.group_size}")
        if self.baseline == "v" or self.returns == "gae":
            problem.require_v("PG with a V baseline or GAE")
        if self.baseline == "q":
            problem.require_q("PG with a Q baseline")

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        if self.returns == "discounted":  # γ^t of the true weight is missing from call t
            return (1 / problem.discounts[: problem.horizon]).cpu()
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> Cost:
        return Cost(problem.horizon, 0, reads=frozenset({problem.horizon}))

    def first_pass(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Scored:
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
        if self.returns == "gae":
            advantage = self._gae(problem, path, result)
        else:
            advantage = result.to_go()
            if self.baseline == "loo":
                advantage = leave_one_out(advantage, self.group_size)
            elif self.baseline != "none":
                baseline = self._baseline(problem, policy, path, result)
                times = slice(0, problem.horizon)
                advantage = advantage - while_alive(result, baseline, times)
            if self.returns == "discounted":
                advantage = advantage / problem.discounts[: problem.horizon]
        return Scored(path.obs, path.output, advantage)

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, given: Scored
    ) -> Float[Tensor, "*batch"]:
        z = policy.over(given.obs, steps=range(problem.horizon))
        return (policy.log_prob_held(z, noise.action) * given.advantage).sum(-1)

    def sample(
        self, problem: Problem, params: Params, noise: Noise, context: Context
    ) -> GradientSamples:
        if not reads_outputs(self, PG, problem, context.layers):
            return super().sample(problem, params, noise, context)
        policy = problem.bind(params, memo=context.memo).frozen
        with torch.no_grad():
            given = self.first_pass(problem, policy, noise)
        return at_outputs(
            problem,
            params,
            (given.obs, given.output),
            lambda z: (policy.log_prob_held(z, noise.action) * given.advantage).sum(-1),
        )

    def _baseline(
        self, problem: Problem, policy: BoundPolicy, path: Trajectory, result: Outcome
    ) -> Tensor:
        view = views(problem, path, result, slice(0, problem.horizon))
        if self.baseline == "v":
            return problem.require_v(self.label)(view)
        return problem.require_q(self.label)(view, policy.mean_action(path.output))

    def _gae(self, problem: Problem, path: Trajectory, result: Outcome) -> Tensor:
        v = problem.require_v(self.label)
        values = v(views(problem, path, result, slice(0, problem.horizon)))
        values = while_alive(result, values, slice(0, problem.horizon))
        following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)
        delta = result.value + following - values  # discounted from the start, like G_t
        powers = self.gae_lambda ** torch.arange(
            problem.horizon, dtype=torch.float64, device=delta.device
        )
        # Σ_{k>=t} λ^{k−t} δ_k, without dividing by vanishing powers of λ
        index = torch.arange(problem.horizon, device=delta.device)
        ahead = index[None, :] - index[:, None]
        kernel = torch.where(ahead >= 0, powers[ahead.clamp(min=0)], 0.0).to(delta.dtype)
        return delta @ kernel.mT


def leave_one_out(returns: Float[Tensor, "N T"], group: int) -> Float[Tensor, "N T"]:
    """G_t minus the mean of G_t over the other samples of each group."""
    grouped = returns.unflatten(0, (-1, group))
    total = grouped.sum(1, keepdim=True)
    return (grouped - (total - grouped) / (group - 1)).flatten(0, 1)


def score_surrogate(
    policy: BoundPolicy, path: Trajectory, noise: Noise, values: Float[Tensor, "*batch T"]
) -> Float[Tensor, "*batch"]:
    """Σ_t log π(a_t|s_t)·Σ_{k>=t} values_k at fixed states, actions and values.

    `path` is that of `policy` and `noise`. The density is taken at detached observations: an
    attached one would leak a gradient through the state.
    """
    first = path.carry[..., 0, :].detach()
    z = policy.over(path.obs.detach(), steps=range(path.obs.shape[-2]), carry=first)
    log_prob = policy.log_prob_held(z, noise.action)
    return (log_prob * reward_to_go(values.detach())).sum(-1)
