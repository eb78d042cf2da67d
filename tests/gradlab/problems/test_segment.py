"""A segment of an episode is the part of the whole that it is, for every estimator."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.events import Hard, Sigmoid
from gradlab.foundation import moment
from gradlab.foundation.errors import BadShape, BadValue, Missing
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise, concatenate
from gradlab.gradients.engines import Engine
from gradlab.oracle import closed_forms
from gradlab.oracle.closed_forms import Answer
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, moment_at, values_by_term
from gradlab.rollouts.rollout import rollout
from gradlab.rollouts.stepping import VectorEpisodes
from gradlab.statistics import OracleGradient
from gradlab.testing import Biased, assert_unbiased
from tests.contracts import test_ended_episodes as wall
from tests.helpers import checking
from tests.helpers.flights import flight_problem
from tests.helpers.known import build

N = 8
# the same numbers, added up in another order
ROUNDING = 1e4 * torch.finfo(torch.float64).eps
Made = tuple[Problem, dict[str, Tensor]]


def smooth_v(view: View) -> Tensor:
    """Some function of all that a critic sees, with a gradient everywhere."""
    seen = torch.cat([view.state, view.obs, view.events], dim=-1)
    return torch.tanh(seen).sum(-1) + 0.01 * view.step


def smooth_q(view: View, action: Tensor) -> Tensor:
    return smooth_v(view) + (0.3 * action).sin().sum(-1)


def with_critic(problem: Problem) -> Problem:
    return problem.replace(critic=Critic(smooth_q, smooth_v))


def walled() -> Made:
    problem = wall.problem_of(6)
    return problem, wall.params_of(problem)


PROBLEMS: dict[str, Callable[[], Made]] = {
    "lq": lambda: build("lq", horizon=6),
    "gate": lambda: build("gate", horizon=16),
    "wall": walled,
    "racing": lambda: flight_problem("racing", horizon=16),
    "course": lambda: flight_problem("course", horizon=16),
    "landing": lambda: flight_problem("landing", horizon=16),
}


def one(name: str, relaxed: bool = False) -> tuple[Problem, dict[str, Tensor], Noise]:
    problem, params = PROBLEMS[name]()
    problem = with_critic(problem).replace(event_step=Sigmoid(0.1) if relaxed else Hard())
    return problem, params, problem.draw(N, torch.Generator().manual_seed(4))


def reached(problem: Problem, params: dict[str, Tensor], noise: Noise, time: int) -> Moment:
    """Where the episodes of the noise are after `time` steps."""
    if time == 0:
        return problem.start(noise)
    with torch.no_grad():
        path = rollout(problem, problem.bind(params), noise, length=time)
        return moment_at(path, evaluate(problem, path))


def noise_of(segment: Problem, moments: Moment, noise: Noise, begin: int) -> Noise:
    """The segment of each episode from its moment on, with the episode's own noise."""
    drawn = segment.noise_from(moments, torch.Generator().manual_seed(0))
    own = noise.during(begin, begin + segment.horizon)
    return drawn._replace(action=own.action, process=own.process)


def flat(estimator: Estimator, problem: Problem, params: dict[str, Tensor], noise: Noise) -> Tensor:
    """Its samples as rows [N, P]."""
    samples = estimator(problem, params, noise).per_sample()
    return torch.cat([part.flatten(1) for part in samples.values()], dim=1)


def summed(
    estimator: Estimator, name: str, *, counted: str = "segment", relaxed: bool = False
) -> Tensor:
    """γ^begin times the samples of the two halves of every episode, each a segment."""
    problem, params, noise = one(name, relaxed)
    window = problem.horizon // 2
    total = torch.zeros(())
    for begin in (0, window):
        # after the horizon there is nothing that the last state could be worth
        segment = problem.from_moments(window, bootstrap=begin == 0, discount_from=counted)  # type: ignore[arg-type]
        moments = reached(problem, params, noise, begin)
        samples = flat(estimator, segment, params, noise_of(segment, moments, noise, begin))
        total = total + (problem.discount**begin if counted == "segment" else 1.0) * samples
    return total


def same(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING * scale)


