"""Total propagation: its weights and messages, whom they look at, and what they are at the ends."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import tests.helpers.checking
from estimators.mixtures.sources import Source
from estimators.total_propagation import ratio_weight
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Engine
from gradlab.gradients.samples import Factored
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from gradlab.statistics.truth import OracleGradient
from gradlab.tasks import Transition
from gradlab.testing import Biased, assert_unbiased
from tests.helpers.forked import run_code
from tests.helpers.known import build
from tests.helpers.toy import Pendulum, toy_params, toy_problem

ENGINES: tuple[Engine, ...] = ("pullback", "vmap", "loop")


@dataclasses.dataclass(frozen=True)
class Shaken(Pendulum):
    """The pendulum with noise on angle and rate, which share a part."""

    noise_dim: int = 2

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        still = super().step(state, action, torch.zeros_like(noise[..., :1]))
        angle, rate = noise[..., :1], noise[..., 1:]
        return still + torch.cat([0.1 * angle + 0.04 * rate, 0.07 * rate], dim=-1)


def shaken(**options: Any) -> Problem:
    return toy_problem(with_events=False, **options).replace(simulator=Shaken())


def drawn(problem: Problem, count: int = 6, seed: int = 1) -> tuple[dict[str, Tensor], Noise]:
    return toy_params(problem), problem.draw(count, torch.Generator().manual_seed(seed))


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-11) -> None:
    assert any(value.abs().max() > 0 for value in one.values())
    for name, value in one.items():
        assert (value - other[name]).abs().max() <= tolerance * value.abs().max(), name


def cotangents(estimator: E.Estimator, problem: Problem, params: Any, noise: Noise) -> Tensor:
    samples = estimator(problem, params, noise)
    assert isinstance(samples, Factored)
    return samples.cotangent


def recursion(
    problem: Problem, params: dict[str, Tensor], noise: Noise, node: str, by: str, every: int
) -> tuple[Tensor, Tensor]:
    """Weights [T, m] and gradients at the policy's output [N, T, nz], by hand, of one group."""
    policy, task, last = problem.policy, problem.task, problem.horizon - 1
    bound = policy.bind(params)
    path = rollout(problem, bound, noise)
    to_go = evaluate(problem, path).to_go()
    count = len(to_go)
    advantage = to_go - (to_go.sum(0) - to_go) / (count - 1)
    counted = 2 if node == "state" or isinstance(policy.head.std, str) else 1
    weights: list[Tensor] = []
    outputs: list[Tensor] = []
    k = later = torch.zeros_like(path.state[:, 0])  # ∂(return)/∂s_{t+1} by what comes after step t
    factor = torch.tensor([[0.1, 0.0], [0.04, 0.07]], dtype=torch.float64)
    for t in reversed(range(problem.horizon)):

        def mixture(back: Tensor, score: Tensor, k: Tensor, t: int = t) -> tuple[Tensor, Tensor]:
            ratio = score * advantage[:, t, None]
            if (last - t) % every == 0:
                loud, quiet = ratio.var(0), back.var(0)
                if by == "all":
                    loud, quiet = loud[:counted].sum(), quiet[:counted].sum()
                k = torch.atleast_1d(quiet / (quiet + loud))
            return k * ratio + (1 - k) * back, k

        before = path.before[:, t].detach().requires_grad_()
        z = path.output[:, t].detach().requires_grad_()
        action = policy.action(policy.latent(z, noise.action[:, t]))
        step, memory = problem.steps[t], path.memory[:, t]
        after = problem.simulator.step(before, action, noise.process[:, t])
        terms = task.terms(Transition(before, action, after, memory, step))
        reward = problem.discounts[t] * torch.stack(list(terms.values())).sum()
        message, back = torch.autograd.grad((after * later).sum() + reward, (before, z))
        if node == "action":
            std, eps = z.detach()[:, 1:].exp(), noise.action[:, t]
            back, k = mixture(back, torch.cat([eps / std, eps.square() - 1], -1), k)
        outputs.append(back)
        given = bound(task.observe(before, memory, step))
        (to_state,) = torch.autograd.grad((given * back).sum(), before)
        later = message + to_state
        if node == "state" and t:
            score = noise.process[:, t - 1] @ torch.linalg.inv(factor).T
            later, k = mixture(later, score, k)
        weights.append(k if node == "action" or t else torch.zeros_like(k))
    return torch.stack(weights[::-1]), torch.stack(outputs[::-1], dim=1)


