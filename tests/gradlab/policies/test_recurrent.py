"""Policies that remember: their carry in rollouts, joins, ends and scores, against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import estimators as E
import gradlab
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.noise import Noise
from gradlab.policies.policy import BoundPolicy
from gradlab.policies.recurrent import GRU
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, moment_at
from gradlab.rollouts.rollout import rollout
from tests.helpers.toy import toy_params, toy_problem

N, T = 6, 6
Params = dict[str, Tensor]


def posed(with_events: bool = True, horizon: int = T) -> tuple[Problem, Params, Noise]:
    problem = toy_problem(with_events=with_events, horizon=horizon)
    problem = problem.replace(policy=gradlab.RecurrentPolicy(4, (5,), std="global"))
    return problem, toy_params(problem), problem.draw(N, torch.Generator().manual_seed(1))


def leaves_of(params: Params) -> Params:
    return {name: value.clone().requires_grad_() for name, value in params.items()}


def step(policy: BoundPolicy, obs: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    z, after = policy.advance(obs, None, carry)
    assert after is not None
    return z, after


def test_the_cell_is_that_of_torch() -> None:
    cell = GRU(4, (), observation_dim=3, output_dim=2)
    drawn = torch.Generator().manual_seed(0)
    params = cell.init(drawn, dtype=torch.float64, device="cpu")
    params = {
        n: v + 0.1 * torch.randn(v.shape, generator=drawn).double() for n, v in params.items()
    }
    with torch.random.fork_rng(devices=[]):
        theirs = nn.GRUCell(3, 4, dtype=torch.float64)
    names = {"ih": "cell.input", "hh": "cell.carry"}
    own = {f"{k}_{end}": params[f"{n}.{k}"] for end, n in names.items() for k in ("weight", "bias")}
    theirs.load_state_dict(own)
    obs, carry = torch.randn(5, 3, generator=drawn).double(), torch.randn(5, 4, generator=drawn)
    out, after = cell.apply(params, {}, obs, carry.double())
    torch.testing.assert_close(after, theirs(obs, carry.double()), rtol=1e-12, atol=1e-12)
    assert out.shape == (5, 2)


def test_a_rollout_is_the_loop_by_hand() -> None:
    """Value and gradient, where nothing ends; the carry is that of each step."""
    problem, params, noise = posed(with_events=False)
    leaves = leaves_of(params)
    policy = problem.bind(leaves)
    state, memory, *_ = problem.start(noise)
    carry, states, carries = torch.zeros(N, 4).double(), [state], []
    for t in range(T):
        carries.append(carry)
        obs = problem.task.observe(state, memory, problem.steps[t])
        z, carry = step(policy, obs, carry)
        action = policy.action(policy.latent(z, noise.action[:, t]))
        state = problem.simulator.step(state, action, noise.process[:, t])
        states.append(state)
    path = rollout(problem, problem.bind(params), noise)
    torch.testing.assert_close(path.state, torch.stack(states, 1).detach(), rtol=1e-13, atol=1e-14)
    expected = torch.stack([*carries, carry], 1).detach()
    torch.testing.assert_close(path.carry, expected, rtol=1e-13, atol=1e-14)
    value = torch.stack(states, 1).square().sum((1, 2))
    found = gradlab.per_sample_gradients(
        lambda p, n, _: rollout(problem, p, n).state.square().sum((-2, -1)), problem, params, noise
    ).per_sample()
    for i in range(N):
        grads = torch.autograd.grad(
            value[i], list(leaves.values()), retain_graph=True, allow_unused=True
        )
        for name, grad in zip(leaves, grads, strict=True):
            mine = found[name][i]
            torch.testing.assert_close(mine, torch.zeros_like(mine) if grad is None else grad)


def test_scores_go_back_through_time() -> None:
    """∇ Σ_t log π(a_t | o_0 … o_t) G_t with all memories live; held memories are another number."""
    problem, params, noise = posed(with_events=False)
    path = rollout(problem, problem.bind(params), noise)
    to_go = evaluate(problem, path).to_go()
    leaves = leaves_of(params)
    policy = problem.bind(leaves)

    def total(live: bool) -> Tensor:
        carry, terms = torch.zeros(N, 4).double(), []
        for t in range(T):
            z, carry = step(policy, path.obs[:, t], carry if live else path.carry[:, t])
            terms.append(policy.log_prob(z, path.latent[:, t]) * to_go[:, t])
        return torch.stack(terms).sum() / N

    live, held = (
        dict(zip(leaves, torch.autograd.grad(total(on), list(leaves.values())), strict=True))
        for on in (True, False)
    )
    found = E.PG()(problem, params, noise).mean()
    for name, value in live.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)
    assert (held["cell.carry.weight"] - live["cell.carry.weight"]).abs().max() > 1e-3


def test_two_halves_are_the_whole() -> None:
    """In value to the last bit, and in gradient with the join attached."""
    problem, params, noise = posed()

    def joined(policy: BoundPolicy, noise: Noise, given: tuple) -> Tensor:
        first = rollout(problem, policy, noise, length=2)
        earned = evaluate(problem, first)
        start = moment_at(first, earned)
        second = rollout(problem, policy, noise.during(2, T), start=start)
        later = evaluate(problem, second)
        return torch.cat([earned.value, later.value], dim=-1).sum(-1)

    whole = evaluate(problem, rollout(problem, problem.bind(params), noise)).value.sum(-1)
    assert torch.equal(joined(problem.bind(params), noise, ()), whole)
    fog = E.FOG()(problem, params, noise).per_sample()
    for engine in ("pullback", "vmap"):
        found = gradlab.per_sample_gradients(joined, problem, params, noise, engine=engine)
        for name, value in found.per_sample().items():
            assert (value - fog[name]).abs().max() <= 1e-12 * fog[name].abs().max(), name


def test_an_episode_that_has_ended_remembers_the_same() -> None:
    problem, params, noise = posed(horizon=12)
    path = rollout(problem, problem.bind(params), noise)
    ended = path.ended[:, :-1]
    assert ended.any() and not ended.all()
    again = path.carry[:, 1:][ended]
    assert torch.equal(again, path.carry[:, :-1][ended])
    row = int(ended.any(1).nonzero()[0])
    last = int(path.ended[row].nonzero()[0])  # the step before it was the last
    held = path.carry_before[row, last - 1]
    assert torch.equal(path.carry_before[row, last:], held.expand(12 - last, 4))


def test_windows_cut_what_is_carried() -> None:
    """The first step of the second window has no gradient by what the first one remembered."""
    problem, params, noise = posed(with_events=False)
    leaves = leaves_of(params)
    path = rollout(problem, problem.bind(leaves), noise, cut_every=3)
    assert not path.before[:, 3].requires_grad or path.carry_before.requires_grad
    (grad,) = torch.autograd.grad(path.output[:, 3].sum(), leaves["cell.carry.weight"])
    z, _ = step(problem.bind(leaves), path.obs[:, 3].detach(), path.carry[:, 3].detach())
    (alone,) = torch.autograd.grad(z.sum(), leaves["cell.carry.weight"])
    torch.testing.assert_close(grad, alone, rtol=1e-10, atol=1e-13)


def test_a_call_without_a_memory_is_refused() -> None:
    problem, params, noise = posed()
    policy = problem.bind(params)
    path = rollout(problem, policy, noise)
    with pytest.raises(BadValue, match=r"what it remembers; try policy.over\(obs\).*path.carry"):
        policy(path.obs)
    torch.testing.assert_close(
        policy(path.obs, carry=path.carry_before), path.output, rtol=1e-12, atol=1e-13
    )
    plain = toy_problem(horizon=T)
    start = plain.start(plain.draw(N, torch.Generator()))
    with pytest.raises(BadShape, match=r"start.carry should be \[6, 4\]"):
        rollout(problem, policy, noise, start=start)


def test_over_a_feed_forward_policy_is_a_call() -> None:
    problem = toy_problem(horizon=T)
    policy, noise = problem.bind(toy_params(problem)), problem.draw(N, torch.Generator())
    path = rollout(problem, policy, noise)
    assert torch.equal(policy.over(path.obs), policy(path.obs))
    assert path.carry.shape == (N, T + 1, 0) and path.carry_before.shape == (N, T, 0)
