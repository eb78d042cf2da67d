"""The contact study: fits and crossings on known data, Jacobians,
the toy against what is known, a tiny run.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from gradlab.foundation.errors import BadShape, BadValue, GradlabError
from gradlab.statistics import Interval
from gradlab.study import Study, read_rows, run_study
from studies.contact_stiffness import STUDY, cells, growth, problems, report
from studies.contact_stiffness.answer import answer
from studies.contact_stiffness.config import NAMES, Config
from studies.contact_stiffness.rows import NAMES as LABELS
from studies.contact_stiffness.rows import Crossing, Estimate, Growth, Rows
from tests.helpers.runs import shared, undrawn

FALSE_ALARM = 1e-6
HORIZONS = [8.0, 16.0, 32.0, 64.0, 128.0]
ERRORS = np.array([0.05, 0.1, 0.1, 0.2, 0.4])  # of ln variance


def points(logs: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Variances and the ends of their 95 % intervals."""
    reach = 1.959963984540054 * ERRORS
    middle, low, high = (np.exp(x).tolist() for x in (logs, logs - reach, logs + reach))
    return middle, low, high


# ----------------------------------------------------------------------------------- growth fits


def test_an_exact_line_is_found() -> None:
    logs = 1.5 + 0.3 * np.array(HORIZONS)
    fit = growth.fit_growth(HORIZONS, *points(logs))
    assert math.isclose(fit.rate.estimate, 0.3, rel_tol=1e-9)
    assert math.isclose(fit.intercept, 1.5, rel_tol=1e-9)
    assert fit.points == 5 and fit.freedom == 3 and fit.misfit < 1e-12


def test_coverage_of_the_rate() -> None:
    """The interval is widened where χ²/ν > 1, so that its coverage is a known number above 95 %."""
    repeats, freedom, rate = 2000, 3, 0.02
    generator = np.random.default_rng(0)
    logs = 3.0 + rate * np.array(HORIZONS)
    inside = 0
    for _ in range(repeats):
        noisy = logs + ERRORS * generator.standard_normal(len(logs))
        fit = growth.fit_growth(HORIZONS, *points(noisy))
        inside += fit.rate.low <= rate <= fit.rate.high
    chi2 = stats.chi2(freedom).ppf((np.arange(20_000) + 0.5) / 20_000)
    wanted = np.mean(2 * stats.norm.cdf(1.959963985 * np.sqrt(np.maximum(1, chi2 / freedom))) - 1)
    z = (inside / repeats - wanted) / math.sqrt(wanted * (1 - wanted) / repeats)
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2), (inside / repeats, wanted)


def test_a_wrong_law_misfits() -> None:
    logs = 4 * np.log(HORIZONS)
    right = growth.fit_growth(np.log(HORIZONS).tolist(), *points(logs))
    wrong = growth.fit_growth(HORIZONS, *points(logs))
    assert math.isclose(right.rate.estimate, 4.0, rel_tol=1e-9)
    assert wrong.misfit > report.MISFIT > right.misfit


def test_points_without_a_logarithm_are_left_out() -> None:
    middle, low, high = points(0.1 * np.array(HORIZONS))
    middle[0] = low[0] = high[0] = 0.0
    fit = growth.fit_growth(HORIZONS, middle, low, high)
    assert fit.points == 4 and math.isclose(fit.rate.estimate, 0.1, rel_tol=1e-9)
    few = growth.fit_growth(HORIZONS[:2], middle[:2], low[:2], high[:2])
    assert math.isnan(few.rate.estimate) and few.points == 1
    with pytest.raises(BadShape, match="as many variances"):
        growth.fit_growth(HORIZONS, middle[1:], low, high)


def test_crossings() -> None:
    logs = np.log(np.array(HORIZONS) / 20.0)
    found = growth.crossing(HORIZONS, *((logs + shift).tolist() for shift in (0, -0.1, 0.1)))
    assert math.isclose(found.estimate, 20.0)
    assert math.isclose(found.low, 20 * math.exp(-0.1))
    assert math.isclose(found.high, 20 * math.exp(0.1))
    never = growth.crossing(HORIZONS, *((logs + shift).tolist() for shift in (-9, -10, -8)))
    assert never == (math.inf, math.inf, math.inf)
    before = growth.crossing(HORIZONS, *((logs + shift).tolist() for shift in (9, 8, 10)))
    assert before.estimate == pytest.approx(HORIZONS[0])


