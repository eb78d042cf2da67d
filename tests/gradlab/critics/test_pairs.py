"""Pairs of episodes that judge a critic's action gradient: identities, exact critics, power."""

from __future__ import annotations

import math

import pytest
import torch

import estimators
import gradlab
from gradlab.critics.pairs import OutputPairs, given_by, judge, latent_gradient, output_pairs
from gradlab.critics.quality import Estimate
from gradlab.foundation.errors import BadValue, Missing
from gradlab.oracle import closed_forms
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.rollout import rollout

SIGMAS = 4.5  # of a normal law: two-sided 7e-6


@pytest.fixture(scope="module")
def gate() -> tuple[Problem, Critic]:
    """With process noise the exact Q is smooth in the action, and QG sees the whole gradient."""
    problem = gradlab.make("gate", horizon=6, process_std=0.1, dtype=torch.float64)
    critic = closed_forms.solve(problem, problem.reference).critic
    assert critic is not None
    return problem, critic


def within(found: Estimate, expected: float) -> bool:
    return abs(found.value - expected) < SIGMAS * found.stderr


def test_pairs_share_the_past_and_nothing_else(gate: tuple[Problem, Critic]) -> None:
    problem, _ = gate
    pairs = output_pairs(problem, problem.reference, estimators.FOG(), 64, seed=1)
    assert set(pairs.step.tolist()) == set(map(float, range(6)))
    assert not (pairs.latent[:, 0] == pairs.latent[:, 1]).any()
    again = output_pairs(problem, problem.reference, estimators.FOG(), 32, seed=1)
    assert torch.equal(again.state, pairs.state[:32])  # neither number nor chunk matters


def test_pairs_of_the_first_steps_alone(gate: tuple[Problem, Critic]) -> None:
    problem, _ = gate
    pairs = output_pairs(problem, problem.reference, estimators.FOG(), 64, seed=1, within=2)
    assert set(pairs.step.tolist()) == {0.0, 1.0}
    assert not (pairs.truth[:, 0] == pairs.truth[:, 1]).all()  # their futures differ
    with pytest.raises(BadValue, match="at most the 6 steps"):
        output_pairs(problem, problem.reference, estimators.FOG(), 4, within=7)


def test_the_truth_of_a_last_step_is_its_derivative() -> None:
    """LQ at t = T − 1 without process noise: Q is r, and every sample its exact derivative."""
    problem = gradlab.make("lq", horizon=3, process_std=(), dtype=torch.float64)
    exact = closed_forms.solve(problem, problem.reference).critic
    assert exact is not None
    for estimator in (estimators.FOG(), estimators.Split(None)):
        pairs = output_pairs(problem, problem.reference, estimator, 64)
        last = pairs.step == 2
        wanted = given_by(problem, exact, pairs).truth
        torch.testing.assert_close(pairs.truth[last], wanted[last], rtol=1e-10, atol=1e-12)


def test_the_latent_is_what_is_differentiated() -> None:
    """Of a squashed policy: Q = 3 a gives 3 (1 − tanh² u)."""
    problem = gradlab.make("hovering", horizon=4)
    params = problem.init(torch.Generator().manual_seed(0))
    path = rollout(problem, problem.bind(params).frozen, problem.draw(3, torch.Generator()))
    critic = Critic(q=lambda view, action: 3 * action.sum(-1))
    view = View(path.before, path.obs, path.before[..., :0], path.before[..., 0])
    got = latent_gradient(problem, critic, view, path.latent)
    torch.testing.assert_close(got, 3 * (1 - path.latent.tanh().square()))


def hand(truth: list[list[float]], weight: list[float]) -> OutputPairs:
    """Pairs of one action each at states that do not matter, both at t = 0."""
    n = len(truth)
    zero = torch.zeros(n, dtype=torch.float64)
    latent = torch.tensor([[1.0, 2.0]] * n, dtype=torch.float64)[..., None]
    return OutputPairs(
        zero[:, None], zero[:, None], zero[:, None], zero,
        torch.tensor(weight, dtype=torch.float64), latent,
        torch.tensor(truth, dtype=torch.float64)[..., None],
    )  # fmt: skip


def test_a_cosine_by_hand() -> None:
    """∇Q̂ = u: 1 and 2. One pair with truths 3 and 5: crossed ½(1·5 + 2·3), squares 1·2 and 3·5."""
    problem = gradlab.make("gate", dtype=torch.float64)
    critic = Critic(q=lambda view, action: 0.5 * action.square().sum(-1))
    one = judge(problem, critic, hand([[3.0, 5.0]], [0.7]))
    assert math.isclose(one.cosine.value, 5.5 / math.sqrt(2 * 15))
    assert math.isclose(one.relative_norm.value, math.sqrt(2 / 15))
    two = judge(problem, critic, hand([[3.0, 5.0], [-4.0, 1.0]], [0.5, 0.25]))
    crossed = 0.5 * 5.5 + 0.25 * 0.5 * (1 * 1 + 2 * -4)
    assert math.isclose(two.cosine.value, crossed / math.sqrt(1.5 * (7.5 - 1.0)))
    # what ended counts for nothing
    ended = judge(problem, critic, hand([[3.0, 5.0], [9.0, -9.0]], [0.7, 0.0]))
    assert math.isclose(ended.cosine.value, one.cosine.value)
    # squared lengths that noise makes negative say nothing
    assert math.isnan(judge(problem, critic, hand([[3.0, -5.0]], [1.0])).cosine.value)


@pytest.mark.statistical
@pytest.mark.parametrize("estimator", [estimators.Split(0.1), estimators.Split(None)])
def test_an_exact_critic_points_at_the_truth(
    gate: tuple[Problem, Critic], estimator: estimators.Split
) -> None:
    problem, exact = gate
    pairs = output_pairs(problem, problem.reference, estimator, 4096, seed=2)
    found = judge(problem, exact, pairs)
    assert within(found.cosine, 1.0) and found.cosine.stderr < 0.06
    assert within(found.relative_norm, 1.0)


@pytest.mark.statistical
def test_a_truth_that_misses_the_event_is_told_apart(gate: tuple[Problem, Critic]) -> None:
    """Power: FOG sees no bonus, so by its pairs the exact critic is neither right nor as long."""
    problem, exact = gate
    found = judge(problem, exact, output_pairs(problem, problem.reference, estimators.FOG(), 4096))
    assert not within(found.cosine, 1.0) and not within(found.relative_norm, 1.0)


@pytest.mark.statistical
def test_a_jump_in_the_action_counts() -> None:
    """Without process noise an exact Q jumps in the action, and its derivative misses that."""
    problem = gradlab.make("gate", horizon=6, dtype=torch.float64)
    exact = closed_forms.solve(problem, problem.reference).critic
    assert exact is not None
    pairs = output_pairs(problem, problem.reference, estimators.Split(0.1), 4096)
    assert not within(judge(problem, exact, pairs).relative_norm, 1.0)


def test_what_cannot_be_judged_is_refused(gate: tuple[Problem, Critic]) -> None:
    problem, exact = gate
    with pytest.raises(BadValue, match="looks at groups of 50"):
        output_pairs(problem, problem.reference, estimators.PG(baseline="loo"), 64)
    with pytest.raises(BadValue, match="pullback"):
        output_pairs(problem, problem.reference, estimators.FOG(engine="vmap"), 4)
    pairs = output_pairs(problem, problem.reference, estimators.FOG(), 4)
    with pytest.raises(Missing, match="no q"):
        judge(problem, Critic(v=exact.v), pairs)
