"""AGPO: identities, weights by hand, the recursion of appendix A.3, and what it estimates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.agpo import action_gradients
from estimators.alphas import ActionGradients, step_weights
from estimators.value import tail_values
from gradlab.critics.fitting import fit_critic
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.oracle import closed_forms
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, moment_at, views
from gradlab.rollouts.rollout import rollout
from gradlab.statistics import OracleGradient
from gradlab.tasks import Transition
from gradlab.testing import Biased, assert_unbiased
from tests.contracts.test_identities import assert_same, gradients
from tests.helpers import checking
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem

PROBLEMS = {
    "smooth": toy_problem(with_events=False),
    "hard": toy_problem(),
    "relaxed": toy_problem(std="global").relaxed(0.2),
    "switching": toy_problem(switching=True, std=0.3),
}
RAW = E.VarianceRatio(median_normalisation=False)


def column(*values: float) -> Tensor:
    """One step of M episodes with a single action dimension: [M, 1, 1]."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def seen(sg: Tensor, qg: Tensor, alive: Tensor | None = None) -> ActionGradients:
    there = torch.ones(sg.shape[:-1], dtype=torch.bool) if alive is None else alive
    return ActionGradients(sg, qg, there)


# Identities.


@pytest.mark.parametrize("starts", ["first", "tiled"])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_alpha_one_is_n_step(kind: str, starts: Literal["first", "tiled"]) -> None:
    agpo = E.AGPO(3, 1.0, starts)
    n_step = E.NStep(3, starts)
    assert_same(gradients(n_step, PROBLEMS[kind]), gradients(agpo, PROBLEMS[kind]), 1e-12)
    problem = PROBLEMS[kind]
    assert torch.equal(agpo.call_weights(problem), n_step.call_weights(problem))
    assert agpo.cost(problem) == n_step.cost(problem)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_alpha_zero_is_the_value_gradient_where_windows_start(kind: str) -> None:
    problem = PROBLEMS[kind]
    zero = gradients(E.AGPO(3, 0.0), problem)
    assert_same(gradients(E.ZeroStep(), problem), zero, 1e-12)
    every = E.AGPO(1, 0.0, "tiled")
    assert_same(gradients(E.QG(), problem), gradients(every, problem), 1e-12)
    assert torch.equal(every.call_weights(problem), E.QG().call_weights(problem))


@pytest.mark.parametrize("kind", PROBLEMS)
def test_half_at_the_first_step_is_abpt(kind: str) -> None:
    problem = PROBLEMS[kind]
    half = E.AGPO(3, (0.5, 1.0, 1.0))
    assert_same(gradients(E.ABPT(3), problem), gradients(half, problem))
    assert torch.equal(half.call_weights(problem), E.ABPT(3).call_weights(problem))


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_segment_ends_where_beta_falls_below_the_threshold(kind: str) -> None:
    """It is then a shorter window: its last β is that of the tail Q."""
    problem = PROBLEMS[kind]
    cut = E.AGPO(5, (0.9, 0.5, 0.1, 0.7, 1.0), threshold=0.1)
    short = E.AGPO(3, (0.9, 0.5, 0.1), threshold=0.0)
    assert_same(gradients(short, problem), gradients(cut, problem))
    assert torch.equal(cut.call_weights(problem), short.call_weights(problem))
    whole = gradients(replace(cut, threshold=0.0), problem)
    with pytest.raises(AssertionError):
        assert_same(whole, gradients(cut, problem), 1e-6)
    # at the threshold itself it goes on
    at = replace(cut, alpha=(0.5, 0.5, 0.5, 1.0, 1.0), threshold=0.25)
    assert at.call_weights(problem).tolist()[:5] == [1.0, 0.5, 0.25, 0.0, 0.0]


def test_tiled_windows_begin_again() -> None:
    problem = PROBLEMS["relaxed"]
    weights = step_weights(torch.tensor([[0.5] * 8]), 3, 0.0)
    assert weights.beta[0].tolist() == [0.5, 0.25, 0.125] * 2 + [0.5, 0.25]
    assert weights.call[0].tolist() == [1.0, 0.5, 0.25] * 2 + [1.0, 0.5]
    same = gradients(E.AGPO(3, 0.5, "tiled"), problem)
    assert_same(same, gradients(E.AGPO(3, (0.5, 0.5, 0.5), "tiled"), problem))
    assert_same(same, gradients(E.AGPO(3, (0.5,) * 8, "tiled"), problem))


