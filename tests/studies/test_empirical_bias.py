"""The empirical-bias study: its science against closed forms and by hand, verdicts, a tiny run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from scipy import stats

import estimators
import gradlab
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.gradients.sampling import block_generator
from gradlab.oracle import closed_forms
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from studies.empirical_bias import STUDY, report
from studies.empirical_bias.answer import answer, biases, line
from studies.empirical_bias.ascent import (
    ascent_rows,
    expected,
    flow,
    middle,
    objective_at,
    plain_ends,
    zero,
)
from studies.empirical_bias.benchmark import (
    Bench,
    Variant,
    benchmark_rows,
    losses,
    mixed,
    swapped,
    weighing,
)
from studies.empirical_bias.config import PRESETS, Config
from studies.empirical_bias.methods import METHODS, Setting, method, usable
from studies.empirical_bias.rows import Flow, Look, Point, Run, Score, Sweep, told_apart
from studies.empirical_bias.statistics import (
    mean_interval,
    replicates_needed,
    single_interval,
    slope,
)
from studies.empirical_bias.sweep import batches, sweep_rows, truth_of
from studies.empirical_bias.toys import MEAN, TOYS, WEIGHT, toy_of
from studies.shared.many import longer
from tests.helpers.runs import shared

TINY = Config(
    toys=("heaviside",),
    methods=("fog", "pg", "best"),
    batches=8,
    ascents=("ball_with_wall",),
    ascent_methods=("fog", "pg"),
    trials=2,
    updates=4,
    long_updates=1,
    problems=("heaviside",),
    sizes=(32,),
    replicates=8,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(
        tmp_path_factory, "empirical_bias", lambda out: run_study(STUDY, TINY, out, jobs=1)
    )


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


def noise_of(problem: gradlab.Problem, count: int, block: int = 0) -> gradlab.Noise:
    return problem.draw(count, block_generator(3, block))


# ------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("rule", ["ivw", "ivwh", "best"])
def test_swapped_halves_are_cross_fitting(rule: str) -> None:
    """Weights of either half on the other: what `Mixture` does with `Cross`, to the last bit."""
    bench = Bench.of("gate", 16)
    noise = noise_of(bench.problem, 64)
    cross = weighing(Variant(rule, "cross"), 16)
    halves = weighing(Variant(rule, "same"), 8)
    weights = swapped(halves.weights(bench.problem, bench.params, noise))
    known = cross.weights(bench.problem, bench.params, noise)
    torch.testing.assert_close(weights.values, known.values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["ivw", "ivwh", "best", "best_unbiased", "aobg", "ddcg", "jump"])
def test_a_pilot_that_is_the_batch_is_the_same(rule: str) -> None:
    bench = Bench.of("ball_with_wall", 32)
    noise = noise_of(bench.problem, 64)
    same, pilot = (
        mixed(bench, Variant(rule, source), noise, noise).per_sample()[WEIGHT]
        for source in ("same", "pilot")
    )
    torch.testing.assert_close(same, pilot, rtol=1e-12, atol=1e-14)
    other = noise_of(bench.problem, 64, 1)
    apart = mixed(bench, Variant(rule, "pilot"), noise, other).per_sample()[WEIGHT]
    assert rule in ("ddcg", "jump") or not torch.allclose(same, apart)


def test_a_baseline_apart_is_the_mean_of_other_episodes() -> None:
    bench = Bench.of("heaviside", 32)
    noise, other = noise_of(bench.problem, 32), noise_of(bench.problem, 32, 1)
    std = bench.params["log_std"].exp()
    value, mean = (
        ((bench.params[WEIGHT][0] + std * some.action[:, 0]) > 0).double().squeeze(-1)
        for some in (noise, other)
    )
    by_hand = (value - mean.mean()) * noise.action[:, 0, 0] / std
    found = mixed(bench, Variant("pg", baseline="apart"), noise, other).per_sample()[WEIGHT]
    torch.testing.assert_close(found[:, 0, 0], by_hand, rtol=1e-12, atol=1e-12)


def test_losses_by_hand() -> None:
    truth = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    gradients = {"a": torch.tensor([[1.0, 2.0], [2.0, 4.0]]), "b": torch.tensor([5.0, 3.0])}
    assert losses(gradients, truth).tolist() == [4.0, 5.0]


# ----------------------------------------------------------------------- quadrature, closed forms


@pytest.mark.parametrize("name", ["ball_with_wall", "momentum_transfer"])
def test_an_update_of_the_flow_is_a_step_along_the_expectation(name: str) -> None:
    toy = toy_of(name)
    assert toy.start is not None
    answer = closed_forms.solve(toy.problem(0.0), toy.params(toy.start))
    there = toy.start + toy.step * float(answer.gradient[WEIGHT])
    assert flow(toy, "pg", 1) == pytest.approx(there, rel=1e-12)
    seen = toy.start + toy.step * float(answer.seen_by_fog[WEIGHT].sum())
    assert flow(toy, "fog", 1) == pytest.approx(seen, rel=1e-12)


@pytest.mark.parametrize("name", ["fog", "pg"])
@pytest.mark.parametrize("toy", ["ball_with_wall", "momentum_transfer"])
def test_plain_runs_step_along_the_expectation(toy: str, name: str) -> None:
    """Their mean after one update, within its own error; and what they are a sample of."""
    setting = toy_of(toy)
    ends = plain_ends(setting, name, 1, runs=20_000)
    error = float(ends.std()) / math.sqrt(len(ends))
    assert abs(float(ends.mean()) - flow(setting, name, 1)) < 5 * error
    assert middle(torch.arange(1001, dtype=torch.float64)) == Interval(500.0, 25.0, 975.0)


def test_runs_by_estimators_are_plain_runs() -> None:
    """One update of PG by the estimator: its noise is that of plain runs."""
    toy = toy_of("ball_with_wall")
    problem, params = toy.optimised()
    noise = noise_of(problem, 50 * 2000)
    samples = method("pg", Setting.of(toy, 50))(problem, params, noise).per_sample()[WEIGHT]
    batch = toy.step * samples.flatten().unflatten(0, (2000, 50)).mean(1)
    plain = plain_ends(toy, "pg", 1, runs=2000)
    assert float(batch.std() / plain.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * 2000) * 2)


@pytest.mark.slow
def test_published_ends_of_the_pivot_are_those_of_single_runs_and_pgs_on_the_ball_is_not() -> None:
    for name in ("momentum_transfer", "ball_with_wall"):
        toy = toy_of(name)
        for method_, end in toy.ends:
            if method_ != "aobg":
                ends = middle(plain_ends(toy, method_, toy.iterations))
                odd = (name, method_) == ("ball_with_wall", "pg")
                assert (ends.low <= end <= ends.high) is not odd


@pytest.mark.slow
def test_the_published_end_of_fog_is_where_its_expectation_leads() -> None:
    """1000 updates from 0.1 rad: 0.4952 is published. It is no optimum of anything."""
    toy = toy_of("ball_with_wall")
    end = flow(toy, "fog", toy.iterations)
    assert end == pytest.approx(dict(toy.ends)["fog"], abs=1e-3)
    assert expected(toy.problem(end), toy, end, "fog") > 1e-4
    assert expected(toy.problem(end), toy, end, "pg") > expected(toy.problem(end), toy, end, "fog")


@pytest.mark.parametrize("name", ["ball_with_wall", "momentum_transfer"])
def test_the_zero_is_a_maximum_of_the_smoothed_return(name: str) -> None:
    toy = toy_of(name)
    place = zero(toy, "pg")
    best = objective_at(toy, place)
    assert best > max(objective_at(toy, place + d) for d in (-0.01, 0.01))
    assert math.isnan(zero(dataclasses.replace(toy, grid=(0.1, place - 0.05)), "pg"))


def test_fog_of_the_pivot_rises_over_the_cliff() -> None:
    """Its expectation is positive everywhere: nothing stops it but vanishing samples."""
    assert math.isnan(zero(toy_of("momentum_transfer"), "fog"))


def test_published_alpha_of_the_ball_cannot_leave_zero() -> None:
    """With L = 1 and N = 50 the term without variance is 0.0099, and γ is 0.01."""
    toy = toy_of("ball_with_wall")
    rule = method("aobg", Setting.of(toy, toy.batch)).rule  # pyright: ignore[reportAttributeAccessIssue]
    alone = float(rule.radius(torch.tensor(0.0), toy.batch, 1))
    assert alone == pytest.approx(2 / 150 * math.log(2 / 0.95)) and 0.0099 < alone < toy.gamma
    _, weights = batches(
        method("aobg", Setting.of(toy, 50)), toy.problem(0.4), toy.params(0.4), toy, 50, 16, 0
    )
    assert not weights.any()


def test_slopes_of_a_quadratic_are_exact_in_every_episode() -> None:
    """One step of friction from rest: the difference of Richardson is the derivative."""
    problem = gradlab.make("friction", horizon=1, clock=False, dtype=torch.float64)
    noise, one = noise_of(problem, 5), {WEIGHT: torch.ones(1, 1, dtype=torch.float64)}
    params = {WEIGHT: 0.7 * one[WEIGHT]}
    found = slope(problem, params, one, noise, 0.1)
    exact = estimators.FOG()(problem, params, noise).per_sample()[WEIGHT][:, 0, 0]
    torch.testing.assert_close(found.episodes, exact, rtol=1e-9, atol=1e-9)
    assert found.step_error < 1e-9


def test_slopes_see_a_jump() -> None:
    toy = toy_of("heaviside")
    problem, params = toy.problem(0.0), toy.params(0.0)
    noise, along = noise_of(problem, 20_000), {WEIGHT: toy.direction}
    found = mean_interval(slope(problem, params, along, noise, 0.04).episodes)
    truth = truth_of(toy, problem, params, 0)
    error = (found.high - found.estimate) / 1.96
    assert abs(found.estimate - truth.value) < 5 * error + 0.02 * truth.value
    assert truth.value == pytest.approx(2 * stats.norm.pdf(MEAN, scale=0.1), rel=1e-9)


# ------------------------------------------------------------------------------------- statistics


def test_replicates_needed_have_the_power_that_they_say() -> None:
    draws = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    needed = replicates_needed(draws)
    at = float(draws.mean() / draws.std()) * math.sqrt(needed.estimate)
    assert stats.norm.sf(stats.norm.isf(0.025) - at) == pytest.approx(0.95, abs=1e-9)
    assert needed.low < needed.estimate < needed.high < math.inf
    unclear = replicates_needed(draws - draws.mean())
    assert math.isinf(unclear.high) and unclear.low < math.inf
    assert math.isinf(replicates_needed(torch.zeros(8)).estimate)


def test_a_method_without_jump_is_unbiased_and_one_with_is_not() -> None:
    """Heaviside with a wide ramp and as a step: FOG's bias along the coordinate."""
    toy = toy_of("heaviside")
    wide, step = (next(sweep_rows(toy, width, ("fog",), 50, 64, 0, seed=1)) for width in (0.4, 0.0))
    error = (wide["bias_high"] - wide["bias"]) / 2
    assert abs(wide["bias"]) < 5 * error
    assert step["expectation"] == 0 and step["bias"] == pytest.approx(-step["truth"])


