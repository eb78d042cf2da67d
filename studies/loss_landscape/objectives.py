"""The one-step objectives of AGPO (Gao et al. 2024, section 3.3,
Figure 3) as functions of the policy.

At step t of episodes rolled out with the policy in the centre of the plane, states s_t and noise
are held fixed and the policy π_θ moves:

    SG     γ^{−t}[ γ^t alive_t r_t(s_t, a) + γ^{t+1} alive_{t+1} Q_{t+1}(s', a') ],
           a = π_θ(s_t), a' = π_θ(s')
    Q      alive_t Q_t(s_t, a)
    SG+QG  α SG + (1 − α) Q,   α = var_QG/(var_QG + var_SG)
    SG+PG  α SG + (1 − α) Q,   α = var_PG/(var_PG + var_SG)

SG+QG is equation 4 with h = 1, and α is equation 3. PG and QG are two gradients of one objective,
E Q(s, π_θ(s)), so the surfaces of the two mixtures differ by α alone. The variances are those over
episodes of each gradient at the mean of the policy's latent action, the last place that all three
share (the paper takes the action itself, which PG's gradient does not reach); PG is the score
function times Q(s, u) − Q(s, μ(s)), the baseline of appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.noise import Noise
from gradlab.landscapes import Params, Plane, over_plane, points_at_once
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate, views, while_alive
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.tasks import Transition

PURE = ("sg", "q")
MIXTURES = {"sg_pg": "pg", "sg_qg": "qg"}  # what is mixed with SG
ALPHAS = ("centre", "point")  # where α is computed
Key: TypeAlias = tuple[str, str]  # objective, where α is from ("-": it has none)


class Held(NamedTuple):
    """Step t of episodes under the centre's policy, with their whole past, as constants.

    The past is kept, and not a `Moment`, because a longer tensor rounds the last bit of a reward in
    another way than the step alone.
    """

    step: int
    path: Trajectory  # steps 0..t−1, and the states and memories up to t
    obs: Float[Tensor, "N no"]
    state: Float[Tensor, "N ns"]  # that the step starts from: of an ended episode its last one's
    action: Float[Tensor, "N nu"]  # that the centre takes; an ended episode keeps it
    alive: Float[Tensor, "N"]
    noise: Noise


def held_at(problem: Problem, params: Params, noise: Noise, step: int) -> Held:
    """Roll out with the policy `params` and stop at `step` < T. Needs a Q critic."""
    problem.require_q("a one-step landscape")
    with torch.no_grad():
        whole = rollout(problem, problem.bind(params), noise, length=step + 1)
        alive = evaluate(problem, whole).alive[:, step]
    before = whole.map(lambda part: part[:, :-1])
    now = whole.obs[:, step], whole.before[:, step], whole.action[:, step]
    return Held(step, before, *now, alive, noise)


def objectives_at(
    problem: Problem, params: Params, held: Held, mean: Tensor | None = None
) -> dict[str, Float[Tensor, "N"]]:
    """SG and Q of every episode under the policy `params`.

    `mean`, if given, replaces the mean of the latent action at the step, to differentiate by.
    """
    step, noise = held.step, held.noise
    z, latent, action = _act(problem, params, held, mean)
    path = _extended(problem, held, z, latent, action)
    result = evaluate(problem, path)
    sg = result.value[:, step] + _tail(problem, params, path, result, noise, step + 1)
    q = held.alive * _q(problem, path, result, step, action)
    return {"sg": sg / problem.discounts[step], "q": q}


def _act(
    problem: Problem, params: Params, held: Held, mean: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, latent and action of the policy `params` at the states that are held."""
    policy = problem.policy
    z = problem.bind(params)(held.obs)
    if mean is not None:
        z = torch.cat([mean, z[..., policy.action_dim :]], dim=-1)
    latent = policy.latent(z, held.noise.action[:, held.step])
    return z, latent, policy.action(latent)


def _q(
    problem: Problem, path: Trajectory, result: Outcome, step: int, action: Tensor
) -> Float[Tensor, "N"]:
    """Q_t(s_t, action)."""
    q = problem.require_q("a one-step landscape")
    view = views(problem, path, result, slice(step, step + 1))
    return q(view, action[:, None])[:, 0]