def test_the_average_divides_by_the_window() -> None:
    problem = PROBLEMS["hard"]
    whole, mean = E.AGPO(3, 0.6), E.AGPO(3, 0.6, average=True)
    assert_same({k: v / 3 for k, v in gradients(whole, problem).items()}, gradients(mean, problem))
    torch.testing.assert_close(mean.call_weights(problem), whole.call_weights(problem) / 3)


# Appendix A.3: eq. 4 is the recursion that mixes at every action.


def by_recursion(problem: Problem, noise: Noise, alpha: tuple[float, ...]) -> dict[str, Tensor]:
    """Gradient of one episode, from messages that go backwards and are mixed at every action.

    L_t = (1 − α_t) Q_t + α_t (r_t + γ L_{t+1}); what reaches the parameters of call t is the
    mixed message at a_t, times the β before it.
    """
    params, count = toy_params(problem), len(alpha)
    policy, task = problem.policy, problem.task
    path = rollout(problem, policy.bind(params), noise)
    view = views(problem, path, evaluate(problem, path))
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    q = problem.require_q("this test")

    def chosen(t: int, state: Tensor, params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        obs = task.observe(state, path.memory[t], problem.steps[t])
        return obs, policy.action(policy.latent(policy.bind(params)(obs), noise.action[t]))

    def value(t: int, state: Tensor, obs: Tensor, action: Tensor) -> Tensor:
        return q(
            view._replace(state=state, obs=obs, events=view.events[t], step=view.step[t]), action
        )

    state = path.state[count].detach().requires_grad_()
    (later,) = torch.autograd.grad(value(count, state, *chosen(count, state, params)), state)
    before = [math.prod(alpha[:t]) for t in range(count)]
    for t in reversed(range(count)):
        state = path.state[t].detach().requires_grad_()
        action = path.action[t].detach().requires_grad_()
        after = problem.simulator.step(state, action, noise.process[t])
        made = Transition(state, action, after, path.memory[t], problem.steps[t]).alone()
        reward = torch.stack(list(task.terms(made).values())).sum()
        ahead = reward + problem.discount * (after * later).sum()
        sg = torch.autograd.grad(ahead, (state, action), materialize_grads=True)
        obs, again = chosen(t, state, leaves)
        qg = torch.autograd.grad(value(t, state, obs, action), (state, action), retain_graph=True)
        mixed = [alpha[t] * a + (1 - alpha[t]) * b for a, b in zip(sg, qg, strict=True)]
        through, *to_params = torch.autograd.grad(
            (again * mixed[1]).sum(), (state, *leaves.values())
        )
        later = mixed[0] + through
        for name, part in zip(leaves, to_params, strict=True):
            total[name] += problem.discount**t * before[t] * part
    return total


@pytest.mark.parametrize("alpha", [(0.3, 0.9, 0.6, 0.2), (1.0,) * 4, (0.0,) * 4])
def test_the_surrogate_of_eq_4_is_the_recursion_at_action_nodes(alpha: tuple[float, ...]) -> None:
    problem = PROBLEMS["smooth"]
    noise = problem.draw(3, torch.Generator().manual_seed(1))
    estimator = E.AGPO(4, alpha, threshold=0.0)
    found = estimator(problem, toy_params(problem), noise).per_sample()
    for i in range(noise.count):
        expected = by_recursion(problem, Noise(*(part[i] for part in noise)), alpha)
        assert_same(expected, {name: value[i] for name, value in found.items()}, 1e-9)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_eq_4_is_the_recursion_of_objectives(kind: str) -> None:
    """With events too: in values, R_t = γ^t alive_t r_t and γ^t alive_t Q_t."""
    problem, alpha = PROBLEMS[kind], (0.3, 0.9, 0.6, 0.2)
    params, noise = toy_params(problem), problem.draw(6, torch.Generator().manual_seed(1))
    policy = problem.bind(params)
    path = rollout(problem, policy, noise, length=5)
    result = evaluate(problem, path)
    q = problem.require_q("this test")(views(problem, path, result, slice(0, 5)), path.action)
    values = result.discount[:5] * result.alive[:, :5] * q
    ahead = values[:, 4]
    for t in reversed(range(4)):
        ahead = (1 - alpha[t]) * values[:, t] + alpha[t] * (result.value[:, t] + ahead)
    estimator = E.AGPO(4, alpha, threshold=0.0)
    with torch.no_grad():
        given = estimator.first_pass(problem, policy.frozen, noise)
        torch.testing.assert_close(estimator.surrogate(problem, policy, noise, given), ahead)


# Weights.


def test_alpha_by_hand() -> None:
    """Variances 2 and 1/2; after medians 2 and 3/2 they are 1/2 and 2/9."""
    gradients = seen(column(1.0, 3.0), column(1.0, 2.0))
    assert RAW(gradients).tolist() == pytest.approx([0.5 / 2.5])
    assert E.VarianceRatio()(gradients).tolist() == pytest.approx([(2 / 9) / (1 / 2 + 2 / 9)])


def test_the_two_readings_of_the_spread_by_hand() -> None:
    """Unit vectors that turn: the trace of the covariance is 4/3 and 1, their norms are the same.

    The norms of the value gradients 1, 1, 1, 3 have variance 1.
    """
    turning = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)[:, None]
    along = torch.tensor([[1.0, 0], [1, 0], [1, 0], [3, 0]], dtype=torch.float64)[:, None]
    gradients = seen(turning, along)
    assert RAW(gradients).tolist() == pytest.approx([1 / (1 + 4 / 3)])
    assert replace(RAW, spread="norm")(gradients).tolist() == [1.0]


