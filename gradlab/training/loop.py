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
from gradlab.foundation.memo import Memo
from gradlab.foundation.moment import Moment
from gradlab.policies.normalised import MEAN, observed
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate, moment_at
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.training.algorithm import Algorithm
from gradlab.training.optimiser import Tensors
from gradlab.training.state import TrainingState


class Info(NamedTuple):
    """What an update saw."""

    reward: Float[Tensor, ""]  # mean of r_t over steps alive
    norm: Float[Tensor, ""]  # of the gradient, before it was clipped
    loss: Float[Tensor, ""]  # of the critic in its last pass; 0 without one
    finished: Int[Tensor, ""]  # episodes that ended or ran out of time in this update
    returns: Float[Tensor, ""]  # sum of their undiscounted returns
    lengths: Float[Tensor, ""]  # and of their steps
    nonfinite: Int[Tensor, ""]  # episodes whose numbers were not finite in this segment


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
    episodes = _fresh(problem, algorithm.episodes, seed, 0)
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
    )


class Ascent(NamedTuple):
    """The gradient that an update ascends, and the segments that it is of."""

    gradient: Tensors  # of the mean return of a segment
    path: Trajectory  # of the segments [N, L], as constants
    result: Outcome


def gradient_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> Ascent:
    """The mean of the estimator's samples on the segments of the next update, one per episode.

    It is that of `segment_of`'s problem at the moments of `state.episodes`, with the noise that
    belongs to the number of the update alone: over many numbers its mean is the estimator's
    expectation there.
    """
    segment = segment_of(problem, algorithm, state)
    draws = generator("train", int(state.seed), "noise", int(state.updates))
    noise = segment.noise_from(state.episodes, draws)
    memo = Memo()
    samples = algorithm.estimator.sharing(segment, state.params, noise, memo)
    with torch.no_grad():
        policy = segment.bind(state.params, memo=memo).frozen
        path = rollout(segment, policy, noise, length=algorithm.length).detach()
        # what a segment's last state is worth is no reward
        result = evaluate(segment.from_moments(segment.horizon, bootstrap=False), path).detach()
    return Ascent({name: value.detach() for name, value in samples.mean().items()}, path, result)


