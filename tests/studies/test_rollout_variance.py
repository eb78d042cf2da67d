"""Per-sample gradients of one step, their variance, and the study of them along rollouts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from gradlab.foundation.checkpoints import read_header
from gradlab.foundation.errors import GradlabError
from gradlab.foundation.moment import Moment
from gradlab.policies.gaussian import GaussianPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from gradlab.study.cells import identities, in_order
from gradlab.study.tables import read
from gradlab.study.text import Tally
from studies import rollout_variance
from studies.rollout_variance import STUDY, ascent, gradients, policies, report, statistics
from studies.rollout_variance import answer as answers
from studies.rollout_variance.answer import answer
from studies.rollout_variance.config import Config
from studies.rollout_variance.rows import Policy
from studies.shared.medians import median_interval
from tests.helpers.runs import shared, undrawn

COMMITTED = Path(rollout_variance.__file__).parent / "artefacts"
STATES, SAMPLES = 3, 4
TINY = Config(
    settings=("brax/compliant",),
    states=6,
    every=48,
    samples=3,
    resamples=20,
    picks=2,
    ascent_seeds=2,
    updates=2,
    ascent_samples=1,
    judged=1,
)


def q(view: View, action: Tensor) -> Tensor:
    """A Q that is smooth in everything, and not symmetric in the action."""
    bend = (view.obs[..., :8] * action).sum(-1)
    return bend - 0.1 * view.obs.square().sum(-1) - (action - 0.2).square().sum(-1)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Brax's ant in float64, with contact that is smooth everywhere and a policy
    that is no constant.
    """
    made = policies.problem_of(policies.Setting("brax", "smoothed"))
    policy = GaussianPolicy(made.task.observation_dim, 8, hidden=(5,), head_gain=1.0)
    return made.replace(policy=policy, critic=Critic(q=q), dtype=torch.float64)


