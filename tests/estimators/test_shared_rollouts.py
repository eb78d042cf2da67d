"""Parts of a sum or a mixture simulate an episode once where they can, and nothing else changes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.foundation.memo import Memo
from gradlab.foundation.moment import Moment
from gradlab.foundation.noise import Noise
from gradlab.gradients.engines import Engine
from gradlab.gradients.samples import Factored
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.problem import Problem
from gradlab.rollouts.rollout import rollout
from gradlab.statistics import Moments
from tests.helpers.toy import Pendulum, Swing, toy_params, toy_problem


@dataclass(frozen=True, eq=False)  # a step of the loop is kept for equal simulators
class Counted:
    """The pendulum, and how many batches of steps it has taken."""

    batches: list[int] = field(default_factory=list)
    state_dim: int = 2
    action_dim: int = 1
    noise_dim: int = 1

    def start(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        self.batches.append(1)
        return Pendulum().step(state, action, noise)


@dataclass(frozen=True)
class Probe(E.SurrogateEstimator):
    """A score along a frozen rollout that differs in one thing from that of the other parts."""

    what: str = "nothing"

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        frozen, where = policy.frozen, problem
        start: Moment | None = None
        if self.what == "noise":
            noise = noise._replace(action=-noise.action)
        if self.what == "process":
            noise = noise._replace(process=-noise.process)
        if self.what == "width":
            where = problem.relaxed(0.5)
        if self.what == "task":
            where = problem.replace(task=Swing(with_events=False))
        if self.what == "parameters":
            moved = {name: value + 0.5 for name, value in frozen.params.items()}
            frozen = dataclasses.replace(frozen, params=moved)
        if self.what == "start":
            start = problem.start(noise)
            start = start._replace(state=start.state + 0.1)
        length = 3 if self.what == "length" else None
        path = rollout(where, frozen, noise, length=length, start=start)
        total = gradlab.evaluate(where, path).value.sum(-1).detach()
        return total * policy(path.obs).sum((-2, -1))

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(problem.horizon, dtype=problem.dtype)

    def cost(self, problem: Problem) -> E.Cost:
        return E.Cost(problem.horizon, 0)


def same(a: Moments, b: Moments) -> None:
    assert torch.equal(a.block_count, b.block_count) and a.nonfinite == b.nonfinite
    for name, total in a.block_sum.items():
        assert torch.equal(total, b.block_sum[name])
    for part, value in a.norm_m2.items():
        assert torch.equal(value, b.norm_m2[part])


PROBLEMS = {
    "hard": toy_problem(),
    "relaxed": toy_problem(std="global").relaxed(0.2),
    "switching": toy_problem(switching=True, dtype=torch.float32),
}
LAST = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("engine", ["pullback", "vmap", "loop"])
def test_a_sum_is_the_sum_of_its_parts(engine: Engine, kind: str) -> None:
    """To the last bit, but for PG and QG under `pullback`: in a sum they take the outputs of the
    rollout's calls, and alone those of one call at all observations, a matrix product of another
    shape."""
    problem = PROBLEMS[kind]
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(2))
    parts = [E.PG(engine=engine), E.FOG(engine=engine), E.QG(engine=engine)]
    apart = [part(problem, params, noise) for part in parts]
    together = (parts[0] + parts[1] + parts[2])(problem, params, noise).per_sample()
    few = 16 * torch.finfo(problem.dtype).eps if engine == "pullback" else 0.0
    for leaf, value in (apart[0] + apart[1] + apart[2]).per_sample().items():
        assert (together[leaf] - value).abs().max() <= few * value.abs().max()


def test_in_a_sum_pg_costs_no_pass_through_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOG's rollout has its outputs: the sum looks at the policy once, for all parts together."""
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(0))
    called: list[int] = []
    over = BoundPolicy.over
    monkeypatch.setattr(BoundPolicy, "over", lambda *a, **k: called.append(1) or over(*a, **k))
    E.PG()(problem, params, noise)
    assert len(called) == 1
    (E.FOG() + 2.0 * E.PG())(problem, params, noise)
    assert len(called) == 1


