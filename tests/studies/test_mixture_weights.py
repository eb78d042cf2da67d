"""The study of mixtures' weights: its weights are those of `Mixture`, its statistics by hand, its
verdicts at their edges, and a tiny run.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import estimators as E
import gradlab
from estimators.mixtures.weights import LEVELS
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.gradients.samples import Dense
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from studies.mixture_weights import STUDY, cells, effects, report
from studies.mixture_weights.answer import answer, shown, source_advice
from studies.mixture_weights.benches import parts_of, unbiased
from studies.mixture_weights.config import PRESETS, Config
from studies.mixture_weights.rows import Contrast, contrasts, errors, shift_verdict
from studies.mixture_weights.weighing import RULES, MedianNormalised, weights_by_source
from tests.helpers.runs import shared

TINY = Config(
    tasks=("soft_heaviside", "lq"),
    parts=("fog+pg",),
    rules=("ivw", "median"),
    levels=("global", "step"),
    sizes=(8,),
    known_groups=128,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(
        tmp_path_factory, "mixture_weights", lambda out: run_study(STUDY, TINY, out, jobs=1)
    )


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rule", RULES)
def test_weights_are_those_of_mixtures(rule: str, level: Any) -> None:
    """Same and cross as `Mixture` has them; a pilot's as `fitted` has them, of the neighbour."""
    problem = gradlab.make("lq", dtype=torch.float64)
    params, noise = problem.reference, problem.draw(32, torch.Generator().manual_seed(0))
    parts = parts_of("fog+pg", "lq")
    samples = [part(problem, params, noise) for part in parts]
    found = weights_by_source(RULES[rule], level, samples, 8, problem.horizon)

    def mixture(source: Any) -> E.Mixture:
        return E.Mixture(parts, RULES[rule], level, source)

    for name, source in {"same": E.Same(8), "cross": E.Cross(8)}.items():
        expected = mixture(source).weights(problem, params, noise).values
        for key, value in expected.items():
            torch.testing.assert_close(found[name].values[key], value)
    for mine, pilot in ((0, 1), (1, 0), (2, 3), (3, 2)):
        episodes = noise.rows(8 * pilot, 8 * pilot + 8)
        expected = mixture(E.Same(8)).fitted(problem, params, episodes).weights.values
        for key, value in expected.items():
            torch.testing.assert_close(found["pilot"].values[key][mine], value[0])


def test_medians_by_hand() -> None:
    """Lengths 1, 2, 3 and 10, 20, 60; variances 1 and 700: shares of 1/(1/4) and 1/(700/400)."""
    quiet, loud = (
        Dense({"w": torch.tensor(values, dtype=torch.float64)[:, None]})
        for values in ([1.0, 2.0, 3.0], [10.0, 20.0, 60.0])
    )
    (weights,) = MedianNormalised()((quiet, loud), "global", 1, True).values()
    first, second = 4 / 1.0, 400 / 700.0
    torch.testing.assert_close(weights[0], torch.tensor(first / (first + second)).double())
    assert math.isclose(float(weights.sum()), 1.0)


def test_a_median_of_zero_normalises_nothing() -> None:
    still = Dense({"w": torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64)[:, None]})
    loud = Dense({"w": torch.tensor([10.0, 20.0, 60.0], dtype=torch.float64)[:, None]})
    both = [
        rule((still, loud), "global", 1, True)[""]
        for rule in (MedianNormalised(), E.InverseVariance())
    ]
    assert torch.equal(*both)


def test_mean_is_students_test() -> None:
    values = np.array([0.3, -0.1, 0.4, 0.9, 0.2])
    found = effects.mean(values)
    expected: Any = stats.ttest_1samp(values, 0.0)
    assert math.isclose(found.p_value, expected.pvalue)
    low, high = expected.confidence_interval()
    assert np.allclose(found.interval, (values.mean(), low, high))
    wider = effects.mean(values, error=1.0).interval
    assert wider.low < low and wider.high > high


def test_ratio_of_paired_means() -> None:
    """Of equal replicates exactly 1; else by influences of the logarithm of the ratio."""
    below = np.array([1.0, 2.0, 4.0, 5.0])
    assert effects.ratio(below, below) == (Interval(1.0, 1.0, 1.0), 1.0)
    assert effects.ratio(3 * below, below).p_value == 0.0
    above = np.array([2.0, 2.0, 5.0, 9.0])
    moves = above / 4.5 - below / 3.0
    reach = stats.t.ppf(0.975, 3) * moves.std(ddof=1) / 2
    found = effects.ratio(above, below).interval
    assert np.allclose(found, (1.5, 1.5 * math.exp(-reach), 1.5 * math.exp(reach)))
    assert math.isnan(effects.ratio(-below, below).p_value)


def test_same_is_seen_on_the_ramp_at_eight(rows: pd.DataFrame) -> None:
    """−11 %, at 64 pairs of groups; everything else of unbiased parts agrees with the truth."""
    (shift,) = [
        one
        for one in contrasts(rows, "shift")
        if one.task == "soft_heaviside" and one.rule == "ivw"
    ]
    assert -0.25 < shift.value.low < shift.value.high < 0.0
    for one in errors(rows):
        assert one.replicates == 64 and one.nonfinite == 0
        if one.source != "same":
            reach = one.along.high - one.along.estimate
            assert abs(one.along.estimate) < 2.5 * reach


