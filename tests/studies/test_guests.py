"""Estimators and tasks of users in studies: blamed by name, measured apart, trained or new."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

import estimators
import gradlab
from gradlab.critics.fitted import Fit
from gradlab.foundation.errors import BadValue, GradlabError
from gradlab.gradients.sampling import block_generator
from gradlab.study import run_study
from studies import critic_quality, horizon
from studies.critic_quality.config import Config as CriticConfig
from studies.horizon import tasks as problems
from studies.horizon.config import Config as HorizonConfig
from studies.shared import tasks
from studies.shared.guests import blamed, is_guest, measured

FILE = """
from dataclasses import dataclass

import torch

import estimators
import gradlab
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout


def problem():
    return gradlab.make("hovering", horizon=3)


@dataclass(frozen=True)
class Mine(estimators.SurrogateEstimator):
    window: int = 1

    def surrogate(self, problem, policy, noise):
        return evaluate(problem, rollout(problem, policy, noise)).value.sum(-1)

    def call_weights(self, problem):
        return torch.ones(problem.horizon)


class Losing(Mine):
    def surrogate(self, problem, policy, noise):
        lost = noise.action[:, 0, 0] > 1
        value = Mine.surrogate(self, problem, policy, noise)
        return value * torch.where(lost, torch.nan, 1.0)


class Broken(Mine):
    def surrogate(self, problem, policy, noise):
        return Mine.surrogate(self, problem, policy, noise) * float("nan")


class Raising(Mine):
    def surrogate(self, problem, policy, noise):
        return self.nothing
"""
RAISING = 1 + FILE.splitlines().index("        return self.nothing")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lq():
    problem = gradlab.make("lq", dtype=torch.float64)
    return problem, problem.reference


def test_who_is_a_guest() -> None:
    assert is_guest("my_file.py:Mine") and is_guest("package.module:Mine") and not is_guest("fog")


def test_a_mistake_is_blamed_on_a_guest_alone(here: Path) -> None:
    problem, params = lq()
    raising = estimators.make("mine.py:Raising")
    words = f"mine.py:Raising failed on lq in line {RAISING}: AttributeError: .*; mend it"
    with pytest.raises(GradlabError, match=words), blamed("mine.py:Raising", "lq"):
        raising(problem, params, problem.draw(2, block_generator(0, 0)))
    with pytest.raises(ZeroDivisionError), blamed("fog", "lq"):
        raise ZeroDivisionError
    with pytest.raises(BadValue, match="as it is"), blamed("mine.py:Mine", "lq"):
        raise BadValue("as it is")


def test_what_a_guest_loses_is_not_lost_to_the_others(here: Path) -> None:
    """FOG beside an estimator that loses a sixth of the episodes is FOG alone, bit for bit."""
    problem, params = lq()
    run = problem, params, 128, 3
    alone = measured({"fog": estimators.FOG()}, *run, chunk_size=64)
    losing = estimators.make("mine.py:Losing")
    both = measured({"mine.py:Losing": losing, "fog": estimators.FOG()}, *run, chunk_size=64)
    assert both["fog"].count == 128 and both["mine.py:Losing"].count < 128
    assert all(torch.equal(both["fog"].mean[n], mean) for n, mean in alone["fog"].mean.items())


def test_a_guest_without_a_finite_sample_is_named(here: Path) -> None:
    problem, params = lq()
    with pytest.raises(GradlabError, match="mine.py:Broken: 64 of 64 samples are not finite on lq"):
        measured(
            {"mine.py:Broken": estimators.make("mine.py:Broken")}, problem, params, 64, 3,
            chunk_size=64,
        )  # fmt: skip


def test_a_policy_without_training_and_one_to_be_stale_towards(here: Path) -> None:
    task = "mine.py:problem"
    new, other = tasks.policy_of(task, 0, {}), tasks.older_policy(task, 0)
    older = tasks.older_policy(task, 60)  # a trained one is stale towards the one without training
    assert all(torch.equal(older[name], value) for name, value in new.items())
    assert not torch.equal(other["layers.0.weight"], new["layers.0.weight"])


def test_a_task_without_an_event_needs_stage_0(here: Path) -> None:
    with pytest.raises(BadValue, match="none with a bonus.* or --stage 0 for a policy without"):
        tasks.check_stage("mine.py:problem", 60)
    tasks.check_stage("mine.py:problem", 0)
    for stage in (-1, 100):
        with pytest.raises(BadValue, match="stage must be between 0 and 99"):
            tasks.check_stage("mine.py:problem", stage)


OWN = {"tasks": ("mine.py:problem",), "stage": 0, "flight_samples": 320, "truth_samples": 1024}


def test_critics_of_ones_own_task(here: Path) -> None:
    config = CriticConfig(
        **OWN, fit_episodes=64, fit_steps=2, episodes=(), steps=(), lambdas=(), units=(),
        staleness=(1.0,), exploration=(), windows=(1.0,), estimators=("mine.py:Mine",),
        flight_pairs=64,
    )  # fmt: skip
    rows = run_study(critic_quality.STUDY, config, here / "out", jobs=1).rows
    assert set(rows["task"]) == {"mine.py:problem"} and set(rows["factor"]) == {
        "default",
        "staleness",
    }
    _is_fog(rows)  # over the whole episode N-step is FOG
    assert (rows.loc[rows["kind"] == "single", "truth_relative_stderr"] > 0).all()


def test_windows_on_ones_own_task(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "FULL", Fit(steps=2, episodes=64))
    config = HorizonConfig(
        **OWN, windows=(3,), estimators=("nstep", "mine.py:Mine"), samples=320, pilot=64, judged=16
    )
    rows = run_study(horizon.STUDY, config, here / "out", jobs=1).rows
    _is_fog(rows)
    assert set(rows["critic"]) == {"fitted"}


def _is_fog(rows: pd.DataFrame) -> None:
    singles = rows[rows["kind"] == "single"]
    mine, nstep = (
        singles.loc[singles["estimator"] == name, "variance"].tolist()
        for name in ("mine.py:Mine", "nstep")
    )
    assert mine and mine == pytest.approx(nstep, rel=1e-4)