@pytest.mark.parametrize(
    ("sg", "qg", "expected"),
    [
        ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 0.5),  # neither varies
        ((1.0, 1.0, 1.0), (1.0, 2.0, 3.0), 1.0),
        ((1.0, 2.0, 3.0), (1.0, 1.0, 1.0), 0.0),
        ((1.0, 2.0, math.inf), (1.0, 2.0, 3.0), 0.0),
        ((1.0, 2.0, math.nan), (1.0, 2.0, 3.0), 0.0),
        ((0.0, 0.0, 3.0), (1.0, 3.0, 2.0), 1 / 4),  # a median of 0: as they are
    ],
)
def test_alpha_at_the_edges(sg: tuple[float, ...], qg: tuple[float, ...], expected: float) -> None:
    assert E.VarianceRatio()(seen(column(*sg), column(*qg))).tolist() == pytest.approx([expected])


def test_only_living_episodes_count() -> None:
    sg, qg = column(1.0, 3.0, 0.0, 0.0), column(1.0, 2.0, 0.0, 0.0)
    for alive, expected in (((1, 1, 0, 0), 4 / 13), ((1, 0, 0, 0), 0.5), ((0, 0, 0, 0), 0.5)):
        there = torch.tensor(alive, dtype=torch.bool)[:, None]
        assert E.VarianceRatio()(seen(sg, qg, there)).tolist() == pytest.approx([expected])


