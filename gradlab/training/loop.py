"""init, update, train: from one training state to the next.

Every random number of an update comes from a generator named by the seed, the number of the update
and what it is for. So no noise is used twice, and a training that goes on from a file ends in the
same state, to the bit, as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import NotFinite
from gradlab.foundation.generators import generator
from gradlab.policies.normalised import MEAN, observed
from gradlab.problems.problem import Problem
from gradlab.rollouts.rollout import Trajectory
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import Ascent, gradient_again, gradient_of, segment_of
from gradlab.training.critic import SoftSteps
from gradlab.training.exploration import Temperature
from gradlab.training.nonfinite import sound, where
from gradlab.training.optimiser import Tensors
from gradlab.training.restarts import fresh, onward
from gradlab.training.segments import Stiff
from gradlab.training.state import TrainingState

__all__ = ["Info", "gradient_of", "init", "segment_of", "train", "update"]


class Info(NamedTuple):
    """What an update saw."""

    reward: Float[Tensor, ""]  # mean of r_t over steps alive
    norm: Float[Tensor, ""]  # of the (first) gradient on the segment, before it was clipped
    loss: Float[Tensor, ""]  # of the critic in its last pass; 0 without one
    finished: Int[Tensor, ""]  # whole episodes that ended or ran out of time in this update
    returns: Float[Tensor, ""]  # sum of their undiscounted returns
    lengths: Float[Tensor, ""]  # and of their steps
    nonfinite: Int[Tensor, ""]  # episodes whose numbers were not finite in this segment
    entropy: Float[Tensor, ""]  # of the policy, mean over steps alive; 0 without the option [nat]


def init(problem: Problem, algorithm: Algorithm, seed: int = 0) -> TrainingState:
    """Where a training begins: fresh parameters, episodes at their initial states.

    Raises `BadValue` for a problem or a seed that cannot be trained with.
    """
    algorithm.check(problem)
    seed = whole("seed", seed, 0)
    params = problem.init(generator("train", seed, "policy"))
    critic: Tensors = {}
    critic_memory: Tensors = {}
    if algorithm.critic is not None:
        critic = algorithm.critic.init(problem, generator("train", seed, "critic"))
        critic_memory = algorithm.critic.optimiser.init(critic)
    episodes = fresh(problem, algorithm.episodes, seed, 0)
    coefficient = None if algorithm.entropy is None else algorithm.entropy.coefficient
    follows = isinstance(coefficient, Temperature)
    temperature, temperature_memory = coefficient.init() if follows else ({}, {})
    return TrainingState(
        params=params,
        buffers=dict(problem.bind(params).buffers),
        memory=algorithm.optimiser.init(params),
        critic=critic,
        target={name: value.clone() for name, value in critic.items()},
        critic_memory=critic_memory,
        episodes=episodes,
        returns=torch.zeros_like(episodes.step),
        seed=torch.tensor(seed),
        updates=torch.tensor(0),
        steps=torch.tensor(0),
        whole=torch.ones_like(episodes.ended),
        visited=episodes.state.new_zeros(0, sum(problem.widths.parts.values())),
        previous={name: value.clone() for name, value in params.items()} if algorithm.kl else {},
        temperature=temperature,
        temperature_memory=temperature_memory,
        length={} if algorithm.adaptive is None else algorithm.adaptive.init(),
    )


def update(
    problem: Problem, algorithm: Algorithm, state: TrainingState
) -> tuple[TrainingState, Info]:
    """One step of the optimiser and of the critic, and where the episodes are then.

    Raises `NotFinite` for a gradient that is none, unless the algorithm skips such updates.
    """
    given, algorithm = algorithm, algorithm.now(state)
    ascent = gradient_of(problem, algorithm, state)
    path, result = ascent.path, ascent.result
    fine = sound(path, result)
    params, memory, norm = _stepped(algorithm, state, ascent, fine)
    ran = (result.alive[:, :-1] > 0) & fine[:, None]
    heat, entropy = _heated(algorithm, state, ascent, ran)
    critics, loss = _fitted(algorithm, state, ascent, fine)
    next_ = onward(problem, algorithm, state, path, result, fine)
    rewards = torch.where(ran, result.reward, 0.0)
    # an episode's return is that of its own time, of which the segment may run out
    steps = state.episodes.step[:, None] + torch.arange(algorithm.length, device=rewards.device)
    within = ran & (steps < problem.horizon)
    returns = state.returns + torch.where(within, rewards, 0.0).sum(1)
    counted = next_.over & fine & state.whole
    lengths = state.episodes.step + within.sum(1)
    info = Info(
        reward=rewards.sum() / ran.sum().clamp(min=1),
        norm=norm,
        loss=loss,
        finished=counted.sum(),
        returns=torch.where(counted, returns, 0.0).sum(),
        lengths=torch.where(counted, lengths, 0.0).sum(),
        nonfinite=(~fine).sum(),
        entropy=entropy,
    )
    later = state._replace(
        params=params,
        memory=memory,
        **critics,
        **heat,
        buffers=_statistics(state.buffers, path, ran),
        episodes=next_.episodes,
        returns=torch.where(next_.anew, 0.0, returns),
        updates=state.updates + 1,
        steps=state.steps + ran.sum().cpu(),
        whole=next_.whole,
        visited=next_.visited,
        previous=state.params if algorithm.kl is not None else {},
        length=_lengthened(problem, given, state, path, ran),
    )
    return later, info


def train(
    problem: Problem,
    algorithm: Algorithm,
    *,
    seed: int = 0,
    state: TrainingState | None = None,
    observe: Callable[[TrainingState, Info], None] | None = None,
) -> TrainingState:
    """All updates of the algorithm, or those that are left after `state`.

    `observe` sees every state with what its update saw, to log or to save it.
    """
    state = init(problem, algorithm, seed) if state is None else state
    while int(state.updates) < algorithm.updates:
        state, info = update(problem, algorithm, state)
        if observe is not None:
            observe(state, info)
    return state


def _stepped(
    algorithm: Algorithm, state: TrainingState, ascent: Ascent, fine: Bool[Tensor, " N"]
) -> tuple[Tensors, Tensors, Float[Tensor, ""]]:
    """Parameters and memory after the steps of the optimiser, and the first gradient's norm."""
    params, memory, first = state.params, state.memory, torch.tensor(torch.nan)
    gradient = ascent.gradient
    scale = -1.0 / algorithm.length if algorithm.average else -1.0
    for epoch in range(1 if algorithm.reuse is None else algorithm.reuse.epochs):
        if epoch:
            gradient = gradient_again(ascent, algorithm, state, params)
        if not all(bool(value.isfinite().all()) for value in gradient.values()):
            if algorithm.on_nonfinite == "stop":
                at = ascent.segment, ascent.path, ascent.result
                raise NotFinite(where(*at, fine, int(state.updates)))
            break
        descent = {name: scale * value for name, value in gradient.items()}
        params, memory, norm = algorithm.optimiser.step(
            params, descent, memory, algorithm.done(state)
        )
        first = first if epoch else norm
    return params, memory, first


