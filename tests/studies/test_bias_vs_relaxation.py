"""The main study on a small known-answer configuration, its committed policies, and its errors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from gradlab.foundation.checkpoints import read_artefact
from gradlab.foundation.errors import GradlabError
from gradlab.statistics import Interval
from gradlab.statistics.saving import from_tensors
from gradlab.study import read_rows, run_study
from gradlab.study.cells import identities
from gradlab.study.commandline import cli
from studies import bias_vs_relaxation
from studies.bias_vs_relaxation import STUDY, figures, report, truths
from studies.bias_vs_relaxation import answer as answers
from studies.bias_vs_relaxation import rows as table_
from studies.bias_vs_relaxation.config import Config
from studies.shared import stages
from tests.helpers.runs import shared, undrawn

COMMITTED = Path(bias_vs_relaxation.__file__).parent / "artefacts"
SMALL = Config(
    tasks=("heaviside", "terminal_gate"), widths=(0.5, 0.1), windows=(0.5, 1.0), samples=2000
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read_rows(
        shared(
            tmp_path_factory,
            "bias_vs_relaxation",
            lambda out: run_study(undrawn(STUDY), SMALL, out, jobs=1),
        )
    )


def overall(rows: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Single estimators, all parameters together."""
    single = (rows["kind"] == "single") & (rows["part"] == "all")
    return rows[single & (rows["experiment"] == experiment)]


def test_experiments_are_never_mixed(rows: pd.DataFrame) -> None:
    """A: every truth, no estimator with a width; B: the hard truth alone."""
    a, b = (rows[rows["experiment"] == name] for name in "AB")
    assert set(a["truth_width"]) == {0.0, 0.5, 0.1}
    assert a["width"].isna().all()
    assert set(b["truth_width"]) == {0.0}
    assert set(b["width"].dropna()) == {0.5, 0.1}
    assert set(rows["kind"]) == {"single", "pair"}


def test_numbers_against_closed_forms(rows: pd.DataFrame) -> None:
    """On Heaviside: PG and Split show no bias, FOG sees nothing at all; on the terminal gate the
    exact critic's QG has (T−1)/T of the gradient."""
    table = overall(rows, "B")
    heaviside = table[table["task"] == "heaviside"].set_index("estimator")
    fog = heaviside.loc["fog"]
    assert fog["relative_bias"] == pytest.approx(1.0, abs=1e-12)
    assert fog["relative_norm"] == pytest.approx(0.0, abs=1e-12)
    for name in ("pg", "split"):
        low = heaviside.loc[[name], "relative_bias_low"]
        assert (low <= 0.25).all()  # 2000 samples: a 95 % interval that misses 0 misses it barely
    gate = table[(table["task"] == "terminal_gate") & (table["estimator"] == "qg")].iloc[0]
    horizon = stages.problem_of("terminal_gate").horizon
    # the interval has 95 % coverage; three of its half-widths are a 1e-8 event
    half = 0.5 * (gate["relative_norm_high"] - gate["relative_norm_low"])
    assert abs(gate["relative_norm"] - (horizon - 1) / horizon) <= 3 * half


def test_targets_are_the_call_weights(rows: pd.DataFrame) -> None:
    """Published N-step over half of the horizon is biased for ∇J but less so for its own target."""
    table = overall(rows, "A")
    table = table[(table["truth_width"] == 0.0) & (table["task"] == "terminal_gate")]
    n_step = table[(table["estimator"] == "nstep") & (table["form"] == "published")]
    short = n_step[n_step["window"] == 2].iloc[0]
    assert short["relative_bias"] > 0.3
    assert short["relative_bias_target"] < 0.5 * short["relative_bias"]


def test_the_long_form_has_every_comparison(rows: pd.DataFrame) -> None:
    pairs = table_.pairs(rows)
    hard = [pair for pair in pairs if pair.truth_width == 0.0]
    section = report.summarise(rows).split("1. With and without")[1].split("\n\n")[1]
    assert len(section.splitlines()) == 1 + len(hard)


def test_the_answer_fits_on_a_screen_and_says_what_it_rests_on(rows: pd.DataFrame) -> None:
    said = answers.answer(rows)
    lines = str(said).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 104  # the longest name of a task is 4 more than a flight's
    assert "2,000 episodes" in said.rests_on
    assert "exact" in said.rests_on


def _compared(**changes: Any) -> list[table_.Comparison]:
    """The comparison of one pair against the hard truth, with some values changed."""
    known = Interval(0.5, 0.45, 0.55)
    singles = []
    for name in ("abpt", "nstep"):
        values = dict.fromkeys(
            ("cosine", "relative_norm", "relative_bias", "relative_bias_target", "left_after_scaling"),
            known,
        )  # fmt: skip
        values |= {
            key.removeprefix(f"{name}_"): known._replace(**ends)
            for key, ends in changes.items()
            if key.startswith(name)
        }
        singles.append(
            table_.Estimate(
                task="racing", stage=60, success_rate=0.6, critic_fit="full", horizon=48,
                estimator=name, form="published", window=24, width=None, truth_width=0.0,
                critic_quality_start=0.28, critic_ceiling_start=0.25,
                critic_ceiling_start_stderr=0.02, **values,
            )
        )  # fmt: skip
    gap = Interval(*[changes.get("difference", 0.2)] * 3)
    pair = table_.Pair(
        "racing", 60, "full", "published", 24, 0.0, gap, changes.get("p_value", 1e-6)
    )
    return table_.comparisons(singles, [pair])