@pytest.mark.parametrize("std", ["state", 0.4])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("by", ["all", "coordinate"])
@pytest.mark.parametrize("node", ["action", "state"])
def test_weights_and_messages_are_those_of_a_recursion_by_hand(
    node: Any, by: str, every: int, std: Any
) -> None:
    problem = shaken(std=std)
    call = problem, *drawn(problem)
    estimator = E.TotalPropagation(node, by == "coordinate", every, E.Same(6))
    weights, outputs = recursion(*call, node, by, every)
    found = estimator.weights(*call)
    assert found.shape == (1, problem.horizon, 2 if by == "coordinate" else 1)
    learned = slice(None) if isinstance(std, str) or node == "state" or by == "all" else slice(0, 1)
    near(found[0][:, learned], weights[:, learned])
    assert 0 < found[0, 1:].min() and found.max() < 1
    used = slice(None) if isinstance(std, str) else slice(0, 1)  # the mean alone is learned
    near(cotangents(estimator, *call)[..., used], outputs[..., used])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("node", ["action", "state"])
def test_engines_agree(node: Any, engine: Engine) -> None:
    """Events, ends of episodes and relaxed events at the action are in `test_engines`."""
    problem = shaken()
    call = problem, *drawn(problem, 8)
    one = E.TotalPropagation(node, True, source=E.Cross(4), engine=engine)(*call).per_sample()
    same(E.TotalPropagation(node, True, source=E.Cross(4))(*call).per_sample(), one, 1e-10)


@pytest.mark.parametrize("kind", ["smooth", "ending", "relaxed", "switching"])
def test_a_weight_of_0_is_fog(kind: str) -> None:
    problem = {
        "smooth": toy_problem(with_events=False),
        "ending": toy_problem(),
        "relaxed": toy_problem(std="global").relaxed(0.2),
        "switching": toy_problem(switching=True, std=0.3),
    }[kind]
    call = problem, *drawn(problem)
    fog = E.FOG()(*call).per_sample()
    same(fog, E.TotalPropagation(weight=0.0, source=E.Same(6))(*call).per_sample())
    if kind == "smooth":
        problem = shaken()
        call = problem, *drawn(problem)
        path = E.TotalPropagation("state", weight=0.0, source=E.Same(6))(*call).per_sample()
        same(E.FOG()(*call).per_sample(), path)


@pytest.mark.parametrize("with_events", [False, True])
def test_a_weight_of_1_is_the_score_function_at_every_step(with_events: bool) -> None:
    """PG with a leave-one-out baseline; nothing is sent once an episode has ended."""
    problem = toy_problem(with_events=with_events)
    params, noise = drawn(problem, 12)
    pg = cotangents(E.PG(baseline="loo", group_size=6), problem, params, noise)
    ended = rollout(problem, problem.bind(params), noise).ended[:, :-1, None]
    assert bool(ended.any()) == with_events
    found = cotangents(E.TotalPropagation(weight=1.0, source=E.Same(6)), problem, params, noise)
    near(found, torch.where(ended, 0.0, pg))


def test_a_node_that_no_reward_depends_on_sends_its_message() -> None:
    """The indicator has no derivative: nothing comes back, and all of the weight is its own."""
    problem, params = build("heaviside")
    noise = problem.draw(12, torch.Generator().manual_seed(1))
    source = E.Same(12)
    assert E.TotalPropagation(source=source).weights(problem, params, noise).abs().max() == 0
    score = E.TotalPropagation(weight=1.0, source=source)(problem, params, noise).per_sample()
    pg = E.PG(baseline="loo", group_size=12)(problem, params, noise).per_sample()
    same(pg, score)