@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_values_at_cut_states_need_no_policy_calls_of_their_own(kind: str, entropy: float) -> None:
    """Q at every state is paid for by the n-step return's calls: one per step, in a sum and in
    ABPT, with the numbers of the transform that knows no calls."""
    problem = PROBLEMS[kind]
    params = toy_params(problem)
    noise = problem.draw(6, torch.Generator().manual_seed(4))
    options = {"window": 2, "zero_step": "all", "entropy": entropy}
    windows = E.NStep(2, starts="tiled", entropy=entropy)
    half = 0.5 * (E.QG(entropy=entropy) + windows)
    reference = E.ABPT(engine="vmap", **options)(problem, params, noise).per_sample()
    few = 64 * torch.finfo(problem.dtype).eps
    for estimator in (half, E.ABPT(**options), E.ABPT(**options) + 0.0 * E.FOG()):
        samples = estimator(problem, params, noise)
        assert isinstance(samples, Factored) and samples.steps.tolist() == [*range(problem.horizon)]
        for leaf, value in samples.per_sample().items():
            assert (reference[leaf] - value).abs().max() <= few * reference[leaf].abs().max()


class TwiceQG(E.QG):
    """A subclass with a surrogate of its own; so are the others."""

    def surrogate(self, *args: Any) -> Tensor:
        return 2.0 * super().surrogate(*args)


class TwicePG(E.PG):
    def surrogate(self, *args: Any) -> Tensor:
        return 2.0 * super().surrogate(*args)


class TwiceABPT(E.ABPT):
    def surrogate(self, *args: Any) -> Tensor:
        return 2.0 * super().surrogate(*args)


@pytest.mark.parametrize(
    ("twice", "plain"),
    [(TwiceQG(), E.QG()), (TwicePG(), E.PG()), (TwiceABPT(2, "all"), E.ABPT(2, "all"))],
    ids=["qg", "pg", "abpt"],
)
def test_a_surrogate_of_a_subclass_counts_in_a_sum(twice: Any, plain: Any) -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(6))
    found = (E.FOG() + twice)(problem, params, noise).per_sample()
    expected = (E.FOG() + 2.0 * plain)(problem, params, noise).per_sample()
    for leaf, value in expected.items():
        torch.testing.assert_close(found[leaf], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "what", ["nothing", "noise", "process", "width", "task", "parameters", "start", "length"]
)
def test_only_the_same_rollout_is_shared(what: str) -> None:
    """Beside FOG and PG, a part is to the last bit what it is alone."""
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(8, torch.Generator().manual_seed(3))
    probe = Probe(what=what)
    alone = probe(problem, params, noise).per_sample()
    mixed = E.FixedMixture(
        (E.FOG(), E.PG(), probe), E.Weights("layer", {f"layers.{i}": LAST for i in range(3)})
    )
    for leaf, value in mixed(problem, params, noise).per_sample().items():
        assert torch.equal(value, alone[leaf])
    if what != "nothing":
        same = Probe()(problem, params, noise).per_sample()
        assert any(not torch.equal(alone[leaf], value) for leaf, value in same.items())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_every_mode_and_in_chunks(mode: type) -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(16, torch.Generator().manual_seed(5))
    mixture = E.Mixture((E.PG("loo", group_size=4), E.FOG()), E.InverseVariance(), source=E.Same(4))
    estimator = E.FOG() + 2.0 * mixture
    expected = estimator(problem, params, noise, chunk_size=8).per_sample()
    with mode():
        found = estimator(problem, params, noise, chunk_size=8)
        weights = mixture.weights(problem, params, noise)
    assert found.group == 4
    for leaf, value in found.per_sample().items():
        assert torch.equal(value, expected[leaf])
    ordinary = mixture.weights(problem, params, noise)
    assert torch.equal(weights.values[""], ordinary.values[""])


def test_what_is_found_is_constant_and_of_the_same_inputs() -> None:
    problem = toy_problem()
    params = {name: value.requires_grad_() for name, value in toy_params(problem).items()}
    noise = problem.draw(4, torch.Generator().manual_seed(4))
    policy = problem.bind(params, memo=Memo())
    live = rollout(problem, policy, noise, cut_every=3)
    frozen = rollout(problem, policy.frozen, noise)
    assert live.state.requires_grad and not frozen.state.requires_grad
    assert frozen.state.data_ptr() == live.state.data_ptr()
    # views of the same episodes are the same episodes; other episodes are not
    assert rollout(problem, policy.frozen, noise.rows(0, 4)).state is frozen.state
    assert rollout(problem, policy.frozen, noise.rows(0, 3)).state is not frozen.state
    # what has a gradient is run, and remembered apart from its graph
    assert rollout(problem, policy, noise).state.data_ptr() != live.state.data_ptr()
    start = problem.start(noise)
    attached = start._replace(state=start.state.clone().requires_grad_())
    for _ in range(2):
        assert rollout(problem, policy.frozen, noise, start=attached).state.requires_grad
    # a memo is never found by itself
    assert problem.policy.bind(params).frozen.memo is None


