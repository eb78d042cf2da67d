"""A relay gives values on as they are, and decides what flows back at the nodes of a step."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import estimators as E
import estimators.pathwise
import estimators.score
import estimators.value
import tests.helpers.checking
from estimators.base import Estimator
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.foundation.memo import Memo
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Engine, per_sample_gradients
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, moment_at
from gradlab.rollouts.relay import Mixed, Node, Recorder, Relay
from gradlab.rollouts.rollout import rollout
from gradlab.tasks import Transition
from tests.helpers.toy import toy_params, toy_problem

ENGINES: tuple[Engine, ...] = ("pullback", "vmap", "loop")
BOTH: tuple[Node, ...] = ("state", "action")
EVERY: tuple[Node, ...] = ("state", "output", "action")
PROBLEMS = {
    "smooth": toy_problem(with_events=False),
    "ending": toy_problem(),
    "relaxed": toy_problem(std="global").relaxed(0.2),
    "switching": toy_problem(switching=True, std=0.3),
}


@dataclass(frozen=True)
class At:
    """A relay made of a function of step, node and value."""

    nodes: tuple[Node, ...]
    function: Callable[[int, Node, Tensor], Tensor]

    def __call__(self, step: int, node: Node, value: Tensor) -> Tensor:
        return self.function(step, node, value)


def unchanged(step: int, node: Node, value: Tensor) -> Tensor:
    return value


def unmixed(step: int, node: Node, value: Tensor) -> Tensor:
    """A message that is no number, with a weight of 0."""
    return Mixed.apply(value, torch.full_like(value, torch.nan), torch.zeros_like(value))


def cut(every: int) -> Relay:
    def at(step: int, node: Node, value: Tensor) -> Tensor:
        return value.detach() if step and step % every == 0 else value

    return At(("state",), at)


class Clipped(torch.autograd.Function):
    """The value; its gradient within ±limit."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, limit: float) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.limit = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].clamp(-ctx.limit, ctx.limit), None


def drawn(problem: Problem, count: int = 6) -> tuple[dict[str, Tensor], Noise]:
    return toy_params(problem), problem.draw(count, torch.Generator().manual_seed(1))


def returns(problem: Problem, relay: Relay | None, **options: Any) -> Callable[..., Tensor]:
    """The surrogate of FOG through a relay."""

    def surrogate(policy: BoundPolicy, noise: Noise, given: Any) -> Tensor:
        path = rollout(problem, policy, noise, relay=relay, **options)
        return evaluate(problem, path, options.get("cut_every")).value.sum(-1)

    return surrogate


def gradient(
    problem: Problem, relay: Relay | None, engine: Engine = "pullback", **options: Any
) -> dict[str, Tensor]:
    surrogate = returns(problem, relay, **options)
    return per_sample_gradients(surrogate, problem, *drawn(problem), engine=engine).per_sample()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert any(value.abs().max() > 0 for value in one.values())
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_near(one: Mapping[Any, Tensor], other: Mapping[Any, Tensor], tolerance: float) -> None:
    assert any(value.abs().max() > 0 for value in one.values())
    for name, value in one.items():
        assert (value - other[name]).abs().max() <= tolerance * value.abs().max(), name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("function", [unchanged, unmixed])