@pytest.fixture(scope="module")
def params(problem: Problem) -> dict[str, Tensor]:
    return problem.init(torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def moment(problem: Problem) -> Moment:
    """On the floor, where the feet carry the ant, and falling."""
    noise = problem.draw(STATES, torch.Generator().manual_seed(1))
    start = problem.start(noise)
    start.state[:, 2] = torch.tensor([0.45, 0.5, 0.9])
    return start._replace(step=start.step + 3)


@pytest.fixture(scope="module")
def noise() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(STATES * SAMPLES, 2, 8, generator=generator, dtype=torch.float64)


def value(problem: Problem, params: dict[str, Tensor], start: Moment, noise: Tensor):
    """r + γ alive' Q of one step, differentiable by the parameters."""
    return gradients.one_step(
        problem, problem.bind(params), gradients.step_noise(problem, noise), start
    )


def by_hand(
    problem: Problem, params: dict[str, Tensor], start: Moment, noise: Tensor, name: str
) -> Tensor:
    """The gradient of one row by plain autograd, every formula written out: [P]."""
    leaves = {key: leaf.clone().requires_grad_() for key, leaf in params.items()}
    policy = problem.policy
    now = value(problem, leaves, start, noise)
    z = policy.bind(leaves)(now.obs)
    latent = policy.latent(z, noise[:, 0])
    baseline = gradients.q_value(problem, start, now.obs, policy.mean_action(z)).detach()
    fixed = policy.log_prob(z, latent.detach())
    of_action = gradients.q_value(problem, start, now.obs, policy.action(latent))
    objective = {
        "sg": now.value,
        "qg": of_action,
        "pg": fixed * (now.value.detach() - baseline),
        "pg_q": fixed * (of_action.detach() - baseline),
        "pg_return": fixed * (7.0 - baseline),
    }[name]
    found = torch.autograd.grad(objective.sum(), list(leaves.values()))
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("name", [*gradients.SAMPLED, "pg_return"])
def test_variance_equals_a_brute_force_loop(problem, params, moment, noise, name: str) -> None:
    rows = moment.repeat(SAMPLES)
    sampled = gradients.gradients_at(
        problem, params, rows, noise, (name,), torch.full((len(noise),), 7.0).double()
    )
    found = gradients.variance_of(gradients.gram_of(sampled.gradients[name], SAMPLES))
    for s in range(STATES):
        each = []
        for i in range(s * SAMPLES, (s + 1) * SAMPLES):
            row = rows.take(torch.tensor([i]))
            each.append(by_hand(problem, params, row, noise[i : i + 1], name))
        mean = torch.stack(each).mean(0)
        slow = sum(float((g - mean).square().sum()) for g in each) / (SAMPLES - 1)
        signal = float(mean.square().sum()) - slow / SAMPLES
        # the Gram matrix loses the digits by which the variance is smaller than ‖ḡ‖²
        scale = max(slow, float(mean.square().sum()))
        assert float(found.value[s]) == pytest.approx(slow, abs=1e-10 * scale)
        assert float(found.signal[s]) == pytest.approx(signal, abs=1e-10 * scale)
        assert found.low[s] <= found.value[s] <= found.high[s]


def test_one_step_sg_equals_finite_differences(problem, params, moment, noise) -> None:
    """Along random directions of θ, within the differences' own error:
    that of a step twice as long.
    """
    rows = moment.repeat(SAMPLES)
    sampled = gradients.gradients_at(problem, params, rows, noise, ("sg",))
    slopes = sampled.gradients["sg"].per_sample()
    generator = torch.Generator().manual_seed(3)
    direction = {
        key: torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        for key, leaf in params.items()
    }
    parts = [(slopes[k].flatten(1) * direction[k].flatten()).sum(1) for k in params]
    along = torch.stack(parts).sum(0)

    def difference(h: float) -> Tensor:
        ends = []
        for sign in (1, -1):
            moved = {key: leaf + sign * h * direction[key] for key, leaf in params.items()}
            ends.append(value(problem, moved, rows, noise).value)
        return (ends[0] - ends[1]) / (2 * h)

    h = 1e-6
    fine, coarse = difference(h), difference(2 * h)
    # the error is c h², a third of what the longer step adds, and the values' rounding over h; a
    # step of a stiff system loses digits, 1e3 units of rounding are allowed for its value
    rounding = 1e3 * torch.finfo(torch.float64).eps * sampled.value.abs().clamp(min=1) / h
    assert torch.all((along - fine).abs() <= (coarse - fine).abs() + rounding)
    # and the bound could find an error of a thousandth
    assert float(((coarse - fine).abs() + rounding).max()) < 1e-3 * float(along.abs().max())


def test_factored_and_dense_gram_matrices_agree(problem, params, moment, noise) -> None:
    sampled = gradients.gradients_at(problem, params, moment.repeat(SAMPLES), noise, ("sg",))
    factored = sampled.gradients["sg"]
    rows = torch.cat([leaf.flatten(1) for leaf in factored.per_sample().values()], dim=1)
    rows = rows.unflatten(0, (STATES, SAMPLES))
    torch.testing.assert_close(gradients.gram_of(factored, SAMPLES), rows @ rows.mT)
    with pytest.raises(GradlabError, match="whole sets"):
        gradients.gram_of(factored, 5)


def test_variance_of_what_does_not_vary_or_is_not_finite() -> None:
    rows = torch.ones(2, 4, 3, dtype=torch.float64)
    rows[1, 2, 0] = math.nan
    found = gradients.variance_of(rows @ rows.mT)
    assert found.value[0] == found.low[0] == found.high[0] == 0
    assert found.value[1].isnan()


def test_jackknife_interval_covers_the_variance() -> None:
    """95 % of the intervals hold tr Σ, within what 2,000 repeats and a jackknife
    of 32 samples allow.
    """
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(2000, 32, 6, generator=generator, dtype=torch.float64)
    found = gradients.variance_of(rows @ rows.mT)
    covered = ((found.low <= 6) & (found.high >= 6)).double().mean()
    assert 0.92 <= float(covered) <= 0.98


def test_contact_is_seen_where_the_ant_stands_and_not_in_the_air(problem) -> None:
    state = problem.start(problem.draw(1, torch.Generator().manual_seed(0)))[0]
    high, low = state.clone(), state.clone()
    high[:, 2], low[:, 2] = 2.0, 0.2
    in_air = gradients.contact_of(problem.simulator, high, high[:, None])
    landing = gradients.contact_of(problem.simulator, high, low[:, None])
    split = gradients.contact_of(problem.simulator, low, torch.stack([high, low], dim=1))
    assert not in_air.touching and not in_air.changes and not in_air.splits
    assert landing.touching and landing.changes and not landing.splits
    assert split.touching and split.changes and split.splits


# --------------------------------------------------------------------------------------- ascent


def test_paths_equal_ascents_one_by_one(problem, moment) -> None:
    """The slow twin has one policy, one state and plain parameters."""
    seeds, updates, samples, judged = 2, 2, 2, 3
    paths = ascent.ascend(
        problem, moment, seeds=seeds, updates=updates, samples=samples, judged=judged,
        learning_rate=1e-2, seed=5,
    )  # fmt: skip
    assert paths.value.shape == (STATES, seeds, updates + 1)
    s, r = 1, 1
    leaves = {
        k: v.requires_grad_()
        for k, v in ascent._fresh(problem, ascent.seed_for(5, "policy", r)).items()
    }
    adam = torch.optim.Adam(leaves.values(), lr=1e-2, betas=(0.9, 0.95))
    row = moment.take(torch.tensor([s]))
    for update in range(updates + 1):
        fixed = ascent._noise(problem, 5, seeds, -1, judged)[r]
        mean = value(problem, leaves, row.repeat(judged), fixed).value.mean()
        torch.testing.assert_close(paths.value[s, r, update], mean.detach())
        if update == updates:
            break
        fresh = ascent._noise(problem, 5, seeds, update, samples)[r]
        adam.zero_grad()
        (-value(problem, leaves, row.repeat(samples), fresh).value.mean()).backward()
        adam.step()


def test_how_a_path_moved() -> None:
    moved = ascent.apart(torch.tensor([[0.0, 2.0, 1.0, 3.0], [1.0, 1.0, 1.0, 1.0]]))
    assert moved.gain.tolist() == [3.0, 0.0]
    assert moved.fallen.tolist() == pytest.approx([1 / 5, 0.0])
    assert moved.largest.tolist() == pytest.approx([1 / 3, 0.0])


def test_chosen_states_are_near_the_quantile_and_different() -> None:
    variance = torch.tensor([[1.0, 10.0, math.nan], [100.0, 1000.0, 0.0]])
    assert ascent.chosen(variance, 0.01, 1).tolist() == [[0, 0]]
    assert ascent.chosen(variance, 0.99, 5).tolist() == [[1, 1], [1, 0]]


# ----------------------------------------------------------------------------------- statistics


def test_the_median_lies_between_order_statistics() -> None:
    found = median_interval(np.arange(1.0, 65.0))
    # P(fewer than k of n below the median) <= 2.5 %
    below = int(found.low)
    assert found.estimate == 32.5 and found.high == 65 - below
    assert stats.binom.cdf(below - 1, 64, 0.5) <= 0.025 < stats.binom.cdf(below, 64, 0.5)
    assert math.isnan(median_interval(np.arange(3.0)).low)


def test_outliers_are_counted_at_the_flag() -> None:
    field = np.arange(100.0).reshape(10, 10)
    flag = field >= 90
    found = statistics.outliers_at(field, flag)
    assert found.top == 1.0 and found.rest == pytest.approx(5 / 95)
    assert found.log_odds == pytest.approx(math.log(5.5 * 90.5 / (0.5 * 5.5)))


def test_an_empty_cell_bounds_the_odds_on_one_side() -> None:
    """All outliers flagged: the bound is Clopper and Pearson's for as many cases
    as states have outliers.
    """
    field = np.random.default_rng(0).normal(size=(10, 40))
    top = field > np.quantile(field, 0.95)
    states = int(top.any(0).sum())
    flag = top | (np.arange(40) % 2 == 0)
    yes, no = (int((~top & f).sum()) for f in (flag, ~flag))
    found = statistics.bounded_log_odds(field, flag)
    assert found is not None and found.estimate == found.high == np.inf
    least = stats.binomtest(states, states).proportion_ci(0.95, "exact").low
    assert found.low == pytest.approx(np.log(least / (1 - least) * no / yes))
    opposite = statistics.bounded_log_odds(field, ~flag)
    assert opposite is not None
    assert opposite.estimate == opposite.low == -np.inf
    assert opposite.high == pytest.approx(-found.low)
    some = flag.copy()
    some[np.unravel_index(field.argmax(), field.shape)] = False
    assert statistics.bounded_log_odds(field, some) is None
    assert statistics.bounded_log_odds(field, np.ones_like(flag)) is None


def test_spread_wander_and_orders_of_known_fields() -> None:
    field = np.linspace(0, 1, 21)[:, None].repeat(4, axis=1)
    assert statistics.spread(field) == pytest.approx(0.9)
    assert statistics.wander(field) == pytest.approx(1.0)
    assert (statistics.levelled(field) == 0).all()
    assert statistics.apart(field + 2, field) == pytest.approx(2.0)
    assert np.isnan(statistics.logs(np.array([[0.0, math.inf]]))).all()


# ---------------------------------------------------------------------------------------- study


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path, str]:
    out = shared(
        tmp_path_factory, "rollout_variance", lambda out: run_study(STUDY, TINY, out, jobs=1)
    )
    return read_rows(out), out, (out / "summary.txt").read_text(encoding="utf-8")


