"""The leaderboard: lengths chosen across repeats, ranks and critical differences by hand, steps,
who takes part, a tiny run, and the ladder of its advice.
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

import estimators
import gradlab
from gradlab.critics.fitted import Fit
from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.gradients.sampling import noise_stream
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from studies.leaderboard import STUDY, report, truths
from studies.leaderboard.answer import advice, answer, line, overall
from studies.leaderboard.config import PRESETS, Config
from studies.leaderboard.ranks import Ranking, across, mean_interval, ranking, share_interval
from studies.leaderboard.roster import bought, built, reads_critic, roster, whole_groups
from studies.leaderboard.rows import Board, Entry, Judged, boards
from studies.leaderboard.steps import best_length, length_of, mean_returns, moved
from tests.helpers.runs import shared

TINY = Config(
    tasks=("heaviside", "lq"),
    steps=(120,),
    estimators=("pg", "fog", "relaxed_fog", "nstep", "switch"),
    repeats=8,
    episodes=32,
    lengths=(1.0, 2.0),
)


# ------------------------------------------------------------------------------------- ranks


def test_mean_ranks_and_friedman_by_hand() -> None:
    """Two blocks 3 > 2 > 1 and one with a tie of the first two: ranks 1, 2, 3 and 1.5, 1.5, 3."""
    found = ranking(np.array([[3.0, 2.0, 1.0], [9.0, 8.0, -1.0], [5.0, 5.0, 0.0]]), 0.05)
    assert found.mean_ranks == pytest.approx((3.5 / 3, 5.5 / 3, 3.0))
    columns = np.array([[3.0, 9.0, 5.0], [2.0, 8.0, 5.0], [1.0, -1.0, 0.0]])
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*columns).pvalue)
    assert found.best == 0


@pytest.mark.parametrize(
    "contestants, q", [(2, 1.960), (4, 2.569), (10, 3.164)]
)  # Demšar (2006), table 5a
def test_critical_difference_is_the_published_one(contestants: int, q: float) -> None:
    values = np.random.default_rng(0).normal(size=(14, contestants))
    expected = q * math.sqrt(contestants * (contestants + 1) / (6 * 14))
    # half of the level is that of signed ranks
    assert ranking(values, 0.10).critical_difference == pytest.approx(expected, abs=1e-3)


def test_what_is_not_finite_is_worst() -> None:
    assert ranking(np.array([[math.nan, 0.0, -5.0]]), 0.05).mean_ranks == (3.0, 1.0, 2.0)


def test_two_are_compared_by_a_sign_test() -> None:
    values = np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]] + [[2.0, 2.0]])
    assert ranking(values, 0.05).p_value == pytest.approx(stats.binomtest(9, 10).pvalue)
    assert ranking(np.zeros((6, 2)), 0.05).p_value == 1.0
    assert ranking(np.zeros((6, 4)), 0.05).p_value == 1.0
    assert ranking(np.zeros((6, 1)), 0.05).as_good() == [0]


def test_who_is_as_good_and_which_groups_cannot_be_told_apart() -> None:
    told = Ranking((2.0, 1.0, 3.0, 5.0), 0.001, 1.5, 0.05)
    assert told.as_good() == [1, 0]
    assert told.groups() == [[1, 0], [0, 2]]  # 1 and 3 differ by 2, 3 and 5 too
    assert dataclasses.replace(told, critical_difference=2.0).groups() == [[1, 0, 2], [2, 3]]
    # a pair that signed ranks tell apart is in no run, whatever its ranks
    apart = dataclasses.replace(told, critical_difference=2.0, apart=frozenset({(0, 1)}))
    assert apart.as_good() == [1, 2] and apart.groups() == [[0, 2], [2, 3]]
    unsure = dataclasses.replace(told, p_value=0.06)
    assert unsure.as_good() == [1, 0, 2, 3] and unsure.groups() == [[1, 0, 2, 3]]


def test_signed_ranks_tell_two_apart_whoever_else_takes_part() -> None:
    """One is always a little better than another; ten that are far away part neither."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(20, 1))
    near = [base + 0.02 * rng.normal(size=(20, 1)), base - 0.1]
    found = ranking(np.hstack([*near, base - 50 - rng.random((20, 10))]), 0.05)
    assert found.mean_ranks[:2] == pytest.approx((1.0, 2.0), abs=0.2)
    assert found.critical_difference > 2  # mean ranks cannot tell them
    assert found.apart >= {(0, 1)} and found.as_good() == [0]
    assert not found.alike(0, 1) and not found.alike(1, 0)
    # all 20 have one sign: the least p-value there is, in Holm's first step at half of the level
    assert (near[0] > near[1]).all() and 2 * 0.5**20 * math.comb(12, 2) < 0.025