def test_a_rate_over_a_noisy_x_is_widened_by_it() -> None:
    fit = growth.fit_growth(HORIZONS, *points(0.1 * np.array(HORIZONS)))
    own = fit.rate.high - fit.rate.estimate
    rates = fit.rate.estimate + 0.3 * np.random.default_rng(0).normal(size=4000)
    reach = growth.widened(fit, rates.tolist()).rate.high - fit.rate.estimate
    # the standard deviation of 4,000 numbers is known to 1.1 %
    assert reach == pytest.approx(math.hypot(own, 1.96 * 0.3), rel=0.05)
    assert growth.widened(fit, [math.nan, 1.0]) == fit


def test_mean_squares_of_resamples_scatter_about_the_mean_square() -> None:
    logs = np.random.default_rng(1).normal(scale=0.3, size=(400, 2))
    resampled = growth.resampled_mean_squares(logs, 2000)
    squares = np.exp(2 * logs)
    error = squares.std(0) / squares.mean(0) / 20  # relative, of the mean of 400
    assert np.abs(resampled.mean(0) - growth.log_mean_square(logs)).max() < 0.01
    assert resampled.std(0) == pytest.approx(error, rel=0.15)


def words(crossing: tuple[float, float, float]) -> str:
    found = Crossing("hopper", 0.01, Interval(*crossing), Interval(0.7, 0.4, 1.1))
    known = Interval(1.0, 0.5, 1.5)
    first = Estimate("hopper", 0.01, 8, "fog", "PG", 0.1, known, known, known, known)
    return report._crossing(Rows([first], [], [found], []))


def test_crossings_in_words() -> None:
    assert words((math.inf, math.inf, math.inf)).startswith("FOG stays below PG;")
    assert words((math.inf, 18.0, math.inf)).startswith(
        "FOG is not seen to pass PG, but may have from T = 18;"
    )
    assert words((8.0, 8.0, 8.0)).startswith("FOG is above PG from the first horizon;")
    assert words((20.0, 15.0, math.inf)).startswith(
        "FOG's variance passes PG's at T = 20 [15, beyond];"
    )


def test_a_power_that_misfits_is_no_power() -> None:
    fit = Growth("hopper", "fog", "product", Interval(0.7, -0.5, 2.0), 6233.0, 4, spread=7.0)
    assert report._explained(fit).startswith("goes as no power of it")
    assert report._explained(dataclasses.replace(fit, misfit=1.0)).endswith("in step")


# ------------------------------------------------------------------------------------- Jacobians


@pytest.mark.parametrize("task", ["hopper", "pegs"])
def test_step_jacobians_equal_central_differences(task: str) -> None:
    """Errors of a central difference: h² times a third derivative, and rounding over h."""
    width, horizon, h = 0.01, 4, 1e-5
    states, eps = problems.path_of(task, width, horizon, 3, seed=0)
    states, eps = states.double(), eps.double()
    step = problems.step_of(task, width, torch.float64)
    found = growth.step_jacobians(step, states, eps)
    for t in range(horizon):
        time = torch.full((3,), float(t), dtype=torch.float64)
        for i in range(states.shape[-1]):
            shift = torch.zeros(states.shape[-1], dtype=torch.float64)
            shift[i] = h
            up = step(states[:, t] + shift, eps[:, t], time)
            down = step(states[:, t] - shift, eps[:, t], time)
            wanted = (up - down) / (2 * h)
            torch.testing.assert_close(found[:, t, :, i], wanted, rtol=1e-5, atol=1e-5)


def test_chunks_of_states_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    states, eps = problems.path_of("pegs", 0.01, 5, 4, seed=0)
    step = problems.step_of("pegs", 0.01)
    whole = growth.step_jacobians(step, states, eps)
    monkeypatch.setattr(growth, "ROWS", 7)
    torch.testing.assert_close(growth.step_jacobians(step, states, eps), whole)
    with pytest.raises(BadShape, match="expected states"):
        growth.step_jacobians(step, states[:, :-1], eps)


def matrices(count: int = 3, horizon: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, horizon, 4, 4, generator=generator, dtype=torch.float64)


def test_norms_of_products_and_sums_equal_a_loop() -> None:
    a = matrices()
    products, sums = growth.product_log_norms(a), growth.summed_log_norms(a)
    for n in range(a.shape[0]):
        for t in range(a.shape[1]):
            total = torch.zeros(4, 4, dtype=torch.float64)
            for j in range(t + 1):
                for k in range(j + 1):
                    one = torch.eye(4, dtype=torch.float64)
                    for i in range(k + 1, j + 1):
                        one = a[n, i] @ one
                    total = total + one
            whole = torch.eye(4, dtype=torch.float64)
            for i in range(t + 1):
                whole = a[n, i] @ whole
            norms = [torch.linalg.matrix_norm(x, 2).log() for x in (whole, total)]
            torch.testing.assert_close(products[n, t], norms[0])
            torch.testing.assert_close(sums[n, t], norms[1])


