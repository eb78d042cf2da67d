"""Does the error of a gradient say what it gains: rows, rank correlations, and the ladder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from gradlab.study.tables import UNKNOWN
from studies.estimator_in_training import STUDY, report
from studies.estimator_in_training.answer import Found, answer, judged, verdict
from studies.estimator_in_training.cells import cells, run_cell
from studies.estimator_in_training.config import PRESETS, Config
from studies.estimator_in_training.figures import plot
from studies.estimator_in_training.rows import (
    PREDICTORS,
    Return,
    Seen,
    State,
    bounded,
    rank_correlation,
    student,
)
from studies.train.algorithms import FAMILIES

TINY = Config(
    algorithms=("shac", "pg", "split", "agpo"),
    tasks=("hovering",),
    trainings=2,
    updates=2,
    states=(0,),
    ahead=1,
    episodes=8,
    length=4,
    width=8,
    passes=1,
    gradients=5,
    truth=10,
    steps=6,
    evaluations=4,
)


@pytest.fixture(scope="module")
def rows() -> Iterator[pd.DataFrame]:
    """All cells, of episodes of 12 steps."""
    with pytest.MonkeyPatch.context() as patch:
        brief = dataclasses.replace(FAMILIES["hovering"], horizon=12)
        patch.setitem(FAMILIES, "hovering", brief)
        found = [row for cell in cells(TINY) for row in run_cell(TINY, cell, {})]
        yield pd.DataFrame(found)


def test_rows_of_every_training(rows: pd.DataFrame) -> None:
    seen = Seen.of(rows)
    assert set(seen.algorithms) == set(TINY.algorithms)
    assert len(seen.states) == 4 * 2 and len(seen.returns) == 4 * 2 * 3  # updates 0, 1 and 2
    costs = {state.algorithm: state.cost for state in seen.states}
    assert costs["shac"] == 1.0 and costs["agpo"] > 1.0  # AGPO runs its window twice
    for state in seen.states:
        mine = [
            r
            for r in seen.returns
            if (r.training, r.algorithm) == (state.training, state.algorithm)
        ]
        value = {row.updates: row.value for row in mine}
        assert math.isclose(state.gain, value[1] - value[0], abs_tol=1e-6)
    # trainings of one number begin with the same policy
    first = [r.value for r in seen.returns if r.updates == 0 and r.training == 0]
    assert len(first) == 4 and len(set(first)) == 1


def test_a_cell_is_the_same_again(rows: pd.DataFrame) -> None:
    cell = next(iter(cells(TINY)))
    again = pd.DataFrame(list(run_cell(TINY, cell, {})))
    at = {name: cell.payload[name] for name in ("task", "training", "algorithm")}
    mine = rows
    for name, value in at.items():
        mine = mine.loc[mine[name] == value]
    for kind, column in (("return", "return"), ("state", "whole_bias")):
        there = mine.loc[mine["kind"] == kind, column].tolist()
        assert there == again.loc[again["kind"] == kind, column].tolist()


def test_answer_report_and_figure(rows: pd.DataFrame, tmp_path: Path) -> None:
    said = answer(rows)
    # two seeds tell nothing, whatever they show
    assert said.answer.startswith("Cannot be told at this budget")
    assert len(said.table) == len(PREDICTORS) + 1
    assert len(str(said).splitlines()) <= 40
    assert "Mean ranks on hovering" in report.summarise(rows)
    plot(rows, tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 0


@pytest.mark.slow
def test_smoke_runs_from_the_command_line(tmp_path: Path) -> None:
    config, _ = STUDY.preset("smoke")
    run_study(STUDY, config, tmp_path, jobs=1)
    assert len(Seen.of(read_rows(tmp_path)).states) == 8
    assert (tmp_path / "figure.png").exists()


def made(
    algorithm: str, seed: int, bias: float, gain: float, *, noise: float = 0.0, **options: Any
) -> State:
    """A state whose numbers are all as precise as they look."""
    exact = Interval(bias, bias, bias)
    spread = Interval(noise, noise, noise)
    cosine = Interval(1 - bias, 1 - bias, 1 - bias)
    kind: dict[str, Any] = {"task": "t", "updates": 1, "cost": 1.0, "whole_error": 0.1, **options}
    return State(
        algorithm=algorithm, training=seed, gain=gain, segment_error=0.1, segment_bias=exact,
        segment_noise=spread, segment_cosine=cosine, whole_bias=exact, whole_noise=spread,
        whole_cosine=cosine, **kind,
    )  # fmt: skip


NAMES = "abcde"


def test_less_error_with_more_gain_is_a_correlation_of_1() -> None:
    states = [made(n, seed, 0.1 * k, -k) for seed in range(5) for k, n in enumerate(NAMES)]
    seen = Seen(states, [])
    for name in ("error to the return", "bias to the return", "cosine to the return"):
        assert tuple(seen.correlation(name)) == pytest.approx((1.0, 1.0, 1.0))
    assert math.isnan(seen.correlation("noise").estimate)  # there is none, in all alike
    turned = Seen([dataclasses.replace(s, gain=-s.gain) for s in states], [])
    assert tuple(turned.correlation("error to the return")) == pytest.approx((-1.0, -1.0, -1.0))
    assert math.isnan(seen.correlation("error to the return", "another").estimate)


def test_error_counts_noise_by_its_cost() -> None:
    assert made("a", 0, 0.3, 0, noise=0.4).mse("whole") == pytest.approx(0.09 + 0.16)
    assert made("a", 0, 0.3, 0, noise=0.4, cost=2.0).mse("whole") == pytest.approx(0.09 + 0.32)
    # a debiased square below 0 is no error
    assert made("a", 0, -0.3, 0, noise=0.4).mse("segment") == pytest.approx(0.16)


def test_states_without_a_precise_truth_are_left_out() -> None:
    states = [made(n, seed, 0.1 * k, -k) for seed in range(4) for k, n in enumerate(NAMES)]
    vague = [dataclasses.replace(s, gain=100.0, whole_error=0.9) for s in states]
    lost = [dataclasses.replace(s, gain=math.nan) for s in states]
    seen = Seen([*states, *vague, *lost], [])
    assert len(seen.precise) == len(states)
    assert seen.correlation("error to the return").estimate == pytest.approx(1.0)


def test_intervals_are_over_seeds() -> None:
    """Two states of a seed are one number: their mean."""
    states = [
        made(n, seed, 0.1 * k, -k if (seed + at) % 2 else k, updates=at)
        for seed in range(4)
        for at in (1, 2)
        for k, n in enumerate(NAMES)
    ]
    found = Seen(states, []).correlation("error to the return")
    assert tuple(found) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_leaderboard_compares_whole_trainings() -> None:
    states = [made(n, s, 0.1 * (k + 1), 0.0) for s in range(4) for k, n in enumerate(NAMES)]
    returns = [
        Return("t", s, n, at, float(-k if at else 10 * k))  # before training nothing counts
        for s in range(4)
        for k, n in enumerate(NAMES)
        for at in (0, 1, 2)
    ]
    seen = Seen(states, returns)
    assert tuple(seen.leaderboard()) == pytest.approx((1.0, 1.0, 1.0))
    by_error = seen.mean_ranks(seen.errors(), "t", least=True)
    by_return = seen.mean_ranks(seen.learnt(), "t", least=False)
    assert [by_error[n].estimate for n in NAMES] == [1, 2, 3, 4, 5]
    assert [by_return[n].estimate for n in NAMES] == [1, 2, 3, 4, 5]


def test_rank_correlation_needs_four_that_vary() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1.0)
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]))
    assert math.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]))


def test_student_by_hand_and_few_seeds_tell_nothing() -> None:
    found = student([0.0, 1.0, 2.0])  # t = 4.3027, standard error 1/√3
    assert found.high - found.estimate == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert bounded([0.5, 0.5, 0.5]) == Interval(0.5, -1.0, 1.0)
    assert bounded([0.5] * 4) == Interval(0.5, 0.5, 0.5)
    assert bounded([0.9, 1.0, 0.7, 1.0]).high == 1.0


HIGH, LOW, OPEN = Interval(0.6, 0.4, 0.8), Interval(-0.1, -0.4, 0.1), Interval(0.2, -0.1, 0.5)
TOLD, NOT_TOLD = Interval(0.7, 0.2, 1.2), Interval(0.3, -0.1, 0.7)


@pytest.mark.parametrize(
    ("overall", "tasks", "apart", "words", "of_board"),
    [
        (HIGH, {"x": HIGH}, UNKNOWN, "Holds: ", "does say"),
        (LOW, {"x": LOW}, UNKNOWN, "Does not hold: ", "does not say"),
        (OPEN, {"x": OPEN}, UNKNOWN, "Cannot be told", "cannot be told"),
        (Interval(math.nan, -1.0, 1.0), {}, UNKNOWN, "Cannot be told", "cannot be told"),
        (Interval(0.2, 0.1, 0.29), {"x": Interval(0.2, 0.1, 0.29)}, UNKNOWN, "Holds", "does say"),
        (
            HIGH, {"x": HIGH, "y": LOW}, TOLD,
            "depends on the task: less error gains more on x, not on y.", "fastest on x, not on y.",
        ),
        (
            HIGH, {"x": HIGH, "y": LOW, "z": OPEN}, TOLD,
            "on x, not on y (on z it cannot be told).", "not on y (on z it cannot be told).",
        ),
        # one interval above 0 and one not is no difference
        (LOW, {"x": HIGH, "y": LOW}, NOT_TOLD, "Does not hold: ", "does not say"),
        (LOW, {"x": HIGH, "y": OPEN}, UNKNOWN, "corrected for looking at 2 tasks, it does on x)",
         "it does on x)."),
        (HIGH, {"x": HIGH, "y": OPEN}, UNKNOWN, "(on y it cannot be told)", "(on y it cannot be told)."),
        (HIGH, {"x": HIGH, "y": LOW}, NOT_TOLD, "(by itself it does not on y)", "not on y)."),
    ],
)  # fmt: skip
def test_ladder(
    overall: Interval, tasks: dict[str, Interval], apart: Interval, words: str, of_board: str
) -> None:
    """A mean over tasks hides no task, and a task by itself is no difference between tasks."""
    found = Found(overall, tasks, apart)
    assert words in verdict(found)
    assert of_board in judged(found)


def test_tasks_are_held_against_each_other_by_seed() -> None:
    """What seeds have in common on both tasks does not hide their difference."""
    common = {seed: 0.1 * (-1) ** seed for seed in range(6)}
    high = {seed: 0.5 + value for seed, value in common.items()}
    low = {seed: -0.1 + value + 0.01 * seed for seed, value in common.items()}
    by_task = {
        "x": high,
        "y": low,
        "few": {0: 0.0, 1: 0.1},
        None: {s: (high[s] + low[s]) / 2 for s in high},
    }
    found = Found.of(["x", "y", "few"], lambda task: by_task[task])
    assert found.sides == (["x"], ["y"]) and found.told == "depends"
    expected = student(high[seed] - low[seed] for seed in high)
    assert found.apart == pytest.approx(tuple(expected))
    assert (
        found.apart.high - found.apart.low < 0.1 < found.by_task["x"].high - found.by_task["x"].low
    )


def test_an_unknown_cosine_costs_its_own_state_alone() -> None:
    states = [made(name, 0, 0.1 * k, -k) for k, name in enumerate(NAMES)]
    states[-1] = dataclasses.replace(states[-1], whole_cosine=Interval(math.nan, -1.0, 1.0))
    assert Seen(states, []).correlations("cosine to the return") == {0: 1.0}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"algorithms": ("shac", "pg", "split")}, BadValue),
        ({"algorithms": ("shac", "pg", "split", "shacc")}, UnknownName),
        ({"tasks": ("hover",)}, UnknownName),
        ({"trainings": 1}, BadValue),
        ({"gradients": 4}, BadValue),
        ({"truth": 6}, BadValue),
        ({"episodes": 30}, BadValue),
        ({"states": (21,)}, BadValue),
        ({"states": ()}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error) as caught:
        list(STUDY.cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