@pytest.mark.parametrize(
    ("changes", "direction", "length", "bias"),
    [
        ({}, "unclear", "unclear", "rises"),
        ({"difference": -0.2}, "unclear", "unclear", "falls"),
        ({"p_value": 0.2}, "unclear", "unclear", "unclear"),
        ({"abpt_cosine": {"low": 0.56}}, "nearer", "unclear", "rises"),
        ({"abpt_cosine": {"high": 0.40}}, "farther", "unclear", "rises"),
        ({"nstep_relative_norm": {"low": 0.56}}, "unclear", "shorter", "rises"),
        ({"p_value": math.nan}, "unclear", "unclear", "unclear"),
    ],
)
def test_direction_length_and_bias_are_judged_apart(
    changes: dict, direction: str, length: str, bias: str
) -> None:
    (found,) = _compared(**changes)
    assert (found.direction, found.length, found.bias) == (direction, length, bias)
    assert not found.whole and not found.blind


@pytest.mark.parametrize(
    ("biases", "said"),
    [
        (["falls", "falls"], "yes"),
        (["rises", "rises"], "no"),
        (["rises", "unclear"], "it depends"),
        (["rises", "falls"], "it depends"),
        (["unclear", "unclear"], "it cannot be told"),
    ],
)
def test_yes_and_no_are_said_where_every_comparison_says_so(biases: list[str], said: str) -> None:
    assert answers._verdict(biases) == said


def test_a_critic_is_shown_beside_its_ceiling(rows: pd.DataFrame) -> None:
    """Explaining 28 % of the return at t = 0 is all there is when no critic can explain more."""
    fitted = rows.assign(
        critic_fit=rows["critic_fit"].replace("exact", "full"),
        critic_quality_start=0.277,
        critic_ceiling_start=0.252,
        critic_ceiling_start_stderr=0.022,
    )
    said = answers.answer(fitted).rests_on
    assert "heaviside (fully fitted critic) 28% of 25% ± 2%" in said


def test_best_width_is_chosen_on_one_half_and_reported_on_the_other(rows: pd.DataFrame) -> None:
    """Spoiling the odd half changes what is said of the chosen width, not the choice."""
    found = table_.estimates(rows, "B")
    sweep = [row for row in found if (row.task, row.estimator) == ("heaviside", "split")]
    best = table_.best_width(sweep)
    assert best is not None and len(sweep) == 2
    assert best.mse_even == min(row.mse_even for row in sweep)
    spoilt = rows.assign(mse_odd=1e6, cost_over_fog=1.0, mse_equal_cost=1.0)
    text = report.summarise(spoilt)
    said = next(line for line in text.splitlines() if f"Split({best.width:g})" in line)
    assert f"{1e6 / best.truth_norm**2:.2g}" in said


def test_the_hard_truth_of_a_flight_depends_on_no_option() -> None:
    """So that the committed one serves every configuration, and every row of the README."""
    options = [{"seed": 3}, {"oracle_stderr": 0.5}, {"windows": (0.1,)}, {"samples": 1000}]
    configs = [Config(tasks=("racing",), **changes) for changes in ({}, *options)]
    found = [{a.name: a.payload for a in STUDY.artefacts(config)} for config in configs]
    assert all(f["truths/racing-60-hard"] == found[0]["truths/racing-60-hard"] for f in found)


@pytest.mark.parametrize("task", ["landing", "racing"])
def test_committed_truths_are_precise_and_used(task: str) -> None:
    """To 0.9 % and 1.4 %, for the policies of the default preset,
    under the identity that the study asks for.
    """
    artefacts = {a.name: a for a in STUDY.artefacts(Config(tasks=(task,)))}
    name = truths.truth_name(task, 60, 0.0)
    saved, header = read_artefact(COMMITTED / f"{name}.safetensors")
    policy = artefacts[f"policies/{task}"]
    wanted = identities({policy.name: policy, name: artefacts[name]})
    assert header["identity"] == wanted[name]
    truth = from_tensors(saved.tensors, saved.metadata, "|")
    assert truth.relative_stderr <= 0.0145


@pytest.mark.parametrize(
    "changes",
    [
        {"estimators": ("pg", "split")},
        {"estimators": ("pg",)},
        {"forms": ("tiled",)},
        {"estimators": ("nstep",), "windows": (1.0,)},
        {"estimators": ("zero_step", "inverse_variance")},
    ],
)
def test_any_choice_of_estimators_has_an_answer(changes: dict, tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMALL, tasks=("heaviside",), widths=(0.5,), samples=1000, **changes
    )
    result = run_study(STUDY, config, tmp_path / "out", jobs=1)
    assert "Every estimator of the hard gradient" in result.summary
    assert "heaviside" in str(result.answer)
    assert (tmp_path / "out" / "figure.png").exists()