def test_long_products_do_not_overflow() -> None:
    a = (1e100 * torch.eye(2, dtype=torch.float64)).expand(2, 20, 2, 2)
    wanted = 100 * math.log(10) * torch.arange(1, 21, dtype=torch.float64).expand(2, -1)
    torch.testing.assert_close(growth.product_log_norms(a), wanted)
    torch.testing.assert_close(growth.summed_log_norms(a)[:, 1:], wanted[:, :-1])
    with pytest.raises(BadValue, match="not finite"):
        growth.product_log_norms(a * math.nan)


def test_growth_of_equal_products() -> None:
    """Every episode grows by ln 2 per step: all intervals shrink to it."""
    a = (2 * torch.eye(3, dtype=torch.float64)).expand(5, 8, 3, 3)
    logs = growth.product_log_norms(a)
    steps = torch.linalg.matrix_norm(a, 2).log()
    found = growth.product_growth(logs, steps, [2, 4, 8])
    for part, rate in ((found.typical, 1), (found.step_norm, 1), (found.square, 2)):
        assert np.allclose(part, rate * math.log(2))


# --------------------------------------------------------------------------------------- the toy


def test_the_toy_tends_to_the_billiard() -> None:
    """Growth over one period of the unstable orbit tends to the rigid ball's as contact hardens.

    A rigid contact takes no time; this one takes half an oscillation, π√(m/k), so growth is off by
    about that share of the time between bounces. Dynamics without friction keep the area:
    determinant 1.
    """
    gaps = []
    for width in (3e-2, 3e-3):
        pegs = problems.Pegs(width, 1)
        states = [pegs.start(torch.zeros(1, 1, dtype=torch.float64))]
        with torch.no_grad():
            for _ in range(100):
                states.append(pegs.advance(states[-1]))
        path = torch.stack(states, 1)
        jacobians = growth.step_jacobians(
            problems.step_of("pegs", width), path, torch.zeros(1, 100, 0)
        )
        # flying left and right alternate: two bounces, from mid-flight to mid-flight
        turns = (path[0, 1:, 2].sign() != path[0, :-1, 2].sign()).nonzero()[:, 0].tolist()
        middle = (turns[1] - turns[0]) // 2
        across = torch.eye(2, dtype=torch.float64)
        for t in range(turns[0] + middle, turns[2] + middle):
            across = jacobians[0, t, 1::2, 1::2] @ across
        assert math.isclose(float(torch.linalg.det(across)), 1.0, rel_tol=1e-9)
        rate = float(torch.linalg.eigvals(across).abs().max().log()) / 2
        gaps.append(abs(rate / problems.bounce_rate() - 1))
        duration = math.pi * math.sqrt(width / problems.PEGS_LOAD)
        assert gaps[-1] < duration / problems.bounce_time(), width
    assert gaps[1] < gaps[0]


# ------------------------------------------------------------------------------------- the study

TINY = Config(
    tasks=("pegs", "hopper"),
    widths=(0.01,),
    horizons=(4, 5, 6),
    horizons_of_others=(4,),
    samples=128,
    pg_samples=1024,
    critic_episodes=64,
    critic_steps=3,
    jacobian_episodes=3,
)


def run(out: Path, study: Study = STUDY) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "PANELS", 8)  # of a quadrature over so few steps
        return run_study(study, TINY, out, jobs=1).rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    out = shared(tmp_path_factory, "contact_stiffness", run)
    return read_rows(out), out


def test_rows_of_every_kind(rows: tuple[pd.DataFrame, Path]) -> None:
    table, out = rows
    counts = table.groupby(["task", "kind"]).size()
    assert counts["hopper", "estimator"] == 3 * 2 + 3
    assert counts["pegs", "estimator"] == 3 * 2 + 1
    for task in TINY.tasks:
        assert counts[task, "growth"] == 2 * 2 + 2 + 3 * 2
        assert counts[task, "jacobian"] == counts[task, "crossing"] == 1
        assert counts[task, "product"] == 3
    assert (out / "figure.png").stat().st_size > 0


