"""The gradient that an update ascends: the estimator's, and what entropy and divergence add."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.generators import generator
from gradlab.foundation.memo import Memo
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.training.algorithm import Algorithm
from gradlab.training.exploration import summed
from gradlab.training.optimiser import Tensors
from gradlab.training.state import TrainingState


class Ascent(NamedTuple):
    """The gradient that an update ascends, and the segments that it is of."""

    gradient: Tensors  # of the mean return of a segment, and of what is added to it
    samples: GradientSamples  # of the estimator, one per segment
    segment: Problem
    noise: Noise
    path: Trajectory  # of the segments [N, L], as constants
    result: Outcome


def segment_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> Problem:
    """The problem whose gradient the next update takes: with the statistics and the target critic
    of now.

    Raises `BadValue` for a problem that the algorithm cannot train.
    """
    algorithm.check(problem)
    problem = problem.replace(buffers=state.buffers or None)
    if algorithm.critic is not None:
        problem = problem.replace(critic=algorithm.critic.critic(problem, state.target))
    return algorithm.now(state).segment(problem)


def gradient_of(
    problem: Problem, algorithm: Algorithm, state: TrainingState, piece: int = 0
) -> Ascent:
    """The mean of the estimator's samples on the segments of the next update, one per episode.

    It is that of `segment_of`'s problem at the moments of `state.episodes`, with the noise that
    belongs to the number of the update alone: over many numbers its mean is the estimator's
    expectation there. A bonus for entropy and a `KLPenalty` are added to it. Where episodes restart
    inside of segments (`restart="inside"`) it is that of what an update runs first, and `piece`
    names the noise of the rest. Raises what `segment_of` raises, and `Missing` where the critic is
    not what the estimator reads.
    """
    segment = segment_of(problem, algorithm, state)
    algorithm = algorithm.now(state)
    later = (piece,) if piece else ()
    draws = generator("train", int(state.seed), "noise", int(state.updates), *later)
    noise = segment.noise_from(state.episodes, draws)
    memo = Memo()
    try:
        samples = algorithm.estimator.sharing(segment, state.params, noise, memo)
    except Missing as error:
        lacks = str(error).partition(";")[0]
        if "critic" not in lacks:
            raise
        raise Missing(
            f"{lacks}; try critic=CriticRecipe(kind='q') and tail='own', or kind='v' and tail='v'"
        ) from None
    with torch.no_grad():
        policy = segment.bind(state.params, memo=memo).frozen
        path = rollout(segment, policy, noise, length=algorithm.length).detach()
        # what a segment's last state is worth is no reward
        result = evaluate(segment.from_moments(segment.horizon, bootstrap=False), path).detach()
    gradient = {name: value.detach() for name, value in samples.mean().items()}
    ascent = Ascent(gradient, samples, segment, noise, path, result)
    added = _added(ascent, algorithm, state)
    return ascent._replace(gradient={n: value + added.get(n, 0.0) for n, value in gradient.items()})


def gradient_again(
    ascent: Ascent, algorithm: Algorithm, state: TrainingState, params: Tensors
) -> Tensors:
    """The gradient of a segment that is used again, at parameters that have moved since: see
    `Reuse`, which the algorithm has.
    """
    reuse, path = algorithm.reuse, ascent.path
    assert reuse is not None
    wanted = _by_latent(ascent, algorithm)

    def worth(z: Tensor) -> Tensor:
        policy = ascent.segment.policy
        mean, log_std = z.chunk(2, dim=-1)
        latent = path.latent
        eps = ((latent - mean) * torch.exp(-log_std)).detach()
        ratio = policy.log_prob(z, latent) - policy.log_prob(path.output, latent)
        moved = (wanted * policy.latent(z, eps)).sum(-1)
        return reuse.weights(ratio) * moved + _beside(ascent, algorithm, state, z, path.output)

    return _by_parameters(ascent, params, worth)


def _added(ascent: Ascent, algorithm: Algorithm, state: TrainingState) -> Tensors:
    """The gradient of what is added to the return; {} for nothing.

    A segment that will be used again has no divergence yet.
    """
    past = None
    if algorithm.kl is not None and algorithm.reuse is None:
        with torch.no_grad():
            past = _outputs(ascent, state.previous)
    if past is None and (algorithm.entropy is None or algorithm.entropy.where != "bonus"):
        return {}
    return _by_parameters(
        ascent, state.params, lambda z: _beside(ascent, algorithm, state, z, past)
    )


def _beside(
    ascent: Ascent, algorithm: Algorithm, state: TrainingState, z: Tensor, past: Tensor | None
) -> Float[Tensor, "N L"]:
    """What every step is worth beside its reward, at the policy's outputs z."""
    total = torch.zeros_like(z[..., 0])
    if algorithm.entropy is not None and algorithm.entropy.where == "bonus":
        eps = ascent.noise.action[:, : z.shape[1]]
        total = total + algorithm.bonus(state).of(ascent.segment.bind(state.params), z, eps)
    if algorithm.kl is not None and past is not None:
        total = total - algorithm.kl.of(past, z)
    return total


def _by_parameters(ascent: Ascent, params: Tensors, worth: Callable[[Tensor], Tensor]) -> Tensors:
    """The gradient of the mean over episodes of what their living steps are worth."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        value = summed(worth(_outputs(ascent, leaves)), ascent.result.alive[:, :-1] > 0)
    slopes = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True))


def _outputs(ascent: Ascent, params: Tensors) -> Float[Tensor, "N L nz"]:
    """The policy's outputs along the segments with these parameters, what it saw and remembered
    being constant.
    """
    path = ascent.path
    return ascent.segment.bind(params)(path.obs, range(path.obs.shape[1]), path.carry_before)


def _by_latent(ascent: Ascent, algorithm: Algorithm) -> Float[Tensor, "N L nu"]:
    """The gradient of every segment's return by its latents.

    Raises `BadValue` unless the estimator goes through them and nothing else.
    """
    samples, path = ascent.samples, ascent.path
    length, actions = path.latent.shape[-2:]
    if isinstance(samples, Factored) and samples.steps.tolist() == list(range(length)):
        by_mean, by_log_std = samples.cotangent.split(actions, dim=-1)
        eps = ascent.noise.action[:, :length]
        spread = by_mean * path.output[..., actions:].exp() * eps
        if bool((by_log_std - spread).norm() <= 1e-3 * spread.norm()):
            return by_mean
    raise BadValue(
        f"a segment is used again with the gradients of an estimator by its latents alone, got "
        f"{algorithm.estimator.label}; try FOG(), and entropy as a bonus"
    )
