"""The critic study: a tiny run, its rows, the threshold rule at its edges, and its errors."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradlab.foundation.errors import BadValue, GradlabError, UnknownName
from gradlab.oracle import closed_forms
from gradlab.statistics import Interval
from gradlab.study import read_rows, run_study
from gradlab.study.tables import read
from studies.critic_quality import STUDY, report
from studies.critic_quality.answer import answer, cosine, place, verdict
from studies.critic_quality.cells import cells
from studies.critic_quality.config import PRESETS, Config
from studies.critic_quality.fits import fit_in, settings
from studies.critic_quality.rows import (
    HARMS,
    HELPS,
    UNSURE,
    Judged,
    Pair,
    Single,
    by_direction,
    claim,
    judged,
    threshold,
)
from studies.critic_quality.tasks import policy_of, problem_of
from tests.helpers.runs import shared

TINY = Config(
    tasks=("lq", "racing"),
    fit_episodes=200,
    fit_steps=60,
    episodes=(),
    steps=(0,),
    lambdas=(),
    units=(),
    staleness=(),
    exploration=(),
    windows=(1.0,),
    estimators=("qg",),
    samples=320,
    flight_samples=320,
    pairs=128,
    flight_pairs=64,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(
        tmp_path_factory, "critic_quality", lambda out: run_study(STUDY, TINY, out, jobs=1)
    )


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return read_rows(out)


def test_rows_of_every_critic(rows: pd.DataFrame) -> None:
    pairs, singles = read(Pair, rows, kind="pair"), read(Single, rows, kind="single")
    assert {(p.task, p.critic, p.window) for p in pairs} == {
        (task, critic, n)
        for task, critics, windows in (
            ("lq", ("default", "steps 0", "exact"), (8,)),
            ("racing", ("default", "steps 0"), (48,)),
        )
        for critic in critics
        for n in windows
    }
    counts = pd.Series([row.estimator for row in singles]).value_counts()
    assert counts.to_dict() == {"nstep": 5, "abpt": 5, "qg": 5}


def test_the_exact_critic_is_exact(rows: pd.DataFrame) -> None:
    exact = [p for p in read(Pair, rows, kind="pair") if p.factor == "exact"]
    for pair in exact:
        assert math.isclose(pair.cosine_of_critic.estimate, 1.0, abs_tol=1e-9)
        assert math.isclose(pair.length_of_critic.estimate, 1.0, abs_tol=1e-9)


def test_without_a_critic_to_read_nstep_is_the_same_for_all(rows: pd.DataFrame) -> None:
    """Over the whole episode N-step is FOG, on episodes that all critics share."""
    whole = rows[(rows["kind"] == "single") & (rows["estimator"] == "nstep")]
    for task, window in (("lq", 8), ("racing", 48)):
        mine = whole.loc[(whole["task"] == task) & (whole["window"] == window), "squared_bias"]
        assert len(mine) > 1 and len(set(mine.tolist())) == 1


def test_answer_report_and_figure(rows: pd.DataFrame, out: Path) -> None:
    said = answer(rows)
    assert said.answer.startswith('"An under-fitted critic makes the 0-step return harmful" ')
    assert len(said.table) == 2 and len(str(said).splitlines()) <= 40
    assert "2.2 racing, window 48" in report.summarise(rows)
    assert (out / "figure.png").exists()


def test_a_stale_policy_is_on_the_line() -> None:
    now, half, older = (policy_of("lq", {}, share) for share in (0.0, 0.5, 1.0))
    assert all(torch.equal(now[n], p) for n, p in problem_of("lq").reference.items())
    assert not older["layers.0.weight"].any() and not older["layers.0.bias"].any()
    assert all(torch.equal(older[n], now[n]) for n in ("log_std",))
    torch.testing.assert_close(half["layers.0.weight"], 0.5 * now["layers.0.weight"])


def test_the_gate_has_an_exact_critic() -> None:
    """Its process noise smooths Q in the action, so that the critic sees the whole gradient."""
    problem = problem_of("gate")
    solved = closed_forms.solve(problem, problem.reference)
    for name, rows_ in solved.per_call.items():
        torch.testing.assert_close(solved.seen_by_q[name], rows_)


def test_settings_move_one_factor_at_a_time() -> None:
    every = list(settings(Config()))
    default = every[0]
    for one in every[1:]:
        changed = {
            f.name
            for f in dataclasses.fields(default.fit)
            if getattr(one.fit, f.name) != getattr(default.fit, f.name)
        }
        assert changed <= {"method", "lam"} or len(changed) == 1
        assert bool(changed) != bool(one.staleness)
    assert len({one.name for one in every}) == len(every)
    assert all(fit_in(one.payload()) == one.fit for one in every)
    seeds = list(settings(Config(fits=2)))
    assert len({one.name for one in seeds}) == len(seeds) == 2 * len(every)


# the rule


def made(cosine: float, effect: float, reach: float = 0.01, window: int = 2) -> Judged:
    """A critic at a cosine, whose 0-step term has this effect; 0: not told apart."""
    about = Interval(cosine, cosine - reach, cosine + reach)
    pair = Pair(
        "lq", "steps", f"{cosine}", about, Interval(1, 1, 1), 9, window, 8,
        Interval(effect, effect - 0.1, effect + 0.1), 0.0,
    )  # fmt: skip
    one = Interval(0.5, 0.4, 0.6)
    return Judged(pair, 1.0 if effect == 0 else 1e-4, one, one)


def test_verdicts() -> None:
    assert made(0.5, -1.0).bias == HELPS and made(0.5, 1.0).bias == HARMS
    assert made(0.5, 0.0).bias == UNSURE
    assert dataclasses.replace(made(0.5, -1.0), corrected=0.051).bias == UNSURE
    assert dataclasses.replace(made(0.5, -1.0), corrected=math.nan).bias == UNSURE


def test_a_direction_needs_intervals_apart() -> None:
    one = made(0.5, 1.0)
    assert one.direction == UNSURE
    closer = dataclasses.replace(one, abpt=Interval(0.7, 0.61, 0.8))
    assert closer.direction == HELPS and closer.bias == HARMS
    assert dataclasses.replace(one, abpt=Interval(0.3, 0.2, 0.39)).direction == HARMS
    assert threshold([closer]).kind == "harms"
    assert threshold([closer], by_direction).kind == "helps"


def test_a_threshold_lies_between_harm_and_help() -> None:
    case = [made(0.1, 1.0), made(0.3, 1.0), made(0.4, 0.0), made(0.5, -1.0), made(0.9, -2.0)]
    edge = threshold(case)
    assert edge.kind == "from" and edge.total == 5
    assert edge.at == pytest.approx((0.4, 0.29, 0.51))
    turned = threshold([dataclasses.replace(one, pair=dataclasses.replace(
        one.pair, relative_difference=Interval(-one.pair.relative_difference.estimate, 0, 0)))
        for one in case])  # fmt: skip
    assert turned.kind == "to" and turned.at == pytest.approx((0.4, 0.29, 0.51))


def test_what_has_no_threshold() -> None:
    assert threshold([made(0.1, 0.0)]).kind == "unknown"
    assert threshold([made(0.1, -1.0), made(0.9, -1.0)]).kind == "helps"
    harms = threshold([made(0.1, 1.0), made(0.9, 1.0)])
    assert harms.kind == "harms" and harms.at == pytest.approx((0.5, 0.1, 0.9))
    # harm surely on both sides of help
    assert threshold([made(0.1, 1.0), made(0.5, -1.0), made(0.9, 1.0)]).kind == "mixed"
    # intervals that allow both orders: the estimates decide, if they are in one
    wide = [made(0.4, 1.0, 0.2), made(0.5, -1.0, 0.2)]
    assert threshold(wide).kind == "from"
    assert threshold([*wide, made(0.45, -1.0, 0.2), made(0.48, 1.0, 0.2)]).kind == "mixed"
    # the interval of one decides where the estimates of two are swapped
    assert threshold([made(0.1, 1.0), made(0.52, 1.0, 0.1), made(0.5, -1.0, 0.1)]).kind == "from"


def test_the_claim_about_under_fitted_critics() -> None:
    """Only critics whose whole interval is below 0.5 count."""
    good = [made(0.9, -1.0), made(0.495, 1.0)]
    assert claim(good) == "cannot be told at this budget"
    assert claim([*good, made(0.1, 1.0)]) == "holds"
    assert claim([*good, made(0.1, -1.0)]) == "does not hold"
    assert claim([made(0.1, -1.0), made(0.2, 1.0)]) == "depends on the task and the window"


def test_the_first_sentence_has_the_largest_effects_with_their_intervals() -> None:
    said = '"An under-fitted critic makes the 0-step return harmful" '
    told = [made(0.1, 1.0), made(0.2, 3.0, window=4), made(0.3, -2.0), made(0.2, 0.0)]
    assert verdict([made(0.9, 1.0), *told]) == (
        said + "depends on the task and the window: with a cosine below 0.5 the 0-step term "
        "raises the squared bias by up to 3.00 [2.90, 3.10] ‖∇J‖² (lq, n = 4 of 8), 2 times and "
        "lowers the squared bias by up to 2.00 [1.90, 2.10] ‖∇J‖² (lq, n = 2 of 8), 1 times in 4 "
        "comparisons."
    )
    assert verdict([made(0.1, 0.0)]) == (
        said + "cannot be told at this budget: with a cosine below 0.5 nothing is told in 1 "
        "comparisons."
    )


def test_p_values_are_corrected_over_the_table(rows: pd.DataFrame) -> None:
    found = judged(rows)
    assert all(one.corrected >= one.pair.p_value or math.isnan(one.corrected) for one in found)
    least = min(found, key=lambda one: one.pair.p_value)
    assert math.isclose(least.corrected, min(1.0, len(found) * least.pair.p_value))


def test_cosines_near_1_have_more_digits() -> None:
    assert [place(x) for x in (-0.25, 0.5, 0.95, 0.9987)] == ["−0.25", "0.50", "0.950", "0.9987"]
    assert cosine(Interval(0.5, 0.4, 0.95)) == "0.50 [0.40, 0.950]"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_asked_for(preset: str) -> None:
    config, _ = STUDY.preset(preset)
    assert list(STUDY.cells(config)) and list(STUDY.artefacts(config))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"tasks": ("lp",)}, UnknownName),
        ({"tasks": ()}, BadValue),
        ({"tasks": ("heaviside",)}, UnknownName),
        ({"tasks": ("tracking",)}, BadValue),  # no event to train a policy for
        ({"stage": -1, "tasks": ("ant",)}, BadValue),
        ({"truth_samples": 1000}, BadValue),
        ({"learning_rate": 1.0}, BadValue),
        ({"steps": (10, 10)}, BadValue),
        ({"steps": (-1,)}, BadValue),
        ({"steps": (1000,)}, BadValue),
        ({"lambdas": (1.5,)}, BadValue),
        ({"units": (0,)}, BadValue),
        ({"staleness": (0.0,)}, BadValue),
        ({"windows": (0.0,)}, BadValue),
        ({"estimators": ("nstep",)}, BadValue),
        ({"estimators": ("qgg",)}, UnknownName),
        ({"samples": 100}, BadValue),
        ({"flight_samples": 64}, BadValue),
        ({"pairs": 10}, BadValue),
        ({"fits": 0}, BadValue),
    ],
)
def test_what_cannot_be_done_is_refused(
    changes: dict[str, object], error: type[GradlabError]
) -> None:
    with pytest.raises(error):
        list(cells(Config(**changes)))  # pyright: ignore[reportArgumentType]