def test_rows_of_every_kind_and_a_figure(rows) -> None:
    table, out, _ = rows
    assert set(table["kind"]) == {"policy", "state", "step", "answer", "ascent", "path"}
    states = table[table["kind"] == "state"]
    assert set(states["step"]) <= {0, 48, 96} and set(states["estimator"]) == set(gradients.SAMPLED)
    assert (states["value_low"] <= states["value_high"]).all()
    ascents = table[table["kind"] == "ascent"]
    assert len(ascents) == 2 * TINY.picks * TINY.ascent_seeds
    assert (out / "figure.png").stat().st_size > 0


def test_summary_has_the_three_verdicts_and_the_policy(rows) -> None:
    for words in (
        "QG steady?",
        "PG orders larger?",
        "SG's outliers at contact?",
        "speed",
        "Q explains",
        "where the best one would reach",
        "nothing of direction or length",
    ):
        assert words in rows[2]
    said = answer(rows[0])
    assert "direction and length of the gradients are not judged" in said.question
    assert "where the best one would reach" in said.rests_on and len(str(said).splitlines()) <= 40


def test_counts_and_one_sided_odds_in_words() -> None:
    """No "(not in 0, not told in the rest)", and no infinite estimate."""
    assert answers._counts(Tally(["a", "b"], [], 2)) == "2 of 2 settings"
    some = Tally(["a"], ["b", "c"], 6)
    assert answers._counts(some) == "1 of 6 settings (not in 2, cannot be told in 3)"
    assert answers._value(Interval(math.inf, -5.3, math.inf)) == "above -5.3"


