"""An update is the estimator's step, episodes are what they are, and a stop changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from gradlab.foundation import moment
from gradlab.foundation.errors import BadValue, Corrupt, Missing, NotFinite
from gradlab.foundation.generators import generator
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.training import evaluation
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe, Targets
from gradlab.training.evaluation import evaluate_policy
from gradlab.training.exploration import Entropy, KLPenalty, Temperature
from gradlab.training.loop import Info, init, segment_of, train, update
from gradlab.training.optimiser import Adam
from gradlab.training.segments import AdaptiveLength
from gradlab.training.state import TrainingState
from tests.contracts import test_ended_episodes as wall
from tests.helpers.flights import flight_problem
from tests.helpers.known import build

QUICK = CriticRecipe(hidden=(8,), passes=2, minibatches=2)
OF_Q = replace(QUICK, kind="q", members=2)


def algorithm(estimator: E.Estimator | None = None, **options: Any) -> Algorithm:
    kind = {"critic": QUICK, "episodes": 4, "length": 4, "updates": 6, **options}
    return Algorithm(estimator or E.FOG(), **kind)


def racing() -> Problem:
    problem, _ = flight_problem("racing", horizon=16)
    policy = gradlab.GaussianPolicy(hidden=(5,), std="global", normalise=True)
    return problem.replace(policy=policy)


def walled(horizon: int = 8) -> Problem:
    """Many of its episodes end within a few steps."""
    return wall.problem_of(horizon).replace(critic=None)


def states(
    problem: Problem, recipe: Algorithm, count: int, seed: int = 0
) -> Iterator[tuple[TrainingState, Info | None]]:
    state: TrainingState = init(problem, recipe, seed)
    yield state, None
    for _ in range(count):
        state, info = update(problem, recipe, state)
        yield state, info


def same(a: TrainingState, b: TrainingState) -> None:
    for name, one, other in zip(a._fields, a, b, strict=True):
        parts = [(one, other)] if isinstance(one, Tensor) else None
        if parts is None:
            first = one._asdict() if hasattr(one, "_asdict") else one
            second = other._asdict() if hasattr(other, "_asdict") else other
            assert list(first) == list(second), name
            parts = [(first[key], second[key]) for key in first]
        assert all(torch.equal(x, y) for x, y in parts), name


ALGORITHMS = {
    "shac": lambda: algorithm(),
    "bptt": lambda: algorithm(critic=None, tail="none"),
    "pg": lambda: algorithm(E.PG(returns="gae")),
    "abpt": lambda: algorithm(E.ABPT(4), critic=OF_Q, tail="own"),
    "agpo": lambda: algorithm(E.AGPO(4, source=E.Same(4)), critic=OF_Q, tail="own"),
    "split": lambda: algorithm(E.Split()),
    "best linear": lambda: algorithm(
        E.Mixture((E.FOG(), E.PG()), E.BestLinear(), source=E.Cross(8)), episodes=8
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_update_is_a_step_along_the_mean_of_the_estimators_samples(name: str) -> None:
    problem, recipe = racing(), ALGORITHMS[name]()
    before = list(states(problem, recipe, 2))[-1][0]  # with a critic and statistics of its own
    after, info = update(problem, recipe, before)
    segment = segment_of(problem, recipe, before)
    noise = segment.noise_from(before.episodes, generator("train", 0, "noise", 2))
    mean = recipe.estimator(segment, before.params, noise).mean()
    descent = {key: -value / recipe.length for key, value in mean.items()}
    expected, _, norm = recipe.optimiser.step(before.params, descent, before.memory, 2 / 6)
    torch.testing.assert_close(info.norm, norm, rtol=1e-9, atol=0)
    for key, value in expected.items():
        torch.testing.assert_close(after.params[key], value, rtol=1e-9, atol=1e-12)
    assert segment.horizon == recipe.length + (recipe.tail == "own")


@pytest.mark.parametrize("name", ["shac", "abpt"])
def test_a_stopped_training_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    problem, recipe = racing(), ALGORITHMS[name]()
    whole = train(problem, recipe, seed=3)
    path = tmp_path / "state.safetensors"

    class Killed(Exception):
        pass

    def kill(state: TrainingState, info: Info) -> None:
        if int(state.updates) == 3:
            state.save(path)
            raise Killed

    with pytest.raises(Killed):
        train(problem, recipe, seed=3, observe=kill)
    kept = TrainingState.load(path)
    assert int(kept.updates) == 3
    same(train(problem, recipe, state=kept), whole)
    with pytest.raises(AssertionError):
        same(train(problem, recipe, seed=4), whole)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    gradlab.checkpoints.save(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {})
    with pytest.raises(Corrupt, match="a training's"):
        TrainingState.load(tmp_path / "x.safetensors")


def test_no_noise_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap: the loop's noise reused between updates."""
    seen: list[Tensor] = []
    original = Problem.noise_from

    def spy(self: Problem, moments: Any, draws: torch.Generator) -> Any:
        noise = original(self, moments, draws)
        seen.append(noise.action)
        return noise

    monkeypatch.setattr(Problem, "noise_from", spy)
    list(states(racing(), algorithm(), 3))
    list(states(racing(), algorithm(), 1, seed=1))
    flat = torch.stack([part.flatten() for part in seen])
    assert len(flat) == 4
    assert len({tuple(row.tolist()) for row in flat}) == 4


