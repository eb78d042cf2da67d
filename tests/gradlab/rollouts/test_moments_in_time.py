"""A rollout of T steps is the same as several shorter ones, joined at a `Moment`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gradlab
import gradlab.foundation.noise
from gradlab.events import Arctan, Hard, Sigmoid, Step
from gradlab.foundation import moment
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import per_sample_gradients
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import Outcome, evaluate, moment_at, survival, views
from gradlab.rollouts.rollout import Trajectory, _blocks, rollout
from gradlab.rollouts.stepping import VectorEpisodes
from tests.contracts import test_ended_episodes as wall
from tests.helpers.flights import flight_problem
from tests.helpers.forked import run_code
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem

# Elementwise kernels round the last few numbers of a tensor in another way than the rest, unless
# the
# number of all is a multiple of this.
COUNT = 32
Made = tuple[Problem, dict[str, Tensor]]


def walled() -> Made:
    problem = wall.problem_of(6)
    return problem, wall.params_of(problem)


def toy(switching: bool) -> Made:
    problem = toy_problem(switching=switching, horizon=16)
    return problem, toy_params(problem)


def made(name: str, horizon: int, **options: str) -> Made:
    problem = gradlab.make(name, horizon=horizon, dtype=torch.float64, **options)
    return problem, problem.policy.init(torch.Generator().manual_seed(0), dtype=torch.float64)


PROBLEMS: dict[str, Callable[[], Made]] = {
    "lq": lambda: build("lq"),
    "gate": lambda: build("gate", horizon=16),
    "terminal-gate": lambda: build("terminal_gate"),
    "toy": lambda: toy(switching=False),
    "switching-toy": lambda: toy(switching=True),
    "wall": walled,
    "racing": lambda: flight_problem("racing", horizon=40),
    "landing": lambda: flight_problem("landing", horizon=40),
    "hovering": lambda: flight_problem("hovering", horizon=40),
    "course": lambda: flight_problem("course", horizon=40),
    "tracking": lambda: made("tracking", 16),
    "hopper": lambda: made("hopper", 24, preset="brax", contact="compliant"),
}
STEPS: dict[str, Step] = {"hard": Hard(), "sigmoid": Sigmoid(0.1), "arctan": Arctan(0.1)}
# Only the order in which gradients are added up at the join is another: a few roundings, carried
# back
# through the steps before it.
ROUNDING = 1e3 * torch.finfo(torch.float64).eps
# two gradients meet there, in any order: the same bits. A task whose episodes do not end, or with a
# relaxed
# event, has three or more
SAME_BITS = ("wall", "toy", "switching-toy", "racing", "landing", "hovering", "course", "tracking")


def one(name: str, kind: str = "hard") -> tuple[Problem, dict[str, Tensor], Noise]:
    problem, params = PROBLEMS[name]()
    problem = problem.replace(event_step=STEPS[kind])
    return problem, params, problem.draw(COUNT, torch.Generator().manual_seed(2))


def segments(
    problem: Problem,
    policy: BoundPolicy,
    noise: Noise,
    cuts: list[int],
    attached: bool = True,
    cut_every: int | None = None,
) -> list[tuple[Trajectory, Outcome]]:
    """The rollout in parts that begin at `cuts`, each going on from the end of the last."""
    parts: list[tuple[Trajectory, Outcome]] = []
    start = None
    for begin, end in itertools.pairwise([*cuts, problem.horizon]):
        path = rollout(
            problem,
            policy,
            noise.during(begin, end),
            start=start,
            length=end - begin,
            cut_every=cut_every,
        )
        result = evaluate(problem, path, cut_every)
        start = moment_at(path, result)
        start = start if attached else start.detach()
        parts.append((path, result))
    return parts


def joined(parts: list[tuple[Trajectory, Outcome]]) -> dict[str, Tensor]:
    """Columns of the whole from those of the parts."""
    paths, results = zip(*parts, strict=True)

    def over(name: str, sides: tuple, extra: bool, dim: int) -> Tensor:
        columns = [getattr(side, name) for side in sides]
        last = columns[-1]
        if extra:  # one entry more than steps: the last of a part is the first of the next
            columns = [column.narrow(dim, 0, column.shape[dim] - 1) for column in columns[:-1]]
            columns.append(last)
        return torch.cat(columns, dim)

    found = {name: over(name, paths, False, -2) for name in ("obs", "action", "before", "process")}
    found |= {name: over(name, paths, True, -2) for name in ("state", "memory")}
    found |= {name: over(name, results, False, -1) for name in ("value", "reward", "dense")}
    found |= {name: over(name, results, False, -2) for name in ("margins", "running")}
    found["ended"] = over("ended", paths, True, -1)
    found["alive"] = over("alive", results, True, -1)
    found["events"] = over("events", results, True, -2)
    return found


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_parts_make_the_whole_to_the_last_bit(name: str, kind: str) -> None:
    problem, params, noise = one(name, kind)
    if kind != "hard" and not problem.task.events:
        pytest.skip("nothing to relax")
    policy = problem.bind(params)
    with torch.no_grad():
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
        half = problem.horizon // 2
        third = max(1, problem.horizon // 4)
        for cuts in ([0, half], [0, third, half]):
            for column, part in joined(segments(problem, policy, noise, cuts)).items():
                whole = getattr(path if hasattr(path, column) else result, column)
                assert torch.equal(part, whole), (cuts, column)


def test_the_families_have_what_they_are_here_for() -> None:
    """Episodes that end on both sides of a join, and gates passed on both sides of it."""
    for name in ("wall", "racing", "landing", "hovering", "course", "hopper"):
        problem, params, noise = one(name)
        path = rollout(problem, problem.bind(params), noise)
        half = problem.horizon // 2
        early, late = path.ended[:, half], path.ended[:, -1]
        assert (late & ~early).any(), name
        if name in ("wall", "landing"):
            assert early.any() and not early.all(), name
    problem, params, noise = one("switching-toy")
    passes = rollout(problem, problem.bind(params), noise).memory[..., 0]
    assert (passes[:, 8] > 0).any() and (passes[:, -1] > passes[:, 8]).any()


def halves(problem: Problem, attached: bool = True, cut_every: int | None = None):
    """The surrogate of FOG on two halves."""

    def surrogate(policy: BoundPolicy, noise: Noise, given: tuple) -> Tensor:
        cuts = [0, problem.horizon // 2]
        parts = segments(problem, policy, noise, cuts, attached, cut_every)
        return torch.cat([result.value for _, result in parts], dim=-1).sum(-1)

    return surrogate


def whole(problem: Problem, cut_every: int | None = None):
    """The surrogate of FOG."""

    def surrogate(policy: BoundPolicy, noise: Noise, given: tuple) -> Tensor:
        path = rollout(problem, policy, noise, cut_every=cut_every)
        return evaluate(problem, path, cut_every).value.sum(-1)

    return surrogate


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest number of its leaf."""
    return max(
        (float((a[k] - b[k]).abs().max() / a[k].abs().max()) for k in a if a[k].any()), default=0.0
    )