def test_rules_for_every_episode_by_hand() -> None:
    sg = torch.tensor([[3.0, 4], [0, 0.5], [0, 0], [8, 6]], dtype=torch.float64)[:, None]
    gradients = seen(sg, sg)
    assert E.MaxNorm(1.0)(gradients)[:, 0].tolist() == [0.2, 1.0, 1.0, 0.1]
    # norms 5, 0.5, 0, 10: quartiles 0.375 and 6.25
    assert E.Quantile(0.25, 0.75)(gradients)[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
    # in medians, 2.75 here; and of the norms 5, 0.5, 0, 10 and 1, 1, 1, 1 of two steps together
    found = E.MaxNorm(2.0, relative=True)(gradients)[:, 0].tolist()
    assert found == [1.0, 1.0, 1.0, 0.55]
    still = torch.zeros_like(sg)
    still[3] = 7.0
    assert E.MaxNorm(2.0, relative=True)(seen(still, sg))[:, 0].tolist() == [1.0] * 4
    two = torch.cat([sg, torch.tensor([0.6, 0.8], dtype=torch.float64).expand(4, 1, 2)], 1)
    assert E.Quantile(0.25, 0.75)(seen(two, two)).tolist() == [[1, 1], [1, 1], [0, 1], [0, 1]]
    of_all = E.Quantile(0.25, 0.75, over="window")(seen(two, two))
    assert of_all.tolist() == [[0, 1], [0, 1], [0, 1], [0, 1]]
    broken = sg.clone()
    broken[0], broken[3] = torch.nan, torch.inf
    for rule in (E.MaxNorm(1.0), E.Quantile(0.0, 0.6)):
        assert rule(seen(broken, sg))[:, 0].tolist() == [0.0, 1.0, 1.0, 0.0]


def one_step(problem: Problem, noise: Noise, t: int) -> tuple[Tensor, Tensor] | None:
    """SG and QG at step t of one episode, from its moment there; None where it has ended."""
    policy = problem.bind(toy_params(problem)).frozen
    path = rollout(problem, policy, noise)
    result = evaluate(problem, path)
    if result.alive[t] == 0:
        return None
    leaf = path.action[t].detach().requires_grad_()

    class Put:
        nodes = ("action",)

        def __call__(self, step: int, node: str, value: Tensor) -> Tensor:
            return leaf

    start, rest = moment_at(path, result, t).detach(), noise.during(t, problem.horizon)
    step = rollout(problem, policy, rest, start=start, length=1, relay=Put())
    paid = evaluate(problem, step)
    value = paid.value.sum()
    if t + 1 < problem.horizon:
        value = value + tail_values(problem, policy, step, paid, rest, slice(1, 2), "q").sum()
    q = problem.require_q("this test")(views(problem, step, paid, slice(0, 1)), leaf[None])
    weight = problem.discounts[t]
    (sg,) = torch.autograd.grad(value / weight, leaf, retain_graph=True)
    (qg,) = torch.autograd.grad((paid.alive[0] * q).sum(), leaf)
    return sg, qg


@pytest.mark.parametrize("kind", PROBLEMS)
def test_gradients_at_actions_are_those_of_single_steps(kind: str) -> None:
    problem = PROBLEMS[kind].replace(horizon=5)
    noise = problem.draw(6, torch.Generator().manual_seed(1))
    policy = problem.bind(toy_params(problem)).frozen
    found = action_gradients(problem, policy, noise, 5)
    ended = 0
    for i in range(noise.count):
        row = Noise(*(part[i] for part in noise))
        for t in range(5):
            expected = one_step(problem, row, t)
            assert bool(found.alive[i, t]) == (expected is not None)
            if expected is None:
                ended += 1
                expected = torch.zeros(1), torch.zeros(1)
            for part, known in zip(found[:2], expected, strict=True):
                torch.testing.assert_close(part[i, t], known.double(), rtol=1e-10, atol=1e-12)
    assert (ended > 0) == (kind in ("hard", "switching"))


GROUP = E.AGPO(3, source=E.Same(4))


def test_weights_are_those_that_a_call_uses() -> None:
    problem = PROBLEMS["hard"]
    params, noise = toy_params(problem), problem.draw(8, torch.Generator().manual_seed(2))
    for source in (E.Same(4), E.Cross(8), E.Cross(8, folds=4)):
        agpo = replace(GROUP, source=source, threshold=0.0)
        found = agpo.weights(problem, params, noise)
        blocks = {4: 2, 8: source.folds if isinstance(source, E.Cross) else 1}[agpo.group]
        assert found.alpha.shape == found.beta.shape == found.call.shape == (blocks, 3)
        torch.testing.assert_close(found.beta, found.alpha.cumprod(-1))
        assert len({*found.alpha.flatten().tolist()}) == 3 * blocks
        whole = agpo(problem, params, noise).per_sample()
        size = 8 // blocks
        for b in range(blocks):
            rows = slice(b * size, (b + 1) * size)
            fixed = replace(agpo, alpha=tuple(found.alpha[b].tolist()))
            part = fixed(problem, params, noise.rows(rows.start, rows.stop)).per_sample()
            assert_same(part, {name: value[rows] for name, value in whole.items()})


def test_sources_of_the_weights() -> None:
    """Cross takes the other folds, Independent its pilot, and `fitted` all episodes of a pilot."""
    problem = PROBLEMS["relaxed"]
    params, noise = toy_params(problem), problem.draw(8, torch.Generator().manual_seed(2))
    cross = replace(GROUP, source=E.Cross(8)).weights(problem, params, noise).alpha
    for fold, (begin, end) in enumerate(((4, 8), (0, 4))):
        other = GROUP.weights(problem, params, noise.rows(begin, end)).alpha
        torch.testing.assert_close(cross[fold], other[0])
    pilot = E.Independent(seed=3, size=6)
    apart = replace(GROUP, source=pilot)
    drawn = apart.weights(problem, params, noise).alpha
    fitted = apart.fitted(problem, params, pilot.draw(problem, 1))
    assert apart.group == fitted.group == 1
    assert fitted.alpha == tuple(drawn[0].tolist())
    rows = apart(problem, params, noise).per_sample()
    assert_same(rows, fitted(problem, params, noise).per_sample())


def test_every_episode_may_have_weights_of_its_own() -> None:
    problem = PROBLEMS["smooth"]
    params, noise = toy_params(problem), problem.draw(4, torch.Generator().manual_seed(2))
    size = action_gradients(problem, problem.bind(params).frozen, noise, 3).sg.norm(dim=-1)
    limit = float(size.median())
    for discards in (True, False):
        agpo = replace(GROUP, alpha=E.MaxNorm(limit, discards), threshold=0.0)
        found = agpo.weights(problem, params, noise).alpha
        torch.testing.assert_close(found, (limit / size).clamp(max=1.0))
        rows = agpo(problem, params, noise).per_sample()
        for i in range(4):
            fixed = replace(agpo, alpha=tuple(found[i].tolist()))
            part = fixed(problem, params, noise.rows(i, i + 1)).per_sample()
            mine = {name: value[i : i + 1] for name, value in rows.items()}
            if discards:
                with pytest.raises(AssertionError):
                    assert_same(part, mine, 1e-6)
            else:
                assert_same(part, mine)
    # nothing is clipped: SG alone
    loose = replace(GROUP, alpha=E.MaxNorm(1e9))
    assert_same(
        E.NStep(3)(problem, params, noise).per_sample(), loose(problem, params, noise).per_sample()
    )


def test_double_q_is_that_of_the_critic() -> None:
    problem = toy_problem(with_events=False, horizon=3)
    params, noise = toy_params(problem), problem.draw(8, torch.Generator().manual_seed(2))
    twin = fit_critic(problem, params, steps=2, episodes=20, held_out=4, twin=True)
    found = problem.replace(critic=twin.critic(problem))
    single = []
    for member in range(2):
        kept = {
            name.replace(f"members.{member}.", "members.0."): value
            for name, value in twin.params.items()
            if "members." not in name or f"members.{member}." in name
        }
        alone = replace(twin, fit=replace(twin.fit, twin=False), params=kept)
        single.append(alone.critic(problem).q)
    least = Critic(
        q=lambda view, action: torch.minimum(single[0](view, action), single[1](view, action))
    )
    agpo = E.AGPO(2, source=E.Same(8))
    expected = agpo(problem.replace(critic=least), params, noise).per_sample()
    assert_same(expected, agpo(found, params, noise).per_sample())
    first = agpo(problem.replace(critic=Critic(q=single[0])), params, noise).per_sample()
    with pytest.raises(AssertionError):
        assert_same(first, expected, 1e-6)


# What it estimates.


@functools.cache
def lq() -> tuple[Problem, dict[str, Tensor], closed_forms.Answer]:
    problem, params = build("lq")
    answer = closed_forms.solve(problem, params)
    return problem.replace(critic=answer.critic), params, answer


def target(weights: Tensor) -> OracleGradient:
    return OracleGradient.exact(closed_forms.total(lq()[2].per_call, weights), "closed form")


FIXED: dict[str, Callable[[], E.AGPO]] = {
    "a number": lambda: E.AGPO(3, 0.6),
    "a sequence": lambda: E.AGPO(None, (0.9, 0.2, 1.0, 0.5, 0.7)),
    "tiled": lambda: E.AGPO(2, (0.4, 0.8), "tiled"),
    "cut": lambda: E.AGPO(4, 0.6, threshold=0.5),
    "average": lambda: E.AGPO(3, 0.6, average=True),
    "fitted": lambda: E.AGPO().fitted(
        *lq()[:2], lq()[0].draw(256, torch.Generator().manual_seed(9))
    ),
    "independent": lambda: E.AGPO(3, source=E.Independent(size=64)),
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", FIXED)
def test_fixed_alphas_estimate_the_declared_sum(name: str) -> None:
    problem, params, _ = lq()
    estimator = FIXED[name]()
    weights = estimator.call_weights(problem)
    if name == "independent":  # known from the weights alone
        weights = torch.zeros(problem.horizon, dtype=torch.float64)
        few = problem.draw(1, torch.Generator().manual_seed(1))
        weights[:3] = estimator.weights(problem, params, few).call[0]
        assert not torch.allclose(weights, estimator.call_weights(problem))
    options = {"max_count": 2**20, "chunk_size": 4096}
    assert_unbiased(estimator, problem, params, target(weights), detect=0.02, **options)
    if name == "a number":
        truth = OracleGradient.exact(lq()[2].gradient, "closed form")
        with pytest.raises(Biased):
            assert_unbiased(estimator, problem, params, truth, detect=0.05, **options)


def z_scores(estimator: E.AGPO, count: int) -> Tensor:
    """Of the mean of Σ_i (g_i − Σ_k β_{k−1} g_k) over groups, whose expectation should be 0."""
    problem, params, answer = lq()
    noise = problem.draw(count, torch.Generator().manual_seed(5))
    rows = estimator(problem, params, noise).per_sample()
    call = estimator.weights(problem, params, noise).call
    weights = torch.zeros(len(call), problem.horizon, dtype=torch.float64)
    weights[:, : call.shape[1]] = call
    scores: list[Tensor] = []
    for name, per_call in answer.per_call.items():
        aim = torch.tensordot(weights, per_call, dims=1).repeat_interleave(count // len(call), 0)
        apart = (rows[name] - aim).unflatten(0, (-1, estimator.group)).mean(1)
        scores.append((apart.mean(0) / (apart.std(0) / len(apart) ** 0.5)).flatten())
    return torch.cat(scores)


@pytest.mark.statistical
def test_given_weights_from_other_folds_the_expectation_is_the_sum_by_beta() -> None:
    """α of the same episodes is not independent of them: at 4 episodes it is found out."""
    limit = 5.0  # of about 20 scores: a false alarm in 90,000
    cross = E.AGPO(3, source=E.Cross(8))
    assert z_scores(cross, 32768).abs().max() < limit
    same = E.AGPO(3, source=E.Same(4))
    assert z_scores(same, 32768).abs().max() > limit


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.2}, r"alpha must lie in \[0, 1\]"),
        ({"alpha": ()}, r"alpha must lie in \[0, 1\]"),
        ({"alpha": "ratio"}, "alpha should be one number"),
        ({"alpha": (0.5, 0.5)}, "alpha should be one number, 3 of a window or 3 of all steps"),
        ({"alpha": (0.5, 0.5), "starts": "tiled"}, "3 of a window or 8 of all steps"),
        ({"window": 9}, "window between 1 and the horizon 8"),
        ({"starts": "all"}, "AGPO starts must be"),
        ({"threshold": 1.0}, "threshold should be at least 0"),
        ({"source": E.Same(3)}, "size of Same"),
        ({"source": "same"}, r"source should be Same\(\), Cross\(\) or Independent\(\)"),
        ({"alpha": E.MaxNorm(), "source": E.Cross(8)}, r"needs source=Same\(\)"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with checking.off(), pytest.raises(BadValue, match=message) as caught:
        E.AGPO(**{"window": 3, **options}).check(toy_problem())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_bad_rules_are_refused() -> None:
    with checking.off(), pytest.raises(BadValue, match="spread must be"):
        E.VarianceRatio(spread="l2")  # type: ignore[arg-type]
    with checking.off(), pytest.raises(BadValue, match="over must be"):
        E.Quantile(over="all")  # type: ignore[arg-type]
    with pytest.raises(BadValue, match="limit of MaxNorm should be above 0"):
        E.MaxNorm(0.0)
    with pytest.raises(BadValue, match="0 <= low < high <= 1"):
        E.Quantile(0.9, 0.1)
    problem = toy_problem()
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    with pytest.raises(BadValue, match="one α for all episodes"):
        E.AGPO(3, E.MaxNorm()).fitted(problem, toy_params(problem), noise)
