"""Every estimator's expectation on the LQ problem is Σ w_k g_k, known exactly.

Critics are exact, so nothing but the estimator itself can be wrong. Each statistical test here has
a false-alarm rate of 1e-6, shared by its directions: about 1e-4 for the whole file. The default
tier detects 1 % of ‖g*‖ where samples are cheap (everything pathwise) and 3 % for score functions,
which need millions of episodes for 1 %; the slow tier asks 1 % of all.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.base import Estimator
from gradlab.foundation.noise import Noise
from gradlab.oracle import closed_forms
from gradlab.oracle.closed_forms import Answer
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import Critic
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.rollouts.rollout import Trajectory, rollout
from gradlab.statistics import OracleGradient
from gradlab.testing import Biased, Verdict, assert_unbiased
from tests.helpers.known import build

# Episodes at once: of so small a problem many cost little more than few, but for mixtures, whose
# groups hold rows.
CHUNK, GROUPED = 16_384, 4096


@dataclass(frozen=True)
class Case:
    """An estimator of the registry and what precision its price allows."""

    name: str
    options: dict[str, Any]
    detect: float  # default tier [‖g*‖]
    unbiased: bool  # for ∇J, not only for Σ w_k g_k

    @property
    def estimator(self) -> Estimator:
        return E.make(self.name, **self.options)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{v}" for v in self.options.values())])


def pathwise(name: str, unbiased: bool, **options: object) -> Case:
    return Case(name, options, 0.01, unbiased)


def scored(name: str, unbiased: bool, detect: float = 0.03, **options: object) -> Case:
    return Case(name, options, detect, unbiased)


CASES = [
    pathwise("fog", True),
    pathwise("relaxed_fog", True, width=0.1),
    pathwise("split", True, width=0.05),
    pathwise("split", True, width=None),
    pathwise("qg", True),
    pathwise("qg", False, at="start"),
    pathwise("zero_step", False),
    pathwise("nstep", True),
    pathwise("nstep", False, window=2),
    pathwise("nstep", False, window=2, tail="v"),
    pathwise("nstep", True, window=2, starts="tiled"),
    pathwise("nstep", True, window=2, starts="tiled", tail="v"),
    pathwise("nstep", True, window=1, starts="tiled"),
    pathwise("lambda_return", False, lambda_=0.7),
    pathwise("lambda_return", False, lambda_=0.7, window=3, tail="v"),
    pathwise("lambda_return", False, lambda_=0.7, window=3, starts="tiled"),
    pathwise("lambda_return", True, lambda_=1.0, window=2, starts="tiled"),
    pathwise("abpt", False, window=2),
    pathwise("abpt", True, window=2, zero_step="all"),
    pathwise("agpo", False, window=3, alpha=0.6),
    pathwise("agpo", True, window=1, starts="tiled", source=E.Cross(512)),
    scored("pg", True),
    scored("pg", True, baseline="loo", group_size=64),
    scored("pg", True, baseline="loo", group_size=2),
    scored("pg", True, baseline="v"),
    scored("pg", True, baseline="q"),
    scored("pg", False, returns="discounted", baseline="v"),
    scored("pg", True, returns="gae", gae_lambda=1.0),
    scored("pg", True, returns="gae", gae_lambda=0.5),
    scored("evolution_strategies", True, 0.1, std=0.01),  # its own error is σ², 1e-4
    *(
        scored(name, True, 0.04, level=level, source=source)
        for name, level, source in (
            ("inverse_variance", "global", E.Cross(512)),
            ("inverse_variance", "layer", E.Cross(512)),
            ("inverse_variance", "parameter", E.Cross(512)),
            ("inverse_variance", "step", E.Cross(512)),
            ("inverse_variance", "global", E.Independent(size=512)),
            ("inverse_variance", "layer", E.Independent(size=512)),
            ("inverse_variance", "parameter", E.Independent(size=512)),
            ("inverse_variance", "step", E.Independent(size=512)),
            ("inverse_variance_qg_pg", "step", E.Cross(512)),
            ("alpha_order", "global", E.Cross(512)),
            ("best_linear", "global", E.Cross(512)),
        )
    ),
    # weights from the episodes that they weight: a bias of about 1/N of the group, here 0.1 %
    scored("switch", True, 0.1, source=E.Same(1024)),
    scored("switch", True, 0.1, c=1.0, source=E.Cross(1024)),
    scored("total_propagation", True, 0.06, source=E.Cross(64)),
    scored("total_propagation", True, 0.06, per_coordinate=True, source=E.Cross(64)),
    scored("total_propagation", True, 0.06, every=2, source=E.Independent(size=512)),
    scored("action_mixture", True, 0.06, source=E.Cross(64)),
    scored("action_mixture", True, 0.06, window=2, advantage="v", source=E.Independent(size=512)),
]


@functools.cache
def lq() -> tuple[Problem, dict[str, Tensor], Answer]:
    problem, params = build("lq")
    answer = closed_forms.solve(problem, params)
    return problem.replace(critic=answer.critic), params, answer


def target(estimator: Estimator) -> OracleGradient:
    """Σ w_k g_k, with the weights that the estimator declares."""
    problem, _, answer = lq()
    weights = estimator.call_weights(problem)
    return OracleGradient.exact(closed_forms.total(answer.per_call, weights), "closed form")


def truth() -> OracleGradient:
    return OracleGradient.exact(lq()[2].gradient, "closed form")


def check(
    estimator: Estimator, aim: OracleGradient, detect: float, critic: Critic | None = None
) -> Verdict:
    problem, params, _ = lq()
    problem = problem if critic is None else problem.replace(critic=critic)
    chunk = CHUNK if estimator.group == 1 else GROUPED
    return assert_unbiased(
        estimator, problem, params, aim, detect=detect, max_count=2**24, chunk_size=chunk
    )


def test_every_registered_estimator_is_here() -> None:
    assert {case.name for case in CASES} == set(E.names())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_call_weights_say_what_is_unbiased(case: Case) -> None:
    problem, _, _ = lq()
    weights = case.estimator.call_weights(problem)
    assert weights.shape == (problem.horizon,)
    assert torch.equal(weights, torch.ones_like(weights)) == case.unbiased


@pytest.mark.statistical
@pytest.mark.parametrize("case", CASES, ids=str)
def test_expectation_is_the_declared_sum(case: Case) -> None:
    check(case.estimator, target(case.estimator), case.detect)


def mixed(*parts: Estimator, **options: Any) -> Estimator:
    return E.Mixture(parts, E.InverseVariance(), **options)


def fitted(*parts: Estimator, level: Any = "global") -> Estimator:
    """With weights from a pilot of other episodes than the test draws."""
    problem, params, _ = lq()
    pilot = problem.draw(512, torch.Generator().manual_seed(11))
    return E.Mixture(parts, E.InverseVariance(), level).fitted(problem, params, pilot)


# more parts than the registered ones, weights that are fixed, and parts that look at some calls
# only
MIXTURES = {
    "three parts, global": lambda: mixed(E.FOG(), E.PG(), E.QG(), source=E.Cross(512)),
    "three parts, three folds": lambda: mixed(
        E.FOG(), E.PG(), E.QG(), level="layer", source=E.Cross(384, folds=3)
    ),
    "three parts, by parameter": lambda: mixed(
        E.QG(), E.PG(), E.FOG(), level="parameter", source=E.Independent(size=512)
    ),
    "three parts, by step": lambda: mixed(
        E.FOG(), E.PG(), E.NStep(2, "tiled"), level="step", source=E.Independent(size=512)
    ),
    "two parts, fitted": lambda: fitted(E.FOG(), E.PG()),
    "three parts, fitted by step": lambda: fitted(E.FOG(), E.PG(), E.QG(), level="step"),
    "windows": lambda: mixed(E.NStep(2), E.NStep(2, tail="v"), source=E.Cross(512)),
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_with_weights_from_elsewhere_estimate_the_declared_sum(name: str) -> None:
    mixture = MIXTURES[name]()
    check(mixture, target(mixture), 0.04)
    if name == "windows":
        with pytest.raises(Biased):
            check(mixture, truth(), 0.1)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("case", [c for c in CASES if c.detect > 0.01], ids=str)
def test_expectation_is_the_declared_sum_to_one_percent(case: Case) -> None:
    check(case.estimator, target(case.estimator), 0.01)


@pytest.mark.statistical
@pytest.mark.parametrize("case", [c for c in CASES if not c.unbiased and c.detect == 0.01], ids=str)
def test_other_call_weights_are_not_the_gradient(case: Case) -> None:
    with pytest.raises(Biased):
        check(case.estimator, truth(), 0.05)


def wrong_critic() -> Critic:
    """Off by a factor and by a slope in the state."""
    exact = lq()[2].critic
    assert exact is not None and exact.q is not None and exact.v is not None
    q, v = exact.q, exact.v
    return Critic(
        q=lambda view, action: 0.5 * q(view, action) + 0.4 * view.state[..., 0] + 0.3,
        v=lambda view: 0.5 * v(view) + 0.4 * view.state[..., 0] + 0.3,
        name="wrong",
    )


@pytest.mark.statistical
@pytest.mark.parametrize("baseline", ["v", "q"])
def test_a_wrong_baseline_biases_nothing(baseline: Any) -> None:
    check(E.PG(baseline=baseline), truth(), 0.1, wrong_critic())
    if baseline == "v":
        check(E.PG(returns="gae", gae_lambda=1.0), truth(), 0.1, wrong_critic())


@pytest.mark.statistical
@pytest.mark.parametrize(
    "estimator",
    [
        E.QG(),
        E.NStep(2, "tiled"),
        E.NStep(2, "tiled", "v"),
        E.ABPT(2, "all"),
        E.PG(returns="gae", gae_lambda=0.5),
    ],
    ids=["qg", "nstep-q", "nstep-v", "abpt", "gae"],
)
def test_a_wrong_critic_is_seen_where_it_matters(estimator: Estimator) -> None:
    with pytest.raises(Biased):
        check(estimator, truth(), 0.05, wrong_critic())


@pytest.mark.statistical
def test_sums_and_multiples_estimate_sums_and_multiples() -> None:
    mixture = 2.0 * E.NStep(2) + E.ZeroStep() * -0.5
    check(mixture, target(mixture), 0.01)


# Estimators with one thing wrong with them: each must be found out.


@dataclass(frozen=True)
class Broken(E.SurrogateEstimator):
    """Declares call weights 1."""

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon, dtype=problem.dtype)


@dataclass(frozen=True)
class LiveTails(Broken):
    """Tiled windows whose tail keeps the policy's parameters live: boundary calls count twice."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        q = problem.require_q("this test")
        path = rollout(problem, policy, noise, cut_every=2)
        result = evaluate(problem, path, cut_every=2)
        ends = slice(2, problem.horizon, 2)
        view = views(problem, path, result, ends)
        latent = policy.latent(policy(view.obs), noise.action[..., ends, :])
        tails = problem.discounts[ends] * q(view, latent)
        return result.value.sum(-1) + tails.sum(-1)