@pytest.mark.parametrize("kind", ["hard", "sigmoid"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_go_through_an_attached_join(name: str, kind: str) -> None:
    problem, params, noise = one(name, kind)
    if kind != "hard" and not problem.task.events:
        pytest.skip("nothing to relax")
    expected = per_sample_gradients(whole(problem), problem, params, noise).per_sample()
    found = per_sample_gradients(halves(problem), problem, params, noise).per_sample()
    assert apart(expected, found) <= (0 if kind == "hard" and name in SAME_BITS else ROUNDING)
    # and it matters: a cut loses most of it
    if name not in ("terminal-gate", "gate", "hopper") or kind != "hard":
        cut = halves(problem, attached=False)
        lost = per_sample_gradients(cut, problem, params, noise).per_sample()
        assert apart(expected, lost) > 1e-3


@pytest.mark.parametrize("kind", ["hard", "sigmoid"])
@pytest.mark.parametrize("name", ["switching-toy", "wall", "landing"])
def test_a_cut_join_is_the_end_of_a_window(name: str, kind: str) -> None:
    problem, params, noise = one(name, kind)
    window = problem.horizon // 4
    expected = per_sample_gradients(whole(problem, window), problem, params, noise).per_sample()
    cut = halves(problem, attached=False, cut_every=window)
    found = per_sample_gradients(cut, problem, params, noise).per_sample()
    assert apart(expected, found) <= ROUNDING


@pytest.mark.parametrize("name", ["switching-toy", "course", "tracking"])
def test_engines_agree_on_joined_rollouts(name: str) -> None:
    problem, params, noise = one(name, "sigmoid")
    problem, noise = problem.replace(horizon=6), noise.during(0, 6).rows(0, 4)
    found = [
        per_sample_gradients(halves(problem), problem, params, noise, engine=engine).per_sample()
        for engine in ("pullback", "vmap", "loop")
    ]
    assert apart(found[0], found[1]) <= 1e-9 and apart(found[0], found[2]) <= 1e-9


@pytest.mark.parametrize("name", ["switching-toy", "wall", "tracking", "gate", "terminal-gate"])
def test_the_first_moment_is_the_beginning(name: str) -> None:
    """Times of their own, all of them 0, are the one time of an ordinary rollout."""
    problem, params, noise = one(name, "sigmoid")
    policy = problem.bind(params)
    path = rollout(problem, policy, noise)
    again = rollout(problem, policy, noise, start=problem.start(noise))
    assert torch.equal(evaluate(problem, path).value, evaluate(problem, again).value)
    for field, first in zip(
        Moment._fields, moment_at(path, evaluate(problem, path), 0), strict=True
    ):
        assert torch.equal(first, getattr(problem.start(noise), field)), field


@pytest.mark.parametrize("name", ["switching-toy", "wall", "course", "tracking", "hopper"])
def test_episodes_go_on_at_times_of_their_own(name: str) -> None:
    """Those of one rollout stopped at different steps, each with the noise that it has left."""
    problem, params, noise = one(name)
    policy = problem.bind(params)
    with torch.no_grad():
        path = rollout(problem, policy, noise)
        result = evaluate(problem, path)
        times, length = (1, problem.horizon // 2, problem.horizon - 3), 3
        start = moment.concatenate([moment_at(path, result, t) for t in times])
        left = [noise.during(t, t + length) for t in times]
        going = gradlab.foundation.noise.concatenate(left)
        then = rollout(problem, policy, going, start=start)
        later = evaluate(problem, then)
    for k, t in enumerate(times):
        rows = slice(k * COUNT, (k + 1) * COUNT)
        # matrix products of other sizes round in other ways
        for part, expected in (
            (later.value[rows], result.value[:, t : t + length]),
            (later.alive[rows], result.alive[:, t : t + length + 1]),
            (then.state[rows], path.state[:, t : t + length + 1]),
        ):
            torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", STEPS)
def test_critics_see_the_same(kind: str) -> None:
    """Also right at the join, of episodes that have ended and gates that have just been passed."""
    for name in ("switching-toy", "wall", "course"):
        problem, params, noise = one(name, kind)
        policy, half = problem.bind(params), problem.horizon // 2
        path = rollout(problem, policy, noise)
        expected = views(problem, path, evaluate(problem, path))
        first, second = segments(problem, policy, noise, [0, half])
        for part, times in (
            (views(problem, *first), slice(0, half + 1)),
            (views(problem, *second), slice(half, None)),
        ):
            for field in part._fields:
                column = getattr(expected, field)
                column = column[:, times] if field == "step" else column[..., times, :]
                assert torch.equal(getattr(part, field), column), (name, field)


def test_survival_of_a_moment() -> None:
    for kind in STEPS:
        problem, params, noise = one("landing", kind)
        path = rollout(problem, problem.bind(params), noise)
        result = evaluate(problem, path)
        for t in (0, 10, 40):
            assert torch.equal(survival(problem, moment_at(path, result, t)), result.alive[:, t])


def test_discounting_may_begin_anew() -> None:
    """γ counts from where it is told to, whatever time the episodes are at."""
    problem, params, noise = one("toy")
    policy = problem.bind(params)
    path = rollout(problem, policy, noise, length=4)
    start = moment_at(path, evaluate(problem, path))
    left = noise.during(4, 16)
    value = evaluate(problem, rollout(problem, policy, left, start=start)).value
    fresh = start._replace(discounted=torch.zeros_like(start.discounted))
    anew = evaluate(problem, rollout(problem, policy, left, start=fresh)).value
    torch.testing.assert_close(anew * problem.discount**4, value, rtol=1e-14, atol=0)


def test_a_rollout_goes_on_from_an_environment() -> None:
    """Steps taken one at a time lead to the moment that the rollout passes through."""
    for name in ("switching-toy", "course", "wall"):
        problem, params, noise = one(name)
        policy = problem.bind(params)
        with torch.no_grad():
            path = rollout(problem, policy, noise)
            result = evaluate(problem, path)
            play = VectorEpisodes(problem, COUNT)
            play.begin(list(range(COUNT)), noise)
            for t in range(3):
                play.step(path.action[:, t])
            going = ~path.ended[:, 3]
            assert going.any()
            then = rollout(problem, policy, noise.during(3, problem.horizon), start=play.now)
            value = evaluate(problem, then).value
        torch.testing.assert_close(value[going], result.value[going, 3:], rtol=1e-9, atol=1e-11)


def test_rows_do_not_see_each_other() -> None:
    problem, params, noise = one("course")
    policy = problem.bind(params)
    path = rollout(problem, policy, noise, length=8)
    start = moment_at(path, evaluate(problem, path)).detach()
    index = torch.tensor([5, 2, 9])
    left = noise.during(8, 40)
    few = rollout(problem, policy, left.take(index), start=start.take(index))
    every = rollout(problem, policy, left, start=start)
    torch.testing.assert_close(few.state, every.state[index], rtol=1e-9, atol=1e-11)
    twice = start.repeat(2)
    assert torch.equal(twice.state[::2], start.state) and torch.equal(twice.step[1::2], start.step)


def test_bad_starts_are_refused_in_one_line() -> None:
    problem, params, noise = one("toy")
    policy, start = problem.bind(params), problem.start(noise)
    later = start._replace(step=start.step + 10)
    short = start._replace(state=start.state.float())
    cases = [
        (BadValue, "past the horizon", {"start": later}),
        (BadShape, "start.state", {"start": start.take(torch.arange(3))}),
        (BadShape, "torch.float64", {"start": short}),
        (BadValue, "at most 16", {"length": 17}),
        (BadValue, "length", {"length": 0}),
    ]
    for error, match, options in cases:
        with pytest.raises(error, match=match) as caught:
            rollout(problem, policy, noise, **options)
        assert "\n" not in str(caught.value)
    rollout(problem, policy, noise, start=later, length=6)
    path = rollout(problem, policy, noise, length=2)
    with pytest.raises(BadValue, match="at most 2"):
        moment_at(path, evaluate(problem, path), 3)


GRAPHS = """
import torch, gradlab, gradlab.rollouts.passage
from gradlab.gradients.engines import per_sample_gradients
from tests.gradlab.rollouts.test_moments_in_time import apart, halves, toy, whole
gradlab.rollouts.passage.compile_step = lambda step: torch.compile(
    step, backend="aot_eager", dynamic=False, fullgraph=True
)
from torch._dynamo.utils import counters
plain, params = toy(switching=True)
problem, noise = plain.replace(compile=True), plain.draw(4, torch.Generator().manual_seed(1))
expected = per_sample_gradients(whole(plain), plain, params, noise).per_sample()
per_sample_gradients(whole(problem), problem, params, noise)
print(counters["stats"]["unique_graphs"])
for _ in range(2):
    found = per_sample_gradients(halves(problem), problem, params, noise).per_sample()
print(counters["stats"]["unique_graphs"], apart(expected, found) < 1e-10)
"""


@pytest.mark.slow
def test_compiled_steps_have_one_more_graph_for_times_of_their_own() -> None:
    """In a process without the checks of annotations, which cannot be compiled."""
    done = run_code(GRAPHS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1", "2", "True"]


def test_blocks_of_steps_cover_the_horizon_and_stop_at_cuts() -> None:
    for length in range(1, 14):
        for cut_every in (None, 1, 2, 3, 4, 5, 9, 20):
            for at_once in (1, 4):
                blocks = _blocks(length, cut_every, at_once)
                steps = [t for block in blocks for t in range(block.start, block.stop)]
                assert steps == list(range(length))
                assert {b.stop - b.start for b in blocks} <= {1, at_once}
                for block in blocks:
                    inside = range(block.start + 1, block.stop)
                    assert cut_every is None or not any(t % cut_every == 0 for t in inside)
                single = sum(b.stop - b.start == 1 for b in blocks)
                windows = 1 if cut_every is None else -(-length // cut_every)
                assert at_once == 1 or single <= 3 * windows