def test_nothing_is_judged_by_its_own_episodes(rows: tuple[pd.DataFrame, Path]) -> None:
    table = rows[0][(rows[0]["kind"] == "estimator") & (rows[0]["task"] == "hopper")]
    truths = table.groupby("estimator")["truth"].agg(set)
    assert truths["fog"] == {"PG x 1024"} and truths["pg"] == {"FOG x 128"}
    assert all(truths[name] <= {"PG x 1024", "FOG x 128"} for name in NAMES)
    toy = rows[0][(rows[0]["kind"] == "estimator") & (rows[0]["task"] == "pegs")]
    assert set(toy["truth"]) == {"quadrature"} and (toy["quadrature_change"] < 1e-9).all()


def test_measured_variances_hold_the_exact_ones(rows: tuple[pd.DataFrame, Path]) -> None:
    """Intervals of 95 %, widened to a false-alarm rate shared by all of them."""
    toy = rows[0][(rows[0]["kind"] == "estimator") & rows[0]["variance_exact"].notna()]
    pg = toy[toy["estimator"] == "pg"]
    error = np.log(pg["variance_high"] / pg["variance_low"]) / (2 * 1.96)
    z = np.log(pg["variance"] / pg["variance_exact"]) / error
    assert len(z) and (z.abs() < stats.norm.isf(FALSE_ALARM / 2 / len(z))).all()


def test_the_summary_has_every_answer(rows: tuple[pd.DataFrame, Path]) -> None:
    text = report.summarise(rows[0])
    for name in LABELS.values():
        assert name in text
    for phrase in ("Step Jacobians", "known answer", "relative standard"):
        assert phrase in text


def test_a_second_run_does_nothing_again_and_says_the_same(
    rows: tuple[pd.DataFrame, Path],
) -> None:
    table, out = rows
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*.parquet")}
    again = run(out, undrawn(STUDY))
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*.parquet")} == before
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("ants",)}, "ants"),
        ({"widths": ()}, "at least one of widths"),
        ({"widths": (0.01, 0.01)}, "something twice"),
        ({"widths": (-1.0,)}, "positive"),
        ({"widths": (1e-6,)}, "too stiff"),
        ({"horizons": (2, 8), "horizons_of_others": (8,)}, "at least 4"),
        ({"horizons_of_others": (7,)}, "among horizons"),
        ({"samples": 100}, "try 128"),
        ({"estimators": ("fg",)}, "fog"),
        ({"window": 1.0}, "fraction"),
        ({"jacobian_episodes": 1}, "at least 2"),
    ],
)
def test_errors_are_clear(changes: dict, said: str) -> None:
    with pytest.raises(GradlabError, match=said):
        list(STUDY.cells(dataclasses.replace(TINY, **changes)))


def test_presets_have_cells_that_their_artefacts_serve() -> None:
    for name in STUDY.presets:
        config, _ = STUDY.preset(name)
        if "ant" in config.tasks:
            continue  # building it takes seconds
        known = {artefact.name for artefact in STUDY.artefacts(config)}
        assert all(set(cell.needs) <= known for cell in STUDY.cells(config))


# ----------------------------------------------------------------------------------------- words


def fits(power: tuple[float, ...], exponential: tuple[float, ...]) -> dict[str, Growth]:
    """The two laws of FOG from rate, low, high, misfit."""
    laws = {"power": power, "exponential": exponential}
    return {
        law: Growth("hopper", "fog", law, Interval(*rate), misfit, 4)
        for law, (*rate, misfit) in laws.items()
    }


def test_no_growth_is_not_called_growth() -> None:
    flat = report._laws(fits((0.01, -0.5, 0.5, 1.0), (0.0004, -0.028, 0.029, 0.9)))
    assert flat.startswith("is not seen to change with T") and "grows" not in flat
    assert "e^" not in flat
    grown = report._laws(fits((3.0, 2.5, 3.5, 1.0), (0.1, 0.08, 0.12, 5.0)))
    assert grown.startswith("grows as T^3.0 [2.5, 3.5]")
    fallen = report._laws(fits((-3.0, -3.5, -2.5, 1.0), (-0.1, -0.12, -0.08, 5.0)))
    assert fallen.startswith("falls as T^-3.0")


def test_direction_is_said_before_length_and_critics_beside_their_ceilings(
    rows: tuple[pd.DataFrame, Path],
) -> None:
    said = answer(rows[0])
    assert said.answer.index("direction") < said.answer.index("length") < said.answer.index("PG's")
    assert "where the best one would reach" in said.rests_on
    assert "where the best one would reach" in report.summarise(rows[0])
    assert len(str(said).splitlines()) <= 40 and len(said.table) <= 12