def _heated(
    algorithm: Algorithm, state: TrainingState, ascent: Ascent, ran: Bool[Tensor, "N L"]
) -> tuple[dict[str, Tensors], Float[Tensor, ""]]:
    """The temperature after the segment, and the entropy that it follows."""
    if algorithm.entropy is None:
        return {}, torch.zeros(())
    eps = ascent.noise.action[:, : algorithm.length]
    log_prob = ascent.segment.policy.log_prob_action(ascent.path.output, eps)
    entropy = -torch.where(ran, log_prob, 0.0).sum() / ran.sum().clamp(min=1)
    heat = algorithm.entropy.followed(
        state.temperature,
        state.temperature_memory,
        float(entropy),
        eps.shape[-1],
        algorithm.done(state),
    )
    return dict(zip(("temperature", "temperature_memory"), heat, strict=True)), entropy


def _lengthened(
    problem: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    path: Trajectory,
    ran: Bool[Tensor, "N L"],
) -> Tensors:
    """What says how long the next segment is."""
    if algorithm.adaptive is None:
        return {}
    stiffness = torch.zeros_like(path.before[..., 0])
    if isinstance(problem.simulator, Stiff):
        with torch.no_grad():
            stiffness = problem.simulator.stiffness(path.before, path.action)
    mean = torch.where(ran, stiffness, 0.0).sum(0) / ran.sum(0).clamp(min=1)
    return algorithm.adaptive.followed(state.length, mean, algorithm.done(state))


def _fitted(
    algorithm: Algorithm, state: TrainingState, ascent: Ascent, fine: Bool[Tensor, " N"]
) -> tuple[dict[str, Tensors], Float[Tensor, ""]]:
    """The critic, its target network and its optimiser's memory after the segment, and its loss."""
    recipe, seed, number = algorithm.critic, int(state.seed), int(state.updates)
    if recipe is None:
        return {}, torch.zeros(())
    segment, path, result = ascent.segment, ascent.path, ascent.result
    policy = segment.bind(state.params).frozen
    soft = None
    if algorithm.entropy is not None and algorithm.entropy.targets:
        bonus = algorithm.bonus(state)
        eps = ascent.noise.action[:, : algorithm.length]
        soft = SoftSteps(bonus, bonus.of(policy, path.output, eps))
    draws = generator("train", seed, "actions", number)
    wanted = recipe.targets(segment, policy, state.target, path, result, draws, soft)
    wanted = wanted._replace(rows=wanted.rows & fine[:, None])
    order = generator("train", seed, "batches", number)
    done = algorithm.done(state)
    critic, memory, loss = recipe.fit(
        segment, state.critic, state.critic_memory, wanted, order, done
    )
    target = recipe.followed(state.target, critic)
    return {"critic": critic, "target": target, "critic_memory": memory}, loss


def _statistics(buffers: Tensors, path: Trajectory, ran: Bool[Tensor, "N L"]) -> Tensors:
    """Statistics of observations with those of this segment, for the next one."""
    if MEAN not in buffers:
        return buffers
    return observed(buffers, path.obs[ran])