def test_long_toys_have_a_row_per_method_that_fits() -> None:
    """The jump test needs 16 episodes, more than a published batch of pushing."""
    assert usable("jump", 16) and not usable("jump", 10)
    toy = dataclasses.replace(toy_of("pushing"), difference=0.002)
    found = list(sweep_rows(toy, 1.0, ("fog", "jump"), 10, 4, 16, seed=0))
    assert [row["method"] for row in found] == ["fog"]
    # past the contact there is little noise: the truth by differences agrees
    gap = found[0]["expectation"] - found[0]["truth"]
    assert abs(gap) < found[0]["truth_reach"] + 2 * (
        found[0]["expectation_high"] - found[0]["expectation"]
    )


def test_ascents_follow_the_gradient_and_share_their_episodes() -> None:
    toy = toy_of("momentum_transfer")
    found = list(ascent_rows(toy, "fog", 0, 50, 1, seed=5))
    problem, params = toy.optimised()
    noise = problem.draw(50, block_generator(5, 0))
    first = float(estimators.FOG()(problem, params, noise).mean()[WEIGHT])
    assert found[-1]["coordinate"] == pytest.approx(0.1 + 0.01 * first) and found[-1]["last"]
    again = list(ascent_rows(toy, "fog", 0, 50, 1, seed=5))
    assert [row["objective"] for row in again] == [row["objective"] for row in found]


