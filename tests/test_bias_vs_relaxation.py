"""The main study on a small known-answer configuration, its committed policies, and its errors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradlab.errors import GradlabError
from gradlab.study import Study, run_study
from gradlab.study.cells import identities
from gradlab.study.commandline import cli
from gradlab.study.storage import read_artefact
from studies import bias_vs_relaxation as study
from studies import relaxation_report, stages

COMMITTED = Path(study.__file__).parent / "artefacts" / "bias_vs_relaxation"
SMALL = study.Config(
    tasks=("heaviside", "terminal_gate"), widths=(0.5, 0.1), windows=(0.5, 1.0), samples=2000
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("study")
    result = run_study(Study.of("studies.bias_vs_relaxation"), SMALL, out, jobs=1)
    return result.rows


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
    table = relaxation_report.overall(rows, "single", "B")
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
    table = relaxation_report.overall(rows, "single", "A")
    table = table[(table["truth_width"] == 0.0) & (table["task"] == "terminal_gate")]
    n_step = table[(table["estimator"] == "nstep") & (table["form"] == "published")]
    short = n_step[n_step["window"] == 2].iloc[0]
    assert short["relative_bias"] > 0.3
    assert short["relative_bias_target"] < 0.5 * short["relative_bias"]


def test_summary_says_every_comparison(rows: pd.DataFrame) -> None:
    text = relaxation_report.summarise(rows)
    for task in SMALL.tasks:
        assert f"On {task}, " in text
    pairs = relaxation_report.overall(rows, "pair", "A")
    assert text.count("so the 0-step return") == (pairs["truth_width"] == 0.0).sum()


def test_best_width_is_chosen_on_one_half_and_reported_on_the_other(rows: pd.DataFrame) -> None:
    """Spoiling the odd half changes what is said of the chosen width, not the choice."""
    table = relaxation_report.overall(rows, "single", "B")
    sweep = table[(table["task"] == "heaviside") & (table["estimator"] == "split")]
    best = relaxation_report.best_width(sweep)
    assert best is not None
    assert best["mse_even"] == sweep["mse_even"].min()
    spoilt = rows.assign(mse_odd=1e6, cost_over_fog=1.0, mse_equal_cost=1.0)
    text = relaxation_report.summarise(spoilt)
    said = next(p for p in text.split("\n\n") if p.startswith("Estimating") and "heaviside" in p)
    assert f"Split {1e6 / best['truth_norm'] ** 2:.2g} at its best width {best['width']:g}" in said


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
    result = run_study(Study.of("studies.bias_vs_relaxation"), config, tmp_path / "out", jobs=1)
    assert "Estimating the hard gradient on heaviside" in result.summary
    assert (tmp_path / "out" / "figure.png").exists()


def test_figures_are_written(rows: pd.DataFrame, tmp_path: Path) -> None:
    table = rows.assign(cost_over_fog=1.0, mse_equal_cost=rows.get("mse"))
    relaxation_report.plot(table, tmp_path / "figure")
    for name in ("figure", "figure_practical"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


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
        (["--widths", "-0.1"], "widths must be positive"),
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
