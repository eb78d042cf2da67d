"""Entropy and divergence: hand-computed, off by default, and exact about what they add."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import views
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import gradient_of
from gradlab.training.critic import CriticRecipe, SoftSteps, settled
from gradlab.training.exploration import Bonus, Entropy, KLPenalty, Temperature, divergence
from gradlab.training.loop import init, train, update
from gradlab.training.optimiser import Adam
from gradlab.training.schedule import Schedule
from tests.gradlab.training.test_loop import OF_Q, QUICK, algorithm, walled
from tests.helpers import checking
from tests.helpers.known import build


def lq(**policy: Any) -> Problem:
    """Nothing ends its episodes; the policy's action is its latent."""
    problem, _ = build("lq", horizon=8)
    chosen = {"hidden": (), "std": "global", "squash": False, **policy}
    return problem.replace(policy=gradlab.GaussianPolicy(**chosen), skewed=())


def added(problem: Problem, plain: Algorithm, other: Algorithm, updates: int) -> dict[str, Tensor]:
    """What the options of the other algorithm add to the gradient."""
    state = train(problem, replace(other, updates=updates), seed=0) if updates else None
    state = init(problem, other, 0) if state is None else state
    with_it, without = (gradient_of(problem, each, state).gradient for each in (other, plain))
    return {name: with_it[name] - without[name] for name in with_it}


def test_a_bonus_for_entropy_widens_and_does_nothing_else() -> None:
    """H of a Gaussian is Σ log std and a constant: its slope is κ in each of 4 steps."""
    problem, plain = lq(), algorithm()
    found = added(problem, plain, replace(plain, entropy=Entropy(0.3)), 2)
    torch.testing.assert_close(found["log_std"], torch.full_like(found["log_std"], 1.2))
    assert all(not value.abs().max() > 1e-12 for name, value in found.items() if name != "log_std")
    half = replace(plain, entropy=Entropy(Schedule(0.3, 0.0)), updates=8)
    state = train(problem, replace(half, updates=4), seed=0)
    bonus = half.bonus(state)
    assert bonus.slope == pytest.approx(0.15) and bonus.offset == 0


def test_fog_with_entropy_is_the_gradient_of_the_return_with_entropy() -> None:
    """By κ it is discounted, and by squashed actions it reaches all parameters: in every engine,
    and by finite differences of the same episodes.
    """
    problem = lq(squash=True, std=0.5).replace(horizon=3, discount=0.99)
    params = problem.init(generator("here"))
    noise = problem.draw(5, generator("there"))
    found = E.FOG(entropy=0.7)(problem, params, noise).per_sample()
    twin = E.FOG(entropy=0.7, engine="vmap")(problem, params, noise).per_sample()

    def value(params: dict[str, Tensor]) -> Tensor:
        policy = problem.bind(params)
        path = gradlab.rollout(problem, policy, noise)
        entropy = -policy.log_prob_action(policy(path.obs), noise.action)
        discount = 0.99 ** torch.arange(3)
        earned = gradlab.evaluate(problem.replace(discount=1.0), path).value
        return ((earned + 0.7 * entropy) * discount).sum(-1)

    for name, weight in params.items():
        torch.testing.assert_close(found[name], twin[name], rtol=1e-9, atol=1e-12)
        step = torch.zeros_like(weight)
        step.flatten()[0] = 1e-5
        ends = [value({**params, name: weight + sign * step}) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(found[name].flatten(1)[:, 0], slope, rtol=1e-6, atol=1e-8)


def test_an_estimator_gets_the_coefficient_of_now() -> None:
    problem = lq(squash=True)
    for estimator, critic, tail in ((E.FOG(), QUICK, "v"), (E.ABPT(4), OF_Q, "own")):
        plain = algorithm(estimator, critic=critic, tail=tail)
        recipe = replace(plain, entropy=Entropy(Temperature(0.4), "estimator", True, True))
        state = init(problem, recipe, 0)
        actions = problem.simulator.action_dim
        slope = 0.4 / (2 * 0.5 * actions)
        fixed = replace(plain, estimator=replace(estimator, entropy=slope))
        found, expected = (gradient_of(problem, a, state).gradient for a in (recipe, fixed))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)
        assert recipe.bonus(state).offset == pytest.approx(0.2)


def test_the_temperature_follows_the_entropy() -> None:
    """Adam's first step is its rate, against the sign of H − H̄."""
    problem = lq(std=0.5)
    actions = problem.simulator.action_dim
    now = actions * (math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e))
    for target, sign in ((now / actions + 0.1, 1.0), (now / actions - 0.1, -1.0)):
        heated = Entropy(Temperature(0.2, Adam(0.01)), target=target)
        state = init(problem, algorithm(entropy=heated, episodes=256), 0)
        after, info = update(problem, algorithm(entropy=heated, episodes=256), state)
        assert float(info.entropy) == pytest.approx(now, abs=5 * math.sqrt(actions / 2 / 1024))
        found = float(after.temperature["log"]) - math.log(0.2)
        assert found == pytest.approx(sign * 0.01, rel=1e-5)


def by_hand(first: Tensor, second: Tensor) -> Tensor:
    pairs = [part.chunk(2, dim=-1) for part in (first, second)]
    return kl_divergence(*(Normal(mean, log_std.exp()) for mean, log_std in pairs)).sum(-1)