@dataclass(frozen=True)
class AttachedTiles(Broken):
    """Tiled windows whose start states are not cut."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        v = problem.require_v("this test")
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
        ends = slice(2, problem.horizon, 2)
        tails = problem.discounts[ends] * v(views(problem, path, result, ends))
        return result.value.sum(-1) + tails.sum(-1)


@dataclass(frozen=True)
class LeakyScore(Broken):
    """A score function at attached observations: the density leaks a gradient through the state."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        path = rollout(problem, policy, noise)
        to_go = evaluate(problem, path).to_go().detach()
        log_prob = policy.log_prob(policy(path.obs), path.latent.detach())
        return (log_prob * to_go).sum(-1)


@dataclass(frozen=True)
class Score(Broken):
    """A score function with a weight of its own per step, on detached paths."""

    shift: int = 0  # 1: the reward of a step is not credited to its own action
    discount_from_step: bool = False
    baseline_after: bool = False  # a baseline that has seen the action

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        path = rollout(problem, policy.frozen, noise).detach()
        weight = self._advantage(problem, path)
        log_prob = policy.log_prob(policy(path.obs), path.latent)
        return (log_prob * weight.detach()).sum(-1)

    def _advantage(self, problem: Problem, path: Trajectory) -> Tensor:
        result = evaluate(problem, path)
        to_go = result.to_go()
        if self.shift:
            to_go = torch.cat([to_go[..., 1:], torch.zeros_like(to_go[..., :1])], dim=-1)
        if self.discount_from_step:
            to_go = to_go / problem.discounts[:-1]
        if self.baseline_after:
            v = problem.require_v("this test")
            values = v(views(problem, path, result, slice(1, None)))
            to_go = to_go - problem.discounts[1:] * values
        return to_go


