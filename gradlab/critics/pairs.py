"""The true gradient of Q by the action where no exact Q is known, from pairs of episodes.

A critic's ∇_u Q̂_t(s, u), u the latent action (before squashing), is judged by what a state's
actions say together: h_t(s) = ∇_μ E[Q_t(s, μ + σε)], the derivative by the mean of the policy
there. So a jump of Q in the action counts, which no derivative at an action sees.

An unbiased estimator of ∇J sends an unbiased h_t(s_t), times γ^t alive_t, back to the policy's
output at time t: its cotangent there. Two episodes that are one until t and independent from t on
give two estimates at one state that are independent given it, so that products of the two are
unbiased too: ⟨h, h'⟩ for ‖h‖², and ⟨∇Q̂(u), h'⟩ for what the critic has in common with the truth.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.critics.episodes import seed_of
from gradlab.critics.quality import GradientQuality, gradient_quality
from gradlab.foundation.arguments import whole
from gradlab.foundation.errors import BadValue, Missing
from gradlab.foundation.modes import differentiating, ordinary
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.gradients.sampling import Sampler, noise_stream
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.rollouts.rollout import rollout

CHUNK = 512  # pairs at once

Params = dict[str, Tensor]


class OutputPairs(NamedTuple):
    """Two actions each at N states s_t, and what two futures say of h_t(s_t)."""

    state: Float[Tensor, "N ns"]
    obs: Float[Tensor, "N no"]
    events: Float[Tensor, "N E"]
    step: Float[Tensor, " N"]  # t, uniform in the steps asked for
    weight: Float[Tensor, " N"]  # γ^t alive_t
    latent: Float[Tensor, "N 2 nu"]  # u
    truth: Float[Tensor, "N 2 nu"]  # [reward per unit of u]; 0 where the episode has ended

    @property
    def view(self) -> View:
        """What a critic sees, once for each of the two actions."""
        parts = self.state, self.obs, self.events, self.step
        return View(*(part.unsqueeze(1).expand(-1, 2, *part.shape[1:]) for part in parts))


@differentiating()
def output_pairs(
    problem: Problem,
    params: Params,
    estimator: Sampler,
    count: int,
    seed: int = 0,
    within: int | None = None,
) -> OutputPairs:
    """Pairs of episodes of a stream of their own, judged by an unbiased estimator such as `Split`.

    `within` says how many steps t may be of, from the first on; None: all. Raises `BadValue` for an
    estimator that looks across samples or keeps no cotangents, or for more steps than there are.
    """
    if estimator.group != 1:
        raise BadValue(
            f"pairs need an estimator that looks at every episode by itself, got {estimator.label}, "
            f"which looks at groups of {estimator.group}; try Split(0.02)"
        )
    within = problem.horizon if within is None else whole("within", within)
    if within > problem.horizon:
        raise BadValue(f"within should be at most the {problem.horizon} steps, got {within}")
    problem, params = problem.unrelaxed, ordinary(params)
    first = noise_stream(problem, count, seed_of(seed, "pairs"), CHUNK)
    second = noise_stream(problem, count, seed_of(seed, "pairs again"), CHUNK)
    parts = [
        _chunk(problem, params, estimator, noise, _later(noise, other, within), within)
        for noise, other in zip(first, second, strict=True)
    ]
    return OutputPairs(*(torch.cat(column) for column in zip(*parts, strict=True)))


def judge(problem: Problem, critic: Critic, pairs: OutputPairs) -> GradientQuality:
    """How ∇_u Q̂ compares with h over the pairs, weighted by γ^t alive_t.

    `cosine` = Σ⟨∇Q̂, h⟩/√(Σ‖E ∇Q̂‖² Σ‖h‖²), and so on: see `GradientQuality`. Standard errors
    include that of h. NaN where a debiased squared length is not positive.
    """
    guess = latent_gradient(problem, critic, pairs.view, pairs.latent).double()
    truth = pairs.truth.double()
    crossed = 0.5 * (guess * truth.flip(1)).sum((-1, -2))
    mine, exact = (guess[:, 0] * guess[:, 1]).sum(-1), (truth[:, 0] * truth[:, 1]).sum(-1)
    sums = torch.stack([crossed, mine, exact], dim=-1) * pairs.weight.double()[:, None]
    return gradient_quality(sums, sums[pairs.step == 0])


def given_by(problem: Problem, critic: Critic, pairs: OutputPairs) -> OutputPairs:
    """The same states and actions with the gradient of a critic, an exact one, as the truth."""
    return pairs._replace(truth=latent_gradient(problem, critic, pairs.view, pairs.latent))


@differentiating()
def latent_gradient(
    problem: Problem, critic: Critic, view: View, latent: Float[Tensor, "*batch nu"]
) -> Float[Tensor, "*batch nu"]:
    """∇_u Q̂(s, a(u)), a the executed action. Raises `Missing` for a critic without a Q."""
    if critic.q is None:
        raise Missing(f"critic {critic.name!r} has no q, so no action gradient")
    leaf = latent.detach().requires_grad_()
    value = critic.q(view, problem.policy.action(leaf)).sum()
    if not value.requires_grad:
        return torch.zeros_like(latent)
    return torch.autograd.grad(value, leaf)[0]


def _later(noise: Noise, other: Noise, within: int) -> Noise:
    """`noise` until t, `other` from then on."""
    times = torch.arange(noise.action.shape[1], device=noise.action.device)
    from_t = (times >= _times(noise, within)[:, None])[..., None]
    action = torch.where(from_t, other.action, noise.action)
    return noise._replace(action=action, process=torch.where(from_t, other.process, noise.process))


def _times(noise: Noise, within: int) -> Tensor:
    """t of every pair, uniform."""
    return noise.seed % within


def _chunk(
    problem: Problem, params: Params, estimator: Sampler, noise: Noise, other: Noise, within: int
) -> OutputPairs:
    rows, times = torch.arange(noise.count), _times(noise, within)
    nu = problem.simulator.action_dim
    latents: list[Tensor] = []
    truths: list[Tensor] = []
    seen: list[tuple[Tensor, ...]] = []
    for mine in (noise, other):
        with torch.no_grad():
            path = rollout(problem, problem.bind(params).frozen, mine)
            result = evaluate(problem, path)
        view = views(problem, path, result, slice(0, problem.horizon))
        alive = result.alive[rows, times] > 0
        seen.append((*(part[rows, times] for part in view), alive))
        latents.append(path.latent[rows, times])
        back = _cotangents(problem, estimator(problem, params, mine))[rows, times, :nu]
        back = back / problem.discounts[times, None]
        truths.append(torch.where(alive[:, None], back, torch.zeros_like(back)))
    state, obs, events, step, alive = seen[0]
    weight = problem.discounts[times] * alive
    both = torch.stack(latents, 1), torch.stack(truths, 1)
    return OutputPairs(state, obs, events, step, weight, *both)


def _cotangents(problem: Problem, samples: GradientSamples) -> Float[Tensor, "N T nz"]:
    """What came back to the policy's output at every time, added over the calls of that time."""
    if not isinstance(samples, Factored):
        raise BadValue(
            'pairs need cotangents of policy calls; try an estimator of engine="pullback"'
        )
    back = samples.cotangent
    total = back.new_zeros(len(samples), problem.horizon, back.shape[-1])
    return total.index_add_(1, samples.steps, back)