@pytest.mark.parametrize("folds", [2, 3])
def test_weights_of_a_fold_are_those_of_the_other_episodes_alone(folds: int) -> None:
    problem = toy_problem()
    params, noise = drawn(problem, 24)
    found = E.TotalPropagation(source=E.Cross(12, folds=folds)).weights(problem, params, noise)
    assert found.shape == (2 * folds, problem.horizon, 1)
    size = 12 // folds
    for block in range(2 * folds):
        group, fold = divmod(block, folds)
        others = [12 * group + i for i in range(12) if i // size != fold]
        rest = Noise(*(part[others] for part in noise))
        expected = E.TotalPropagation(source=E.Same(12 - size)).weights(problem, params, rest)
        near(found[block], expected[0])


@pytest.mark.parametrize("source", ["same", "cross"])
def test_weights_look_at_the_episodes_that_the_source_says(source: str) -> None:
    """Another episode in one fold leaves the weights of that fold as they are, to the last bit."""
    problem = toy_problem()
    params, noise = drawn(problem, 16)
    other = problem.draw(16, torch.Generator().manual_seed(5))
    mixed = Noise(*(torch.cat([a[:5], b[5:6], a[6:]]) for a, b in zip(noise, other, strict=True)))
    chosen: Source = E.Same(8) if source == "same" else E.Cross(8)
    estimator = E.TotalPropagation(source=chosen)
    before, after = (estimator.weights(problem, params, each) for each in (noise, mixed))
    changed = (before != after).any(-1).any(-1).tolist()
    assert changed == ([True, False] if source == "same" else [True, False, False, False])


def test_a_pilot_leaves_rows_independent() -> None:
    problem = toy_problem()
    params, noise = drawn(problem, 5)
    estimator = E.TotalPropagation(source=E.Independent(seed=3, size=8))
    assert estimator.group == 1
    pilot = E.Independent(seed=3, size=8).draw(problem, 1)
    expected = E.TotalPropagation(source=E.Same(8)).weights(problem, params, pilot)
    assert torch.equal(estimator.weights(problem, params, noise), expected)
    whole = estimator(problem, params, noise).per_sample()
    alone = estimator(problem, params, noise.rows(3, 4)).per_sample()
    for leaf, value in alone.items():
        torch.testing.assert_close(value[0], whole[leaf][3], rtol=1e-10, atol=1e-12)


def test_weights_of_what_is_quiet_or_has_exploded() -> None:
    generator = torch.Generator().manual_seed(0)
    ratio, path = torch.randn(2, 1, 5, 2, generator=generator, dtype=torch.float64)
    assert ratio_weight(ratio, 0 * path, 2).tolist() == [[0.0]]
    assert ratio_weight(0 * ratio, path, 2).tolist() == [[1.0]]
    assert ratio_weight(0 * ratio, 0 * path, 2).tolist() == [[0.5]]
    for lost in (torch.inf, torch.nan, 1e200):
        broken = path.clone()
        broken[0, 2, 1] = lost
        assert ratio_weight(ratio, broken, 2).tolist() == [[1.0]]
        assert ratio_weight(ratio, broken, 1).tolist() != [[1.0]]  # the other does not count
        each = ratio_weight(ratio, broken, None)[0]
        assert 0 < each[0] < 1 and each[1] == 1


@dataclasses.dataclass(frozen=True)
class Exploding(Pendulum):
    """Its rate does not move, and has a derivative that overflows within four steps."""

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        after = super().step(state, action, noise)
        return after + 1e160 * (after - after.detach())


def test_what_has_exploded_is_not_sent_on() -> None:
    problem = toy_problem(with_events=False, horizon=4).replace(simulator=Exploding())
    call = problem, *drawn(problem)
    assert not bool(E.FOG()(*call).squared_norms().isfinite().all())
    found = E.TotalPropagation(source=E.Same(6))(*call).per_sample()
    assert all(bool(value.isfinite().all()) for value in found.values())


def test_steps_run_again_in_the_backward_pass_give_the_same() -> None:
    problem = toy_problem()
    params, noise = drawn(problem, 8)
    estimator = E.TotalPropagation(source=E.Cross(4))
    plain = estimator(problem, params, noise).per_sample()
    again = estimator(problem.replace(checkpoint=True), params, noise).per_sample()
    same(plain, again, 1e-12)


COMPILED = """
import torch
import estimators as E
from tests.helpers.toy import toy_params, toy_problem
import tests.helpers.checking

with tests.helpers.checking.off():
    problem, params = toy_problem(), toy_params(toy_problem())
    noise = problem.draw(12, torch.Generator().manual_seed(1))
    for source in (E.Cross(12, folds=3), E.Independent(size=8)):
        estimator = E.TotalPropagation(source=source)
        eager = estimator(problem, params, noise).per_sample()
        fast = estimator(problem.replace(compile=True), params, noise).per_sample()
        for name, value in eager.items():
            assert (value - fast[name]).abs().max() <= 1e-12 * value.abs().max(), name
print("same")
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_compiled_steps_give_the_same() -> None:
    """Several backward passes through one graph of compiled steps would be refused by torch."""
    done = run_code(COMPILED)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


# Expectation.


def against(problem: Problem, params: dict[str, Tensor], estimator: E.Estimator, **how: Any) -> Any:
    answer = closed_forms.solve(problem, params)
    truth = OracleGradient.exact(answer.gradient, "closed form")
    return assert_unbiased(estimator, problem, params, truth, **how)


@pytest.mark.statistical
@pytest.mark.parametrize("weight", [None, 1.0])
def test_the_state_node_is_unbiased_where_all_of_the_state_is_noisy(weight: float | None) -> None:
    problem, params = build("lq", process_std=(0.3, 0.25, 0.2, 0.3))
    estimator = E.TotalPropagation("state", True, source=E.Cross(512), weight=weight)
    found = estimator.weights(problem, params, problem.draw(512, torch.Generator().manual_seed(1)))
    assert found[:, 1:].mean() > 0.01  # its message is there
    against(problem, params, estimator, detect=0.05, max_count=2**20, chunk_size=4096)


@pytest.mark.statistical
def test_weights_of_the_same_episodes_bias_and_are_caught() -> None:
    """On a steep ramp most pathwise messages are 0, and so is their variance in a small group."""
    problem, params = build("soft_heaviside")
    how = {"detect": 0.05, "chunk_size": 8192, "max_count": 2**17}
    with pytest.raises(Biased):
        against(problem, params, E.TotalPropagation(source=E.Same(8)), **how)
    against(problem, params, E.TotalPropagation(source=E.Cross(8)), **how)


# What is refused, in one line.


def at_state(problem: Problem) -> object:
    return E.TotalPropagation("state", source=E.Same(6))(problem, *drawn(problem))


@dataclasses.dataclass(frozen=True)
class Scaled(Pendulum):
    """Noise in proportion to the rate."""

    noise_dim: int = 2

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        still = super().step(state, action, torch.zeros_like(noise[..., :1]))
        return still + 0.1 * state[..., 1:] * noise


@dataclasses.dataclass(frozen=True)
class Flat(Pendulum):
    """Two random numbers on the rate, and none on the angle."""

    noise_dim: int = 2

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        return super().step(state, action, noise.sum(-1, keepdim=True))


WRONG = {
    "noise on one component": (toy_problem(with_events=False), "all 2 components.*got 1"),
    "noise of another size": (
        toy_problem(with_events=False).replace(simulator=Scaled()),
        "constant factor",
    ),
    "noise without an inverse": (
        toy_problem(with_events=False).replace(simulator=Flat()),
        "constant factor",
    ),
    "ends": (toy_problem().replace(simulator=Shaken()), "without memory and ends"),
    "memory": (toy_problem(switching=True).replace(simulator=Shaken()), "without memory and ends"),
    "relaxed": (
        build("gate", process_std=0.1)[0].relaxed(0.1),
        "needs hard events, got",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_states_without_a_score_are_refused(name: str) -> None:
    problem, words = WRONG[name]
    with pytest.raises(BadValue, match=words) as caught:
        at_state(problem)
    assert "\n" not in str(caught.value) and "use node='action'" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"node": "reward"}, "'action' or 'state', got 'reward'"),
        ({"every": 0}, "every.*at least 1, got 0"),
        ({"weight": 1.5}, r"\[0, 1\], got 1.5"),
        ({"source": E.Same}, r"try source=Cross\(size=50\)"),
        ({"source": E.Cross(2)}, "at least 4"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], words: str) -> None:
    with tests.helpers.checking.off(), pytest.raises(BadValue, match=words) as caught:
        E.TotalPropagation(**options).check(toy_problem())
    assert "\n" not in str(caught.value)


def test_labels_and_costs() -> None:
    problem = toy_problem()
    assert E.TotalPropagation().label == "TotalPropagation(action)"
    assert E.TotalPropagation("state", True).label == "TotalPropagation(state, per coordinate)"
    assert E.TotalPropagation(source=E.Cross(12, folds=3)).cost(problem) == E.Cost(16, 4)
    assert E.TotalPropagation(source=E.Cross(12)).cost(problem) == E.Cost(16, 2)
    assert E.TotalPropagation(source=E.Same(8)).cost(problem) == E.Cost(16, 2)
    assert E.TotalPropagation(source=E.Independent()).cost(problem) == E.Cost(16, 1)