def test_signed_ranks_take_what_is_not_finite_as_worst_and_leave_ties_out() -> None:
    values = np.tile([[math.nan, 1.0, 1.0]], (20, 1))
    assert ranking(values, 0.05).apart == {(0, 1), (0, 2)}
    assert ranking(np.full((20, 3), math.nan), 0.05).as_good() == [0, 1, 2]


def test_alike_contestants_are_told_apart_at_the_level() -> None:
    """At most in 5 % of tables, and in some: binomial bounds at a chance of 1e-6."""
    rng, tables = np.random.default_rng(1), 120
    wrong = sum(len(ranking(rng.normal(size=(24, 6)), 0.05).as_good()) < 6 for _ in range(tables))
    assert 0 < wrong <= stats.binom.isf(1e-6, tables, 0.05)


def test_lengths_are_chosen_by_the_other_half() -> None:
    gains = np.array([[1.0, 0.0], [0.0, 5.0], [3.0, 2.0], [0.0, 7.0]])
    values, places = across(gains)
    # odd repeats like the second length, which even ones get; and the other way round
    assert places == (1, 0) and values.tolist() == [0.0, 0.0, 2.0, 0.0]


def test_a_length_that_breaks_is_not_taken() -> None:
    gains = np.array([[1.0, math.nan]] * 3 + [[1.0, 9.0]])
    assert across(gains)[0].tolist() == [1.0] * 4
    assert np.isnan(across(np.full((4, 2), math.nan))[0]).all()


def test_choosing_across_is_not_optimistic() -> None:
    """Of pure noise the chosen gain is 0 on average; the best of all lengths is not."""
    rng = np.random.default_rng(2)
    tables = rng.normal(size=(4000, 8, 4))
    chosen = np.array([across(table)[0].mean() for table in tables])
    assert abs(chosen.mean()) < 5 * chosen.std() / math.sqrt(len(chosen))
    best = tables.mean(1).max(-1)
    assert best.mean() > 5 * best.std() / math.sqrt(len(best))


def test_shares_of_what_the_truth_gains() -> None:
    whole = np.array([1.0, 2.0, 3.0, 2.5, 1.5, 2.0])
    assert share_interval(0.5 * whole, whole) == pytest.approx(Interval(0.5, 0.5, 0.5))
    around_zero = whole - whole.mean()
    assert math.isnan(share_interval(whole, around_zero).estimate)  # nothing to have a share of
    assert math.isnan(mean_interval(np.array([1.0, math.nan])).estimate)


# ------------------------------------------------------------------------------------- steps


def test_steps_have_the_length_that_is_asked_for() -> None:
    params = {"a": torch.zeros(2), "b": torch.ones(3)}
    along = {"a": torch.tensor([3.0, 0.0]).double(), "b": torch.tensor([0.0, 4.0, 0.0]).double()}
    points = moved(params, along, [0.0, 0.5, 2.0])
    for k, length in enumerate((0.0, 0.5, 2.0)):
        moves = {name: value[k] - params[name] for name, value in points.items()}
        assert length_of(moves) == pytest.approx(length, rel=1e-6)
    assert points["a"][2].tolist() == pytest.approx([1.2, 0.0])


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_without_a_direction_no_step_is_taken(value: float) -> None:
    params = {"a": torch.ones(2)}
    points = moved(params, {"a": torch.full((2,), value).double()}, [1.0, 2.0])
    assert torch.equal(points["a"], torch.ones(2, 2))


@pytest.mark.parametrize("name", ["gate", "hovering"])
def test_objectives_of_many_points_are_those_of_each(name: str) -> None:
    problem = gradlab.make(name, horizon=4, dtype=torch.float64)
    params = problem.init(torch.Generator().manual_seed(0))
    along = {n: torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double()
             for n, p in params.items()}  # fmt: skip
    points = moved(params, along, [0.0, 0.3])
    found = mean_returns(problem, points, 40, seed=3)
    (noise,) = noise_stream(problem, 40, 3, 40)
    for k in range(2):
        one = problem.bind({n: p[k] for n, p in points.items()})
        path = gradlab.rollout(problem, one, noise)
        value = gradlab.evaluate(problem, path).value.sum(-1).mean()
        assert float(found[k]) == pytest.approx(float(value), rel=1e-9)


