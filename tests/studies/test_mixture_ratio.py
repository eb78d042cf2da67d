"""The study of the mixture ratio: its α are those of the estimators, by hand where they can be,
its verdicts at their edges, its committed artefacts, and a tiny run.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from scipy import stats

import estimators as E
import gradlab
from estimators.alphas import VarianceRatio
from gradlab.critics.fitted import Fit
from gradlab.foundation.checkpoints import read_artefact, read_header
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.gradients.sampling import block_generator
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import Interval
from gradlab.study import run_study
from gradlab.study.cells import identities, in_order
from gradlab.study.definition import check_numbers
from studies.mixture_ratio import STUDY, cells, figures, report, training
from studies.mixture_ratio import config as options
from studies.mixture_ratio.alphas import capped, of_critic, of_score
from studies.mixture_ratio.answer import answer
from studies.mixture_ratio.cells import ALL, bounds, interval, student
from studies.mixture_ratio.config import PRESETS, Config, check
from studies.mixture_ratio.rows import (
    Alpha,
    Change,
    about_one,
    at_once,
    between,
    by_step,
    changes,
    policies,
    share,
    whole,
)

TINY = Config(
    methods=("agpo",), stages=(0,), settings=(), windows=(32,), gammas=(0.0,), groups=3, size=4
)  # fmt: skip


def lq() -> Problem:
    problem = gradlab.make("lq", dtype=torch.float64)
    return problem.replace(critic=closed_forms.solve(problem, problem.reference).critic)


@pytest.mark.parametrize("reading, normalised", [("published", True), ("not normalised", False)])
def test_alpha_with_a_critic_is_agpos(reading: str, normalised: bool) -> None:
    problem = lq()
    noise = problem.draw(24, torch.Generator().manual_seed(0))
    found = of_critic(problem, problem.reference, noise, 8)[reading]
    rule = VarianceRatio(median_normalisation=normalised)
    agpo = E.AGPO(alpha=rule, source=E.Same(8))
    expected = agpo.weights(problem, problem.reference, noise).alpha
    assert found.shape == (3, problem.horizon)
    torch.testing.assert_close(found, expected)


def test_alpha_with_scores_is_that_of_mixtures() -> None:
    """Over everything, by step, and AoBG's; γ = ∞ without regulariser is inverse variance."""
    problem = lq()
    noise = problem.draw(24, torch.Generator().manual_seed(0))
    order = E.AlphaOrder(gamma=math.inf, regulariser=0.0)
    found = of_score(problem, problem.reference, noise, 8, 2, [order])
    parts = E.NStep(2, "tiled"), E.PG(baseline="q")
    for level, alpha in (("global", found.whole), ("step", found.steps)):
        mixture = E.Mixture(parts, E.InverseVariance(), level, E.Same(8))  # pyright: ignore[reportArgumentType]
        expected = mixture.weights(problem, problem.reference, noise).values[""][:, 0]
        torch.testing.assert_close(alpha, expected)
    for key in (("gamma", math.inf), ("tau", math.inf)):
        torch.testing.assert_close(found.bounded[key], found.whole)


@pytest.mark.parametrize(
    "apart, tau, expected", [(2.0, 1.0, 0.5), (2.0, 4.0, 0.8), (2.0, 0.0, 0.0), (0.0, 0.0, 0.8)]
)
def test_capped_by_hand(apart: float, tau: float, expected: float) -> None:
    free = torch.tensor(0.8)
    assert math.isclose(float(capped(free, torch.tensor(apart), tau)), expected, rel_tol=1e-6)


def test_intervals_by_hand() -> None:
    """Mean 2, s = 1, n = 3: 2 ± 4.3027/√3; those of α end at 0 and 1."""
    reach = 4.302652729696142 / math.sqrt(3)
    assert torch.allclose(
        torch.tensor(student(torch.tensor([1.0, 2.0, 3.0]))),
        torch.tensor([2.0, 2 - reach, 2 + reach]),
    )
    assert interval(torch.tensor([0.25, 0.5, 0.75])) == Interval(0.5, 0.0, 1.0)


def made(low: float, high: float, stage: int = 0) -> Alpha:
    value = Interval((low + high) / 2, low, high)
    return Alpha("agpo", stage, "sg+pg", "h = 32", 32, ALL, value, 6, 32, 32)


HIGH, MIDDLE, LOW, WIDE = made(0.95, 1.0), made(0.4, 0.6), made(0.0, 0.05), made(0.85, 0.95)


@pytest.mark.parametrize(
    "found, verdict",
    [
        ((HIGH,), "holds"),
        ((HIGH, MIDDLE), "depends on the policy and the window"),
        ((MIDDLE, LOW), "does not hold"),
        ((HIGH, WIDE), "cannot be told"),
    ],
)
def test_verdict_on_one(found: tuple[Alpha, ...], verdict: str) -> None:
    assert about_one(found) == verdict


