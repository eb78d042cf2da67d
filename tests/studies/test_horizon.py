"""The horizon study: Lipschitz constants and the theorem's sums by hand, its rules, a tiny run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import gradlab
from estimators.alphas import step_weights
from estimators.value import QG
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.oracle import closed_forms
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.critic import Critic
from gradlab.rollouts.rollout import rollout
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from studies.horizon import STUDY, report
from studies.horizon.answer import answer, factor, scaling, times, variance_sentence
from studies.horizon.cells import cells, processor_seconds, tiled
from studies.horizon.config import PRESETS, Config
from studies.horizon.lipschitz import (
    ValueAt,
    action_slopes,
    difference,
    errors_by_action,
    errors_in_total,
    value_slopes,
)
from studies.horizon.rows import (
    LOWERS,
    RAISES,
    SAME,
    Bound,
    Single,
    Sweep,
    Verdict,
    bounds_of,
    exponent,
    singles_of,
    verdicts,
)
from studies.horizon.tasks import TASKS, exact_critic, growth, is_sampled, problem_of
from studies.horizon.theorem import Apart, of_theorem, weight_sum
from tests.helpers.runs import shared

F64 = torch.float64
TINY = Config(
    tasks=("lq-stiff",),
    critics=("exact",),
    windows=(1, 4),
    samples=320,
    flight_samples=320,
    pilot=64,
    judged=16,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "horizon", lambda out: run_study(STUDY, TINY, out, jobs=1))


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


# the constants of the theorem


def lq(horizon: int = 4):
    problem = gradlab.make("lq", horizon=horizon, dtype=F64)
    critic = closed_forms.solve(problem, problem.reference).critic
    return problem.replace(critic=critic), problem.reference


def test_the_slope_of_a_linear_value_is_its_own() -> None:
    """Q = s·(1, 2, 0, 0) + a·(0, 2): √(1 + 4 + 4) everywhere."""
    problem, params = lq()
    s, a = torch.tensor([1.0, 2, 0, 0], dtype=F64), torch.tensor([0.0, 2], dtype=F64)
    problem = problem.replace(critic=Critic(q=lambda view, action: view.state @ s + action @ a))
    noise = problem.draw(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        value_slopes(problem, params, noise), torch.full((3, 4), 3.0, dtype=F64)
    )


def test_the_slope_of_a_linear_policy_by_hand() -> None:
    """u_j = W_j·s + b_j + σ_j ε_j: rows of ∂u/∂θ are orthogonal, the longer one is the norm."""
    problem, params = lq()
    noise = problem.draw(5, torch.Generator().manual_seed(0))
    path = rollout(problem, problem.bind(params).frozen, noise)
    moved = (params["log_std"].exp() * noise.action).square()
    wanted = (path.before.square().sum(-1, keepdim=True) + 1 + moved).amax(-1).sqrt()
    torch.testing.assert_close(action_slopes(problem, params, noise), wanted)


def test_the_slope_of_a_network_is_the_norm_of_its_jacobian() -> None:
    problem = gradlab.make("hovering", horizon=2, dtype=F64).replace(
        policy=GaussianPolicy(13, 4, hidden=(5,))
    )
    params = problem.init(torch.Generator().manual_seed(1))
    noise = problem.draw(2, torch.Generator().manual_seed(0))
    path = rollout(problem, problem.bind(params).frozen, noise)
    found = action_slopes(problem, params, noise)

    def action(params: dict[str, torch.Tensor]) -> torch.Tensor:
        policy = problem.bind(params)
        z = policy(path.obs[1, 1], [1], path.carry[1, 1])
        return policy.policy.action(policy.latent(z, noise.action[1, 1]))

    jacobian = torch.func.jacrev(action)(params)
    matrix = torch.cat([part.reshape(4, -1) for part in jacobian.values()], dim=1)
    assert math.isclose(
        float(torch.linalg.matrix_norm(matrix, 2)), float(found[1, 1]), rel_tol=1e-9
    )


def test_errors_of_no_difference_are_zero_and_scale() -> None:
    """The error of 3 Q against Q is that of 2 Q, by action and in total."""
    problem, params = lq()
    exact = problem.critic
    assert exact is not None and exact.q is not None
    q = exact.q
    noise = problem.draw(4, torch.Generator().manual_seed(0))
    none = problem.replace(critic=difference(exact, exact))
    assert float(errors_by_action(none, params, noise).max()) < 1e-12  # of rounding
    tripled = problem.replace(critic=difference(Critic(q=lambda v, a: 3 * q(v, a)), exact))
    found = errors_by_action(tripled, params, noise)
    torch.testing.assert_close(found, 2 * errors_by_action(problem, params, noise))
    total = errors_in_total(tripled, params, noise, 2)
    torch.testing.assert_close(total, 2 * errors_in_total(problem, params, noise, 2))
    # at the first step no state depends on θ: both readings are one
    assert len(total) == 3
    torch.testing.assert_close(found[0], total[0])
    # and at the horizon there is no value
    assert errors_in_total(tripled, params, noise, 4)[4] == 0


def test_a_value_at_a_step_is_differentiated_through_the_states() -> None:
    """Per-sample gradients of Q_2 by vmap over a rollout of two steps."""
    problem, params = lq()
    noise = problem.draw(3, torch.Generator().manual_seed(0))
    mine = ValueAt(2)(problem, params, noise).per_sample()
    slow = ValueAt(2, engine="loop")(problem, params, noise).per_sample()
    for name, value in mine.items():
        torch.testing.assert_close(value, slow[name])
    start = ValueAt(0)(problem, params, noise).squared_norms()
    torch.testing.assert_close(start, QG("start")(problem, params, noise).squared_norms())


def test_the_sum_of_the_bias_bound_by_hand() -> None:
    """α = ½, ½: S = ½·1 + γ ½·½ + γ² ¼; all α = 1: γ^h; all 0: 1."""

    def total(*alpha: float) -> float:
        return weight_sum(step_weights(torch.tensor([alpha], dtype=F64), len(alpha), 0.0), 0.9)

    assert math.isclose(total(0.5, 0.5), 0.5 + 0.9 * 0.25 + 0.81 * 0.25)
    assert math.isclose(total(1.0, 1.0), 0.81)
    assert math.isclose(total(0.0, 0.7), 1.0)


def test_the_gradient_of_the_theorem_is_divided_and_not_cut() -> None:
    problem, params = lq()
    found = of_theorem(problem, params, 4, (64, 3))
    assert found.average and found.threshold == 0 and isinstance(found.alpha, tuple)
    assert len(found.alpha) == 4


def test_apart_is_the_error_of_the_critic_alone() -> None:
    """Q̂ = Q + 5 s·a-free constant has no error; the reward cancels in any case."""
    problem, params = lq()
    q = problem.critic.q  # pyright: ignore[reportOptionalMemberAccess]
    assert q is not None
    shifted = problem.replace(critic=Critic(q=lambda view, action: q(view, action) + 5))
    noise = problem.draw(8, torch.Generator().manual_seed(0))
    fixed = dataclasses.replace(of_theorem(problem, params, 2, (64, 3)))
    apart = Apart(fixed, problem)(shifted, params, noise)
    whole = fixed(problem, params, noise).squared_norms()
    assert float((apart.squared_norms() / whole).max()) < 1e-20


# the problems


def test_the_stiff_problem_grows_and_the_smooth_one_does_not() -> None:
    assert growth("lq") < 1 < growth("lq-stiff") < 1.2
    smooth = gradlab.make("lq", horizon=32, dtype=F64)
    assert problem_of("lq").simulator == smooth.simulator
    assert exact_critic("lq-stiff").q is not None
    with pytest.raises(UnknownName):
        problem_of("lqq")


# the rules


def bound(window: int, variance: float, share: float, estimator: str = "agpo", **more) -> Bound:
    reach = Interval(variance, 0.9 * variance, 1.1 * variance)
    shares = Interval(share, 0.9 * share, 1.1 * share)
    return Bound(
        "lq", "exact", window, 32, estimator, 1.0, 2.0, reach, variance / share, 1.0, shares, 1.5,
        **more,
    )  # fmt: skip


def test_a_bound_holds_where_every_interval_is_below_it() -> None:
    holds = verdicts([bound(1, 1.0, 0.5), bound(2, 1.0, 0.01)])["variance"]
    assert holds == Verdict("holds", 2, 100.0, 2.0, Interval(0.5, 0.45, 0.55))
    unsure = verdicts([bound(1, 1.0, 0.5), bound(2, 1.0, 0.95)])["variance"]
    assert unsure.word == "cannot be told at this budget" and not unsure.broken
    broken = verdicts([bound(1, 1.0, 0.5), bound(2, 1.0, 1.2)])["variance"]
    assert broken.word == "does not hold" and broken.broken == ["lq, exact critic, h = 2"]
    assert "which is 0.80 to 2 times" in variance_sentence(broken)
    one = verdicts([bound(1, 1.0, 0.5)])["variance"]
    assert "which is 2 times as large" in variance_sentence(one)
    assert "Broken in 1 (lq, exact critic, h = 2)." in variance_sentence(broken)
    # N-step alone is no claim of the theorem; and what was not measured does not count
    assert verdicts([bound(1, 1.0, 2.0, "nstep")])["variance"].settings == 0
    assert verdicts([bound(1, 1.0, 0.5)])["total"].settings == 0


def test_the_power_of_the_window() -> None:
    """From 8 at h = 1 to 1 at h = 4: −1.5, ends from the far ends of both."""
    found = exponent([bound(1, 8.0, 0.1), bound(2, 3.0, 0.1), bound(4, 1.0, 0.1)])
    assert math.isclose(found.estimate, -1.5)
    assert math.isclose(found.low, math.log(0.9 / 8.8) / math.log(4))
    assert math.isnan(exponent([bound(1, 8.0, 0.1)]).estimate)
    assert "power −1.6 to −1.4" in scaling([bound(1, 8.0, 0.1), bound(4, 1.0, 0.1)])


def test_changes_need_intervals_apart() -> None:
    def sweep(first: tuple[float, float], last: tuple[float, float]) -> Sweep:
        made = [
            Single(
                "lq", "exact", window, 32, "nstep", Interval(sum(ends) / 2, *ends),
                Interval(1, 1, 1), Interval(1, 1, 1), Interval(sum(ends) / 2, *ends), 1.0, "", 0.0,
                64, 0, 1.0,
            )
            for window, ends in ((1, first), (8, last))
        ]  # fmt: skip
        return Sweep("lq", "exact", "nstep", made)

    assert sweep((0.5, 0.6), (0.1, 0.4)).bias == LOWERS
    assert sweep((0.5, 0.6), (0.7, 0.8)).bias == RAISES
    assert sweep((0.5, 0.6), (0.55, 0.8)).bias == SAME
    assert sweep((0.5, 0.6), (0.1, 0.4)).best == [8]
    assert sweep((0.5, 0.6), (0.1, 0.55)).best == [1, 8]


def test_a_factor_that_is_hardly_known_keeps_its_digits() -> None:
    assert factor(Interval(1.0, 0.9, 1.1), Interval(2.0, 1.8, 2.2)) == "2.0 [1.6, 2.4]"
    wide = factor(Interval(10.0, 1.0, 50.0), Interval(2.0, 1.0, 34.0))
    assert wide == "0.2 [0.02, 34]"  # not "0 [0, 34]"
    assert factor(Interval(1.0, 0.0, 2.0), Interval(1.0, 0.5, 2.0)) == "unknown"


def test_large_factors_are_powers_of_ten() -> None:
    assert [times(x) for x in (0.25, 12.0, 3_400.0)] == ["0.20", "10", "3,000"]
    assert [times(x) for x in (123_456.0, math.nan)] == ["10^5", "unknown"]


# the run


def test_rows_and_exact_critics(rows: pd.DataFrame) -> None:
    singles, bounds = singles_of(rows), bounds_of(rows)
    assert [(r.window, r.estimator) for r in singles] == [
        (n, name) for n in (1, 4) for name in ("nstep", "abpt", "agpo")
    ]
    assert [(r.window, r.estimator) for r in bounds] == [
        (n, name) for n in (1, 4) for name in ("agpo", "nstep")
    ]
    for row in bounds:
        assert math.isclose(row.variance_bound, 32 * (row.l_q * row.l_theta) ** 2 / row.window)
        assert row.typical_bound < row.variance_bound
        assert math.isnan(row.bias.estimate)  # with the exact critic there is none
    assert all(row.processor_seconds > 0 for row in singles)


def test_answer_report_and_figure(rows: pd.DataFrame, out: Path) -> None:
    said = answer(rows)
    assert said.answer.startswith("Variance ≤ 32 L_Q² L_θ²/h holds (2 settings)")
    assert len(str(said).splitlines()) <= 40
    assert "3. Variance and its bound" in report.summarise(rows)
    assert (out / "figure.png").exists()


def test_processor_time_is_that_of_each() -> None:
    problem, params = lq()
    found = processor_seconds({n: tiled(n, 2) for n in ("nstep", "agpo")}, problem, params)
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_bias_of_every_task(task: str, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, tasks=(task,), critics=("fitted",), windows=(4,))
    found = bounds_of(run_study(STUDY, config, tmp_path, jobs=1).rows)
    agpo = next(row for row in found if row.estimator == "agpo")
    if is_sampled(task):
        assert math.isnan(agpo.bias_bound_total)
    else:  # the triangle inequality
        assert agpo.bias.low <= agpo.bias_bound_total


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config)) and list(STUDY.artefacts(config))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"tasks": ("lqr",)}, UnknownName),
        ({"critics": ("good",)}, UnknownName),
        ({"critics": ("exact",)}, BadValue),  # racing has none
        ({"tasks": ("heaviside",)}, UnknownName),
        ({"tasks": ("tracking",)}, BadValue),  # no event to train a policy for
        ({"stage": 100, "tasks": ("ant",)}, BadValue),
        ({"truth_samples": 1000}, BadValue),
        ({"truth_stderr": 0.0}, BadValue),
        ({"train_width": 0.0}, BadValue),
        ({"windows": ()}, BadValue),
        ({"windows": (49,)}, BadValue),
        ({"windows": (40,)}, BadValue),
        ({"windows": (1, 33), "tasks": ("lq",)}, BadValue),
        ({"windows": (0,)}, BadValue),
        ({"windows": (2, 2)}, BadValue),
        ({"estimators": ("nsteps",)}, UnknownName),
        ({"samples": 256}, BadValue),
        ({"samples": 400}, BadValue),
        ({"pilot": 8}, BadValue),
        ({"judged": 10_000}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error):
        list(cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
