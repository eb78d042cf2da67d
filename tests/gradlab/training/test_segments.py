"""Where segments begin, how long they are, how often they are used; and policies of other kinds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import estimators as E
import gradlab
from gradlab.foundation.errors import BadValue
from gradlab.foundation.generators import generator
from gradlab.problems.problem import Problem
from gradlab.problems.segment import packed
from gradlab.simulators.articulated.simulator import Articulated
from gradlab.training.algorithm import Algorithm
from gradlab.training.ascent import gradient_again, gradient_of
from gradlab.training.exploration import Entropy, KLPenalty, Temperature
from gradlab.training.loop import init, train, update
from gradlab.training.optimiser import Adam
from gradlab.training.schedule import Schedule
from gradlab.training.segments import AdaptiveLength, Replay, Reuse
from gradlab.training.state import TrainingState
from tests.gradlab.training.test_exploration import lq
from tests.gradlab.training.test_loop import OF_Q, QUICK, algorithm, same, states, walled
from tests.helpers import checking

FROZEN = Adam(1e-300)


def rows(states_: Any) -> set[tuple[float, ...]]:
    return {tuple(row.tolist()) for row in states_}


@pytest.mark.parametrize("when", ["over", "always"])
def test_episodes_begin_at_visited_moments_and_count_for_no_return(when: Any) -> None:
    problem = walled(8)
    recipe = algorithm(
        episodes=32, length=2, optimiser=FROZEN, replay=Replay(0.5, 70, when), updates=9
    )
    known: set[tuple[float, ...]] = set()
    replayed = fresh = 0
    state = init(problem, recipe, 3)
    for _ in range(6):
        after, info = update(problem, recipe, state)
        known |= rows(after.visited)
        assert len(after.visited) <= 70
        starts = packed(after.episodes)
        anew = after.returns == 0
        for i in range(32):
            where = tuple(starts[i].tolist())
            if bool(state.whole[i]) and not bool(after.whole[i]):
                assert where in known and bool(anew[i])
                replayed += 1
            elif bool(after.whole[i]) and bool(anew[i]):
                assert float(after.episodes.step[i]) == 0
                fresh += 1
        assert when == "over" or bool(anew.all())
        assert int(info.finished) <= int(state.whole.sum())
        state = after
    assert replayed > 10 and fresh > 10
    assert not state.episodes.ended.any() and (state.episodes.step < 8).all()
    assert len(state.visited) == 70  # a ring: what came last is last
    assert rows(state.visited[-5:]) <= known


def test_what_is_remembered_is_one_step_of_each_segment() -> None:
    problem, recipe = walled(8), algorithm(episodes=32, length=4, replay=Replay(0.5))
    times = []
    for seed in range(6):
        state = init(problem, recipe, seed)
        path = gradient_of(problem, recipe, state).path
        found = rows(update(problem, recipe, state)[0].visited[:, :1])
        went = [rows(path.state[:, t][~path.ended[:, t]]) for t in range(5)]
        times += [t for t in range(5) if went[t] == found]
    assert len(times) == 6 and 0 not in times and len(set(times)) > 1


def test_a_replay_that_replays_nothing_changes_nothing() -> None:
    problem, plain = walled(8), algorithm(episodes=16, length=2)
    a = train(problem, plain)
    b = train(problem, replace(plain, replay=Replay(0.0)))
    assert len(b.visited) and b.whole.all()
    same(a, b._replace(visited=a.visited))


def test_a_length_follows_the_multipliers_by_hand() -> None:
    """C = 10, η = 0.1: softer contact makes λ negative, and H goes as the sign says."""
    for sign, steps in (("released", 4.0 - 0.1 * 2.2), ("dual", 4.0 + 0.1 * 2.2)):
        rule = AdaptiveLength(2, 6, 10.0, 0.1, sign)  # type: ignore[arg-type]
        first = rule.init() | {"steps": torch.tensor(4.0, dtype=torch.float64)}
        after = rule.followed(first, torch.tensor([0.0, 10.0, 8.0, 0.0]), 0.0)
        expected = torch.tensor([-1.0, 0.0, -0.2, -1.0, 0.0, 0.0], dtype=torch.float64)
        torch.testing.assert_close(after["multipliers"], expected, rtol=1e-6, atol=1e-9)
        assert float(after["steps"]) == pytest.approx(steps)
        again = rule.followed(after, torch.full((4,), 1e4), 0.0)
        assert float(again["steps"]) == (6.0 if sign == "released" else 2.0)  # within its limits
        assert not again["multipliers"][rule.steps(again) :].any()


def test_segments_have_the_length_of_the_moment() -> None:
    problem = lq()
    recipe = algorithm(adaptive=AdaptiveLength(2, 7, 10.0, 0.5), episodes=2, optimiser=FROZEN)
    seen = [(int(s.steps), recipe.now(s).length) for s, _ in states(problem, recipe, 3)]
    assert [length for _, length in seen] == [2, 7, 7, 7]  # no contact: 2 + 0.5·0.5·10·2
    assert [steps for steps, _ in seen] == [0, 4, 18, 32]


def test_stiffness_is_the_contact_force_over_the_acceleration() -> None:
    problem = gradlab.make("ant", preset="dflex", dtype=torch.float64)
    simulator = problem.simulator
    assert isinstance(simulator, Articulated)
    start = problem.start(problem.draw(2, generator("ants"))).state
    high, low = start.clone(), start.clone()
    high[:, 2] += 5.0
    low[:, 2] -= 0.4
    action = torch.zeros(2, simulator.action_dim, dtype=torch.float64)
    nq, nv = simulator.model.nq, simulator.model.nv
    for state in (high, low):
        now = simulator._dynamics(
            state[:, :nq], state[:, nq : nq + nv], simulator.actuation(action)
        )
        force = simulator.contact.force(simulator.model, now)
        total = torch.linalg.solve(now.mass, now.smooth + force)
        expected = torch.zeros(2, dtype=torch.float64)
        for i in range(2):
            each = [
                float(f) / max(1.0, abs(float(a))) for f, a in zip(force[i], total[i], strict=True)
            ]
            expected[i] = math.sqrt(sum(value**2 for value in each))
        torch.testing.assert_close(simulator.stiffness(state, action), expected)
    assert (simulator.stiffness(low, action) > 100 * simulator.stiffness(high, action)).all()


@pytest.mark.parametrize("squash", [True, False])
def test_a_segment_that_is_used_again_first_has_the_same_gradient(squash: bool) -> None:
    """Where nothing has moved, ratios are 1 and the actions what they were."""
    problem, recipe = lq(squash=squash, hidden=(4,)), algorithm(reuse=Reuse(3), episodes=8)
    state = train(problem, replace(recipe, updates=2))
    ascent = gradient_of(problem, recipe, state)
    again = gradient_again(ascent, recipe, state, state.params)
    for name, value in ascent.gradient.items():
        torch.testing.assert_close(again[name], value, rtol=1e-9, atol=1e-9)
    once = update(problem, replace(recipe, reuse=Reuse(1)), state)[0]
    never = update(problem, replace(recipe, reuse=None), state)[0]
    same(once, never)


def test_a_segment_is_used_again_by_hand() -> None:
    """One action of a mean alone: after the mean has moved by d, the latent's ε is less by d/σ,
    and its step weighs exp((ε² − (ε − d/σ)²)/2), if that is in range.
    """
    problem = lq(std=0.5, bias=True)
    recipe = algorithm(reuse=Reuse(2), episodes=16)
    state = init(problem, recipe, 1)
    ascent = gradient_of(problem, recipe, state)
    moved = {name: value.clone() for name, value in state.params.items()}
    bias = next(name for name in moved if name.endswith("bias"))
    moved[bias] += 0.4
    found = gradient_again(ascent, recipe, state, moved)[bias]
    eps = ascent.noise.action[:, :4]
    log_ratio = (eps.square() - (eps - 0.4 / 0.5).square()).sum(-1) / 2
    ratio = log_ratio.exp()
    ratio = torch.where((ratio >= 0.2) & (ratio <= 2.0), ratio, 0.0)
    assert (ratio == 0).any() and (ratio > 0).any()
    by_mean = ascent.samples.cotangent[..., : eps.shape[-1]]  # type: ignore[attr-defined]
    torch.testing.assert_close(found, (ratio[..., None] * by_mean).sum(1).mean(0))


def test_a_segment_is_used_again_by_latents_alone() -> None:
    problem = lq()
    for recipe in (
        algorithm(E.PG(), reuse=Reuse()),
        algorithm(reuse=Reuse(), entropy=Entropy(0.1, "estimator")),
        algorithm(E.ABPT(4), critic=OF_Q, tail="own", reuse=Reuse()),
    ):
        with pytest.raises(BadValue, match="by its latents alone") as caught:
            update(problem, recipe, init(problem, recipe))
        assert "\n" not in str(caught.value)


def all_options(problem: Problem) -> Algorithm:
    """Everything that is off by default."""
    return algorithm(
        entropy=Entropy(Temperature(0.1), targets=True, normalised=True),
        kl=KLPenalty(0.3),
        reuse=None if problem.policy.carry_dim else Reuse(2),
        replay=Replay(0.5, 6),
        adaptive=AdaptiveLength(2, 5, 10.0, Schedule(0.2, 0.1)),
        critic=replace(QUICK, passes=8, stop=0.5, members=2, target_reduction="min"),
        episodes=8,
    )


def resumes(problem: Problem, recipe: Algorithm, path: Path) -> TrainingState:
    """All updates; stopped after three they end in the same bits, in finite numbers."""
    whole = train(problem, recipe, seed=3)
    state = init(problem, recipe, 3)
    for _ in range(3):
        state, _ = update(problem, recipe, state)
    state.save(path / "state.safetensors")
    part = TrainingState.load(path / "state.safetensors")
    same(part, state)
    same(train(problem, recipe, state=part), whole)
    assert all(bool(value.isfinite().all()) for value in whole.params.values())
    assert any(not torch.equal(whole.params[n], value) for n, value in state.params.items())
    return whole


def test_all_options_together_resume_to_the_bit(tmp_path: Path) -> None:
    whole = resumes(walled(8), all_options(walled(8)), tmp_path)
    assert len(whole.visited) == 6 and whole.temperature and whole.previous and whole.length


def network(observation_dim: int, action_dim: int) -> gradlab.Policy:
    with torch.random.fork_rng():  # modules draw their first parameters from torch's generator
        ends = nn.Linear(observation_dim, 6), nn.Linear(6, action_dim)
    layers = ends[0], nn.LayerNorm(6), nn.Tanh(), ends[1]
    return gradlab.ModulePolicy(nn.Sequential(*layers), std="global")


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize("kind", ["recurrent", "module"])
def test_policies_of_other_kinds_are_trained(kind: str, options: bool, tmp_path: Path) -> None:
    """A recurrent one and one's own module, on episodes that go on through their segments."""
    policy = gradlab.RecurrentPolicy(4, hidden=(5,)) if kind == "recurrent" else network
    problem = gradlab.make("racing", horizon=16, policy=policy)
    recipe = all_options(problem) if options else algorithm()
    whole = resumes(problem, recipe, tmp_path)
    if kind == "recurrent":
        assert whole.episodes.carry.any()


def test_nothing_is_on_by_default() -> None:
    plain = algorithm()
    for name in ("entropy", "kl", "reuse", "replay", "adaptive"):
        assert getattr(plain, name) is None
    state = train(lq(), plain)
    assert not (state.previous or state.temperature or state.length or len(state.visited))
    assert plain.now(state) is plain


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Replay(1.5), r"\[0, 1\]"),
        (lambda: Replay(capacity=0), "capacity"),
        (lambda: Replay(when="never"), "'over' or 'always'"),  # type: ignore[arg-type]
        (lambda: AdaptiveLength(9, 8), "at most most"),
        (lambda: AdaptiveLength(sign="up"), "'released' or 'dual'"),  # type: ignore[arg-type]
        (lambda: Reuse(0), "epochs"),
        (lambda: Reuse(low=2.0), "low"),
        (
            lambda: algorithm(E.ABPT(4), critic=OF_Q, tail="own", adaptive=AdaptiveLength()),
            "fixed length",
        ),
        (lambda: init(lq(), algorithm(adaptive=AdaptiveLength())), "length=64"),
    ],
)
def test_bad_options_are_one_line(make: Any, words: str) -> None:
    with checking.off(), pytest.raises(BadValue, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