def test_divergence_is_that_of_two_gaussians() -> None:
    narrow, wide = torch.tensor([0.0, 0.0]), torch.tensor([1.0, math.log(2.0)])
    expected = math.log(2.0) + (1 + 1) / 8 - 0.5
    assert float(divergence(narrow, wide)) == pytest.approx(expected, rel=1e-6)
    a, b = torch.randn(2, 7, 6, generator=generator("a pair"), dtype=torch.float64)
    torch.testing.assert_close(divergence(a, b), by_hand(a, b))
    assert not divergence(a, a).any()


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_penalty_is_by_the_policy_before_the_last_update(direction: Any) -> None:
    problem, plain = lq(), algorithm(optimiser=Adam(0.1))
    recipe = replace(plain, kl=KLPenalty(0.3, direction))
    assert all(not value.any() for value in added(problem, plain, recipe, 0).values())
    found = added(problem, plain, recipe, 2)
    state = train(problem, replace(recipe, updates=2), seed=0)
    ascent = gradient_of(problem, recipe, state)
    leaves = {name: value.clone().requires_grad_() for name, value in state.params.items()}
    now, past = (problem.bind(params)(ascent.path.obs) for params in (leaves, state.previous))
    pair = (past, now) if direction == "forward" else (now, past)
    (-0.3 * by_hand(*pair).sum(-1).mean()).backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.grad, rtol=1e-9, atol=1e-10)
        assert leaf.grad is not None and leaf.grad.any()


@pytest.mark.parametrize("kind", ["v", "q"])
def test_soft_targets_count_entropy_as_reward_from_where_it_is_earned(kind: str) -> None:
    """V includes that of its own step, and Q does not; a termination cuts both."""
    problem = walled(8)
    recipe = replace(QUICK if kind == "v" else OF_Q, lam=0.6)
    own = kind == "q"
    trained = algorithm(
        E.ABPT(4) if own else E.FOG(), critic=recipe, tail="own" if own else "v", episodes=32
    )
    state = init(problem, trained, 0)
    ascent = gradient_of(problem, trained, state)
    segment, path, result = ascent.segment, ascent.path, ascent.result
    policy = segment.bind(state.params).frozen
    bonus = Bonus(0.5, 0.1)
    worth = bonus.of(policy, path.output, ascent.noise.action[:, :4])
    common = segment, policy, state.target, path, result
    plain, soft = (
        recipe.targets(*common, generator("fresh"), extra)
        for extra in (None, SoftSteps(bonus, worth))
    )
    later = torch.zeros_like(worth[:, 0])  # what entropy adds to the λ-return, from the back
    if own:
        fresh = torch.randn(32, 5, 1, generator=generator("fresh"), dtype=torch.float64)
        z = policy(views(segment, path, result).obs)
        of_values = bonus.of(policy, z, fresh)
        later = of_values[:, 4]
    for t in (3, 2, 1, 0):
        alive = (result.alive[:, t + 1] > 0).double()
        gain = later
        if t < 3:
            boot = of_values[:, t + 1] if own else 0.0
            gain = 0.4 * boot + 0.6 * later
        gain = problem.discount * alive * gain
        first = gain if own else worth[:, t] + gain
        rows = plain.rows[:, t]
        torch.testing.assert_close((soft.value - plain.value)[rows, t], first[rows])
        later = worth[:, t] + gain
    assert not bool(result.alive[:, -1].all())


def test_targets_may_be_reduced_in_another_way() -> None:
    problem = lq()
    two = replace(QUICK, members=2, reduction="mean")
    means, least, both = two, replace(two, reduction="min"), replace(two, target_reduction="min")
    state = init(problem, algorithm(critic=two), 0)
    found = []
    for recipe in (means, least, both):
        ascent = gradient_of(problem, algorithm(critic=recipe), state)
        policy = ascent.segment.bind(state.params).frozen
        common = ascent.segment, policy, state.target, ascent.path, ascent.result
        found.append((recipe.targets(*common, generator("x")).value, ascent.gradient))
    assert torch.equal(found[2][0], found[1][0]) and not torch.equal(found[2][0], found[0][0])
    assert all(torch.equal(found[2][1][name], value) for name, value in found[0][1].items())


def test_a_critic_stops_once_its_loss_has_settled() -> None:
    assert not settled([1.0] * 4, 0.2)
    assert settled([9.0, 1.0, 2.0, 0.5, 3.0, 1.7], 0.2)
    assert not settled([1.0, 2.0, 0.5, 3.0, 1.8], 0.2) and settled([1.0, 2.0, 0.5, 3.0, 0.3], 0.2)
    problem = lq()
    found = {}
    for name, recipe in {
        "five": replace(QUICK, passes=5),
        "stopped": replace(QUICK, passes=30, stop=1e9),
        "all": replace(QUICK, passes=7, stop=1e-12),
        "seven": replace(QUICK, passes=7),
    }.items():
        found[name] = train(problem, algorithm(critic=recipe, updates=1)).critic
    for a, b in (("five", "stopped"), ("all", "seven")):
        assert all(torch.equal(found[a][name], value) for name, value in found[b].items())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Entropy(-1.0), "at least 0"),
        (lambda: Entropy(where="return"), "'bonus' or 'estimator'"),  # type: ignore[arg-type]
        (lambda: Entropy(normalised=True, target=0.0), "not 0"),
        (lambda: Temperature(0.0), "positive"),
        (lambda: KLPenalty(-0.1), "at least 0"),
        (lambda: KLPenalty(direction="up"), "'forward' or 'reverse'"),  # type: ignore[arg-type]
        (lambda: CriticRecipe(stop=0.0), "positive"),
        (lambda: CriticRecipe(target_reduction="max"), "target_reduction"),  # type: ignore[arg-type]
        (lambda: algorithm(E.PG(), entropy=Entropy(where="estimator")), "an `entropy`"),
        (lambda: algorithm(critic=None, tail="none", entropy=Entropy(targets=True)), "a critic"),
    ],
)
def test_bad_options_are_one_line(make: Any, words: str) -> None:
    with checking.off(), pytest.raises(BadValue, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
