"""What is said of a gradient is so: against closed forms, and with powers that are seen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.problems.critic import View
from gradlab.statistics import Interval
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe
from gradlab.training.healthy import HEALTHY, Range, findings
from gradlab.training.loop import init, update
from gradlab.training.quality import (
    UpdateQuality,
    Yardstick,
    mean_weights,
    update_quality,
)
from gradlab.training.redraws import mean_over_actions, objective_of
from tests.helpers.known import build

QUICK = CriticRecipe(hidden=(8,), passes=2, minibatches=2)
SMALL = Yardstick(E.Split(), gradients=8, truth=16, steps=0, pairs=64)


def measured(estimator: E.Estimator, name: str = "lq", **options: Any) -> UpdateQuality:
    """On a known problem, with segments without a critic."""
    problem, _ = build(name)
    yardstick = replace(SMALL, **options.pop("yardstick", {}))
    kind = {"critic": None, "tail": "none", "episodes": 16, "length": problem.horizon, **options}
    algorithm = Algorithm(estimator, **kind)
    return update_quality(problem, algorithm, init(problem, algorithm), yardstick)


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def test_an_unbiased_gradient_is_seen_to_be() -> None:
    found = measured(E.FOG()).segment
    assert found.bias.low == 0 and found.bias.high < 1
    assert found.cosine.high == 1.0 and found.cosine.low > 0.7
    assert found.truth_error < 0.3


def test_a_multiple_has_its_bias_and_its_direction() -> None:
    """2 ĝ is off by g, and ½ ĝ by ½ g: relative biases 1 and ½, all with a cosine of 1."""
    for factor in (2.0, 0.5):
        found = measured(factor * E.FOG(), yardstick={"truth": 32}).segment
        assert holds(found.bias, abs(factor - 1)) and found.bias.low > 0
        assert holds(found.cosine, 1.0)
    assert holds(measured(-1.0 * E.FOG()).segment.cosine, -1.0)


def test_mse_is_bias_and_noise() -> None:
    found = measured(2.0 * E.FOG()).segment
    together = max(found.bias.estimate, 0) ** 2 + found.noise.estimate**2
    assert math.isclose(found.mse.estimate, together, rel_tol=1e-9)


def test_noise_is_that_of_an_update() -> None:
    """Four times the episodes halve it, whatever the number of gradients that say so."""
    many = {"gradients": 64, "truth": 64}
    few = measured(E.PG(), episodes=4, yardstick=many).segment.noise.estimate
    more = measured(E.PG(), episodes=64, yardstick=many).segment.noise.estimate
    assert 2.0 < few / more < 8.0  # 4, if starts did not differ


def test_a_jump_is_seen_with_its_bias() -> None:
    step = measured(E.FOG(), "heaviside", yardstick={"pairs": 512})
    assert step.jump is not None and step.jump.p_value < 1e-6
    assert math.isclose(step.segment.bias.estimate, 1.0, abs_tol=1e-6)  # FOG of a step is 0
    smooth = measured(E.FOG())
    assert smooth.jump is not None and smooth.jump.p_value > 1e-4
    out = {one.name for one in findings(step.columns()) if one.out}
    assert "jump p" in out


def test_the_whole_of_a_whole_segment_is_the_segment() -> None:
    """As many steps without a critic as the segment has: the same truth, from other noise."""
    found = measured(E.FOG(), yardstick={"steps": 1, "whole": 16})
    assert found.whole is not None
    assert found.whole.bias.low == 0 and found.whole.cosine.high == 1.0
    assert found.whole.bias != found.segment.bias


def test_what_comes_after_a_short_segment_is_bias_of_the_whole_alone() -> None:
    found = measured(E.FOG(), length=1, yardstick={"steps": 8, "whole": 32})
    assert found.segment.bias.low == 0
    assert found.whole is not None and found.whole.bias.low > 0.1


def flight(kind: str, estimator: E.Estimator) -> tuple[gradlab.Problem, Algorithm]:
    policy = gradlab.GaussianPolicy(hidden=(8,), std="global", normalise=True)
    problem = gradlab.make("racing", horizon=16, policy=policy)
    recipe = replace(QUICK, kind=kind)
    tail = "v" if kind == "v" else "own"
    return problem, Algorithm(estimator, recipe, tail=tail, episodes=8, length=4, updates=4)


CASES = {
    "shac": ("v", E.FOG()),
    "ivw": ("v", E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), source=E.Same(8))),
    "abpt": ("q", E.ABPT(4)),
    "agpo": ("q", E.AGPO(4, source=E.Same(8))),
}


@pytest.mark.parametrize("name", CASES)
def test_measuring_changes_no_bit(name: str) -> None:
    """Neither of the state, nor of what the training goes on to, nor of torch's generator."""
    problem, algorithm = flight(*CASES[name])
    state = init(problem, algorithm)
    state, _ = update(problem, algorithm, state)
    plain, _ = update(problem, algorithm, state)
    before = torch.get_rng_state()
    kept = {key: value.clone() for key, value in state.params.items()}
    yardstick = replace(SMALL, steps=6, whole=5, gradients=5, truth=5, pairs=8, action_pairs=8)
    found = update_quality(problem, algorithm, state, yardstick)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(kept[key], value) for key, value in state.params.items())
    after, _ = update(problem, algorithm, state)
    for key, value in plain.params.items():
        assert torch.equal(after.params[key], value)
    again = update_quality(problem, algorithm, state, yardstick)
    assert str(again.columns()) == str(found.columns())
    assert found.whole is not None and found.critic is not None
    assert (found.action is not None) == (algorithm.tail == "own")
    assert bool(found.weights) == (name in ("ivw", "agpo"))
    # 8 episodes: 5 gradients and 5 truths of 4 steps (5 with a tail of its own), 8 pairs, 5 of 6
    # steps, 2 of 6 for the critic, and 8 pairs of 6 for ∇_a Q
    own, for_q = (5, 2 * 8 * 6) if algorithm.tail == "own" else (4, 0)
    assert found.simulated == 8 * (5 * own + 5 * 4) + 2 * 8 * 4 + 8 * 5 * 6 + 2 * 8 * 6 + for_q
    if name == "ivw":
        assert math.isclose(sum(found.weights.values()), 1.0, abs_tol=1e-5)