@pytest.mark.slow
def test_estimators_of_ones_own_stand_beside_the_others() -> None:
    """QG of one decision with the exact critic is FOG."""
    found = {row["variant"]: row for row in benchmark_rows("heaviside", 32, 8, ("qg",), 0)}
    assert found["qg"]["mse"] == found["fog"]["mse"] == 1.0
    assert found["pg/shared"]["over_pg"] == 0.0 and found["pg/shared"]["needed"] == math.inf
    assert found["ivw/same/shared"]["over_same"] == 0.0


# --------------------------------------------------------------------------------------- verdicts


def point(bias: Interval, truth: float = 1.0, name: str = "fog", at: float = 0.0) -> Point:
    one = Interval(1.0, 1.0, 1.0)
    return Point("ball_with_wall", at, name, 50, 100, 0, truth, 0.0, one, bias, one, one, one)


def test_a_bias_is_notable_where_its_whole_interval_is() -> None:
    cases = {
        (0.2, 0.19, 0.21): (True, False),
        (-0.2, -0.21, -0.19): (True, False),
        (0.07, 0.045, 0.095): (False, False),  # the interval holds the bound
        (0.01, 0.0, 0.02): (False, True),
        (math.nan, math.nan, math.nan): (False, False),
    }
    for bias, (biased, unbiased) in cases.items():
        sweep = Sweep("ball_with_wall", [point(Interval(*bias))])
        assert bool(sweep.biased("fog")) == biased and sweep.unbiased("fog") == unbiased