def test_an_event_that_never_happens_is_said_to_play_no_part(rows) -> None:
    policy = read(Policy, rows[0], kind="policy")[0]
    for share, said in ((1.0, True), (0.9, False)):
        text = report._policy(dataclasses.replace(policy, survival=share))
        assert ("No episode ended here" in text) == said


def test_help_and_page_say_the_same_of_critics() -> None:
    """Each contact law has a critic of its own; the policy alone is common."""
    page = (Path(rollout_variance.__file__).parent / "README.md").read_text()
    for text in (rollout_variance.__doc__ or "", page):
        said = " ".join(text.split())
        assert "the same policy and a Q" in said and "the same two" not in said


def test_a_second_run_computes_nothing_and_says_the_same(rows) -> None:
    table, out, _ = rows
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*.parquet")}
    again = run_study(undrawn(STUDY), TINY, out, jobs=1).rows
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*.parquet")} == before
    pd.testing.assert_frame_equal(again, table)


def test_committed_artefacts_are_those_of_smoke_and_default_and_small() -> None:
    for preset in ("smoke", "default"):
        config, _ = STUDY.preset(preset)
        wanted = identities(in_order(STUDY.artefacts(config), STUDY.cells(config)))
        for name, identity in wanted.items():
            path = COMMITTED / f"{name}.safetensors"
            header = read_header(path)
            assert header["identity"] == identity, f"{name} is not what the study asks for"
            assert header["metadata"]["command"] == policies.COMMAND
            assert path.stat().st_size < 300_000


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": ()},
        {"settings": ("brax",)},
        {"settings": ("brax/glue",)},
        {"settings": ("moon/convex",)},
        {"estimators": ("sg", "pg")},
        {"estimators": ("sg", "qg", "best")},
        {"samples": 2},
        {"every": 129},
        {"low": 0.9, "high": 0.1},
        {"learning_rate": 0.0},
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(changes) -> None:
    with pytest.raises(GradlabError):
        list(STUDY.cells(dataclasses.replace(TINY, **changes)))


def test_differences_of_shares_are_welchs_and_never_warn() -> None:
    """Against scipy where groups vary; no state that differs:
    nothing is known, without a warning.
    """
    rng = np.random.default_rng(0)
    one, two = 0.3 + 0.05 * rng.normal(size=5), 0.4 + 0.02 * rng.normal(size=7)
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    assert report._welch(one, two) == pytest.approx((expected.low, expected.high))
    alike = np.array([0.5, 0.5])
    assert report._welch(alike, alike + np.array([0.0, 1e-16])) == (-1.0, 1.0)