@pytest.mark.parametrize(
    "found, verdict",
    [
        ((MIDDLE,), "holds"),
        ((HIGH, MIDDLE), "depends on the policy"),
        ((HIGH, LOW), "does not hold"),
        ((MIDDLE, WIDE), "cannot be told"),
    ],
)
def test_verdict_on_between(found: tuple[Alpha, ...], verdict: str) -> None:
    assert between(found) == verdict


def test_no_bound_is_measured_once_whether_or_not_it_is_asked_for() -> None:
    for gammas in ((0.0, 1.0), (0.0, 1.0, math.inf), (math.inf, 0.0, 1.0)):
        config = dataclasses.replace(TINY, gammas=gammas)
        check_numbers(config)
        check(config)
        assert bounds(config) == (0.0, 1.0, math.inf)


def test_verdicts_ask_more_of_many_cases() -> None:
    """What is above the bound alone is not among eight; the half is of the side not cut at 1."""
    edge = dataclasses.replace(HIGH, value=Interval(0.9225, 0.9025, 0.9425))
    assert about_one([edge]) == "holds" and about_one([edge] * 8) == "cannot be told"
    assert share([edge] * 8, lambda value: value.low > 0.9) == (0, 8)
    cut = dataclasses.replace(HIGH, value=Interval(0.99, 0.95, 1.0))
    low = 0.99 - 0.04 * stats.t(5).isf(0.025 / 4) / stats.t(5).isf(0.025)
    assert tuple(at_once(cut, 4)) == pytest.approx((0.99, low, 1.0))
    lost = dataclasses.replace(HIGH, value=Interval(math.nan, math.nan, math.nan))
    assert about_one([lost, HIGH]) == between([lost, MIDDLE]) == "cannot be told"


def test_changes_are_paired_by_group() -> None:
    """0.1, 0.2 and 0.3 more in each group, of groups that differ by far more."""
    values = {0: (0.1, 0.4, 0.6), 20: (0.2, 0.6, 0.9)}
    table = pd.DataFrame(
        {
            "kind": "group", "method": "agpo", "stage": stage, "mixture": "sg+qg",
            "variant": "published", "group": group, "alpha": alpha,
        }
        for stage, alphas in values.items()
        for group, alpha in enumerate(alphas)
    )  # fmt: skip
    (change,) = changes(table, "sg+qg")
    reach = 4.302652729696142 * 0.1 / math.sqrt(3)
    assert torch.allclose(torch.tensor(change.value), torch.tensor([0.2, 0.2 - reach, 0.2 + reach]))
    assert change.said == "is not seen to change"
    assert Change("agpo", "sg+qg", "x", Interval(0.2, 0.1, 0.3)).said == "rises"
    assert Change("agpo", "sg+qg", "x", Interval(-0.2, -0.3, -0.1)).said == "falls"
    assert not changes(table.loc[table["stage"] == 0].copy(), "sg+qg")


def test_committed_artefacts_are_those_of_smoke_and_default_and_small() -> None:
    assert STUDY.committed is not None
    for preset in ("smoke", "default"):
        config, _ = STUDY.preset(preset)
        ordered = in_order(STUDY.artefacts(config), STUDY.cells(config))
        for name, identity in identities(ordered).items():
            path = STUDY.committed / f"{name}.safetensors"
            if name.startswith("rollout/"):  # of another study
                continue
            assert read_header(path)["identity"] == identity, name
            assert path.stat().st_size < 150 * 1024


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Every cell of two stages, on LQ with its exact critic in the ant's place."""
    config = dataclasses.replace(TINY, stages=(0, 5), windows=(1, 5), size=8)
    problem = lq()
    policy = {
        "speed": 0.1, "survival": 1.0, "std": 0.5, "critic_start": 0.6,
        "critic_start_stderr": 0.02, "critic_ceiling": 0.7,
    }  # fmt: skip

    def bench(config: Config, method: str, stage: int, needs: object) -> cells.Bench:
        noise = problem.draw(config.groups * config.size, torch.Generator().manual_seed(stage))
        return cells.Bench(problem, problem.reference, noise, config.size, None)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_bench", bench)
        patch.setattr(cells, "_policy_row", lambda bench: policy)
        found = [row for cell in cells.cells(config) for row in cells.run_cell(config, cell, {})]
    return pd.DataFrame(found)


def check_rows(rows: pd.DataFrame, horizon: int, policies: int) -> None:
    """α of every step, and by every bound: 0 at γ = 0 and at τ = 0, free at ∞."""
    assert {one.variant for one in whole(rows, "sg+qg")} == {"published", "not normalised", "norms"}
    steps = [one for one in by_step(rows, "sg+pg") if one.window == horizon]
    assert len(steps) == horizon * policies
    for stage in {one.stage for one in steps}:
        bounded = {
            (one.variant, one.gamma): one.value for one in whole(rows, "aobg") if one.stage == stage
        }
        assert len(bounded) == 4
        assert bounded["gamma", 0.0].estimate == bounded["tau", 0.0].estimate == 0.0
        (free,) = (
            one for one in whole(rows, "sg+pg") if (one.stage, one.window) == (stage, horizon)
        )
        assert math.isclose(bounded["tau", math.inf].estimate, free.value.estimate)