@pytest.mark.parametrize("counted", ["segment", "episode"])
@pytest.mark.parametrize("relaxed", [False, True], ids=["hard", "relaxed"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_first_order_segments_are_tiled_windows(name: str, relaxed: bool, counted: str) -> None:
    problem, params, noise = one(name, relaxed)
    windows = E.NStep(problem.horizon // 2, "tiled", tail="v")
    expected = flat(windows, problem, params, noise)
    same(summed(E.FOG(), name, counted=counted, relaxed=relaxed), expected)


def test_split_is_first_order_where_nothing_jumps() -> None:
    """Its last V has a gradient as well; only what is not smooth goes to the score."""
    for width in (None, 0.1):
        same(summed(E.Split(width), "lq"), summed(E.FOG(), "lq"))


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_looks_at_single_states_does_not_see_the_cut(name: str) -> None:
    problem, params, noise = one(name)
    same(summed(E.QG(), name), flat(E.QG(), problem, params, noise))


@pytest.mark.parametrize("name", PROBLEMS)
def test_generalised_advantages_bootstrap_at_the_end(name: str) -> None:
    """With λ = 0 every advantage is one step and the V after it, in a segment as in the whole."""
    problem, params, noise = one(name)
    advantages = E.PG(returns="gae", gae_lambda=0.0)
    same(summed(advantages, name), flat(advantages, problem, params, noise))


@pytest.mark.parametrize("engine", ["vmap", "loop"])
@pytest.mark.parametrize("name", ["lq", "wall", "course"])
def test_engines_agree(name: str, engine: Engine) -> None:
    problem, params, noise = one(name)
    begin = problem.horizon // 2
    segment = problem.from_moments(begin)
    own = noise_of(segment, reached(problem, params, noise, begin), noise, begin).rows(0, 2)
    for kind in (E.FOG, E.PG, E.Split, functools.partial(E.Split, width=None)):
        expected = flat(kind(), segment, params, own)
        found = flat(kind(engine=engine), segment, params, own)
        torch.testing.assert_close(
            found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max())
        )


@pytest.mark.parametrize("relaxed", [False, True], ids=["hard", "relaxed"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_return_of_a_segment_is_its_rewards_and_v(name: str, relaxed: bool) -> None:
    problem, params, noise = one(name, relaxed)
    begin = problem.horizon // 2
    length = begin - 1
    start = reached(problem, params, noise, begin)
    plain = rollout(problem, problem.bind(params), noise.during(begin, begin + length), start=start)
    result = evaluate(problem, plain)
    end = moment_at(plain, result)
    view = View(
        end.state,
        problem.task.observe(end.state, end.memory, end.step),
        problem.event_step(end.running),
        end.step,
    )
    worth = problem.discount ** float(begin + length) * result.alive[:, -1] * smooth_v(view)
    expected = result.value.sum(-1) + torch.where(result.alive[:, -1] > 0, worth, 0.0)

    segment = problem.from_moments(length, discount_from="episode")
    path = rollout(segment, segment.bind(params), noise_of(segment, start, noise, begin))
    found = evaluate(segment, path)
    same(found.value.sum(-1), expected)
    parts = values_by_term(segment, path, found)
    assert "bootstrap" in parts
    same(sum(parts.values()), found.value)  # type: ignore[arg-type]


def test_an_episode_that_has_ended_counts_nothing() -> None:
    problem, params, noise = one("wall")
    moments = reached(problem, params, noise, 3)
    assert 0 < int(moments.ended.sum()) < N
    segment = problem.from_moments(1)
    own = segment.noise_from(moments, torch.Generator().manual_seed(1))
    for estimator in (E.FOG(), E.PG(), E.Split(), E.Split(None), E.QG()):
        rows = flat(estimator, segment, params, own)
        assert not rows[moments.ended].any()
        assert rows[~moments.ended].any(1).all()


# --- in expectation, with the exact critic -------------------------------------------------------

LENGTH, BEGIN = 3, 2


@functools.cache
def lq() -> tuple[Problem, dict[str, Tensor], Answer]:
    problem, params = build("lq", horizon=7)
    answer = closed_forms.solve(problem, params)
    return problem.replace(critic=answer.critic), params, answer


def target(weights: Tensor) -> OracleGradient:
    problem, _, answer = lq()
    padded = torch.zeros(problem.horizon, dtype=problem.dtype)
    padded[BEGIN : BEGIN + LENGTH] = problem.discount**-BEGIN * weights
    return OracleGradient.exact(closed_forms.total(answer.per_call, padded), "closed form")


@pytest.fixture(scope="module")
def middle() -> Problem:
    """Segments of LQ in mid-episode, from states that its policy visits; half a million."""
    problem, params, _ = lq()
    parts = []
    generator = torch.Generator().manual_seed(9)
    for _ in range(8):
        parts.append(reached(problem, params, problem.draw(2**16, generator), BEGIN))
    return problem.from_moments(LENGTH, moment.concatenate(parts))


ESTIMATORS = {
    "fog": E.FOG(),
    "pg": E.PG(),
    "pg of others": E.PG(baseline="loo", group_size=8),
    "pg v": E.PG(baseline="v"),
    "split": E.Split(),
    "split without a width": E.Split(None),
    "qg": E.QG(),
    "windows": E.NStep(2, "tiled", tail="v"),
    "short of the end": E.NStep(2),
    "lambda": E.LambdaReturn(0.7, tail="v"),
    "abpt": E.ABPT(2),
    "abpt all": E.ABPT(2, "all"),
    "agpo": E.AGPO(alpha=0.6, starts="tiled"),
    "inverse variance": E.Mixture((E.FOG(), E.PG()), E.InverseVariance(), source=E.Cross(512)),
    "total propagation": E.TotalPropagation(source=E.Cross(64)),
}


DEAR = ("pg", "pg v", "pg of others", "inverse variance")  # score functions need many episodes


@pytest.mark.statistical
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in DEAR else ()) for n in ESTIMATORS]
)
def test_every_estimator_says_of_a_segment_what_it_says_of_an_episode(
    name: str, middle: Problem
) -> None:
    """Its expectation is Σ w_k g_k over the calls of the segment. False alarms: 1e-6 each.

    The pool of starts is a sample as well: half a million, against `detect` of 4 %.
    """
    estimator, params = ESTIMATORS[name], lq()[1]
    aim = target(estimator.call_weights(middle))
    assert_unbiased(estimator, middle, params, aim, detect=0.04, max_count=2**21, chunk_size=4096)


@pytest.mark.statistical
def test_without_its_last_value_a_segment_has_another_gradient(middle: Problem) -> None:
    cut = middle.from_moments(LENGTH, middle.segment.moments, bootstrap=False)  # type: ignore[union-attr]
    with pytest.raises(Biased):
        assert_unbiased(E.FOG(), cut, lq()[1], target(torch.ones(LENGTH)), detect=0.04)


# --- drawing and refusing ------------------------------------------------------------------------


def test_draw_takes_from_the_moments() -> None:
    problem, params, noise = one("racing")
    moments = reached(problem, params, noise, 5)
    segment = problem.from_moments(4, moments)
    drawn = segment.draw(64, torch.Generator().manual_seed(3))
    begun = segment.start(drawn)
    matches = (begun.state[:, None] == moments.state[None]).all(-1)
    assert matches.any(1).all() and matches.any(0).all()
    assert bool((begun.step == 5).all()) and not begun.discounted.any()
    again = segment.draw(64, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    kept = problem.from_moments(4, moments, discount_from="episode")
    assert bool((kept.start(drawn).discounted == 5).all())


def test_a_moment_survives_the_noise() -> None:
    problem, params, noise = one("course")
    moments = reached(problem, params, noise, 9)
    segment = problem.from_moments(3, discount_from="episode")
    back = segment.start(segment.noise_from(moments, torch.Generator().manual_seed(0)))
    for name, came in back._asdict().items():
        assert torch.equal(came, getattr(moments, name)), name


def test_chunks_and_halves_change_nothing() -> None:
    problem, params, noise = one("landing")
    segment = problem.from_moments(4, reached(problem, params, noise, 3))
    drawn = segment.draw(8, torch.Generator().manual_seed(3))
    halves = concatenate([drawn.rows(0, 4), drawn.rows(4, 8)])
    whole = flat(E.FOG(), segment, params, drawn)
    parts = E.FOG()(segment, params, halves, chunk_size=3).per_sample()
    same(torch.cat([part.flatten(1) for part in parts.values()], dim=1), whole)


def test_a_segment_is_read_in_one_line() -> None:
    problem, _, _ = one("racing")
    assert "of episodes of 16 steps, worth V at its end" in repr(problem.from_moments(4))
    assert "segment" not in repr(problem)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p, m: p.draw(3, torch.Generator()), Missing, "noise_from"),
        (lambda p, m: p.replace(segment=None).noise_from(m, torch.Generator()), BadValue, "from_mom"),
        (lambda p, m: p.noise_from(m.state, torch.Generator()), BadValue, "should be a Moment"),
        (lambda p, m: p.from_moments(4, discount_from="there"), BadValue, "discount_from"),
        (lambda p, m: p.noise_from(m._replace(step=m.step + 8), torch.Generator()), BadValue, "go past"),
        (lambda p, m: p.noise_from(m._replace(state=m.state[:, :2]), torch.Generator()), BadShape, "start.state"),
        (lambda p, m: p.noise_from(m.map(lambda x: x[0]), torch.Generator()), BadShape, "each of at least"),
        (lambda p, m: p.from_moments(12, m), BadValue, "go past"),
        (lambda p, m: p.from_moments(0), BadValue, "length"),
        (lambda p, m: p.replace(critic=None).from_moments(4), Missing, "bootstrap=False"),
        (lambda p, m: VectorEpisodes(p, 2), BadValue, "whole episodes"),
        (lambda p, m: closed_forms.solve(p, {}), BadValue, "whole episodes"),
        (lambda p, m: gradlab.fit_critic(p.from_moments(4, m), p.init(torch.Generator())), BadValue, "whole episodes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    change: Callable[[Problem, Moment], object], error: type[Exception], words: str
) -> None:
    problem, params, noise = one("racing")
    moments = reached(problem, params, noise, 5)
    with checking.off(), pytest.raises(error, match=words) as caught:
        change(problem.from_moments(4), moments)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_compiled_segments_have_the_same_gradients() -> None:
    problem, params, noise = one("racing")
    segment = problem.from_moments(4, reached(problem, params, noise, 3))
    drawn = segment.draw(8, torch.Generator().manual_seed(3))
    expected = flat(E.FOG(), segment, params, drawn)
    found = flat(E.FOG(), segment.replace(compile=True), params, drawn)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