def test_parameters_that_were_written_to_are_others() -> None:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(4, torch.Generator().manual_seed(4))
    policy = problem.bind(params, memo=Memo())
    before = rollout(problem, policy.frozen, noise)
    params["layers.0.weight"].mul_(2.0)
    after = rollout(problem, policy.frozen, noise)
    assert not torch.equal(before.action, after.action)


IV = E.InverseVariance()
T = 8
# rollouts of the whole batch, in horizons
COSTS: dict[str, tuple[Estimator, int]] = {
    "sum": (E.FOG() + E.PG(), 1),
    "the other way": (E.PG() + E.FOG(), 1),
    "nested": (E.PG() + (2.0 * E.QG() - E.FOG() / 3.0), 1),
    "frozen ones": (E.PG() + E.QG(), 1),
    "tiled": (E.NStep(3, "tiled") + E.PG(), 1),
    "abpt": (E.ABPT(3, "all"), 1),
    "agpo": (E.AGPO(3, starts="tiled", source=E.Same(8)) + E.PG(), 2),
    "mixture": (E.Mixture((E.PG(), E.QG(), E.FOG()), IV, "layer", E.Cross(8)), 1),
    "fixed": (
        E.FixedMixture((E.PG(), E.FOG()), E.Weights("global", {"": torch.tensor([[0.5, 0.5]])})),
        1,
    ),
    "two with gradients": (E.FOG() + E.NStep(3, "tiled"), 2),
    "a pilot beside": (E.Mixture((E.FOG(), E.PG()), IV, source=E.Independent(size=4)), 2),
}


@pytest.mark.parametrize("name", COSTS)
def test_episodes_are_simulated_once(name: str) -> None:
    estimator, expected = COSTS[name]
    problem = toy_problem(horizon=T).replace(simulator=Counted())
    assert isinstance(problem.simulator, Counted)
    noise = problem.draw(16, torch.Generator().manual_seed(1))
    params = toy_params(problem)
    estimator(problem, params, noise)  # at first a few episodes are checked to be independent
    problem.simulator.batches.clear()
    estimator(problem, params, noise)
    assert len(problem.simulator.batches) == expected * T


@pytest.mark.parametrize("share", [True, False])
def test_a_measurement_simulates_once_and_charges_everyone(share: bool) -> None:
    problem = toy_problem(horizon=T).replace(simulator=Counted())
    assert isinstance(problem.simulator, Counted)
    params = toy_params(problem)
    several = [E.PG(), E.FOG(), E.QG()]
    gradlab.measure(several, problem, params, 8, seed=1)
    problem.simulator.batches.clear()
    measured = gradlab.measure(several, problem, params, 32, seed=1, chunk_size=16, share=share)
    assert len(problem.simulator.batches) == 2 * T * (1 if share else 3)
    assert list(measured.moments) == ["PG", "FOG", "QG"]
    assert measured.shared["FOG"] == 0.0
    for name in ("PG", "QG"):
        assert (0.0 < measured.shared[name] < measured.seconds[name]) == share
    alone = {one.label: gradlab.measure(one, problem, params, 32, seed=1) for one in several}
    for name, one in alone.items():
        for leaf, value in one.single.mean.items():
            torch.testing.assert_close(measured[name].mean[leaf], value, rtol=1e-12, atol=1e-14)


def test_sharing_changes_no_bit_of_a_measurement() -> None:
    problem = PROBLEMS["switching"]
    params = toy_params(problem)
    agpo = E.AGPO(3, source=E.Same(8))
    parts = [E.PG(), E.FOG() + E.QG(), E.NStep(3, "tiled"), E.ABPT(3, "all"), agpo, Probe()]
    several = {str(i): one for i, one in enumerate(parts)}
    call = several, problem, params, 24, 2
    together = gradlab.measure(*call, chunk_size=8)
    apart = gradlab.measure(*call, chunk_size=8, share=False)
    for name in several:
        same(together[name], apart[name])
