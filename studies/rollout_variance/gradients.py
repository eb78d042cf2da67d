"""One-step gradients at the states of a rollout, one per action noise,
and their empirical variance.

At step t of episodes rolled out with the policy π_θ, with u ~ π_θ(s),
s' = step(s, u), u' ~ π_θ(s'):

    SG         ∇_θ [ r(s, u, s') + γ alive' Q_{t+1}(s', u') ]      AGPO eq. 1: through u, s' and u'
    QG         ∇_θ Q_t(s, u)                                       AGPO eq. 2: through u alone
    PG         ∇_θ log π_θ(u|s) · [r + γ alive' Q_{t+1}(s', u') − Q_t(s, μ(s))]
    PG_Q       ∇_θ log π_θ(u|s) · [Q_t(s, u) − Q_t(s, μ(s))]
    PG_return  ∇_θ log π_θ(u|s) · [G_t − Q_t(s, μ(s))],
               G_t the return of the rollout itself, from t on

The baseline Q(s, μ(s)) is that of AGPO (Gao et al. 2024, appendix B), which does not say which
return it is taken from: PG has the same one-step return as SG, so that both are estimates of one
objective; PG_Q differs from QG in nothing but being of order zero; PG_return has one sample per
state, since each further one would need a rollout of its own. Events are hard. Variances are
Definition 3.1: Σ‖g_i − ḡ‖²/(N − 1) over θ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import scipy  # its parts are imported when they are used
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradlab.foundation.errors import BadShape
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise
from gradlab.gradients import engines
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate_step
from gradlab.rollouts.passage import CompilesItself
from gradlab.simulators.articulated.contact import Compliant, Smoothed
from gradlab.simulators.articulated.geometry import candidates, contacts
from gradlab.simulators.articulated.kinematics import frames, tables_of
from gradlab.simulators.articulated.simulator import Articulated

Params = dict[str, Tensor]

SAMPLED = ("pg", "pg_q", "qg", "sg")  # one sample per action noise
CONFIDENCE = 0.95


class OneStep(NamedTuple):
    """What one step from a `Moment` gives."""

    obs: Float[Tensor, "N no"]
    z: Float[Tensor, "N nz"]
    latent: Float[Tensor, "N nu"]
    after: Float[Tensor, "N ns"]
    value: Float[Tensor, " N"]  # r + γ alive' Q_{t+1}(s', u')


def step_noise(problem: Problem, action: Float[Tensor, "N 2 nu"]) -> Noise:
    """Noise of both policy calls of one step, in the form that engines take;
    dynamics are deterministic.
    """
    count = len(action)
    return Noise(
        action.new_zeros(count, 0),
        action,
        action.new_zeros(count, 2, problem.simulator.noise_dim),
        action.new_zeros(count, dtype=torch.long),
    )


def one_step(
    problem: Problem, policy: Callable[[Tensor], Tensor], noise: Noise, start: Moment
) -> OneStep:
    """r + γ alive' Q_{t+1}(s', u') of every sample; `policy` maps obs to z, and both of its
    calls carry its parameters.

    Raises `Missing` without a Q critic.
    """
    problem.require_q("a one-step gradient")
    simulator, task = problem.simulator, problem.task
    before = start.state
    if problem.compile and isinstance(simulator, CompilesItself):
        simulator = simulator.compiled()
        # compiled code is specialised on which inputs need a gradient, and later sub-steps' do
        before = before.detach().requires_grad_(torch.is_grad_enabled())
    obs = task.observe(start.state, start.memory, start.step)
    z = policy(obs)
    network = problem.policy
    latent = network.latent(z, noise.action[..., 0, :])
    action = network.action(latent)
    after = simulator.step(before, action, noise.process[..., 0, :])
    earned = evaluate_step(problem, start, action, after, noise.process[..., 0, :])
    # the critic is not asked about the end: it would be worth 0 times whatever it says
    alive = ~earned.terminated
    then = earned.end._replace(state=torch.where(alive[..., None], after, start.state))
    next_obs = task.observe(then.state, then.memory, then.step)
    next_action = network.action(network.latent(policy(next_obs), noise.action[..., 1, :]))
    tail = torch.where(alive, q_value(problem, then, next_obs, next_action), 0.0)
    return OneStep(obs, z, latent, after, earned.reward + problem.discount * tail)


def q_value(problem: Problem, at: Moment, obs: Tensor, action: Tensor) -> Float[Tensor, " N"]:
    """Q_t(s, action); 0 at the horizon."""
    view = View(at.state, obs, problem.event_step(at.running), at.step)
    return problem.require_q("a one-step gradient")(view, action)


# ------------------------------------------------------------------------------------ gradients


class Scored(NamedTuple):
    """What the score function multiplies, as constants."""

    obs: Float[Tensor, "N no"]
    advantage: Float[Tensor, " N"]


class Sampled(NamedTuple):
    """Per-sample gradients at a moment and what the samples went through."""

    gradients: dict[str, GradientSamples]  # by estimator, N samples
    after: Float[Tensor, "N ns"]
    value: Float[Tensor, " N"]


def gradients_at(
    problem: Problem,
    params: Params,
    start: Moment,
    action_noise: Float[Tensor, "N 2 nu"],
    names: Sequence[str] = SAMPLED,
    returns: Float[Tensor, " N"] | None = None,
) -> Sampled:
    """Gradients by θ of every row of `start`, each with noise of its own,
    by the estimators `names`.

    "pg_return" needs `returns`, G_t of the sample whose noise this is.
    All estimators share the samples.
    """
    noise = step_noise(problem, action_noise)
    seen: list[OneStep] = []

    def sg(policy: BoundPolicy, noise: Noise, start: Moment) -> Tensor:
        now = one_step(problem, policy, noise, start)
        seen.append(OneStep(*(part.detach() for part in now)))
        return now.value

    def qg(policy: BoundPolicy, noise: Noise, start: Moment) -> Tensor:
        obs = problem.task.observe(start.state, start.memory, start.step)
        latent = policy.latent(policy(obs), noise.action[..., 0, :])
        return q_value(problem, start, obs, policy.action(latent))

    gradients = {"sg": engines.per_sample_gradients(sg, problem, params, noise, start)}
    now = seen[-1]  # the forward pass is shared
    if "qg" in names:
        gradients["qg"] = engines.per_sample_gradients(qg, problem, params, noise, start)

    def score(policy: BoundPolicy, noise: Noise, given: Scored) -> Tensor:
        log_prob = policy.log_prob_held(policy(given.obs), noise.action[..., 0, :])
        return log_prob * given.advantage

    network = problem.policy
    with torch.no_grad():
        baseline = q_value(problem, start, now.obs, network.mean_action(now.z))
        advantages = {
            "pg": now.value - baseline,
            "pg_q": q_value(problem, start, now.obs, network.action(now.latent)) - baseline,
        }
        if returns is not None:
            advantages["pg_return"] = returns - baseline
    for name in names:
        if name in advantages:
            given = Scored(now.obs, advantages[name])
            gradients[name] = engines.per_sample_gradients(score, problem, params, noise, given)
    return Sampled({name: gradients[name] for name in names}, now.after, now.value)


# ------------------------------------------------------------------------------------- variance


class Variance(NamedTuple):
    """Σ‖g_i − ḡ‖²/(M − 1) of each of S sets of M samples, with the ends of its 95 % interval."""

    value: Float[Tensor, " S"]
    low: Float[Tensor, " S"]
    high: Float[Tensor, " S"]
    signal: Float[Tensor, " S"]  # ‖E g‖², debiased: ‖ḡ‖² − variance/M


def gram_of(samples: GradientSamples, size: int) -> Float[Tensor, "S size size"]:
    """⟨g_i, g_j⟩ within each set of `size` consecutive samples, in float64.

    Of factored samples it comes from the layers' inputs and cotangents, without a gradient in full.
    Raises `BadShape` unless the samples make whole sets.
    """
    if size < 1 or len(samples) % size:
        raise BadShape(f"{len(samples)} samples do not make whole sets of {size}")
    if not isinstance(samples, Factored) or not samples.layered:
        rows = torch.cat([x.flatten(1) for x in samples.per_sample().values()], dim=1).double()
        rows = rows.unflatten(0, (-1, size))
        return rows @ rows.mT
    factors = samples.factors()
    like = samples.cotangent
    total = like.new_zeros(len(samples) // size, size, size, dtype=torch.float64)
    for layer in factors.linear:
        x, c = (part.double().unflatten(0, (-1, size)) for part in layer[1:])
        calls = x.shape[2]
        x, c = x.flatten(1, 2), c.flatten(1, 2)
        products = (x @ x.mT + float(samples.bias)) * (c @ c.mT)
        products = products.unflatten(2, (size, calls)).unflatten(1, (size, calls))
        total += products.sum((2, 4))
    for cotangent in factors.direct.values():
        c = cotangent.double().sum(1).unflatten(0, (-1, size))
        total += c @ c.mT
    return total


def variance_of(gram: Float[Tensor, "S M M"]) -> Variance:
    """The empirical variance of each set with a jackknife interval of its logarithm.

    The interval needs no law of the gradients, whose tails are heavy: leaving out sample i changes
    the sum of squares by ‖g_i − ḡ‖² M/(M − 1). A set with a value that is not finite has a variance
    of NaN. Needs M >= 3.
    """
    count = gram.shape[-1]
    if count < 3:
        raise BadShape(f"a variance with an interval needs at least 3 samples, got {count}")
    means = gram.mean(-1, keepdim=True)
    overall = means.mean(-2, keepdim=True)
    # diagonal of the Gram matrix of g_i − ḡ
    distance = (gram - means - means.mT + overall).diagonal(dim1=-2, dim2=-1).clamp(min=0)
    squares = distance.sum(-1)
    variance = squares / (count - 1)
    signal = overall[..., 0, 0] - variance / count
    without = squares[..., None] - distance * (count / (count - 1))
    logs = (without.clamp(min=0) / (count - 2)).log()
    spread = (logs - logs.mean(-1, keepdim=True)).square().sum(-1)
    error = ((count - 1) / count * spread).sqrt()
    # Samples that do not vary have no interval but their value.
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * torch.where(
        variance > 0, error, 0.0
    )
    return Variance(variance, variance * (-reach).exp(), variance * reach.exp(), signal)


# -------------------------------------------------------------------------------------- contact


def touching(simulator: Articulated, state: Float[Tensor, "*batch ns"]) -> Bool[Tensor, "*batch K"]:
    """Which candidates of contact carry force: those that overlap,
    or are within the margin of a constraint.
    """
    model = simulator.model
    now = frames(model, tables_of(model, state), state[..., : model.nq])
    distance = contacts(model, now).distance
    if isinstance(simulator.contact, (Compliant, Smoothed)):
        return distance < 0
    margins = [candidate.pair.margin for candidate in candidates(model)]
    return distance < distance.new_tensor(margins)


class Contact(NamedTuple):
    """Contact around one step of each of S states."""

    touching: Bool[Tensor, " S"]  # something touches before or, for some noise, after the step
    changes: Bool[Tensor, " S"]  # for some noise something lands or lifts off in the step
    splits: Bool[Tensor, " S"]  # the noise decides what touches after the step


def contact_of(
    simulator: Articulated, before: Float[Tensor, "S ns"], after: Float[Tensor, "S M ns"]
) -> Contact:
    """Contact at both ends of the step; what lands and lifts off again between them is not seen."""
    first, then = touching(simulator, before), touching(simulator, after)
    return Contact(
        touching=first.any(-1) | then.any(-1).any(-1),
        changes=(then != first[:, None]).any(-1).any(-1),
        splits=(then != then[:, :1]).any(-1).any(-1),
    )