def test_episodes_go_on_and_their_returns_are_those_of_whole_episodes() -> None:
    """The trap: sums over windows logged as returns of episodes. Frozen, a policy's episodes are
    rollouts of the whole from the same starts with the noise of their segments, put together.
    """
    problem = walled()
    frozen = Adam(1e-300)
    recipe = algorithm(optimiser=frozen, episodes=16, length=2, updates=12)
    generations = [init(problem, recipe, 5)]
    noises = []
    finished, total, lengths = 0, 0.0, 0.0
    for number in range(4):  # 8 steps: the horizon
        state = generations[-1]
        segment = segment_of(problem, recipe, state)
        noises.append(segment.noise_from(state.episodes, generator("train", 5, "noise", number)))
        state, info = update(problem, recipe, state)
        generations.append(state)
        finished += int(info.finished)
        total += float(info.returns)
        lengths += float(info.lengths)
    # follow every row: the episode that began at the start goes on until it is over
    plain = problem.replace(discount=1.0)
    whole = problem.draw(16, torch.Generator().manual_seed(0))
    action = torch.cat([noise.action for noise in noises], dim=1)
    process = torch.cat([noise.process for noise in noises], dim=1)
    expected, count, steps = 0.0, 0, 0.0
    for row in range(16):
        begin = 0
        while begin < 8:
            state = generations[begin // 2]
            left = 8 - begin
            one = whole.rows(row, row + 1)._replace(
                action=action[row : row + 1, begin:], process=process[row : row + 1, begin:]
            )
            moment = state.episodes.take(torch.tensor([row]))
            assert float(moment.step) == 0
            path = rollout(plain, plain.bind(state.params), one, start=moment, length=left)
            result = evaluate(plain, path)
            alive = int((result.alive[0, :-1] > 0).sum())
            over = bool(path.ended[0, -1]) or left == 8
            if not over:
                break
            expected += float(result.value.sum())
            steps += alive
            count += 1
            begin += -(-alive // 2) * 2
    assert 16 < count == finished
    assert total == pytest.approx(expected, rel=1e-9)
    assert lengths == steps


def test_a_return_counts_up_to_the_time_limit_within_a_segment() -> None:
    problem = racing().replace(horizon=5)
    problem = problem.replace(policy=replace(problem.policy, normalise=False))
    recipe = algorithm(length=3, optimiser=Adam(1e-300), episodes=8)
    first = init(problem, recipe, 2)
    second, nothing = update(problem, recipe, first)
    third, info = update(problem, recipe, second)
    assert int(nothing.finished) == 0 and int(info.finished) == 8
    assert not third.episodes.step.any() and not third.returns.any()
    noise = [
        segment_of(problem, recipe, s).noise_from(s.episodes, generator("train", 2, "noise", n))
        for n, s in enumerate((first, second))
    ]
    drawn = problem.draw(8, torch.Generator())._replace(
        action=torch.cat([part.action for part in noise], dim=1)[:, :5],
        process=torch.cat([part.process for part in noise], dim=1)[:, :5],
    )
    whole = problem.replace(discount=1.0)
    path = rollout(whole, whole.bind(first.params), drawn, start=first.episodes, length=5)
    expected = evaluate(whole, path).value.sum()
    assert float(info.returns) == pytest.approx(float(expected), rel=1e-9)
    assert float(info.lengths) == 40.0


def test_who_is_over_begins_anew_and_nobody_else() -> None:
    problem = walled(6)
    recipe = algorithm(episodes=32, length=1, optimiser=Adam(1e-300))
    seen = [state.episodes for state, _ in states(problem, recipe, 5)]
    begun = torch.stack([moment.step for moment in seen])
    assert not torch.cat([moment.ended for moment in seen]).any()
    assert (begun[0] == 0).all() and (begun[1] == 1).all()
    later = begun[1:] - begun[:-1]
    assert ((later == 1) | (begun[1:] == 0)).all()
    assert (begun[3] == 0).any() and (begun[3] == 3).any()  # some have hit the wall by then


@pytest.mark.parametrize("tail", ["v", "own"])
def test_time_limits_bootstrap_and_terminations_do_not(tail: str) -> None:
    """Traps: values at terminations, a fresh start's value at time limits, advantages across
    resets. With λ = 0 a target is r + γ alive V(s'), s' the step's own next state."""
    problem = walled(3)
    own = tail == "own"
    recipe = algorithm(
        E.ABPT(2) if own else E.FOG(),
        critic=replace(OF_Q if own else QUICK, lam=0.0),
        tail=tail, episodes=32, length=2,
    )  # fmt: skip
    state = init(problem, recipe, 0)
    late = update(problem, replace(recipe, length=1, tail="none", estimator=E.FOG()), state)[
        0
    ].episodes
    at_limit = torch.arange(32) < 16  # at step 1: time is over after this segment, at 3
    halves = [late.take(torch.arange(16)), state.episodes.take(torch.arange(16))]
    state = state._replace(episodes=moment.concatenate(halves), updates=state.updates + 1)
    segment = segment_of(problem, recipe, state)
    noise = segment.noise_from(state.episodes, generator("train", 0, "noise", 1))
    policy = segment.bind(state.params).frozen
    path = rollout(segment, policy, noise, length=2)
    result = evaluate(problem.replace(horizon=2), path)
    critic = recipe.critic
    assert critic is not None
    draws = generator("train", 0, "actions", 1)
    targets = critic.targets(segment, policy, state.target, path, result, draws)
    for t in range(2):
        inputs = path.state[:, t + 1]
        obs = problem.task.observe(inputs, path.memory[:, t + 1], state.episodes.step + t + 1)
        if own:
            fresh = torch.randn(
                32, 3, 1, generator=generator("train", 0, "actions", 1), dtype=torch.float64
            )
            action = policy.action(policy.latent(policy(obs), fresh[:, t + 1]))
            obs = torch.cat([obs, action], dim=-1)
        happened = [i for i, e in enumerate(problem.task.events) if not e.terminates]
        flags = result.events[:, t + 1, happened]
        obs = torch.cat([obs[:, :2], flags, obs[:, 2:]], dim=-1)  # before the action
        follows = critic.value(segment, state.target, obs)
        alive = result.alive[:, t + 1] > 0
        expected = result.reward[:, t] + problem.discount * torch.where(alive, follows, 0.0)
        rows = targets.rows[:, t]
        assert torch.equal(rows, result.alive[:, t] > 0)
        if t == 1:
            assert (~alive & rows).any() and (alive & at_limit).any() and (alive & ~at_limit).any()
        torch.testing.assert_close(targets.value[rows, t], expected[rows], rtol=1e-12, atol=1e-14)


def test_a_reward_belongs_to_its_own_step() -> None:
    """The trap: reward one step late. With γ → 0 the target is the reward of the row's action."""
    problem = racing().replace(discount=1e-12)
    recipe = algorithm()
    state = init(problem, recipe, 0)
    segment = segment_of(problem, recipe, state)
    noise = segment.noise_from(state.episodes, generator("train", 0, "noise", 0))
    path = rollout(segment, segment.bind(state.params), noise).detach()
    result = evaluate(segment, path)
    targets = QUICK.targets(
        segment, segment.bind(state.params), state.target, path, result, torch.Generator()
    )
    after = problem.task.observe(path.state[:, 1:], path.memory[:, 1:], torch.zeros(()))
    assert after.shape == path.obs.shape and not torch.equal(after, path.obs)
    torch.testing.assert_close(targets.value, result.reward, rtol=1e-9, atol=1e-9)


def test_statistics_are_frozen_within_a_segment() -> None:
    problem, recipe = racing(), algorithm()
    (first, _), (second, _), (third, _) = states(problem, recipe, 2)
    assert not first.buffers["observation.mean"].any()
    assert second.buffers["observation.mean"].any()
    assert int(second.buffers["observation.count"]) == 16
    assert int(third.buffers["observation.count"]) == 32
    problem_then = segment_of(problem, recipe, second)
    assert problem_then.buffers is not None
    assert torch.equal(problem_then.buffers["observation.mean"], second.buffers["observation.mean"])


@pytest.mark.parametrize("kind", ["v", "q"])
def test_a_fit_is_passes_of_torchs_adam_over_shuffled_rows(kind: str) -> None:
    """Of which those where an episode was over mean nothing, and are in no batch."""
    problem = racing()
    optimiser = Adam(0.01, (0.7, 0.95), max_norm=0.5)
    recipe = replace(QUICK if kind == "v" else OF_Q, optimiser=optimiser, passes=3)
    params, draws = recipe.init(problem, generator("fit")), generator("rows")
    inputs = torch.randn(5, 4, recipe._network(problem).observation_dim, generator=draws)
    alive = torch.rand(5, 4, generator=draws) > 0.3
    value = torch.where(alive, torch.randn(5, 4, generator=draws), torch.nan)
    targets = Targets(inputs.double(), value.double(), alive)
    found, memory, loss = recipe.fit(
        problem, params, optimiser.init(params), targets, generator("order"), 0.0
    )

    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    adam = torch.optim.Adam(leaves.values(), 0.01, (0.7, 0.95))
    order, rows, losses = generator("order"), targets.inputs[alive], []
    for _ in range(3):
        losses = []
        for batch in torch.randperm(len(rows), generator=order).chunk(2):
            each = [
                recipe._network(problem).apply(
                    {n[2:]: leaf for n, leaf in leaves.items() if n[0] == str(member)},
                    {}, rows[batch], None,
                )[0][:, 0]
                for member in range(recipe.members)
            ]  # fmt: skip
            total = sum(((one - targets.value[alive][batch]) ** 2).mean() for one in each)
            adam.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(leaves.values(), 0.5)
            adam.step()
            losses.append(float(torch.as_tensor(total).detach()))
    assert float(loss) == pytest.approx(sum(losses) / 2, rel=1e-9)
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.detach(), rtol=1e-9, atol=1e-12)
    assert int(memory["count"]) == 6


def test_the_target_network_follows() -> None:
    problem = racing()
    for keep in (0.0, 0.75, 1.0):
        recipe = algorithm(critic=replace(QUICK, keep=keep))
        (first, _), (second, _) = states(problem, recipe, 1)
        for name, old in first.target.items():
            expected = keep * old + (1 - keep) * second.critic[name]
            torch.testing.assert_close(second.target[name], expected, rtol=1e-12, atol=1e-15)
            assert not torch.equal(second.critic[name], first.critic[name])


def test_a_gradient_that_is_not_finite_stops_or_is_skipped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem, recipe = racing(), algorithm()
    state = list(states(problem, recipe, 1))[-1][0]
    broken = state.episodes._replace(state=state.episodes.state.clone())
    broken.state[2, 3] = torch.inf
    state = state._replace(episodes=broken)
    with pytest.raises(
        NotFinite, match=r"update 1 .* 1 of 4 episodes; first the .* of step 0 .*episode 2"
    ) as caught:
        update(problem, recipe, state)
    assert "\n" not in str(caught.value) and "from state [" in str(caught.value)
    assert "inf" in str(caught.value).partition("from state")[2].partition("by action")[0]
    after, info = update(problem, replace(recipe, on_nonfinite="skip"), state)
    assert int(info.nonfinite) == 1 and bool(info.norm.isnan())
    assert all(torch.equal(after.params[name], value) for name, value in state.params.items())
    assert bool(after.episodes.state.isfinite().all()) and float(after.episodes.step[2]) == 0
    assert all(bool(value.isfinite().all()) for value in after.critic.values())


@dataclass(frozen=True)
class Rooted(E.SurrogateEstimator):
    """FOG, and the root of 0 in step 2: its value is 0 and its slope is none."""

    def surrogate(self, problem: Problem, policy: Any, noise: Any) -> Tensor:
        path = rollout(problem, policy, noise)
        action = path.action[..., 2, 0]
        value = evaluate(problem, path).value.sum(-1)
        return value + (action - action.detach()).abs().sqrt()

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon)