def test_the_unit_is_the_best_of_halved_lengths() -> None:
    problem = gradlab.make("lq", dtype=torch.float64)
    params = problem.reference
    along = gradlab.oracle.ClosedForm()(problem, params).mean
    unit = best_length(problem, params, along, seed=0)
    low, best, high = mean_returns(
        problem, moved(params, along, [unit / 2, unit, 2 * unit]), 1024, seed=0
    ).tolist()
    assert best > low and best > high
    away = {name: -value for name, value in along.items()}
    assert best_length(problem, params, away, seed=0) < 1e-5 * unit  # nothing gains there


# ------------------------------------------------------------------------------ who takes part


def test_an_own_estimator_is_put_among_the_others(here: Path) -> None:
    assert roster(["mine.py:Mine"]) == [*estimators.names(), "mine.py:Mine"]
    assert roster(["all", "mine.py:Mine"]) == [*estimators.names(), "mine.py:Mine"]
    assert roster(["mine.py:Mine", "pg"]) == ["pg", "mine.py:Mine"]
    with pytest.raises(BadValue, match="all and pg"):
        roster(["all", "pg"])
    with pytest.raises(UnknownName, match="did you mean Mine"):
        roster(["mine.py:Mien"])


def test_budgets_buy_whole_groups() -> None:
    problem = gradlab.make("lq", dtype=torch.float64)  # T = 5
    assert bought(100, built("fog", problem), problem) == 20
    assert bought(104, built("fog", problem), problem) == 20
    pg = built("pg", problem)  # leave-one-out in groups of 50
    assert [bought(s, pg, problem) for s in (249, 250, 499, 500)] == [0, 50, 50, 100]
    assert whole_groups(-3.0, 1) == 0
    nstep = built("nstep", problem)
    assert nstep.cost(problem).environment_steps == 2 and bought(100, nstep, problem) == 50
    assert reads_critic(nstep, problem) and not reads_critic(pg, problem)


# ---------------------------------------------------------------------------------- a tiny run


