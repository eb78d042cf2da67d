"""What a new user gets wrong first: one line with what was expected, what came, what to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import estimators as E
import gradlab
from gradlab.foundation.errors import GradlabError
from gradlab.rollouts.rollout import rollout
from tests.helpers import checking
from tests.helpers.toy import toy_params, toy_problem


class Listed(E.FOG):
    def call_weights(self, problem: Any) -> Any:
        return [1.0] * problem.horizon


class Unfinished(E.SurrogateEstimator):
    def surrogate(self, problem: Any, policy: Any, noise: Any) -> Any:
        return noise.action.sum((-1, -2))


P = toy_problem()
W = toy_params(P)
N = P.draw(8, torch.Generator().manual_seed(0))

MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "a class for an estimator": (
        lambda: gradlab.measure(E.FOG, P, W, 8, 0),
        r"got the class FOG; try FOG\(\)",
    ),
    "a class in a list": (
        lambda: gradlab.measure([E.FOG(), E.PG], P, W, 8, 0),
        r"got the class PG; try PG\(\)",
    ),
    "no seed": (lambda: gradlab.measure(E.FOG(), P, W, 8, None), "seed should be a whole number"),
    "half a seed": (lambda: gradlab.measure(E.FOG(), P, W, 8, 1.5), "seed should be a whole"),
    "a negative seed": (lambda: gradlab.measure(E.FOG(), P, W, 8, -3), "seed should be a whole"),
    "parameters for a policy": (lambda: rollout(P, W, N), r"got dict; try problem.bind\(params\)"),
    "windows of nothing": (
        lambda: rollout(P, P.bind(W), N, cut_every=0),
        "cut_every should be a whole number of at least 1, got 0",
    ),
    "no truth": (
        lambda: gradlab.testing.assert_unbiased(E.FOG(), P, W, None),
        "the truth should be an OracleGradient, got None",
    ),
    "call weights as a list": (lambda: Listed()(P, W, N), "call_weights should be a tensor"),
    "a width in quotes": (lambda: E.Split("0.1")(P, W, N), "width should be one number, got '0.1'"),
    "a precision in quotes": (
        lambda: gradlab.oracle.LargeSample(E.FOG(), "a")(P, W),
        "until_relative_stderr should be one number, got 'a'",
    ),
    "a file without a name": (
        lambda: E.make("mine.py"),
        "which name of the file is meant, mine.py:",
    ),
    "an unfinished class": (
        lambda: E.make(f"{__name__}:Unfinished"),
        "Unfinished lacks call_weights; write that",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_says_what_to_try(name: str) -> None:
    action, match = MISTAKES[name]
    with checking.off(), pytest.raises(GradlabError, match=match) as caught:
        action()
    assert "\n" not in str(caught.value)