def test_a_gradient_that_is_lost_on_its_way_back_says_at_which_step() -> None:
    problem, recipe = racing(), algorithm(Rooted())
    words = "though all states and rewards are: in 4 of 4 episodes; first, on its way back, in what step 2 "
    with pytest.raises(NotFinite, match=words) as caught:
        update(problem, recipe, init(problem, recipe))
    assert "\n" not in str(caught.value) and "(episode 0, from state [" in str(caught.value)


def test_evaluation_runs_whole_episodes_on_fixed_seeds() -> None:
    problem = walled()
    params = problem.init(torch.Generator().manual_seed(1))
    found = evaluate_policy(problem, params, episodes=32, deterministic=False)
    noise = problem.draw(32, generator("evaluation", 0, 0))
    result = evaluate(problem, rollout(problem, problem.bind(params), noise))
    alive = result.alive[:, :-1] > 0
    expected = torch.where(alive, result.reward, 0.0).sum(1)
    torch.testing.assert_close(found.returns, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.lengths, alive.sum(1).double())
    assert found.counts[:, 0].sum() == (result.alive[:, -1] == 0).sum() > 0
    again = evaluate_policy(problem, params, episodes=32, deterministic=False)
    assert torch.equal(again.returns, found.returns)
    mean = found.mean
    assert mean.low < float(expected.mean()) < mean.high