def test_rows_of_every_step_and_bound(rows: pd.DataFrame) -> None:
    check_rows(rows, horizon=5, policies=2)


def test_answer_report_and_figure(rows: pd.DataFrame, tmp_path: Path) -> None:
    said = answer(rows)
    assert said.answer.startswith("That α of SG + PG (γ = ∞) is about 1 ")
    assert "Over training α of SG + QG" in said.answer
    assert len(str(said).splitlines()) <= 40
    assert max(map(len, str(said).splitlines())) <= 100
    assert "4. AoBG by its bound" in report.summarise(rows)
    figures.plot(rows, tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()


@pytest.mark.slow
def test_a_tiny_run_on_the_ant(tmp_path: Path) -> None:
    rows = run_study(STUDY, TINY, tmp_path, jobs=1).rows
    check_rows(rows, training.HORIZON, 1)
    assert (tmp_path / "figure.png").exists()


def test_steps_that_nobody_reaches_have_no_alpha() -> None:
    """Of three groups one has no α at the second step, and none at the third."""
    nan = math.nan
    by_step_ = torch.tensor([[0.1, 0.2, nan], [0.2, 0.3, nan], [0.3, 0.4, 0.5], [0.4, nan, 0.6]])
    found = {row["step"]: row for row in cells._step_rows(by_step_)}
    assert list(found) == [0, 1] and [row["groups"] for row in found.values()] == [4, 3]
    assert math.isclose(found[1]["value"], 0.3, rel_tol=1e-6)


@pytest.mark.slow
def test_retraining_makes_its_own_policies_and_critics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--retrain` of a training of one update on episodes of four steps, from nothing to an answer;
    done again it finds everything there.
    """
    small: dict[str, Any] = {
        "twin": True,
        "hidden": (8,),
        "episodes": 16,
        "steps": 4,
        "held_out": 16,
    }
    sizes = {"HORIZON": 4, "WINDOW": 2, "STAGES": (0, 1), "BATCH": 4}
    fits = {"TRAINS": Fit(kind="q", **small), "JUDGES": Fit(kind="both", **small)}
    for name, value in (sizes | fits).items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(options, "STAGES", (0, 1))
    config = dataclasses.replace(TINY, methods=training.METHODS, stages=(0, 1), windows=(4,))
    done = run_study(STUDY, config, tmp_path, jobs=1, retrain=True)
    stds = {(one.method, one.stage): one.std for one in policies(done.rows)}
    assert stds["agpo", 0] == stds["ivw", 0]
    assert len({stds["agpo", 0], stds["agpo", 1], stds["ivw", 1]}) == 3
    assert {one.method for one in changes(done.rows, "sg+qg")} == set(training.METHODS)
    for method in training.METHODS:
        saved, header = read_artefact(tmp_path / f"artefacts/policies/{method}.safetensors")
        first, last = (training.read_policy(saved, stage) for stage in (0, 1))
        assert any(not torch.equal(first[name], last[name]) for name in first)
        assert header["metadata"]["command"] == training.COMMAND
        for stage in (0, 1):
            assert (tmp_path / f"artefacts/critics/{method}-{stage}.safetensors").exists()
    monkeypatch.setattr(training, "ascent", None)  # nothing is trained again
    again = run_study(STUDY, config, tmp_path, jobs=1, retrain=True)
    pd.testing.assert_frame_equal(again.rows, done.rows)


@pytest.mark.slow
@pytest.mark.parametrize("method", training.METHODS)
def test_trainings_start_from_one_policy_and_move(method: str) -> None:
    policies = dict(training.ascent(method, 1))
    start = training.ant().init(block_generator(training.seed(), -1))
    assert all(torch.equal(policies[0][name], value) for name, value in start.items())
    assert any(not torch.equal(policies[0][name], policies[1][name]) for name in start)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config)) and list(STUDY.artefacts(config))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"methods": ("apgo",)}, UnknownName),
        ({"methods": ()}, BadValue),
        ({"stages": (3,)}, BadValue),
        ({"stages": (0, 0)}, BadValue),
        ({"settings": ("dflex",)}, BadValue),
        ({"settings": ("dflex/hard",)}, UnknownName),
        ({"settings": ("brax/smoothed",)}, UnknownName),  # there, but nobody fitted a critic
        ({"windows": (0,)}, BadValue),
        ({"gammas": (-1.0,)}, BadValue),
        ({"groups": 2}, BadValue),
        ({"rollout_groups": 2}, BadValue),
        ({"size": 2}, BadValue),
        ({"rollout_size": 2}, BadValue),
        ({"failure_probability": 1.0}, BadValue),
        ({"bound": -1.0}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error) as raised:
        list(STUDY.cells(dataclasses.replace(TINY, **changes)))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(raised.value)