def update(
    problem: Problem, algorithm: Algorithm, state: TrainingState
) -> tuple[TrainingState, Info]:
    """One step of the optimiser and of the critic, and where the episodes are then.

    Raises `NotFinite` for a gradient that is none, unless the algorithm skips such updates.
    """
    number = int(state.updates)
    done = number / algorithm.updates
    segment = segment_of(problem, algorithm, state)
    gradient, path, result = gradient_of(problem, algorithm, state)
    sound = _sound(path, result)
    params, memory, norm = state.params, state.memory, torch.tensor(torch.nan)
    if all(bool(value.isfinite().all()) for value in gradient.values()):
        scale = -1.0 / algorithm.length if algorithm.average else -1.0
        descent = {name: scale * value for name, value in gradient.items()}
        params, memory, norm = algorithm.optimiser.step(params, descent, memory, done)
    elif algorithm.on_nonfinite == "stop":
        raise NotFinite(_where(problem, path, result, sound, number))

    critics, loss = _fitted(segment, algorithm, state, path, result, sound)
    episodes, finished = _onward(problem, algorithm, state, path, result, sound)
    ran = (result.alive[:, :-1] > 0) & sound[:, None]
    rewards = torch.where(ran, result.reward, 0.0)
    # an episode's return is that of its own time, of which the segment may run out
    steps = state.episodes.step[:, None] + torch.arange(algorithm.length, device=rewards.device)
    within = ran & (steps < problem.horizon)
    returns = state.returns + torch.where(within, rewards, 0.0).sum(1)
    counted = finished & sound
    lengths = state.episodes.step + within.sum(1)
    info = Info(
        reward=rewards.sum() / ran.sum().clamp(min=1),
        norm=norm,
        loss=loss,
        finished=counted.sum(),
        returns=torch.where(counted, returns, 0.0).sum(),
        lengths=torch.where(counted, lengths, 0.0).sum(),
        nonfinite=(~sound).sum(),
    )
    later = state._replace(
        params=params,
        memory=memory,
        **critics,
        buffers=_statistics(state.buffers, path, ran),
        episodes=episodes,
        returns=torch.where(finished, 0.0, returns),
        updates=state.updates + 1,
        steps=state.steps + ran.sum().cpu(),
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


def segment_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> Problem:
    """The problem whose gradient the next update takes: with the statistics and the target critic
    of now.
    """
    algorithm.check(problem)
    problem = problem.replace(buffers=state.buffers or None)
    if algorithm.critic is not None:
        problem = problem.replace(critic=algorithm.critic.critic(problem, state.target))
    return algorithm.segment(problem)


def _fresh(problem: Problem, count: int, seed: int, number: int) -> Moment:
    """Episodes at initial states, for the update of this number."""
    draws = generator("train", seed, "starts", number)
    brief = problem.replace(horizon=1)
    return brief.start(brief.draw(count, draws)).map(torch.Tensor.clone)


def _fitted(
    segment: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    path: Trajectory,
    result: Outcome,
    sound: Bool[Tensor, " N"],
) -> tuple[dict[str, Tensors], Float[Tensor, ""]]:
    """The critic, its target network and its optimiser's memory after the segment, and its loss."""
    recipe, seed, number = algorithm.critic, int(state.seed), int(state.updates)
    if recipe is None:
        return {}, torch.zeros(())
    policy = segment.bind(state.params).frozen
    fresh = generator("train", seed, "actions", number)
    wanted = recipe.targets(segment, policy, state.target, path, result, fresh)
    wanted = wanted._replace(rows=wanted.rows & sound[:, None])
    order = generator("train", seed, "batches", number)
    done = number / algorithm.updates
    critic, memory, loss = recipe.fit(
        segment, state.critic, state.critic_memory, wanted, order, done
    )
    target = recipe.followed(state.target, critic)
    return {"critic": critic, "target": target, "critic_memory": memory}, loss


def _onward(
    problem: Problem,
    algorithm: Algorithm,
    state: TrainingState,
    path: Trajectory,
    result: Outcome,
    sound: Bool[Tensor, " N"],
) -> tuple[Moment, Bool[Tensor, " N"]]:
    """Where the next segment begins, and which episodes were over before it: those begin anew."""
    end = moment_at(path, result)
    finished = end.ended | (end.step >= problem.horizon) | ~sound
    fresh = _fresh(problem, algorithm.episodes, int(state.seed), int(state.updates) + 1)
    chosen = (
        torch.where(finished.view(-1, *[1] * (old.ndim - 1)), new, old)
        for old, new in zip(end, fresh, strict=True)
    )
    return Moment(*chosen).detach(), finished


def _statistics(buffers: Tensors, path: Trajectory, ran: Bool[Tensor, "N L"]) -> Tensors:
    """Statistics of observations with those of this segment, for the next one."""
    if MEAN not in buffers:
        return buffers
    return observed(buffers, path.obs[ran])


def _sound(path: Trajectory, result: Outcome) -> Bool[Tensor, " N"]:
    """Episodes all of whose numbers are finite while they are alive."""
    alive = result.alive[:, :-1] > 0
    states = path.before.isfinite().all(-1) & path.action.isfinite().all(-1)
    after = path.state[:, 1:].isfinite().all(-1)
    return ((states & after & result.reward.isfinite()) | ~alive).all(1)


def _where(
    problem: Problem, path: Trajectory, result: Outcome, sound: Bool[Tensor, " N"], number: int
) -> str:
    """One line on a gradient that is not finite: the first step at which anything was not."""
    said = f"the gradient of update {number} on {problem.name} is not finite"
    hint = "try a shorter segment, a lower learning rate, or on_nonfinite='skip'"
    if bool(sound.all()):
        return (
            f"{said}, though all states and rewards are: it grew too large on its way back; {hint}"
        )
    row = int((~sound).nonzero()[0])
    alive = result.alive[row, :-1] > 0
    parts = {
        "action": path.action[row].isfinite().all(-1),
        "state": path.state[row, 1:].isfinite().all(-1),
        "reward": result.reward[row].isfinite(),
    }
    bad = {
        name: int((alive & ~fine).nonzero()[0])
        for name, fine in parts.items()
        if bool((alive & ~fine).any())
    }
    name = min(bad, key=lambda part: (bad[part], list(parts).index(part)))
    step = bad[name]
    return (
        f"{said}: in {int((~sound).sum())} of {len(sound)} episodes; first the {name} of step {step} "
        f"of the segment (episode {row}, action {_short(path.action[row, step])}); {hint}"
    )


def _short(values: Tensor) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values.tolist()[:8]) + "]"