def test_evaluation_counts_every_gate() -> None:
    """A gate that is passed pays 20 and switches to the next: passes are what is paid, over 20."""
    boxes = ((3.9, 4.0, 1.0), (8.0, 0.1, 2.0))  # in a gate: the first step passes it
    problem = gradlab.make(
        "racing", gates=4, spawn_means=boxes, spawn_half_range=(0.05,) * 3, horizon=24
    )
    params = problem.init(torch.Generator().manual_seed(0))
    found = evaluate_policy(problem, params, episodes=16, deterministic=False)
    noise = problem.draw(16, generator("evaluation", 0, 0))
    result = evaluate(problem, rollout(problem, problem.bind(params), noise))
    paid = torch.where(result.alive[:, :-1] > 0, result.reward - result.dense, 0.0).sum(1)
    torch.testing.assert_close(found.counts[:, 0], paid / 20, rtol=1e-5, atol=1e-5)
    assert (found.counts[:, 0] >= 1).all()


def test_a_gate_counts_as_often_as_it_is_passed_and_a_collision_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = gradlab.make("racing", gates=4, horizon=6)
    passed = torch.tensor([-1.0, 0.2, -1.0, 0.1, -1.0, 0.3])  # the last after the end
    collided = torch.tensor([-1.0, -1.0, -1.0, -1.0, 0.1, 0.2])

    def made(*args: Any) -> Any:
        result = evaluate(*args)
        margins = torch.stack([passed, collided], dim=-1).expand_as(result.margins)
        alive = torch.tensor([1.0] * 5 + [0.0] * 2).expand_as(result.alive)
        return result._replace(margins=margins, alive=alive)

    monkeypatch.setattr(evaluation, "evaluate", made)
    params = problem.init(torch.Generator().manual_seed(0))
    assert evaluate_policy(problem, params, episodes=2).counts.tolist() == [[2.0, 1.0]] * 2
    twice = collided.roll(-1)  # two steps alive with a margin above 0
    collided.copy_(twice)
    assert evaluate_policy(problem, params, episodes=2).counts.tolist() == [[2.0, 1.0]] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tail": "own"}, "needs a Q critic"),
        (
            {"tail": "own", "critic": OF_Q, "estimator": E.ABPT(3)},
            r"a segment, 4 steps, got ABPT\(3\)",
        ),
        ({"tail": "own", "critic": OF_Q, "estimator": E.ABPT()}, r"4 steps, got ABPT\(T\)"),
        ({"tail": "own", "critic": OF_Q, "estimator": 0.5 * (E.NStep(3) + E.QG())}, "4 steps, got"),
        ({"estimator": E.FOG}, r"should be an estimator, got .*FOG.*try estimators.FOG\(\)"),
        ({"critic": None}, "needs a V critic"),
        ({"critic": OF_Q}, "needs a V critic"),
        ({"episodes": 0}, "episodes"),
        ({"estimator": E.PG(baseline="loo", group_size=8)}, "groups of 8"),
    ],
)
def test_what_does_not_fit_together_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=words) as caught:
        algorithm(**options)
    assert "\n" not in str(caught.value)