def test_one_more_value_is_where_students_law_says() -> None:
    """Mean 2, s = 1, n = 3: 2 ± 4.3027 √(4/3)."""
    found = single_interval(torch.tensor([1.0, 2.0, 3.0]))
    reach = stats.t(2).isf(0.025) * math.sqrt(4 / 3)
    assert tuple(found) == pytest.approx((2.0, 2 - reach, 2 + reach))


def test_more_comparisons_ask_for_more() -> None:
    """What is notable alone is not among a thousand."""
    edge = Interval(0.06, 0.052, 0.068)
    alone = Sweep("ball_with_wall", [point(edge)])
    many = Sweep("ball_with_wall", [point(edge)] * 1000)
    assert alone.biased("fog") and not many.biased("fog")
    said = " ".join(biases([alone]))
    assert "notable bias is seen of FOG (ball_with_wall), and is ruled out of none;" in said
    assert "largest, that of FOG on ball_with_wall, is 0.06 [0.05, 0.07] of the largest" in said
    assert " ".join(biases([many])).endswith("is seen of none, and is ruled out of none.")


def test_the_error_of_a_truth_is_longer_for_many_as_well() -> None:
    """A bias that is all error of the truth: 0.02 at 95 % are 0.02 z(0.975 + ...)/1.96 at once."""
    one = dataclasses.replace(point(Interval(0.07, 0.05, 0.09)), truth_reach=0.02)
    many = Sweep("ball_with_wall", [one] * 10)
    half = many.reach(one).high - many.reach(one).estimate
    assert half == pytest.approx(0.02 * stats.norm.isf(0.0025) / stats.norm.isf(0.025))
    assert longer(1) == longer(1, 5) == 1.0
    assert longer(10, 5) == pytest.approx(stats.t(5).isf(0.0025) / stats.t(5).isf(0.025))


def score(low: float, high: float) -> Score:
    nothing, over = Interval(0.0, 0.0, 0.0), Interval((low + high) / 2, low, high)
    same = nothing, nothing, nothing, nothing, nothing
    return Score("lq", "ivw/pilot/shared", "ivw", "pilot", "shared", 64, 128, *same, over)


def test_many_sources_are_told_apart_at_once() -> None:
    """What is told alone at its edge is not among others."""
    below, above, unclear = score(-0.2, -0.001), score(0.001, 0.2), score(-0.1, 0.1)
    assert [*told_apart([below])] == [-1] and [*told_apart([above])] == [1]
    assert [*told_apart([below, above, unclear])] == [0, 0, 0]
    assert [*told_apart([score(-0.2, -0.1), score(0.1, 0.2), unclear])] == [-1, 1, 0]


