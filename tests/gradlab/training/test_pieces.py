"""Restarts inside of segments: what a hand-made twin joins, piece by piece."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
from gradlab.foundation import moment
from gradlab.foundation.errors import BadValue
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise
from gradlab.problems.problem import Problem
from gradlab.training.exploration import Entropy, KLPenalty
from gradlab.training.loop import init, train, update
from gradlab.training.optimiser import Adam
from gradlab.training.pieces import joined, pieces_of
from gradlab.training.segments import AdaptiveLength, Replay, Reuse
from gradlab.training.state import TrainingState
from tests.gradlab.training.test_exploration import lq
from tests.gradlab.training.test_loop import OF_Q, QUICK, algorithm, same, states, walled
from tests.helpers import checking

LENGTH, LIMIT = 3, 3  # half of the episodes hit the wall in their third step


def stepped(problem: Problem, params: dict[str, Tensor], start: Moment, noise: Noise) -> Any:
    """An episode of its own until it ends, one step at a time by the parts of the problem: rewards,
    the last state, whether an event ended it.
    """
    state, memory, clock = start.state, start.memory, start.step
    best = start.running
    rewards, ended = [], False
    for t in range(noise.action.shape[1]):
        obs = problem.task.observe(state, memory, clock)
        z, _ = problem.policy.apply(params, {}, obs, None)
        action = problem.policy.action(problem.policy.latent(z, noise.action[:, t]))
        after = problem.simulator.step(state, action, noise.process[:, t])
        moved = (after - state).square().sum(-1).sqrt()
        reward = -0.1 * moved - 0.1 * action[..., 0] ** 2 - after[..., 0] ** 2
        margins = torch.cat([after - 0.4, after - 1.0], dim=-1)
        fresh = (margins > 0) & ~(best > 0)
        rewards.append(reward + 2.0 * fresh[:, 0] - 1.0 * fresh[:, 1])
        best = torch.maximum(best, margins)
        state, clock = after, clock + 1
        if bool(fresh[0, 1]):
            ended = True
            break
    return rewards, (state, memory, clock, best), ended


def test_pieces_joined_are_the_segments_of_auto_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row goes on, one episode after another, for all steps of its segment: γ begins anew,
    V counts at a time limit and at the segment's end, and does not after a termination. The trap:
    terminal values that are detached, of whose state no gradient comes back.
    """
    problem = walled(LIMIT)
    recipe = algorithm(episodes=24, length=LENGTH, restart="inside", optimiser=Adam(1e-300))
    later = [state.episodes for state, _ in states(problem, replace(recipe, length=1), 2)]
    thirds = [one.take(torch.arange(8 * k, 8 * k + 8)) for k, one in enumerate(later)]
    state = init(problem, recipe, 0)._replace(episodes=moment.concatenate(thirds))
    assert state.episodes.step.unique().tolist() == [0, 1, 2]
    parts = pieces_of(problem, recipe, state)
    by_row: dict[int, list[tuple[Any, int]]] = {i: [] for i in range(24)}
    for part in parts:
        for k, row in enumerate(part.rows.tolist()):
            by_row[row].append((part, k))
    leaves = {name: value.clone().requires_grad_() for name, value in state.params.items()}
    total, limits, terminations = torch.zeros((), dtype=torch.float64), 0, 0
    for row, pieces in by_row.items():
        left, expected = LENGTH, state.episodes.take(torch.tensor([row]))
        for part, k in pieces:
            start = part.start.take(torch.tensor([k]))
            if expected is not None:
                assert torch.equal(start.state, expected.state)
                assert torch.equal(start.step, expected.step)
            else:
                assert float(start.step) == 0 and not (start.running > -torch.inf).any()
            noise = part.ascent.noise.rows(k, k + 1)
            rewards, (last, memory, clock, best), ended = stepped(problem, leaves, start, noise)
            value = sum(problem.discount**t * reward for t, reward in enumerate(rewards))
            at_limit = float(clock) >= LIMIT
            left -= len(rewards)
            assert ended or at_limit or left == 0  # a piece is no shorter than it has to be
            if not ended:
                obs = problem.task.observe(last, memory, clock)
                happened = (best[:, :1] > 0).double()
                inputs = torch.cat([obs, happened], dim=-1)
                worth = QUICK.value(problem, state.target, inputs)
                value = value + problem.discount ** len(rewards) * worth
            limits, terminations = limits + at_limit * (not ended), terminations + ended
            total = total + value.sum()
            expected = None
        assert left == 0
    assert min(limits, terminations) > 3 and len(parts) > 3
    (total / 24).backward()
    found = joined(parts, 24, lambda part: part.ascent.gradient)
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.grad, rtol=1e-9, atol=1e-11)


def test_where_nothing_ends_inside_both_ways_are_one() -> None:
    problem, plain = lq(), algorithm(length=4, updates=5)  # a time limit of 8 steps
    same(train(problem, plain), train(problem, replace(plain, restart="inside")))


def test_every_episode_counts_once_and_as_long_as_it_was() -> None:
    """Episodes of 5 steps in segments of 4: after five updates every row has had four."""
    problem = lq().replace(horizon=5)
    recipe = algorithm(length=4, episodes=8, restart="inside", updates=9, optimiser=Adam(1e-300))
    finished, lengths, steps = 0, 0.0, 0
    for state, info in states(problem, recipe, 5):
        if info is not None:
            finished, lengths = finished + int(info.finished), lengths + float(info.lengths)
            steps = int(state.steps)
    assert (finished, lengths, steps) == (8 * 4, 8 * 20.0, 8 * 20)
    assert not state.episodes.step.any() and not state.returns.any()


def test_all_that_goes_with_it_resumes_to_the_bit(tmp_path: Any) -> None:
    problem = walled(LIMIT)
    recipe = algorithm(
        episodes=16, length=LENGTH, restart="inside", reuse=Reuse(2), kl=KLPenalty(0.1),
        entropy=Entropy(0.05, targets=True),
    )  # fmt: skip
    whole = train(problem, recipe)
    state = init(problem, recipe, 0)
    for _ in range(2):
        state, info = update(problem, recipe, state)
        assert bool(info.norm.isfinite()) and bool(info.loss > 0)
    state.save(tmp_path / "state.safetensors")
    same(train(problem, recipe, state=TrainingState.load(tmp_path / "state.safetensors")), whole)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": E.PG(baseline="loo", group_size=4)}, "without groups"),
        ({"estimator": E.ABPT(4), "critic": OF_Q, "tail": "own"}, "'v' or 'none'"),
        ({"replay": Replay()}, "replay=None"),
        ({"adaptive": AdaptiveLength()}, "adaptive=None"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(options: dict[str, Any], words: str) -> None:
    with checking.off(), pytest.raises(BadValue, match=words) as caught:
        algorithm(restart="inside", **options)
    assert "\n" not in str(caught.value)