def test_a_window_of_the_segments_length_may_be_part_of_a_sum() -> None:
    """n-step and 0-step returns as a sum are ABPT, in a training too."""
    problem, sides = racing(), []
    for estimator in (E.ABPT(4), 0.5 * (E.NStep(4) + E.QG(at="start"))):
        recipe = algorithm(estimator, critic=OF_Q, tail="own")
        sides.append(list(states(problem, recipe, 2))[-1][0])
    for name, value in sides[0].params.items():
        torch.testing.assert_close(sides[1].params[name], value, rtol=1e-6, atol=1e-9)


def test_a_critic_that_the_estimator_does_not_read_is_one_line() -> None:
    problem, recipe = racing(), algorithm(E.ABPT(4))
    with pytest.raises(Missing, match="needs a Q critic.*; try critic=.*'q'.* and tail='own'"):
        update(problem, recipe, init(problem, recipe))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": 2}, "4 episodes in place of 2"),
        ({"entropy": Entropy(Temperature())}, "no coefficient of entropy"),
        ({"kl": KLPenalty(0.1)}, "no policy before the last update"),
        ({"adaptive": AdaptiveLength(2, 4)}, "no length of segments"),
    ],
)
def test_a_state_of_another_algorithm_is_one_line(options: dict[str, Any], words: str) -> None:
    problem, state = racing(), init(racing(), algorithm())
    with pytest.raises(BadValue, match=f"{words}; try init"):
        update(problem, algorithm(**options), state)
    bare = init(problem, algorithm(critic=None, tail="none"))
    with pytest.raises(BadValue, match="no critic; try init"):
        update(problem, algorithm(), bare)