def run_of(ends: list[float], updates: int = 1000, single: Interval | None = None) -> Run:
    """Of FOG, with plain runs if `single` says where they end; 0.4952 is published."""
    looks = [
        Look("ball_with_wall", "fog", k, update, update > 0, end, end, math.nan, 0)
        for k, end in enumerate(ends)
        for update in (0, updates)
    ]
    place = Flow("ball_with_wall", "fog", 0.49, 0.7, 1.0, single) if single else None
    return Run("ball_with_wall", "fog", looks, place, 1.0)


def test_published_ends_agree_if_a_single_run_may_end_there() -> None:
    """By plain runs where there are, else by Student's law of one more run."""
    for low, high, agrees in ((0.4952, 0.5, True), (0.4, 0.4952, True), (0.4953, 0.5, False)):
        run = run_of([0.8, 0.8], single=Interval(0.45, low, high))
        assert run.agrees is agrees
        assert ("agrees" if agrees else "differs") in line(run)["published"]
    # two runs d apart: t(0.975, 1) d/√2 √(3/2) on either side
    reach = 0.001 / math.sqrt(2) * stats.t(1).isf(0.025) * math.sqrt(1.5)
    for middle_, agrees in ((0.4952 - 0.99 * reach, True), (0.4952 - 1.01 * reach, False)):
        assert run_of([middle_ - 0.0005, middle_ + 0.0005]).agrees is agrees
    early = run_of([0.49, 0.50], updates=10)  # published is the end of 1000 updates
    assert early.published is None and early.agrees is None and not line(early)["published"]
    lost = run_of([0.49, math.nan])  # of one run nothing can be said
    assert lost.agrees is None and line(lost)["published"] == "0.4952"


# ------------------------------------------------------------------------------------ the tiny run


def test_rows_answer_report_and_figures(rows: pd.DataFrame, out: Path) -> None:
    assert len(Sweep.all(rows)[0].points) == len(TOYS["heaviside"].grid) * 3
    runs = {(run.toy, run.method): run for run in Run.all(rows)}
    assert set(runs) == {(t, m) for t in TINY.ascents for m in TINY.ascent_methods}
    assert runs["ball_with_wall", "fog"].flow is not None
    assert all(len(run.lasts) == TINY.trials for run in runs.values())
    said = answer(rows)
    assert "4 updates on ball_with_wall end at 0.1" in said.answer
    assert said.answer.startswith("A notable bias is seen of ")
    assert "heaviside" in said.answer and "Benchmark, N = 32: of 1 problems" in said.answer
    assert len(str(said).splitlines()) <= 40
    assert max(map(len, str(said).splitlines())) <= 100
    long = report.summarise(rows)
    assert "2. All ascents" in long and "5. Benchmark: heaviside, N = 32" in long
    for name in ("figure", "figure_ascents", "figure_benchmark"):
        assert (out / f"{name}.png").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config)) and not list(STUDY.artefacts(config))


@pytest.mark.parametrize("name", METHODS)
def test_methods_fit_batches_of_every_toy(name: str) -> None:
    for toy in TOYS.values():
        if usable(name, toy.batch):
            group = method(name, Setting.of(toy, toy.batch)).group
            assert toy.batch % group == 0 or (name == "aobg" and group == 2 * toy.batch)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"toys": ("ball",)}, UnknownName),
        ({"toys": ()}, BadValue),
        ({"methods": ("fog", "fog")}, BadValue),
        ({"methods": ("fgo",)}, UnknownName),
        ({"methods": ("inverse_variance",)}, BadValue),  # groups of 50 in batches of 64
        ({"ascents": ("heaviside",)}, BadValue),
        ({"problems": ("hovering",)}, UnknownName),
        ({"trials": 1}, BadValue),
        ({"sizes": (33,)}, BadValue),
        ({"sizes": (16,)}, BadValue),
        ({"replicates": 2}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(changes: dict[str, Any], error: type[GradlabError]) -> None:
    with pytest.raises(error) as caught:
        list(STUDY.cells(Config(**changes)))
    assert "\n" not in str(caught.value)
