"""First-order gradients through the simulator, of the hard and of a relaxed objective."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Cost, SurrogateEstimator
from estimators.score import score_surrogate
from gradlab.events import running_maximum
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import positions
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, bootstrap, bootstraps, evaluate, while_alive
from gradlab.rollouts.rollout import Trajectory, rollout


@dataclass(frozen=True)
class FOG(SurrogateEstimator):
    """First-order gradient (SG, BPTT, APG): ∇ Σ_t γ^t alive_t r_t through simulator and reward.

    With `entropy` κ, r_t is r_t − κ log π(a_t|s_t), as in SAPO, through the states as well.

    Estimates: ∇J, of the return with entropy where there is κ; call weights 1.
    Requires: nothing.
    Unbiased when: rewards and dynamics are continuous in the noise. It does not see hard events.
    Cost: T environment steps, one backward pass.
    Reference: ABPT eq. 6; AGPO section 3.1 (SG).
    """

    entropy: float = field(default=0.0, hash=False)  # κ [reward/nat]

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
        total = result.value.sum(-1)
        if not self.entropy:
            return total
        times = slice(0, path.action.shape[-2])
        log_prob = policy.log_prob_action(path.output, noise.action[..., times, :])
        return total - self.entropy * while_alive(result, log_prob, times).sum(-1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> Cost:
        return Cost(problem.horizon, 1, runs=frozenset({problem.horizon}))


@dataclass(frozen=True)
class RelaxedFOG(SurrogateEstimator):
    """FOG of the objective with every event relaxed, as an estimate of the hard gradient.

    Estimates: ∇J_width, which goes to ∇J as width → 0; call weights 1.
    Requires: nothing; `width` > 0 is a fraction of each margin's scale.
    Unbiased when: only in the limit; its variance grows like 1/width, so that every budget has a
    best width.
    Cost: T environment steps, one backward pass.
    Reference: the relaxation proposed by the reviewers of ABPT; `docs/events.md`.
    """

    width: float = 0.1
    step: str = "sigmoid"

    def check(self, problem: Problem) -> None:
        problem.relaxed(self.width, self.step)

    @property
    def label(self) -> str:
        return f"RelaxedFOG({self.width:g})"

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        relaxed = problem.relaxed(self.width, self.step)
        return evaluate(relaxed, rollout(relaxed, policy, noise)).value.sum(-1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.ones(problem.horizon, dtype=problem.dtype)


@dataclass(frozen=True)
class Split(SurrogateEstimator):
    """Pathwise on a continuous part S of the reward, score function on the rest R − S.

    J = E[Σ S_t] + E[Σ (R_t − S_t)], both on the same rollouts, which go on until neither R nor S
    counts: S_t is the relaxed reward of `width`, or with `width=None` the smooth terms alone, times
    clip(−M_{t−1}, 0, 1) of the events that end an episode: continuous, and 0 once it has ended. The
    residual gets the score function at *every* t.

    Estimates: ∇J; call weights 1.
    Requires: nothing.
    Unbiased when: S_t is continuous in the noise; rewards may be partially differentiable. Where an
    event switches the observation or the dense reward, S_t is multiplied by clip(−M_t/width, 0, 1)
    of that event (M_t in scaled margins; `width=None` uses 1), so that the jump has no pathwise
    part; `guard_switches=False` leaves that out and is biased there.
    Cost: T environment steps, one backward pass.
    Reference: the decomposition of partially differentiable rewards; score function as in ABPT
    eq. 4, pathwise part as in ABPT eq. 6.
    """

    width: float | None = 0.05
    step: str = "sigmoid"
    guard_switches: bool = True

    def check(self, problem: Problem) -> None:
        problem.relaxed(1.0 if self.width is None else self.width, self.step)

    @property
    def label(self) -> str:
        return f"Split({'none' if self.width is None else f'{self.width:g}'})"

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        relaxed = problem if self.width is None else problem.relaxed(self.width, self.step)
        # as long as either of the two has survival
        longer = relaxed if relaxed.last_margin > problem.last_margin else problem
        path = rollout(longer, policy, noise)
        hard = evaluate(problem, path)
        if self.width is None:
            smooth = self._terms(problem, path, hard)
        else:
            smooth = evaluate(relaxed, path).value
        if self.guard_switches:
            smooth = smooth * self._guard(problem, hard.margins)
        residual = score_surrogate(policy, path, noise, hard.value - smooth)
        return smooth.sum(-1) + residual

    def _terms(
        self, problem: Problem, path: Trajectory, hard: Outcome
    ) -> Float[Tensor, "*batch T"]:
        """The smooth terms and a segment's last V, times clip(−M_{t−1}, 0, 1) of the events that
        end the episode.
        """
        living = self._living(problem, path, hard)
        now = living[..., :-1]
        smooth = hard.discount[..., :-1] * (now * torch.where(now == 0, 0.0, hard.dense))
        if not bootstraps(problem, path):
            return smooth
        last = smooth[..., -1:] + (living[..., -1] * bootstrap(problem, path, hard))[..., None]
        return torch.cat([smooth[..., :-1], last], dim=-1)

    def _living(
        self, problem: Problem, path: Trajectory, hard: Outcome
    ) -> Float[Tensor, "*batch T_plus_1"]:
        """clip(−M_{t−1}, 0, 1) of the events that end the episode, before every step."""
        first = torch.ones_like(hard.alive[..., :1])
        ending = [i for i, event in enumerate(problem.task.events) if event.terminates]
        if not ending:
            return torch.ones_like(hard.alive)
        chosen = positions(ending, hard.running)
        if path.start is not None:
            first = (-path.start.running[..., None, chosen].max(-1).values).clamp(0, 1)
        worst = hard.running[..., chosen].max(-1).values
        return torch.cat([first, (-worst).clamp(0, 1)], dim=-1)

    def _guard(self, problem: Problem, margins: Float[Tensor, "*batch T E"]) -> Tensor | float:
        """clip(−M_t/width, 0, 1) of the switching events: continuous, and 0 once one happened."""
        switching = [i for i, event in enumerate(problem.task.events) if event.switches]
        if not switching:
            return 1.0
        worst = running_maximum(margins[..., positions(switching, margins)]).max(-1).values
        return (-worst / (self.width or 1.0)).clamp(0, 1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.ones(problem.horizon, dtype=problem.dtype)