@pytest.mark.parametrize("kind", ["smooth", "switching"])
def test_one_that_changes_nothing(
    kind: str, function: Callable, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every estimator's samples are what they are without it, in every engine.

    To the last bit, if the relay gives on what it gets; a node of its own in the graph can have the
    messages that reach it added up first.
    """
    problem = PROBLEMS[kind]
    call = problem, *drawn(problem, 2)
    several: list[Estimator] = [
        E.FOG(engine=engine), E.Split(0.1, engine=engine), E.PG(engine=engine),
        E.QG(engine=engine), E.NStep(3, "tiled", engine=engine),
        E.LambdaReturn(0.8, 3, engine=engine), E.ABPT(3, "all", engine=engine),
    ]  # fmt: skip
    plain = [one(*call).per_sample() for one in several]
    through = partial(rollout, relay=At(EVERY, function))
    for module in (estimators.pathwise, estimators.score, estimators.value):
        monkeypatch.setattr(module, "rollout", through)
    for one, expected in zip(several, plain, strict=True):
        found = one(*call).per_sample()
        if function is unchanged:
            assert_same(expected, found)
        assert_near(expected, found, 1e-11)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", PROBLEMS)
def test_one_that_cuts_is_a_cut(kind: str, engine: Engine) -> None:
    problem = PROBLEMS[kind]
    expected = gradient(problem, None, engine, cut_every=3)
    surrogate = returns(problem, cut(3))

    def windows(policy: BoundPolicy, noise: Noise, given: Any) -> Tensor:
        path = rollout(problem, policy, noise, relay=cut(3))
        return evaluate(problem, path, cut_every=3).value.sum(-1)

    found = per_sample_gradients(windows, problem, *drawn(problem), engine=engine).per_sample()
    assert_same(expected, found)
    uncut = per_sample_gradients(surrogate, problem, *drawn(problem), engine=engine).per_sample()
    whole = gradient(problem, None, engine)
    assert any(not torch.equal(uncut[name], value) for name, value in whole.items())


def test_a_path_has_the_same_numbers_and_the_relayed_ones_before() -> None:
    problem = PROBLEMS["smooth"]
    params, noise = drawn(problem)
    policy = problem.policy.bind({name: value.requires_grad_() for name, value in params.items()})
    plain = rollout(problem, policy, noise)
    path = rollout(problem, policy, noise, relay=cut(1))
    for one, other in zip(plain[:-1], path[:-1], strict=True):
        assert torch.equal(one, other)
    assert path.state.requires_grad and not path.before.requires_grad


def test_a_start_can_be_cut_off() -> None:
    problem = PROBLEMS["ending"]
    params, noise = drawn(problem)
    shifted = At(("state",), lambda step, node, value: value.detach() if step == 0 else value)

    def joined(relay: Relay | None, attached: bool) -> Callable[..., Tensor]:
        def surrogate(policy: BoundPolicy, noise: Noise, given: Any) -> Tensor:
            first = rollout(problem, policy, noise, length=3)
            start = moment_at(first, evaluate(problem, first))
            # margins so far pass beside the state
            start = start if attached else start.detach()
            rest = noise.during(3, problem.horizon)
            path = rollout(problem, policy, rest, start=start, relay=relay)
            return path.state.square().sum((-1, -2))

        return surrogate

    def found(relay: Relay | None, attached: bool) -> dict[str, Tensor]:
        surrogate = joined(relay, attached)
        return per_sample_gradients(surrogate, problem, params, noise).per_sample()

    path_only = found(shifted, attached=True)
    cut_off = found(None, attached=False)
    # the first state of the path itself is not behind the door
    assert any(not torch.equal(path_only[name], value) for name, value in cut_off.items())
    assert any(not torch.equal(found(None, True)[n], value) for n, value in path_only.items())


def by_hand(problem: Problem, noise: Noise, through: Callable[[Node, Tensor], Tensor]) -> dict:
    """Gradients of the return of one episode by a backward recursion over its steps."""
    params = toy_params(problem)
    policy, task = problem.policy, problem.task
    path = rollout(problem, policy.bind(params), noise)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    later = torch.zeros_like(path.state[0])  # ∂(return)/∂s_{t+1} by what comes after step t
    for t in reversed(range(problem.horizon)):
        before = path.before[t].detach().requires_grad_()
        action = path.action[t].detach().requires_grad_()
        step, memory = problem.steps[t], path.memory[t]
        after = problem.simulator.step(before, action, noise.process[t])
        terms = task.terms(Transition(before, action, after, memory, step).alone())
        reward = problem.discounts[t] * torch.stack(list(terms.values())).sum()
        message, to_action = torch.autograd.grad(
            (after * later).sum() + reward, (before, action), materialize_grads=True
        )
        to_action = through("action", to_action)
        z = policy.bind(leaves)(task.observe(before, memory, step))
        chosen = policy.action(policy.latent(z, noise.action[t]))
        to_state, *to_params = torch.autograd.grad(
            (chosen * to_action).sum(), (before, *leaves.values()), materialize_grads=True
        )
        for name, part in zip(leaves, to_params, strict=True):
            total[name] += part
        later = through("state", message + to_state)
    return total


@pytest.mark.parametrize("engine", ENGINES)
def test_clipping_and_scaling_are_a_backward_pass_by_hand(engine: Engine) -> None:
    problem = PROBLEMS["smooth"]
    limit, share = 0.05, 0.5

    def at(step: int, node: Node, value: Tensor) -> Tensor:
        if node == "state":
            return Clipped.apply(value, limit)  # type: ignore[return-value]
        return Mixed.apply(value, torch.zeros_like(value), torch.full_like(value, 1 - share))

    def through(node: Node, message: Tensor) -> Tensor:
        return message.clamp(-limit, limit) if node == "state" else share * message

    found = gradient(problem, At(BOTH, at), engine)
    _, noise = drawn(problem)
    for i in range(noise.count):
        expected = by_hand(problem, Noise(*(part[i] for part in noise)), through)
        assert_near(expected, {name: value[i] for name, value in found.items()}, 1e-11)
    plain = by_hand(problem, Noise(*(part[0] for part in noise)), lambda node, message: message)
    with pytest.raises(AssertionError):  # the limit is met
        assert_near(plain, {name: value[0] for name, value in found.items()}, 1e-3)


class Given(NamedTuple):
    """Messages and weights of a first pass."""

    state: Tensor
    action: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Mixing(E.TwoPassEstimator):
    """FOG that puts recorded messages in the place of those that come back, here and there."""

    kind: str = "some"

    def first_pass(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Given:
        recorder = Recorder()
        with torch.enable_grad():
            path = rollout(problem, policy, noise, relay=recorder)
            messages = recorder.messages(evaluate(problem, path).value.sum(-1))
        size = messages["action"].norm(dim=-1, keepdim=True)
        weight = size / (1 + size) if self.kind == "some" else torch.ones_like(size)
        scale = 3.0 if self.kind == "some" else 1.0
        return Given(scale * messages["state"], scale * messages["action"], weight)

    def surrogate(
        self, problem: Problem, policy: BoundPolicy, noise: Noise, given: Given
    ) -> Tensor:
        def at(step: int, node: Node, value: Tensor) -> Tensor:
            message = given.state if node == "state" else given.action
            return Mixed.apply(value, message[..., step, :], given.weight[..., step, :])

        path = rollout(problem, policy, noise, relay=At(BOTH, at))
        return evaluate(problem, path).value.sum(-1)

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> E.Cost:
        return E.Cost(2 * problem.horizon, 2)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_messages_of_one_pass_are_those_of_vmap_and_grad(kind: str) -> None:
    """One batched backward pass against a gradient by what is added at every node."""
    problem = PROBLEMS[kind]
    params, noise = drawn(problem)
    policy = problem.policy.bind(params)
    recorder = Recorder(*EVERY)
    path = rollout(problem, policy, noise, relay=recorder)
    messages = recorder.messages(evaluate(problem, path).value.sum(-1))

    def one(added: dict[str, Tensor], noise: Noise) -> Tensor:
        relay = At(EVERY, lambda step, node, value: value + added[node][step])
        return evaluate(problem, rollout(problem, policy, noise, relay=relay)).value.sum(-1)

    zero = {node: torch.zeros_like(value) for node, value in messages.items()}
    twin = torch.func.vmap(torch.func.grad(one))(zero, noise)
    assert_near(messages, twin, 1e-12)


def test_mixed_agrees_with_vmap_and_grad_to_the_last_bit() -> None:
    draws = torch.Generator().manual_seed(0)
    value, message, weight = torch.randn(3, 16, 6, 2, generator=draws, dtype=torch.float64)
    weight = weight.clamp(0, 1)

    def one(value: Tensor, message: Tensor, weight: Tensor) -> Tensor:
        state = value[0]
        for t in range(6):
            mixed = Mixed.apply(state, message[t], weight[t])
            state = torch.sin(mixed * value[t]) + mixed
        return state.square().sum()

    each = torch.func.vmap(torch.func.grad(one))(value, message, weight)
    leaf = value.clone().requires_grad_()
    moved = [part.movedim(0, 1) for part in (leaf, message, weight)]
    state = moved[0][0]
    for t in range(6):
        mixed = Mixed.apply(state, moved[1][t], moved[2][t])
        state = torch.sin(mixed * moved[0][t]) + mixed
    (batched,) = torch.autograd.grad(state.square().sum(), leaf)
    assert torch.equal(batched, each)
    assert bool((weight == 0).any()) and bool((weight == 1).any())


@pytest.mark.parametrize("kind", PROBLEMS)
def test_messages_as_constants_agree_in_all_engines(kind: str) -> None:
    problem = PROBLEMS[kind]
    call = problem, *drawn(problem)
    pullback, vmap, loop = (Mixing(engine=one)(*call).per_sample() for one in ENGINES)
    assert_near(pullback, vmap, 1e-9)
    assert_near(pullback, loop, 1e-9)
    plain = E.FOG()(*call).per_sample()
    assert any((pullback[n] - value).abs().max() > 1e-3 for n, value in plain.items())
    # its own messages in its place: FOG
    assert_near(plain, Mixing(kind="own")(*call).per_sample(), 1e-11)


def test_nothing_reaches_an_episode_that_has_ended() -> None:
    """Whatever a relay sends back there, at any node."""
    problem = PROBLEMS["ending"]
    params, noise = drawn(problem, 16)
    ended = rollout(problem, problem.policy.bind(params), noise).ended[..., :-1, None]
    assert 0.1 < ended.double().mean() < 0.9

    def surrogate(relay: Relay | None, policy: BoundPolicy, noise: Noise, given: Any) -> Tensor:
        return evaluate(problem, rollout(problem, policy, noise, relay=relay)).value.sum(-1)

    def sends(over: Tensor) -> Relay:
        weight = over.double()

        def at(step: int, node: Node, value: Tensor) -> Tensor:
            return Mixed.apply(value, torch.ones_like(value), weight[:, step])

        return At(EVERY, at)

    def found(relay: Relay | None) -> dict[str, Tensor]:
        return per_sample_gradients(partial(surrogate, relay), problem, params, noise).per_sample()

    plain = found(None)
    assert_same(plain, found(sends(ended)))
    assert any(not torch.equal(found(sends(~ended))[n], value) for n, value in plain.items())


@pytest.mark.parametrize("node", EVERY)
def test_steps_run_again_in_the_backward_pass_give_the_same(node: Node) -> None:
    problem = PROBLEMS["ending"]

    def at(step: int, node: Node, value: Tensor) -> Tensor:
        return Mixed.apply(value, torch.ones_like(value), torch.full_like(value, 0.3))

    relay = At((node,), at)
    again = problem.replace(checkpoint=True)
    assert_same(gradient(problem, relay), gradient(again, relay))


COMPILED = """
import torch
from tests.gradlab.rollouts.test_relay import At, Mixed, PROBLEMS, cut, gradient
import tests.helpers.checking

def at(step, node, value):
    return Mixed.apply(value, torch.ones_like(value), torch.full_like(value, 0.3))

with tests.helpers.checking.off():
    problem = PROBLEMS["ending"]
    for relay in (cut(3), At(("state", "action"), at), At(("output",), at)):
        eager, fast = gradient(problem, relay), gradient(problem.replace(compile=True), relay)
        for name, value in eager.items():
            assert (value - fast[name]).abs().max() <= 1e-12 * value.abs().max(), name
print("same")
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_a_compiled_step_parts_at_the_action() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def test_a_rollout_through_a_relay_is_never_taken_from_another() -> None:
    problem = PROBLEMS["smooth"]
    params, noise = drawn(problem)
    policy = problem.bind(params, memo=Memo())
    known = rollout(problem, policy, noise)
    recorder = Recorder("state")
    path = rollout(problem, policy, noise, relay=recorder)
    assert path.state is not known.state and path.state.requires_grad
    assert rollout(problem, policy, noise).state.requires_grad is False


@pytest.mark.parametrize(
    ("relay", "error", "words"),
    [
        (lambda step, node, value: value, BadValue, "give it `nodes`"),
        (Recorder, BadValue, "should be a Relay"),
        (At(("reward",), unchanged), BadValue, "among"),  # type: ignore[arg-type]
        (At((), unchanged), BadValue, "among"),
        (At(BOTH, lambda step, node, value: None), BadValue, "return"),  # type: ignore[arg-type]
        (At(BOTH, lambda step, node, value: value[:1]), BadShape, "state of step 0"),
        (At(("action",), lambda step, node, value: value.float()), BadShape, "action of step 0"),
    ],
)
def test_what_is_no_relay_is_refused(relay: Any, error: type[Exception], words: str) -> None:
    problem = PROBLEMS["smooth"]
    params, noise = drawn(problem)
    with tests.helpers.checking.off(), pytest.raises(error, match=words):
        rollout(problem, problem.policy.bind(params), noise, relay=relay)


def test_a_recorder_needs_gradients() -> None:
    problem = PROBLEMS["smooth"]
    params, noise = drawn(problem)
    with torch.no_grad(), pytest.raises(BadValue, match="enable_grad"):
        rollout(problem, problem.policy.bind(params), noise, relay=Recorder())