MINE = """
from dataclasses import dataclass

import torch

import estimators
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout


@dataclass(frozen=True)
class Mine(estimators.SurrogateEstimator):
    def surrogate(self, problem, policy, noise):
        return evaluate(problem, rollout(problem, policy, noise)).value.sum(-1)

    def call_weights(self, problem):
        return torch.ones(problem.horizon)


class Broken(Mine):
    def surrogate(self, problem, policy, noise):
        return self.nothing
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "leaderboard", lambda out: run_study(STUDY, TINY, out, jobs=1))


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


@pytest.fixture(scope="module")
def found(rows: pd.DataFrame) -> dict[str, Board]:
    return {board.task: board for board in boards(rows)}


def entry_of(board: Board, name: str) -> Entry:
    return next(entry for entry in board.entries if entry.name == name)


def test_everybody_is_ranked_or_named(found: dict[str, Board]) -> None:
    assert list(found) == ["heaviside", "lq"]
    for board in found.values():
        names = [entry.name for entry in board.entries] + [out.estimator for out in board.left_out]
        assert sorted(names) == sorted(TINY.estimators)
        assert board.level == TINY.level / 2
    assert entry_of(found["lq"], "fog").judged.samples == 24
    # 120 steps of T = 5 buy 24 episodes: no group of 50, nor one of 64
    left = {out.estimator: out.reason for out in found["lq"].left_out}
    assert set(left) == {"pg", "switch"} and "cannot afford one group of 50" in left["pg"]


def test_who_sees_no_gradient_stands_still(found: dict[str, Board]) -> None:
    """FOG of a step is 0: it gains exactly nothing on the same episodes, and errs by all of ∇J."""
    fog = entry_of(found["heaviside"], "fog")
    assert (fog.gains == 0).all() and fog.gain == Interval(0.0, 0.0, 0.0)
    assert fog.relative_mse == pytest.approx(Interval(1.0, 1.0, 1.0))
    pg = entry_of(found["heaviside"], "pg")
    assert pg.relative_mse.high < 1.0 and pg.gain.low > 0


def test_error_is_that_of_the_mean_of_what_was_bought(rows: pd.DataFrame) -> None:
    one = rows.query("kind == 'error' and task == 'lq' and estimator == 'fog'")
    expected = one["variance"] / one["samples"] + one["squared_bias"].clip(lower=0)
    assert one["mse"].item() == pytest.approx(expected.item())
    assert one["batch"].item() == one["samples"].item() == 24


def test_equal_time_is_that_of_the_reference(found: dict[str, Board]) -> None:
    board = found["lq"]
    fog = entry_of(board, "fog")
    assert board.reference == "fog"
    assert fog.timed_samples == pytest.approx(fog.judged.samples)
    assert fog.timed_mse == pytest.approx(fog.judged.mse)


def test_answer_report_and_figure(rows: pd.DataFrame, out: Path) -> None:
    said = answer(rows)
    assert len(said.table) == 2 and len(str(said).splitlines()) <= 40
    long = report.summarise(rows)
    assert "2. lq, its own policy, 120 steps" in long and "Left out: switch" in long
    assert (out / "figure.png").exists()


def test_cells_come_out_the_same_again(out: Path) -> None:
    """One that runs alone, of all that a folder has."""
    config = dataclasses.replace(TINY, tasks=("lq",), estimators=("fog",))
    again = run_study(STUDY, config, out / "again", jobs=1).rows
    columns = ["repeat", "length", "value", "mse", "samples"]
    one, other = (
        pd.DataFrame(
            table.query("task == 'lq' and estimator == 'fog' and kind != 'time'"), columns=columns
        )
        for table in (read_rows(out), again)
    )
    assert len(one) == 17
    pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True))


@pytest.mark.slow
def test_seconds_buy_what_their_times_say(tmp_path: Path) -> None:
    config = dataclasses.replace(
        TINY, tasks=("lq",), steps=(), seconds=(0.02, 1e-9), estimators=("fog", "nstep")
    )
    rows = run_study(STUDY, config, tmp_path, jobs=1).rows
    (board,) = boards(rows)
    for entry in board.entries:
        assert entry.seconds == pytest.approx(0.02, abs=entry.seconds / entry.judged.samples)
    assert answer(rows).answer.endswith("Nobody can take part: lq, 1e-09 s.")


def test_settings_that_nobody_can_afford_are_named(rows: pd.DataFrame) -> None:
    poor = rows.assign(kind=rows["kind"].replace({"error": "left_out"}), reason="too dear")
    said = answer(poor)
    assert said.answer.startswith("Nobody can take part: heaviside, 120 steps.")
    assert list(said.table["take"]) == ["nobody"] * 2
    assert "lq, 120 steps: nobody takes part. pg: too dear." in report.summarise(poor)


@pytest.mark.slow
def test_an_own_estimator_and_an_own_task_take_part(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truths, "FULL", Fit(steps=2, episodes=64))
    (here / "task.py").write_text("import gradlab\n\ndef problem():\n"
                                  "    return gradlab.make('hovering', horizon=3)\n")  # fmt: skip
    config = dataclasses.replace(
        TINY, tasks=("task.py:problem",), stages=(0,), steps=(60,), seconds=(), truth_samples=1024,
        estimators=("fog", "qg", "mine.py:Mine"),
    )  # fmt: skip
    (board,) = boards(run_study(STUDY, config, here / "out", jobs=1).rows)
    fog, mine = (entry_of(board, name) for name in ("fog", "mine.py:Mine"))
    assert mine.judged.mse == pytest.approx(fog.judged.mse, rel=1e-4)  # it is FOG
    assert entry_of(board, "qg").judged.needs_critic and not mine.judged.needs_critic
    assert board.policy == "untrained policy" and board.case == "task.py:problem untrained"
    assert board.truth_relative_stderr > 0


def test_a_mistake_in_an_own_estimator_is_one_line(here: Path) -> None:
    config = dataclasses.replace(TINY, tasks=("lq",), estimators=("fog", "mine.py:Broken"))
    line = 1 + MINE.splitlines().index("        return self.nothing")
    with pytest.raises(GradlabError, match=f"Broken failed on lq in line {line}: Attribute"):
        run_study(STUDY, config, here / "out", jobs=1)


# ----------------------------------------------------------------------------------- the ladder


def judged(name: str, mse: Interval, critic: bool = False, heavy: bool = False) -> Judged:
    none = Interval(0.0, 0.0, 0.0)
    return Judged("x", 0, True, "steps", 100, name, name, 10, 1, critic, 5, none, none, mse, none,
                  1.0, 0.0, heavy, 0, "ok")  # fmt: skip


def board_of(
    *entries: tuple[str, float, float, Interval, bool],
    p_value: float = 1e-6,
    difference: float = 1.0,
) -> Board:
    """Of name, mean rank, gain, MSE and need of a critic each, in the order of ranks."""
    made = [
        Entry(judged(name, mse, critic), np.full(8, mse.estimate), np.full(8, gain), np.zeros(8),
              (1, 1), Interval(gain, gain, gain), Interval(gain, gain, gain),
              Interval(0, 0, 0), 1.0, mse, 10)
        for name, _, gain, mse, critic in entries
    ]  # fmt: skip
    ranks = Ranking(tuple(rank for _, rank, *_ in entries), p_value, difference, 0.05)
    errors = ranking(-np.array([[mse.estimate for *_, mse, _ in entries]] * 8), 0.05)
    return Board("x", 0, True, "steps", 100, 0.05, made, ranks, errors, [], "closed form", 0.0,
                 Interval(1.0, 0.9, 1.1), "fog")  # fmt: skip


SMALL, LARGE = Interval(1.0, 0.9, 1.1), Interval(3.0, 2.9, 3.1)


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_a_tenth_less_is_as_good_and_then_the_least_error_is_taken() -> None:
    first, other = ("a", 1.0, 1.0, LARGE, False), ("c", 3.5, 0.2, LARGE, False)
    board = board_of(first, ("b", 3.0, 0.95, SMALL, False), other, difference=1.5)
    assert names(board.by_gain()) == ["a", "b"] and board.taken().name == "b"
    assert "take b" in advice(board) and "as good, as far as can be told: a;" in advice(board)
    assert "the best rank has a (1.00 [" in advice(board)
    board = board_of(first, ("b", 3.0, 0.85, SMALL, False), other, difference=1.5)
    assert names(board.by_gain()) == ["a"] and board.taken().name == "a"
    assert "the least error has b, MSE/‖∇J‖² 1.00 [0.90, 1.10] against 3.00" in advice(board)


def test_who_is_only_not_told_from_the_best_is_not_taken_for_its_error() -> None:
    board = board_of(("a", 1.0, 1.0, LARGE, False), ("b", 1.5, 0.5, SMALL, False),
                     ("c", 3.0, 0.1, SMALL, False))  # fmt: skip
    assert names(board.by_gain()) == ["a", "b"] and board.taken().name == "a"


def test_of_errors_that_overlap_the_simplest_is_taken() -> None:
    """FOG, and not the mixture of it with PG that is as good; a stranger to us comes last."""
    near, rest = Interval(1.1, 0.95, 1.2), ("c", 3.0, 0.1, SMALL, False)
    mixed, alone = ("inverse_variance", 1.0, 1.0, SMALL, False), ("fog", 1.5, 0.95, near, False)
    assert board_of(mixed, alone, rest).taken().name == "fog"
    mine = ("mine.py:Mine", 1.0, 1.0, near, False)
    assert board_of(mine, mixed, rest).taken().name == "inverse_variance"
    assert board_of(mine, ("fog", 1.5, 0.95, LARGE, False), rest).taken().name == "mine.py:Mine"


def test_of_those_as_good_the_one_without_a_critic_is_taken() -> None:
    last = ("c", 4.0, 0.1, LARGE, False)
    board = board_of(("a", 1.0, 1.0, SMALL, True), ("b", 1.8, 0.7, SMALL, False), last)
    assert board.taken().name == "b" and "without a critic" not in advice(board)
    board = board_of(("a", 1.0, 1.0, SMALL, True), ("b", 2.5, 0.4, SMALL, False), last)
    assert board.taken().name == "a" and "; without a critic b (0.40 [" in advice(board)
    assert board_of(("a", 1.0, 1.0, SMALL, True), p_value=1.0).without_critic() == []


def test_where_all_lose_the_one_that_loses_least_is_taken() -> None:
    board = board_of(("a", 1.0, -1.0, SMALL, False), ("b", 3.0, -2.0, SMALL, False))
    assert board.taken().name == "a"
    harm = list(overall([board, board]))[-1]
    assert harm == "A step lowers the true objective with a and b (x); a and b (x)."


def test_what_cannot_be_told_is_not_told() -> None:
    board = board_of(("a", 1.2, 1.0, SMALL, False), ("b", 1.8, 0.5, SMALL, False), p_value=0.2)
    assert "cannot be told at this budget" in advice(board)
    shown = line(board)
    assert shown["take"] == "cannot be told" and shown["best rank"] == "a"
    assert list(overall([board, board])) == [
        "It cannot be told at this budget: in no setting does the gain of a step tell them apart."
    ]
    even = board_of(("a", 1.0, 1.0, SMALL, False), ("b", 3.0, 0.5, SMALL, False))
    assert "the errors of gradients cannot be told apart" in advice(even)
    vague = dataclasses.replace(even, truth_relative_stderr=2.0)
    assert "errors cannot be told, as the truth is known to 200% only" in advice(vague)


def test_over_several_settings_it_is_said_where_whom_to_take() -> None:
    first = board_of(("a", 1.0, 1.0, SMALL, True), ("b", 3.0, 0.5, LARGE, False))
    both = board_of(("b", 1.1, 1.0, SMALL, False), ("a", 1.9, 0.9, SMALL, True),
                    ("c", 3.0, 0.1, LARGE, False))  # fmt: skip
    said = " ".join(overall([first, dataclasses.replace(both, task="y")]))
    assert said.startswith("Take a (x) and b (y): by what one step gains at equal cost")
    assert "Such a step gains 1.00 [1.00, 1.00] of what one along ∇J does (x) or more." in said
    assert "As good as the best in all settings, as far as can be told: with a critic a." in said


def test_an_error_that_is_unknown_decides_nothing() -> None:
    unknown = Interval(math.nan, math.nan, math.nan)
    mixed = ("inverse_variance", 1.0, 1.0, unknown, False)
    board = board_of(mixed, ("fog", 1.5, 1.0, unknown, False),
                     ("c", 4.0, 0.1, SMALL, False))  # fmt: skip
    assert board.taken().name == "fog"  # the simplest


def test_a_setting_without_a_share_is_not_the_least_of_shares() -> None:
    board = board_of(("a", 1.0, 0.9, SMALL, False), ("b", 3.0, 0.5, LARGE, False))
    unknown = Interval(math.nan, -math.inf, math.inf)
    lost = [dataclasses.replace(entry, share=unknown) for entry in board.entries]
    blind = dataclasses.replace(board, entries=lost, truth_gain=Interval(0.1, -0.1, 0.3), task="y")
    for both in ([blind, board], [board, blind]):
        said = " ".join(overall(both))
        assert "Such a step gains 0.90 [0.90, 0.90] of what one along ∇J does (x) or more." in said
    assert "Such a step" not in " ".join(overall([blind, blind]))


# ---------------------------------------------------------------------------------- the options


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    names = {artefact.name for artefact in STUDY.artefacts(config)}
    assert all(set(cell.needs) <= names for cell in STUDY.cells(config))


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"tasks": ("hoverign",)}, UnknownName, "did you mean hovering"),
        ({"tasks": ()}, BadValue, "one or more tasks"),
        ({"tasks": ("gate", "gate")}, BadValue, "gate twice"),
        ({"tasks": ("tracking",)}, BadValue, "or --stages 0"),
        ({"estimators": ("fgo",)}, UnknownName, "did you mean fog"),
        ({"estimators": ("all", "fog")}, BadValue, "all and fog"),
        ({"estimators": ()}, BadValue, "one or more estimators"),
        ({"stages": (50,)}, BadValue, "among"),
        ({"stages": (100,), "tasks": ("gate",)}, BadValue, "between 0 and 99"),
        ({"steps": ()}, BadValue, "neither"),
        ({"steps": (0,)}, BadValue, "steps must be positive"),
        ({"seconds": (-1.0,)}, BadValue, "seconds must be positive"),
        ({"repeats": 7}, BadValue, "try 8"),
        ({"repeats": 6}, BadValue, "try 8"),
        ({"episodes": 1}, BadValue, "episodes"),
        ({"lengths": (0.0, 1.0)}, BadValue, "lengths"),
        ({"truth_stderr": 0.0}, BadValue, "truth_stderr"),
        ({"truth_samples": 1000}, BadValue, "try 1024"),
        ({"level": 1.0}, BadValue, "level"),
        ({"train_width": 0.0}, BadValue, "train_width"),
        ({"learning_rate": 1.0}, BadValue, "learning_rate"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError], words: str
) -> None:
    with pytest.raises(error, match=words):
        list(STUDY.cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