def test_own_tail_has_the_mean_q_at_its_end() -> None:
    problem, algorithm = flight(*CASES["abpt"])
    state = init(problem, algorithm)
    objective = objective_of(problem, algorithm, state)
    assert objective.horizon == algorithm.length and objective.segment is not None
    assert objective.segment.bootstrap and objective.critic is not None
    assert objective.critic.v is not None


def test_mean_over_actions_is_exact_for_cubics() -> None:
    """Of μ + σ ε: E[u³] = μ³ + 3 μ σ² and E[u²] = μ² + σ², coordinate by coordinate."""
    policy = gradlab.GaussianPolicy(3, 2, hidden=(4,), std=0.5, squash=False)
    params = policy.init(torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = policy.bind(params)
    obs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    view = View(obs, obs, obs[:, :0], obs[:, 0])

    def q(_: View, u: Tensor) -> Tensor:
        return u[..., 0] ** 3 + u[..., 0] * u[..., 1] + u[..., 1] ** 2 + 1.0

    mean = bound(obs)[:, :2]
    a, b = mean[:, 0], mean[:, 1]
    expected = a**3 + 3 * a * 0.25 + a * b + b**2 + 0.25 + 1.0
    torch.testing.assert_close(mean_over_actions(q, bound, view), expected)


def test_mean_weights_of_every_kind() -> None:
    found = mean_weights(torch.tensor([[0.25], [0.75]]))
    assert found == {"": 0.5}


def test_ranges_judge_by_whole_intervals() -> None:
    some = Range("it", 0.5, 1.0, "why")
    assert some.misses(Interval(0.3, 0.2, 0.4)) and not some.misses(Interval(0.4, 0.3, 0.5))
    assert some.holds(Interval(0.6, 0.5, 1.0)) and not some.holds(Interval(0.6, 0.4, 1.0))
    row = {"cosine": 0.6, "cosine_low": 0.5, "cosine_high": 0.8, "clipped": 0.9, "snr": math.nan}
    said = {one.name: one.verdict for one in findings(row)}
    assert said == {"cosine": "open", "clipped": "OUT"}
    assert all(healthy.reason for healthy in HEALTHY.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unbiased": E.PG(baseline="loo")}, "every episode by itself"),
        ({"unbiased": E.FOG}, "should be an estimator"),
        ({"gradients": 3}, "gradients"),
        ({"pairs": 2}, "pairs"),
    ],
)
def test_a_yardstick_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        replace(SMALL, **options)
