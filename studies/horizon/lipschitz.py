"""The constants of AGPO's Theorem 4.2 at what a policy visits, and the errors of a critic there.

L_Q is the largest ‖∇_(x,u) Q̂‖, L_θ the largest ‖∂u/∂θ‖ (spectral norm) of the action u that was
taken, noise included. The theorem has suprema over everything. The largest value at what was
visited is below them: a bound that holds with it holds all the more with the supremum. Where it
fails with it, it fails for the episodes that were measured, taken as all there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import SurrogateEstimator
from estimators.value import QG, q_values
from gradlab.foundation.modes import differentiating
from gradlab.foundation.noise import Noise
from gradlab.foundation.tensors import positions
from gradlab.gradients.samples import Factored
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views, while_alive
from gradlab.rollouts.rollout import rollout

Params = dict[str, Tensor]


@differentiating()
def value_slopes(problem: Problem, params: Params, noise: Noise) -> Float[Tensor, "N T"]:
    """‖∇_(x,u) Q̂‖ at every state and action of the episodes; 0 once they have ended.

    x is what the critic reads: the observation of a fitted one, the state of an exact one.
    """
    path = rollout(problem, problem.bind(params).frozen, noise)
    result = evaluate(problem, path)
    view = views(problem, path, result, slice(0, problem.horizon))
    inputs = [part.detach().requires_grad_() for part in (view.state, view.obs, path.action)]
    state, obs, action = inputs
    value = problem.require_q("L_Q")(View(state, obs, view.events, view.step), action)
    grads = torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True)
    squared = sum(grad.double().square().sum(-1) for grad in grads)
    assert isinstance(squared, Tensor)
    return squared.sqrt() * (result.alive[:, :-1] > 0)


@differentiating()
def action_slopes(problem: Problem, params: Params, noise: Noise) -> Float[Tensor, "N T"]:
    """‖∂u/∂θ‖ (spectral) of the action at every state of the episodes.

    From the Gram matrix of its rows, which layer products give without forming any of them.
    """
    policy = problem.bind(params).frozen
    with torch.no_grad():
        path = rollout(problem, policy, noise)
    output = path.output.detach().requires_grad_()
    action = policy.policy.action(policy.latent(output, noise.action))
    obs, steps = path.obs.flatten(0, 1)[:, None], positions((0,), path.obs)
    rows: list[Factored] = []
    for k in range(action.shape[-1]):
        (back,) = torch.autograd.grad(action[..., k].sum(), output, retain_graph=True)
        cotangent = back.flatten(0, 1)[:, None]
        rows.append(Factored(problem.policy, params, obs, cotangent, steps, buffers=policy.buffers))
    gram = torch.stack([torch.stack([a.inner(b) for b in rows], -1) for a in rows], -1)
    top = torch.linalg.eigvalsh(gram.double())[..., -1].clamp(min=0).sqrt()
    return top.unflatten(0, path.action.shape[:2])


@dataclass(frozen=True)
class ValueAt(SurrogateEstimator):
    """∇_θ Q̂_i(x_i, u_i) at one step i, through the states before it, as eq. 4 has it.

    At the end of a window (`tail`) the policy's call is a constant, as in AGPO.

    Estimates: nothing of ∇J by itself.
    Requires: a Q critic.
    Unbiased when: never for ∇J.
    Cost: i environment steps and i/T of a backward pass.
    Reference: AGPO eq. 4.
    """

    step: int
    tail: bool = False

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise
    ) -> Float[Tensor, "*batch"]:
        path = rollout(problem, policy, noise, length=max(self.step, 1))
        result = evaluate(problem, path)
        caller = policy.frozen if self.tail else policy
        times = slice(self.step, self.step + 1)
        value = q_values(problem, caller, path, result, noise, times)
        return (while_alive(result, value, times) / result.discount[..., times]).sum(-1)

    def call_weights(self, problem: Problem) -> Float[Tensor, " T"]:
        return torch.zeros(problem.horizon, dtype=problem.dtype)


def difference(first: Critic, second: Critic) -> Critic:
    """Q of the first less that of the second."""
    a, b = first.q, second.q
    assert a is not None and b is not None
    return Critic(q=lambda view, action: a(view, action) - b(view, action), name="difference")


def errors_by_action(problem: Problem, params: Params, noise: Noise) -> Float[Tensor, " T"]:
    """Of every step the largest ‖∇_θ Q‖ over the episodes, x_i a constant (`QG`).

    With the critic a `difference`, these are the errors of the value gradient.
    """
    samples = QG()(problem, params, noise)
    assert isinstance(samples, Factored)
    squared = [samples.at_step(i).squared_norms().amax() for i in range(problem.horizon)]
    return torch.stack(squared).double().sqrt() / problem.discounts[:-1].double()


def errors_in_total(
    problem: Problem, params: Params, noise: Noise, window: int
) -> Float[Tensor, " h_plus_1"]:
    """Likewise through the states, of the steps 0..h−1 and of the window's end (0 at T)."""
    calls = [ValueAt(i) for i in range(window)]
    if window < problem.horizon:
        calls.append(ValueAt(window, tail=True))
    found = [one(problem, params, noise).squared_norms().amax().double().sqrt() for one in calls]
    if window == problem.horizon:
        found.append(torch.zeros_like(found[0]))
    return torch.stack(found)