def test_figures_are_written(rows: pd.DataFrame, tmp_path: Path) -> None:
    table = rows.assign(cost_over_fog=1.0, mse_equal_cost=rows.get("mse"))
    figures.plot(table, tmp_path / "figure")
    for name in ("figure", "figure_widths"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_an_estimator_of_ones_own_is_a_curve_of_the_main_figure(rows: pd.DataFrame) -> None:
    """After the three that are always drawn; the others of the study only where these are not."""
    mine = rows[rows["estimator"] == "split"].assign(
        estimator="mine.py:Mine", experiment="A", width=float("nan")
    )
    table = pd.concat([rows, mine])
    group = table_.by_policy(table_.estimates(table, "A"))[0]
    curves = dict(figures._curves(group))
    assert list(curves) == ["fog", "nstep", "abpt", "mine.py:Mine"]
    assert {row.name for row in curves["mine.py:Mine"]} == {"mine.py:Mine"}
    without = [row for row in group if row.estimator in ("pg", "qg")]
    assert [name for name, _ in figures._curves(without)] == ["pg", "qg"]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (("landing", "gate"), "float32 for flights"),
        (("gate", "heaviside"), "float64 for known-answer problems"),
        (("tracking", "landing"), "float64 for tracking, float32 for flights"),
    ],
)
def test_the_answer_says_the_dtype_of_each_task(
    tasks: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {task: stages.problem_of(task) for task in tasks if task != "tracking"}
    known["tracking"] = stages.problem_of("gate")
    monkeypatch.setattr(stages, "problem_of", known.__getitem__)
    assert answers._precision(tasks) == said


@pytest.mark.parametrize("task", list(stages.FLIGHTS))
def test_committed_policies_succeed_as_often_as_they_say(task: str) -> None:
    """Fresh episodes: within 4.9 binomial standard errors of both evaluations (1e-6)."""
    artefact = stages.policies(task, 0)
    saved, header = read_artefact(COMMITTED / f"{artefact.name}.safetensors")
    assert header["identity"] == identities({artefact.name: artefact})[artefact.name]
    problem = stages.problem_of(task)
    count = 2048
    for stage in stages.STAGES:
        params = stages.read_policy(saved, stage)
        problem.policy.check(params)
        said = saved.metadata[str(stage)]["success_rate"]
        assert abs(said - stage / 100) < 0.03
        found = stages.success_rate(problem, params, stages.FLIGHTS[task].event, count, seed=77)
        variance = said * (1 - said) * (1 / count + 1 / 4096)
        assert abs(found - said) <= 4.9 * math.sqrt(variance)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "racign"], "racing"),
        (["--estimators", "splitt"], "split"),
        (["--critic-fits", "ful"], "full"),
        (["--stages", "50"], "stages must be among"),
        (["--train-width", "0"], "train_width must be positive"),
        (["--learning-rate", "2"], "learning_rate must be between"),
        (["--widths", "-0.1"], "widths must be positive"),
        (["--widths", "1e20"], "at most 10 margin scales"),
        (["--windows", "1.5"], "windows must be fractions"),
        (["--samples", "150"], "try 1000"),
        (["--tasks"], "expected one or more different tasks, got none"),
        (["--widths", "0.5", "0.5"], "got 0.5 twice"),
        (["--oracle-stderr", "-1"], "oracle_stderr must be positive"),
        (["--oracle-samples", "0"], "oracle_samples at least 1"),
    ],
)
def test_wrong_options_get_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli("studies.bias_vs_relaxation", [*arguments, "--out", str(tmp_path / "x")])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert len(error.splitlines()) == 1


def test_a_stage_that_is_out_of_reach_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "MAX_UPDATES", 5)
    monkeypatch.setattr(stages, "EVALUATE_EVERY", 6)
    monkeypatch.setattr(stages, "BATCH", 4)
    with pytest.raises(GradlabError, match="reached 0% success after 6 updates"):
        stages.train_to_stages(stages.policies("landing", 0), {})


def test_a_stage_below_an_untrained_policy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "success_rate", lambda *_, **__: 0.98)
    artefact = stages.policies("hovering", 0)
    with pytest.raises(GradlabError, match=r"stage 10 of hovering cannot be had.* 98% of episodes"):
        stages.train_to_stages(artefact, {})


def test_ascent_climbs_and_repeats() -> None:
    """The same seed gives the same policy, and the relaxed objective goes up."""
    problem = stages.problem_of("hovering").replace(horizon=8)

    def climb() -> dict[str, torch.Tensor]:
        ascent = stages.Ascent(problem, stages.FLIGHTS["hovering"], seed=3)
        ascent.run(3)
        return ascent.params

    first, second = climb(), climb()
    for name, value in first.items():
        assert torch.equal(value, second[name])
