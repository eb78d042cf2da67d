"""Advice in error messages that contains code: the code is taken from the message and run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import estimators as E
import gradlab
from gradlab.critics import fitting
from gradlab.critics.fitted import Fit
from gradlab.foundation.errors import GradlabError
from tests.helpers.toy import toy_problem

SHORT = Fit(steps=2, episodes=16, held_out=4)


def message(attempt) -> str:
    with pytest.raises(GradlabError) as caught:
        attempt()
    return str(caught.value)


@pytest.mark.parametrize(
    "estimator",
    [E.QG(), E.NStep(2), E.PG(baseline="v"), E.NStep(2, tail="v"), E.ABPT(2), E.PG(returns="gae")],
    ids=["qg", "nstep", "pg-v", "nstep-v", "abpt", "gae"],
)
def test_a_missing_critic_is_had_by_the_code_in_the_message(estimator, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "Fit", lambda: SHORT)
    problem = toy_problem().replace(critic=None)
    generator = torch.Generator().manual_seed(0)
    params = problem.init(generator)
    noise = problem.draw(4, generator)
    text = message(lambda: estimator(problem, params, noise))
    found = re.search(r"fit one with (fitted = .*\)) and bind it with (problem = .*\))$", text)
    assert found, text
    names = {"problem": problem, "params": params, "gradlab": gradlab}
    for code in found.groups():
        exec(code, names)  # noqa: S102  (that it runs is what is tested)
    assert len(estimator(names["problem"], params, noise)) == 4


def test_parameters_and_noise_are_had_by_the_code_in_the_message() -> None:
    problem = gradlab.make("lq", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    single = problem.policy.init(generator)
    noise = problem.draw(4, generator)
    names = {"problem": problem, "policy": problem.policy, "generator": generator, "N": 4,
             "torch": torch}  # fmt: skip
    text = message(lambda: E.FOG()(problem, single, noise))
    params = eval(text.rpartition("try ")[2], names)
    assert len(E.FOG()(problem, params, noise)) == 4
    text = message(lambda: E.FOG()(problem, params, gradlab.make("lq").draw(4, generator)._replace(
        initial=noise.initial[:, :1])))  # fmt: skip
    again = eval(text.rpartition("draw it with ")[2], names)
    assert len(E.FOG()(problem, params, again)) == 4
    device = message(lambda: E.FOG()(problem, {n: p.to("meta") for n, p in params.items()}, noise))
    moved = eval(device.rpartition("try ")[2], names)
    assert len(E.FOG()(problem, moved, noise)) == 4


def test_no_message_leaves_a_gap_to_fill() -> None:
    """`replace(critic=...)` is not code that runs."""
    for folder in ("gradlab", "estimators"):
        for path in Path(folder).rglob("*.py"):
            for text in re.findall(
                r'"[^"\n]*\b(?:try|use|call) [^"\n]*\(\w*=\.\.\.\)[^"\n]*"', path.read_text()
            ):
                assert "seed=" in text or "reset" in text, f"{path}: {text}"