def _extended(
    problem: Problem, held: Held, z: Tensor, latent: Tensor, action: Tensor
) -> Trajectory:
    """The centre's path with one more step: events look back at all of it.

    An ended episode repeats its last step, as rollouts do.
    """
    step, noise, path = held.step, held.noise, held.path
    ended, memory, carry = path.ended[:, step], path.memory[:, step], path.carry[:, step]
    process = noise.process[:, step]
    action = torch.where(ended[:, None], held.action, action)
    after = problem.simulator.step(held.state, action, process)
    made = Transition(held.state, action, after, memory, problem.steps[step])
    memory_after = problem.task.advance(made)
    inputs = (held.state, memory, process)
    new = (held.obs, z, latent, action, *inputs, after, memory_after, carry, carry, ended)
    parts = (torch.cat([a, b[:, None]], dim=1) for a, b in zip(path[:-1], new, strict=True))
    return Trajectory(*parts, start=None)


def _tail(
    problem: Problem, params: Params, path: Trajectory, result: Outcome, noise: Noise, step: int
) -> Tensor | float:
    """γ^{t+1} alive_{t+1} Q_{t+1}(s', π_θ(s')); nothing after the last step."""
    if step >= problem.horizon:
        return 0.0
    policy = problem.bind(params)
    obs = views(problem, path, result, slice(step, step + 1)).obs[:, 0]
    action = policy.action(policy.latent(policy(obs), noise.action[:, step]))
    values = _q(problem, path, result, step, action)[:, None]
    return while_alive(result, values, slice(step, step + 1))[:, 0]


def weights_at(problem: Problem, params: Params, held: Held) -> dict[str, Float[Tensor, ""]]:
    """α of both mixtures at one policy, from all episodes of `held`; ½ where no gradient varies."""
    policy = problem.policy
    z, _, _ = _act(problem, params, held, None)
    mean = z[..., : policy.action_dim]

    def total(mean: Tensor, name: str) -> Tensor:
        return objectives_at(problem, params, held, mean)[name].sum()

    def score(mean: Tensor) -> Tensor:
        moved = torch.cat([mean, z[..., policy.action_dim :]], dim=-1)
        return policy.log_prob_held(moved, held.noise.action[:, held.step]).sum()

    gradients = {
        "sg": torch.func.grad(total)(mean, "sg"),
        "qg": torch.func.grad(total)(mean, "q"),
        "pg": torch.func.grad(score)(mean) * _advantage(problem, params, held)[:, None],
    }
    spread = {name: gradient.var(0).sum() for name, gradient in gradients.items()}
    weights = {}
    for mixture, other in MIXTURES.items():
        both = spread[other] + spread["sg"]
        known = both > 0
        weights[mixture] = torch.where(known, spread[other] / torch.where(known, both, 1.0), 0.5)
    return weights


def _advantage(problem: Problem, params: Params, held: Held) -> Float[Tensor, "N"]:
    """alive_t [Q_t(s_t, u) − Q_t(s_t, μ(s_t))] of the policy `params`."""
    z, latent, action = _act(problem, params, held, None)
    path = _extended(problem, held, z, latent, action)
    result = evaluate(problem, path)
    values = [
        _q(problem, path, result, held.step, a) for a in (action, problem.policy.mean_action(z))
    ]
    return held.alive * (values[0] - values[1])


def objectives_over_plane(
    problem: Problem,
    plane: Plane,
    points: Float[Tensor, "points 2"],
    noise: Noise,
    pilot: Noise,
    step: int,
    alphas: Sequence[str] = ALPHAS,
) -> tuple[dict[Key, Float[Tensor, "points N"]], dict[Key, Float[Tensor, "points"]]]:
    """Every objective at every point, and α of the mixtures there, by (objective, where α is from).

    α comes from the episodes of `pilot`, so that the episodes of `noise` stay independent of each
    other: computed anew at each point ("point"), or once in the centre ("centre").
    Raises `Missing` without a Q critic.
    """
    problem = problem.replace(compile=False)  # compiled code does not go through torch.func
    held = held_at(problem, plane.centre, noise, step)
    other = held_at(problem, plane.centre, pilot, step)
    # the whole past of every episode is there at every point, and the pilot's with its gradients
    chunk = points_at_once(problem, noise.count + 3 * pilot.count)

    def function(params: Params) -> dict[str, Tensor]:
        return objectives_at(problem, params, held)

    def weigh(params: Params) -> dict[str, Tensor]:
        return weights_at(problem, params, other)

    pure = over_plane(function, plane, points, chunk)
    values: dict[Key, Tensor] = {(name, "-"): pure[name] for name in PURE}
    weights: dict[Key, Tensor] = {}
    centre = points.new_zeros(1, 2)
    for alpha in alphas:
        found = over_plane(weigh, plane, points if alpha == "point" else centre, chunk)
        for mixture in MIXTURES:
            key = (mixture, alpha)
            weights[key] = found[mixture].expand(len(points))
            w = weights[key][:, None]
            values[key] = w * pure["sg"] + (1 - w) * pure["q"]
    return values, weights