def test_problems_that_cannot_be_trained_on() -> None:
    problem = racing()
    with pytest.raises(BadValue, match="at most the 16 steps"):
        init(problem, algorithm(length=17))
    for estimator in (E.FOG(), E.PG(), E.ABPT(4, zero_step="all"), E.NStep(4, "tiled"), E.QG()):
        own = algorithm(estimator, critic=OF_Q, tail="own")
        with pytest.raises(BadValue, match="no policy call of the next segment may count"):
            init(problem, own)
    with pytest.raises(BadValue, match="whole episodes"):
        init(problem.from_moments(4, bootstrap=False), algorithm())
    with pytest.raises(BadValue, match="on the hard task"):
        init(problem.relaxed(0.1), algorithm())
    with pytest.raises(BadValue, match="would be compiled anew; try compile=False"):
        init(problem.replace(compile=True), algorithm(restart="inside"))


@pytest.mark.parametrize("name", ["shac", "abpt", "split"])
def test_lq_is_learned(name: str) -> None:
    """From a policy that does nothing."""
    problem, _ = build("lq", horizon=16)
    problem = problem.replace(policy=gradlab.LinearPolicy(0, 0, std=0.05), skewed=())
    recipe = replace(
        ALGORITHMS[name](), episodes=32, updates=60, optimiser=Adam(0.05),
        critic=replace(OF_Q if name == "abpt" else QUICK, hidden=(16,), passes=8),
    )  # fmt: skip
    first = init(problem, recipe, 0)
    last = train(problem, recipe, seed=0)
    before, after = (evaluate_policy(problem, s.params).mean for s in (first, last))
    assert after.low > before.high
