"""`detect_jump` and `assert_continuous` on the project's problems."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import gradlab
import studies.bias_vs_relaxation
from gradlab.foundation import checkpoints
from gradlab.foundation.errors import BadValue
from gradlab.gradients.sampling import block_generator, noise_stream
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, values_by_term
from gradlab.rollouts.rollout import rollout
from gradlab.statistics import Interval
from gradlab.statistics.jumps import jump, pairs_of
from gradlab.testing import CannotTell, Discontinuous, assert_continuous, detect_jump
from gradlab.testing.jumps import _other, _stream, _values_and_gradients
from studies.shared.stages import problem_of, read_policy
from tests.helpers import checking
from tests.helpers.toy import toy_params, toy_problem

Params = dict[str, torch.Tensor]
POLICIES = Path(studies.bias_vs_relaxation.__file__).parent / "artefacts" / "policies"


def known(name: str) -> tuple[Problem, Params]:
    problem = gradlab.make(name, dtype=torch.float64)
    return problem, problem.reference


@pytest.mark.parametrize("name", ["heaviside", "ball_with_wall", "momentum_transfer"])
def test_jumps_are_found(name: str) -> None:
    report = detect_jump(*known(name), count=400, level=1e-4)
    assert report["return"].share.low > 0
    assert [one.name for one in report.found] == ["return"]
    with pytest.raises(Discontinuous, match="RelaxedFOG|relax"):
        assert_continuous(*known(name), count=1024)


@pytest.mark.parametrize("name", ["quadratic", "lq"])
def test_what_is_smooth_stays_silent(name: str) -> None:
    problem, params = known(name)
    report = assert_continuous(problem, params, count=2048, detect=0.2)
    assert not report.found
    assert report["return"].share.high < 0.2


def test_relaxed_events_are_no_jumps() -> None:
    problem, params = known("gate")
    assert detect_jump(problem, params, count=1000, level=1e-3).found
    assert not detect_jump(problem.relaxed(0.5), params, count=1000, level=1e-3).found


def test_terms_tell_the_event_from_what_is_smooth() -> None:
    problem, params = known("gate")
    report = detect_jump(problem, params, of="terms", count=1000, level=1e-3)
    assert report.names == ("state", "action", "events")
    assert [one.name for one in report.found] == ["events"]


def test_steps_tell_when_the_event_pays() -> None:
    problem, params = known("terminal_gate")
    report = detect_jump(problem, params, of="steps", count=500, level=1e-3)
    assert report.names == ("step 0", "step 1", "step 2", "step 3")
    assert [one.name for one in report.found] == ["step 3"]
    assert report["step 0"].p_value == 1


def test_one_step_drawn_anew_hides_less() -> None:
    """Of three steps drawn anew, less of the jump is hidden by curvature."""
    problem = gradlab.make("gate", horizon=12, dtype=torch.float64)
    whole = detect_jump(problem, problem.reference, count=6000)["return"]
    single = detect_jump(problem, problem.reference, count=6000, redraw=3)["return"]
    assert single.share.low > whole.share.high


def test_terms_add_up_to_the_value() -> None:
    for switching in (False, True):
        problem = toy_problem(switching=switching)
        params = toy_params(problem)
        noise = problem.draw(6, torch.Generator().manual_seed(0))
        path = rollout(problem, problem.bind(params), noise)
        result = evaluate(problem, path)
        parts = values_by_term(problem, path, result)
        assert list(parts) == ["angle", "effort", "events"]
        torch.testing.assert_close(sum(parts.values()), result.value, rtol=1e-12, atol=1e-14)
        earned = {n: v for n, v in parts.items() if n != "events"}
        alive = result.alive[:, :-1] * result.discount[:-1]
        expected = alive * torch.where(alive == 0, 0.0, result.dense)
        torch.testing.assert_close(sum(earned.values()), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("redraw", [None, 3])
def test_pairs_share_all_but_the_noise_that_is_drawn_anew(redraw: int | None) -> None:
    """The obvious twin: one pair at a time, gradients by central differences of the return."""
    problem = toy_problem(with_events=False)
    params = toy_params(problem)
    ((_, (found,)),) = _stream(problem, params, "return", 0, 8, 4, redraw)
    halves = [
        _stream(problem, params, "return", begin, end, 4, redraw)
        for begin, end in ((0, 8), (8, 16))
    ]
    together = [pairs for (_, (pairs,)) in _stream(problem, params, "return", 0, 16, 4, redraw)]
    apart = [pairs for half in halves for (_, (pairs,)) in half]
    torch.testing.assert_close(
        torch.cat([p.statistic for p in apart]), torch.cat([p.statistic for p in together])
    )
    assert (found.statistic < found.squared).all() and (found.squared > 0).all()
    flat = pairs_of(torch.zeros(2, 8), torch.zeros(2, 8, 1))
    assert not flat.statistic.any()


def test_it_refuses_to_answer_where_samples_cannot_tell() -> None:
    problem, params = known("lq")
    with pytest.raises(CannotTell, match="raise max_count to about"):
        assert_continuous(problem, params, count=16, max_count=32, detect=0.01)


def test_options_are_checked() -> None:
    problem, params = known("heaviside")
    for match, options in {
        "redraw should be": {"redraw": 2},
        "count": {"count": 3},
    }.items():
        with pytest.raises(BadValue, match=match):
            detect_jump(problem, params, **options)
    with pytest.raises(BadValue, match="false_alarm"):
        assert_continuous(problem, params, false_alarm=0.0)
    with checking.off(), pytest.raises(BadValue, match="of should be"):
        detect_jump(problem, params, of="everything")


def repeated(problem: Problem, params: Params, repeats: int, pairs: int, seed: int) -> np.ndarray:
    """One-sided p-values of many tests of `pairs` pairs each."""
    count = repeats * pairs
    chunks = [
        seen.statistic for _, (seen,) in _stream(problem, params, "return", 0, count, seed, None)
    ]
    d = torch.cat(chunks).view(repeats, pairs).numpy()
    spread = d.std(1, ddof=1) / math.sqrt(pairs)
    return stats.t.sf(d.mean(1) / np.where(spread > 0, spread, np.inf), pairs - 1)


@pytest.mark.parametrize("name", ["lq", pytest.param("hovering", marks=pytest.mark.slow)])
def test_size_on_smooth_problems(name: str) -> None:
    """2,000 tests of 32 pairs: false alarms at most the level and 3.5 of their own errors."""
    if name == "lq":
        problem, params = known("lq")
    else:
        problem = gradlab.make("hovering", horizon=16).relaxed(0.3)
        params = problem.init(torch.Generator().manual_seed(0))
    found = repeated(problem, params, 2000, 32, 7)
    for level in (0.05, 0.01):
        assert (found < level).mean() <= level + 3.5 * math.sqrt(level * (1 - level) / 2000)


@pytest.mark.slow
def test_power_on_hard_racing() -> None:
    """64 pairs find the gate (policy of stage 60) in at least 95 % of 200 tests at level 1 %."""
    problem = problem_of("racing")
    params = read_policy(checkpoints.load(POLICIES / "racing.safetensors"), 60)
    found = repeated(problem, params, 200, 64, 8)
    assert (found < 0.01).mean() >= 0.95


# ------------------------------------------------------------------ contact that begins with a jump


def hopper(contact: str, horizon: int, dtype: torch.dtype) -> tuple[Problem, Params]:
    problem = gradlab.make(
        "hopper", preset="dflex", contact=contact, horizon=horizon, hidden=(32, 32), dtype=dtype
    )
    return problem, problem.init(block_generator(0, -1))


def largest_step(contact: str, rounds: int) -> list[float]:
    """The return along the line between two episodes' noise, at 65 places: its largest change
    between neighbours, and that within this interval at 65 places anew, and so on.
    """
    problem, params = hopper(contact, 4, torch.float64)
    noise = problem.draw(2, torch.Generator().manual_seed(1))
    first, second = noise.action.unbind(0)
    low, high, found = 0.0, 1.0, []
    for _ in range(rounds):
        place = torch.linspace(low, high, 65, dtype=torch.float64)[:, None, None]
        start = noise.rows(0, 1)
        line = type(noise)(*(part.expand(65, *part.shape[1:]) for part in start))
        line = line._replace(action=first + place * (second - first))
        with torch.no_grad():
            path = rollout(problem, problem.bind(params), line)
            step = evaluate(problem, path).value.sum(-1).diff().abs()
        found.append(float(step.max()))
        where = int(step.argmax())
        low, high = float(place[where]), float(place[where + 1])
    return found


@pytest.mark.parametrize("contact, jumps", [("convex", True), ("smoothed", False)])
def test_what_is_called_a_jump_of_the_hopper_is_one(contact: str, jumps: bool) -> None:
    """From intervals of 4e-6 of the line to those of 6e-8 what is steep changes 64 times less, and
    a jump does not: force begins at once where MuJoCo's law meets a contact or a limit at speed.
    """
    *_, before, after = largest_step(contact, 4)
    assert after > 0.99 * before > 1e-4 if jumps else after < 0.1 * before < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("contact, biased", [("convex", True), ("smoothed", False)])
def test_fog_is_biased_where_the_hopper_jumps(contact: str, biased: bool) -> None:
    """3,072 pairs: E ∇f by the noise beside E f ε, the same by a score, whether or not f jumps.

    Hotelling's test of all 24 means at level 1e-4 where there is no jump; `-s` prints the share and
    the relative bias, with jackknife intervals over 64 groups.
    """
    problem, params = hopper(contact, 8, torch.float32)
    count, seed = 3072, 77
    values, gradients, noises = [], [], []
    others = noise_stream(problem, count, _other(seed), 256)
    for one, other in zip(noise_stream(problem, count, seed, 256), others, strict=True):
        both = one, one._replace(action=other.action)
        seen = [_values_and_gradients(problem, params, noise, "return") for noise in both]
        values.append(torch.stack([value[0] for _, value, _ in seen]).double())
        gradients.append(torch.stack([slope[0] for *_, slope in seen]).flatten(2).double())
        noises.append(torch.stack([noise.action for noise in both]).flatten(2).double())
    f, g, eps = (torch.cat(parts, 1) for parts in (values, gradients, noises))
    score = (0.5 * (f[0] - f[1])[:, None] * (eps[0] - eps[1])).numpy()
    bias = (0.5 * (g[0] + g[1])).numpy() - score
    mean, covariance = bias.mean(0), np.cov(bias.T) / count
    t2, d = float(mean @ np.linalg.solve(covariance, mean)), bias.shape[1]
    p = float(stats.f.sf(t2 * (count - d) / (d * (count - 1)), d, count - d))
    found = jump("return", pairs_of(f, g))
    print(f"{contact}: {found}, squared relative bias {squared_ratio(bias, score)}")
    assert p < 1e-6 if biased else p > 1e-4
    assert found.p_value < 1e-6 if biased else found.p_value > 1e-4


def squared_ratio(above: np.ndarray, below: np.ndarray) -> Interval:
    """‖E a‖²/‖E b‖² of rows [n, d], debiased, with a jackknife over 64 groups."""

    def ratio(a: np.ndarray, b: np.ndarray) -> float:
        squares = [(x.mean(0) ** 2 - x.var(0, ddof=1) / len(x)).sum() for x in (a, b)]
        return float(squares[0] / squares[1])

    groups = [x.reshape(64, -1, x.shape[1]).mean(1) for x in (above, below)]
    left = np.array([ratio(*(np.delete(x, k, 0) for x in groups)) for k in range(64)])
    reach = 1.998 * math.sqrt(63 * left.var())  # t with 63 degrees of freedom
    middle = ratio(groups[0], groups[1])
    return Interval(middle, middle - reach, middle + reach)