def test_error_is_variance_and_squared_bias(rows: pd.DataFrame) -> None:
    """Of pairs of groups the mean square error is measured directly: it agrees with the variance of
    a group's mean and the bias along the truth."""
    for one in errors(rows):
        parts = one.variance.estimate + max(one.relative_bias.estimate, 0.0) ** 2
        width = max(one.mse.high - one.mse.low, one.variance.high - one.variance.low)
        assert abs(one.mse.estimate - parts) < width


def test_one_decision_has_no_levels(rows: pd.DataFrame) -> None:
    seen = {(one.task, one.level) for one in errors(rows)}
    assert seen == {("soft_heaviside", "global"), ("lq", "global"), ("lq", "step")}


def test_answer_report_and_figure(rows: pd.DataFrame, out: Path) -> None:
    said = answer(rows)
    assert said.answer.startswith("That weights from the same samples bias a mixture")
    assert "soft_heaviside (FOG + PG)" in said.answer and "medians" not in said.table.columns
    assert len(str(said).splitlines()) <= 40
    assert max(map(len, str(said).splitlines())) <= 100
    assert "6. Bias, variance and error" in report.summarise(rows)
    assert (out / "figure.png").exists()


def test_a_task_of_ones_own_is_measured_against_cross_fitting(tmp_path: Path) -> None:
    """A new policy, and no truth but the expectation of the cross-fitted mixture."""
    mine = tmp_path / "mine.py"
    mine.write_text("import gradlab\n\n\ndef problem():\n    return gradlab.make('lq')\n")
    config = dataclasses.replace(
        TINY, tasks=(f"{mine}:problem",), rules=("ivw",), levels=("global",),
        flight_groups=16, flight_episodes=128, reference_episodes=512,
    )  # fmt: skip
    (artefact,), (cell,) = cells.artefacts(config), cells.cells(config)
    saved = artefact.build(artefact, {})
    rows = pd.DataFrame(list(cells.run_cell(config, cell, {artefact.name: saved})))
    found = errors(rows)
    assert {one.source for one in found} == {"same", "cross", "pilot"}
    assert not any(one.known or one.unbiased for one in found)
    assert all("cross-fitted, x 512" in one.truth for one in found)


def made(value: Interval, p: float, contrast: str = "shift") -> Contrast:
    return Contrast("lq", "fog+pg", 8, True, "ivw", "global", contrast, value, p)


def test_the_answer_shows_unbiased_parts_where_there_are_any() -> None:
    one = made(Interval(0.1, 0.0, 0.2), 0.5)
    other = dataclasses.replace(one, unbiased=False)
    assert shown([other, one]) == [one] and shown([other]) == [other]


BIASED = made(Interval(-0.1, -0.12, -0.08), 1e-6)
NONE = made(Interval(0.0, -0.009, 0.009), 0.9)
UNCLEAR = made(Interval(0.0, -0.02, 0.009), 0.9)


@pytest.mark.parametrize(
    "found, verdict",
    [
        ((BIASED,), "holds"),
        ((BIASED, NONE), "depends on N and on the parts"),
        ((BIASED, UNCLEAR), "depends on N and on the parts"),
        ((NONE,), "does not hold"),
        ((NONE, UNCLEAR), "cannot be told at this budget"),
    ],
)
def test_verdict_on_bias(found: tuple[Contrast, ...], verdict: str) -> None:
    assert shift_verdict(found) == verdict


def test_advice_on_sources() -> None:
    better = made(Interval(0.9, 0.85, 0.95), 1e-4, "same/cross")
    worse = made(Interval(1.1, 1.05, 1.15), 1e-4, "same/cross")
    open_ = made(Interval(1.0, 0.9, 1.1), 0.9, "same/cross")
    pilot = made(Interval(0.9, 0.85, 0.95), 1e-4, "pilot/cross")
    assert source_advice([better, worse]).startswith("the source by task and N")
    assert source_advice([better, open_]).startswith("the same samples")
    assert source_advice([worse, open_]).startswith("cross: the same samples cost")
    assert source_advice([open_]).startswith("cross: it biases nothing")
    assert source_advice([open_, pilot]).endswith("nowhere seen to be worse than cross)")
    bad = dataclasses.replace(pilot, value=worse.value)
    assert "pilot" not in source_advice([open_, pilot, bad])


def test_which_parts_are_unbiased() -> None:
    assert unbiased("fog+pg", "lq") and not unbiased("fog+pg", "gate")
    assert unbiased("split+pg", "racing") and not unbiased("fog+pg", "racing")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config)) and list(STUDY.artefacts(config))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"tasks": ("lqq",)}, UnknownName),
        ({"tasks": ()}, BadValue),
        ({"parts": ("fog",)}, BadValue),
        ({"parts": ("fog+gp",)}, UnknownName),
        ({"rules": ("ivv",)}, UnknownName),
        ({"levels": ("layers",)}, UnknownName),
        ({"sizes": (12,)}, BadValue),
        ({"sizes": (8, 8)}, BadValue),
        ({"known_groups": 17}, BadValue),
        ({"flight_groups": 14}, BadValue),
        ({"flight_episodes": 64}, BadValue),
        ({"ant_episodes": 64}, BadValue),
        ({"reference_episodes": 448}, BadValue),
        ({"horizon": 0}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error) as raised:
        list(STUDY.cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(raised.value)
