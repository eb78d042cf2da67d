"""The jump study: a tiny run, its rows, the verdict on a step and on a quadratic, and the number
of pairs that a jump needs.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from gradlab.testing import detect_jump
from studies.jumps import STUDY, report
from studies.jumps.answer import answer, verdict
from studies.jumps.cases import CASES
from studies.jumps.cells import BIAS, cells
from studies.jumps.config import PRESETS, Config
from studies.jumps.rows import Seen, Trial
from tests.helpers.runs import shared

TINY = Config(
    cases=("quadratic", "heaviside", "racing", "hopper-dflex-compliant"),
    pairs=(32, 128),
    runner_pairs=(8,),
    term_pairs=16,
    runner_term_pairs=8,
    samples=128,
    pg_samples=1024,
    horizon=2,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "jumps", lambda out: run_study(STUDY, TINY, out, jobs=1))


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


@pytest.fixture(scope="module")
def seen(rows: pd.DataFrame) -> dict[str, Seen]:
    return {case.name: case for case in Seen.by_case(rows)}


def test_rows_of_every_case(seen: dict[str, Seen]) -> None:
    assert list(seen) == list(TINY.cases)
    assert [test.pairs for test in seen["racing"].returns] == [32, 128]
    assert [test.pairs for test in seen["hopper-dflex-compliant"].returns] == [8]
    for case in seen.values():
        assert case.terms and all(test.kind == "term" for test in case.terms)
        # the level is shared by the cases, and a case's by its terms
        assert math.isclose(case.last.level, TINY.level / 4)
        assert math.isclose(sum(test.level for test in case.terms), TINY.level / 4)
    assert seen["racing"].bias is not None and "409600" in seen["racing"].bias.truth
    assert seen["hopper-dflex-compliant"].bias is None  # no truth is made up


def test_a_step_is_found(seen: dict[str, Seen]) -> None:
    step = seen["heaviside"]
    assert step.biased and step.last.found and step.first is not None
    # FOG of a step is zero, so that nothing of it is seen
    assert step.last.share == Interval(1.0, 1.0, 1.0)
    assert step.bias is not None and math.isclose(step.bias.relative_bias.estimate, 1.0)


def test_silence_on_a_quadratic(seen: dict[str, Seen]) -> None:
    """D of a quadratic is 0: it lies within five of its standard errors."""
    quadratic = seen["quadratic"]
    assert quadratic.smooth and not quadratic.last.found and not quadratic.biased
    d, _, high = quadratic.last.statistic
    assert abs(d) < 5 * (high - d) / stats.t.ppf(0.975, quadratic.last.pairs - 1)
    assert quadratic.first is None


def test_answer_counts_cases(rows: pd.DataFrame) -> None:
    said = answer(rows)
    assert said.answer.startswith("The test finds 2 of 2 cases in which FOG is biased, and calls 0")
    assert "of 1 smooth ones, at a level of 5% for all 4 cases together." in said.answer
    assert len(said.table) == 3  # those with a truth
    assert len(str(said).splitlines()) <= 40


def test_what_is_missed_and_wrongly_called_is_named(seen: dict[str, Seen]) -> None:
    quiet = [dataclasses.replace(test, p_value=0.5) for test in seen["heaviside"].returns]
    loud = [dataclasses.replace(test, p_value=0.0) for test in seen["quadratic"].returns]
    cases = [
        dataclasses.replace(seen["heaviside"], returns=quiet),
        dataclasses.replace(seen["quadratic"], returns=loud),
    ]
    said = verdict(cases)
    assert "finds 0 of 1 cases" in said and "calls 1 of 1 smooth" in said
    assert "Missed: heaviside." in said and "Called though smooth: quadratic." in said


def test_report_and_figure(rows: pd.DataFrame, out: Path) -> None:
    said = report.summarise(rows)
    assert "3. Reward terms" in said and "hopper-dflex-compliant" in said
    assert (out / "figure.png").exists()


def made(statistic: Interval, pairs: int, level: float = 0.01, p: float = 0.5) -> Trial:
    none = Interval(0.0, 0.0, 0.0)
    return Trial("x", "known", "jumps", "return", "return", pairs, statistic, none, p, level, 0, 0)


def test_pairs_needed_have_the_power_that_they_say() -> None:
    """By a normal law: with the pairs that are needed, D/error lies above the quantile in 95 %."""
    n, d, half = 400, 1.0, 0.4
    error = half / stats.t.ppf(0.975, n - 1)
    needed = made(Interval(d, d - half, d + half), n).needed
    at = d / (error * math.sqrt(n / needed.estimate))
    assert math.isclose(stats.norm.sf(stats.norm.isf(0.01) - at), 0.95, rel_tol=1e-9)
    assert needed.low < needed.estimate < needed.high < math.inf
    assert math.isclose(needed.high / needed.estimate, (d / (d - half)) ** 2)


def test_no_number_of_pairs_finds_what_curvature_hides() -> None:
    assert math.isinf(made(Interval(-1.0, -2.0, 0.0), 100).needed.estimate)
    assert math.isinf(made(Interval(0.0, -1.0, 1.0), 100).needed.high)
    assert made(Interval(1.0, 1.0, 1.0), 100).needed == Interval(8.0, 8.0, 8.0)


def test_called_from_the_least_number_after_which_it_stays_called() -> None:
    one = Interval(1.0, 0.5, 1.5)
    p_values = {64: 0.001, 256: 0.5, 1024: 0.001, 4096: 0.0}
    tests = [made(one, pairs, p=p) for pairs, p in p_values.items()]
    assert Seen("x", tests, [], None).first == 1024
    assert Seen("x", tests[:2], [], None).first is None


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.family == "known"])
def test_what_is_built_to_jump_does(name: str) -> None:
    """And what is built smooth does not, at a level that 8 cases share."""
    case = CASES[name]
    problem = case.problem(horizon=1)
    found = detect_jump(problem, case.policy(problem, None), count=256, level=1e-3).found
    assert bool(found) == (case.built == "jumps")


def test_runners_have_no_bias_cell() -> None:
    parts = {(c.payload["case"], c.payload["part"]) for c in cells(Config())}
    assert {name for name, part in parts if part == BIAS} == {
        name for name, case in CASES.items() if case.family != "runner"
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config)) and list(STUDY.artefacts(config))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"cases": ("hevaside",)}, UnknownName),
        ({"cases": ()}, BadValue),
        ({"pairs": (4, 64)}, BadValue),
        ({"pairs": (64, 64)}, BadValue),
        ({"runner_term_pairs": 2}, BadValue),
        ({"samples": 100}, BadValue),
        ({"pg_samples": 1000}, BadValue),
        ({"horizon": 0}, BadValue),
        ({"level": 1.0}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error):
        list(STUDY.cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