@dataclass(frozen=True)
class Undiscounted(Broken):
    """Value gradients summed without γ^t."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        q = problem.require_q("this test")
        path = rollout(problem, policy.frozen, noise).detach()
        view = views(problem, path, evaluate(problem, path), slice(0, problem.horizon))
        latent = policy.latent(policy(view.obs), noise.action)
        return q(view, latent).sum(-1)


@dataclass(frozen=True)
class MeanAction(Broken):
    """Value gradients at the mean action: the spread of the policy is never seen."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        q = problem.require_q("this test")
        path = rollout(problem, policy.frozen, noise).detach()
        view = views(problem, path, evaluate(problem, path), slice(0, problem.horizon))
        values = q(view, policy.mean_action(policy(view.obs)))
        return (problem.discounts[:-1] * values).sum(-1)


BROKEN = {
    "sign": -1.0 * E.FOG(),
    "two percent": 1.02 * E.FOG(),
    "window for gradient": E.NStep(4),
    "live tails": LiveTails(),
    "attached tiles": AttachedTiles(),
    "leaky score": LeakyScore(),
    "off by one": Score(shift=1),
    "discount from t": Score(discount_from_step=True),
    "baseline after the action": Score(baseline_after=True),
    "no discount": Undiscounted(),
    "mean action": MeanAction(),
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", BROKEN)
def test_broken_estimators_fail(name: str) -> None:
    with pytest.raises(Biased, match=r"z = "):
        check(BROKEN[name], truth(), 0.01 if name == "two percent" else 0.05)


@pytest.mark.statistical
def test_their_unbroken_twins_pass() -> None:
    """`Score` without a flag is PG: what fails above is the flag."""
    check(Score(), truth(), 0.1)


# The smoothed objective of evolution strategies, where it is known exactly.


@pytest.mark.slow  # its products of normals are skewed: the normal tail needs millions of samples
@pytest.mark.statistical
def test_evolution_strategies_follow_the_smoothed_objective() -> None:
    """Quadratic decision: E over N(0, s²) perturbations of ∇J has e^{2s²} on its log-std part."""
    problem, params = build("quadratic")
    plain = closed_forms.solve(problem, params).gradient
    std = 0.6
    smooth = {**plain, "log_std": plain["log_std"] * torch.tensor(2 * std**2).double().exp()}
    options = {"detect": 0.1, "max_count": 2**22, "chunk_size": CHUNK}
    estimator = E.EvolutionStrategies(std)
    assert_unbiased(estimator, problem, params, OracleGradient.exact(smooth, "formula"), **options)
    with pytest.raises(Biased):
        assert_unbiased(
            estimator, problem, params, OracleGradient.exact(plain, "formula"), **options
        )


@pytest.mark.statistical
def test_float32_rollouts_are_as_unbiased() -> None:
    """Float32 episodes with float64 statistics: no rounding bias at 1 %."""
    problem, params, _ = lq()
    single = replace(problem, dtype=torch.float32)
    small = {name: value.float() for name, value in params.items()}
    for estimator in (E.FOG(), E.QG(), E.NStep(2, "tiled")):
        assert_unbiased(
            estimator, single, small, target(estimator), max_count=2**20, chunk_size=CHUNK
        )
