"""init, update, train: from one training state to the next.

Every random number of an update comes from a generator named by the seed, the number of the update
and what it is for. So no noise is used twice, and a training that goes on from a file ends in the
same state, to the bit, as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import NotFinite
from gradlab.foundation.generators import generator
from gradlab.policies.normalised import MEAN, observed
from gradlab.problems.problem import Problem
from gradlab.problems.stiffness import Stiff
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import gradient_again, gradient_of, segment_of
from gradlab.training.critic import SoftSteps, Targets
from gradlab.training.exploration import Temperature
from gradlab.training.nonfinite import where
from gradlab.training.optimiser import Tensors
from gradlab.training.pieces import Piece, ends_of, joined, pieces_of, seen_of
from gradlab.training.restarts import fresh, onward
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

    Raises `NotFinite` for a gradient that is none, unless the algorithm skips such updates,
    `BadValue` for the state of another algorithm, and what `gradient_of` raises.
    """
    algorithm.check_state(state)
    given, algorithm = algorithm, algorithm.now(state)
    parts = pieces_of(problem, algorithm, state)
    params, memory, norm = _stepped(algorithm, state, parts)
    heat, entropy = _heated(algorithm, state, parts)
    critics, loss = _fitted(algorithm, state, parts)
    ends = ends_of(problem, state, parts)
    seen = None if algorithm.replay is None else seen_of(problem, state, parts[0])
    later = onward(problem, algorithm, state, ends.end, ends.over, ends.whole, seen)
    steps = torch.stack([part.ran.sum() for part in parts]).sum()
    earned = [torch.where(part.ran, part.ascent.result.reward, 0.0).sum() for part in parts]
    info = Info(
        reward=torch.stack(earned).sum() / steps.clamp(min=1),
        norm=norm,
        loss=loss,
        finished=ends.finished,
        returns=ends.of_returns,
        lengths=ends.of_lengths,
        nonfinite=torch.stack([(~part.fine).sum() for part in parts]).sum(),
        entropy=entropy,
    )
    after = state._replace(
        params=params,
        memory=memory,
        **critics,
        **heat,
        buffers=_statistics(state.buffers, parts),
        episodes=later.episodes,
        returns=torch.where(later.anew, 0.0, ends.returns),
        updates=state.updates + 1,
        steps=state.steps + steps.cpu(),
        whole=later.whole,
        visited=later.visited,
        previous=state.params if algorithm.kl is not None else {},
        length=_lengthened(problem, given, state, parts[0]),
    )
    return after, info


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
    algorithm: Algorithm, state: TrainingState, parts: list[Piece]
) -> tuple[Tensors, Tensors, Float[Tensor, ""]]:
    """Parameters and memory after the steps of the optimiser, and the first gradient's norm."""
    params, memory, first = state.params, state.memory, torch.tensor(torch.nan)
    scale = -1.0 / algorithm.length if algorithm.average else -1.0
    for epoch in range(1 if algorithm.reuse is None else algorithm.reuse.epochs):

        def gradient(part: Piece, at: Tensors = params, again: bool = epoch > 0) -> Tensors:
            return (
                gradient_again(part.ascent, algorithm, state, at) if again else part.ascent.gradient
            )

        mean = joined(parts, algorithm.episodes, gradient)
        if not all(bool(value.isfinite().all()) for value in mean.values()):
            if algorithm.on_nonfinite == "stop":
                part = next((part for part in parts if not bool(part.fine.all())), parts[0])
                at = part.ascent.segment, part.ascent.path, part.ascent.result
                raise NotFinite(where(*at, part.fine, int(state.updates), part.ascent.samples))
            break
        descent = {name: scale * value for name, value in mean.items()}
        params, memory, norm = algorithm.optimiser.step(
            params, descent, memory, algorithm.done(state)
        )
        first = first if epoch else norm
    return params, memory, first


def _heated(
    algorithm: Algorithm, state: TrainingState, parts: list[Piece]
) -> tuple[dict[str, Tensors], Float[Tensor, ""]]:
    """The temperature after the segments, and the entropy that it follows."""
    if algorithm.entropy is None:
        return {}, torch.zeros(())
    total, count = [], []
    for part in parts:
        ran, output = part.ran, part.ascent.path.output
        eps = part.ascent.noise.action[:, : output.shape[1]]
        log_prob = part.ascent.segment.policy.log_prob_action(output, eps)
        total.append(torch.where(ran, -log_prob, 0.0).sum())
        count.append(ran.sum())
    entropy = torch.stack(total).sum() / torch.stack(count).sum().clamp(min=1)
    actions = state.episodes.held_action.shape[-1]
    known = state.temperature, state.temperature_memory
    heat = algorithm.entropy.followed(*known, float(entropy), actions, algorithm.done(state))
    return dict(zip(("temperature", "temperature_memory"), heat, strict=True)), entropy


def _lengthened(
    problem: Problem, algorithm: Algorithm, state: TrainingState, part: Piece
) -> Tensors:
    """What says how long the next segment is."""
    if algorithm.adaptive is None:
        return {}
    path, ran = part.ascent.path, part.ran
    stiffness = torch.zeros_like(path.before[..., 0])
    if isinstance(problem.simulator, Stiff):
        with torch.no_grad():
            stiffness = problem.simulator.stiffness(path.before, path.action)
    mean = torch.where(ran, stiffness, 0.0).sum(0) / ran.sum(0).clamp(min=1)
    return algorithm.adaptive.followed(state.length, mean, algorithm.done(state))


def _fitted(
    algorithm: Algorithm, state: TrainingState, parts: list[Piece]
) -> tuple[dict[str, Tensors], Float[Tensor, ""]]:
    """The critic, its target network and its optimiser's memory after the update, and its loss."""
    recipe, seed, number = algorithm.critic, int(state.seed), int(state.updates)
    if recipe is None:
        return {}, torch.zeros(())
    draws = generator("train", seed, "actions", number)
    wanted = []
    for part in parts:
        segment, path, result = part.ascent.segment, part.ascent.path, part.ascent.result
        policy = segment.bind(state.params).frozen
        soft = None
        if algorithm.entropy is not None and algorithm.entropy.targets:
            bonus = algorithm.bonus(state)
            eps = part.ascent.noise.action[:, : path.output.shape[1]]
            soft = SoftSteps(bonus, bonus.of(policy, path.output, eps))
        found = recipe.targets(segment, policy, state.target, path, result, draws, soft)
        wanted.append(found._replace(rows=found.rows & part.fine[:, None]).flat())
    order, done = generator("train", seed, "batches", number), algorithm.done(state)
    known = state.critic, state.critic_memory
    targets = Targets(*(torch.cat(column) for column in zip(*wanted, strict=True)))
    critic, memory, loss = recipe.fit(parts[0].ascent.segment, *known, targets, order, done)
    target = recipe.followed(state.target, critic)
    return {"critic": critic, "target": target, "critic_memory": memory}, loss


def _statistics(buffers: Tensors, parts: list[Piece]) -> Tensors:
    """Statistics of observations with those of these segments, for the next ones."""
    if MEAN not in buffers:
        return buffers
    return observed(buffers, torch.cat([part.ascent.path.obs[part.ran] for part in parts]))
