"""Episodes to fit and judge critics on, always of the hard task, and their return targets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.sampling import noise_stream
from gradlab.problems.critic import View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.rollouts.rollout import rollout


class Episodes(NamedTuple):
    """What N episodes saw; rows (i, t) outside the masks must not be used as targets."""

    view: View  # [N, T, ...]
    action: Float[Tensor, "N T nu"]
    reward: Float[Tensor, "N T"]  # r_t, bonuses included, valid while alive
    alive: Float[Tensor, "N T+1"]
    q_rows: Bool[Tensor, "N T"]  # the return is one of (s_t, a_t) under the policy
    v_rows: Bool[Tensor, "N T"]  # the return is one of s_t under the policy

    def returns(self, discount: float) -> Float[Tensor, "N T"]:
        """Σ_{k>=t} γ^{k−t} alive_k r_k given alive_t: the hard return to go, discounted from t."""
        return lambda_returns(self.reward, self.alive, torch.zeros_like(self.reward), discount, 1.0)


def seed_of(seed: int, purpose: str) -> int:
    """Unrelated seeds for the uses that one fit makes of randomness."""
    digest = hashlib.sha256(f"critic/{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**63


def lambda_returns(
    reward: Float[Tensor, "*batch T"],
    alive: Float[Tensor, "*batch T+1"],
    values: Float[Tensor, "*batch T"],
    discount: float,
    lam: float,
    last: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """TD(λ) targets of every t over the rest of the episode (ABPT eq. 13 and 14).

    Ỹ_t = r_t + γ alive_{t+1} [(1 − λ) V_{t+1} + λ Ỹ_{t+1}], given alive_t; `values` are V_0 ...
    V_{T−1}, and `last` is Ỹ_T = V_T, 0 by default: that of the end of a segment. λ=1 gives the
    return to go and ignores `values`. Entries that are not alive are meaningless, and neither they
    nor their values reach the others, finite or not.
    """
    if not 0 <= lam <= 1:
        raise BadValue(f"lam must lie in [0, 1], got {lam}; try 0.95")
    end = reward[..., -1]
    if last is not None:
        end = end + discount * torch.where(alive[..., -1] > 0, last, torch.zeros_like(last))
    targets = [end]
    for t in range(reward.shape[-1] - 2, -1, -1):
        later = lam * targets[-1]
        if lam < 1:
            later = later + (1 - lam) * values[..., t + 1]
        later = torch.where(alive[..., t + 1] > 0, later, torch.zeros_like(later))
        targets.append(reward[..., t] + discount * later)
    return torch.stack(targets[::-1], dim=-1)


def episodes(
    problem: Problem, params: dict[str, Tensor], noise: Noise, exploration: float = 0.0
) -> Episodes:
    """Roll out the policy on the hard task, without gradients.

    With `exploration` > 0 the latent's std at one time τ per episode, uniform in 0..T−1, is larger
    by that much. Later actions are the policy's own, so the return from τ is an exact target of Q,
    and returns after τ of V. Q's only row is τ: later ones are exact too, but a narrow policy's
    action hardly varies given the state, and they would drown the one row that tells what an action
    does. τ follows from `noise.seed`.
    """
    problem.require_whole("a critic's fit")
    problem = problem.unrelaxed
    with torch.no_grad():
        policy = problem.bind(params).frozen
        path = rollout(problem, policy, noise)
        times = torch.arange(problem.horizon, device=noise.action.device)
        q_rows = v_rows = torch.ones_like(noise.action[..., 0], dtype=torch.bool)
        if exploration:
            explored = (noise.seed % problem.horizon)[:, None]
            q_rows, v_rows = times == explored, times > explored
            # the std at τ is known from a first rollout: what is changed at τ comes after it
            std = path.output.chunk(2, dim=-1)[1].exp()
            eps = noise.action * (std + exploration) / std
            noise = noise._replace(action=torch.where(q_rows[..., None], eps, noise.action))
            path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
        alive = result.alive[..., :-1] > 0
        return Episodes(
            view=views(problem, path, result, slice(0, problem.horizon)),
            action=path.action,
            reward=result.reward,
            alive=result.alive,
            q_rows=alive & q_rows,
            v_rows=alive & v_rows,
        )


def episode_stream(
    problem: Problem,
    params: dict[str, Tensor],
    count: int,
    seed: int,
    exploration: float = 0.0,
) -> Iterator[Episodes]:
    """`count` episodes of the stream `seed`, in chunks."""
    problem.policy.check(params)
    for noise in noise_stream(problem, count, seed):
        yield episodes(problem, params, noise, exploration)


def per_time(
    target: Float[Tensor, "N T"], rows: Bool[Tensor, "N T"]
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Mean and standard deviation of the targets of each time, in float64;
    0 where there are none.
    """
    exact = torch.where(rows, target, torch.zeros_like(target)).double()
    count = rows.sum(0).clamp(min=1)
    mean = exact.sum(0) / count
    centred = torch.where(rows, exact - mean, torch.zeros_like(exact))
    return mean, (centred.square().sum(0) / count).sqrt()
