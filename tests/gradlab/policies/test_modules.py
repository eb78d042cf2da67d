"""Modules as networks: what is refused, with the reason, and what is taken as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import estimators as E
import gradlab
from gradlab.foundation.errors import BadShape, BadValue
from gradlab.policies.perceptron import Perceptron
from tests.helpers.toy import toy_problem


class Branching(nn.Linear):
    """Asks its numbers a question, which a transform cannot answer."""

    def forward(self, obs: Tensor) -> Tensor:
        out = super().forward(obs)
        return out if bool(out.isfinite().all()) else 0 * out


class Centred(nn.Linear):
    """Looks at the other samples of the batch."""

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs - obs.mean(0))


class Noisy(nn.Linear):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs) + 0.0 * torch.randn(1)


class Counting(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, obs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(obs)


class Writing(nn.Linear):
    def forward(self, obs: Tensor) -> Tensor:
        obs *= 2
        return super().forward(obs)


class Remembering(nn.Linear):
    """Another function at every call, and no buffer tells."""

    calls = 0

    def forward(self, obs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(obs) * (1 + 1e-5 * self.calls)


def weight_norm(layer: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is the old one
        return nn.utils.weight_norm(layer)


class Named(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.log_std = nn.Parameter(torch.zeros(1))


REFUSED = {
    r"1 \(BatchNorm1d\) mixes samples.*LayerNorm": lambda: nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
    ),
    r"GRU.*RecurrentPolicy": lambda: nn.GRU(3, 1),
    r"LSTMCell.*RecurrentPolicy": lambda: nn.Sequential(nn.LSTMCell(3, 1)),
    r"Dropout\) draws random numbers.*eval": lambda: nn.Sequential(
        nn.Dropout(0.2), nn.Linear(3, 1)
    ),
    r"Noisy draws random numbers": lambda: Noisy(3, 1),
    r"Counting changes its buffers": lambda: Counting(3, 1),
    r"Writing writes to the observations": lambda: Writing(3, 1),
    r"Remembering gives another output at the same observations": lambda: Remembering(3, 1),
    r"0 \(LazyLinear\) has no parameters yet.*once": lambda: nn.Sequential(nn.LazyLinear(1)),
    r"Linear cannot be copied.*parametrizations": lambda: weight_norm(nn.Linear(3, 1)),
    r"Centred mixes samples": lambda: Centred(3, 1),
    r"Branching cannot be mapped over samples.*torch.where": lambda: Branching(3, 1),
    r"should return \[B, 1\].*got \[B, 2\]; try std='state'": lambda: nn.Linear(3, 2),
    r"Linear fails at observations of shape \[3, 3\]": lambda: nn.Linear(5, 1),
    r"parameter called log_std.*rename": lambda: Named(3, 1),
    r"nothing to learn": lambda: nn.Flatten(),
}


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    """Modules draw their first parameters from the global generator."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_and_why(message: str) -> None:
    with pytest.raises(BadValue, match=message) as caught:
        toy_problem().replace(policy=gradlab.ModulePolicy(REFUSED[message]()))
    assert "\n" not in str(caught.value)


def test_a_module_may_be_undefined_at_observations_of_the_trial() -> None:
    """It is tried at normal numbers, which a task need not have."""

    class Log(nn.Linear):
        def forward(self, obs: Tensor) -> Tensor:
            return super().forward(obs.log())

    problem = toy_problem().replace(policy=gradlab.ModulePolicy(Log(3, 1)))
    assert problem.policy.network.output_dim == 1


def test_dropout_in_eval_is_the_module_without_it() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)).eval()
    problem = toy_problem().replace(policy=gradlab.ModulePolicy(module))
    module.train()  # the policy has a copy of its own
    params, noise = problem.init(torch.Generator()), problem.draw(2, torch.Generator())
    bound = problem.bind(params)
    assert torch.equal(bound(noise.action[..., [0, 0, 0]]), bound(noise.action[..., [0, 0, 0]]))


def test_a_module_of_linears_is_the_perceptron() -> None:
    """The same numbers from two networks with two pulls."""
    problem = toy_problem(horizon=4, std="global")
    module = nn.Sequential(nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 4), nn.ELU(), nn.Linear(4, 1))
    other = problem.replace(policy=gradlab.ModulePolicy(module))
    params = problem.init(torch.Generator().manual_seed(0))
    renamed = {n: n.replace("layers.1", "2").replace("layers.2", "4") for n in params}
    renamed = {n: new.replace("layers.0", "0") for n, new in renamed.items()}
    noise = problem.draw(6, torch.Generator().manual_seed(1))
    mine = E.Split(0.1)(problem, params, noise)
    theirs = E.Split(0.1)(other, {new: params[n] for n, new in renamed.items()}, noise)
    torch.testing.assert_close(mine.squared_norms(), theirs.squared_norms(), rtol=1e-10, atol=0)
    for name, value in mine.per_sample().items():
        torch.testing.assert_close(value, theirs.per_sample()[renamed[name]], rtol=1e-9, atol=1e-12)


def test_constants_of_a_module_are_buffers() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    module[0].weight.requires_grad_(False)
    problem = toy_problem().replace(policy=gradlab.ModulePolicy(module))
    params = problem.init(torch.Generator())
    assert "0.weight" not in params
    held = problem.bind(params).buffers
    assert torch.equal(held["0.weight"], module[0].weight.detach().double())
    doubled = problem.replace(buffers={"0.weight": 2 * held["0.weight"]})
    noise = problem.draw(2, torch.Generator())
    one, two = (E.FOG()(p, params, noise).squared_norms() for p in (problem, doubled))
    assert (one != two).all()


def test_an_own_initialisation_of_the_whole_counts() -> None:
    class Zero(nn.Linear):
        def reset_parameters(self) -> None:
            super().reset_parameters()
            nn.init.zeros_(self.weight)

    problem = toy_problem().replace(policy=gradlab.ModulePolicy(Zero(3, 1)))
    before = torch.get_rng_state()
    params = problem.init(torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before), "the global generator moved"
    assert (params["weight"] == 0).all() and (params["bias"] != 0).all()


def test_a_function_makes_the_policy_of_a_problem() -> None:
    def build(observation_dim: int, action_dim: int) -> gradlab.Policy:
        return gradlab.ModulePolicy(nn.Linear(observation_dim, action_dim))

    problem = gradlab.make("hovering", policy=build)
    assert (problem.policy.observation_dim, problem.policy.action_dim) == (13, 4)
    assert problem.init(torch.Generator())["weight"].shape == (4, 13)


def test_a_network_should_be_a_value() -> None:
    free = type("Free", (Perceptron,), {"__hash__": None})(3, 1)
    with pytest.raises(BadValue, match="Free should be hashable"):
        gradlab.NetworkPolicy(free)


def test_buffers_of_another_policy_are_refused() -> None:
    problem = toy_problem()
    with pytest.raises(BadShape, match="buffers of toy's policy should be none, got"):
        problem.replace(buffers={"observation.mean": torch.zeros(3)})


def test_statistics_of_observations() -> None:
    """In any pieces: mean and variance of all of them; no gradient, no second compilation."""
    rows = 3.0 + 2.0 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    policy = gradlab.GaussianPolicy(3, 1, normalise=True)
    buffers = policy.buffers(dtype=torch.float64)
    for part in (rows[:1], rows[1:40].reshape(13, 3, 3), rows[40:]):
        buffers = gradlab.observed(buffers, part)
    torch.testing.assert_close(buffers["observation.mean"], rows.mean(0), rtol=1e-12, atol=0)
    expected = rows.var(0, correction=0)
    torch.testing.assert_close(buffers["observation.variance"], expected, rtol=1e-12, atol=0)
    params = policy.init(torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = gradlab.GaussianPolicy(3, 1).bind(params)
    standard = (rows - rows.mean(0)) / expected.sqrt()
    torch.testing.assert_close(
        policy.bind(params, buffers)(rows), plain(standard), rtol=1e-12, atol=1e-12
    )
    assert torch.equal(policy.bind(params)(rows), plain(rows))  # the first ones change nothing


def test_a_problem_says_by_which_statistics_its_policy_standardises() -> None:
    """Parameters do not tell which statistics they belong to: a printed problem does."""
    problem = toy_problem()
    assert problem.standardisation == "" and "standardised" not in repr(problem)
    problem = problem.replace(policy=gradlab.GaussianPolicy(normalise=True))
    assert "by the first statistics, mean 0 and variance 1" in problem.standardisation
    assert problem.standardisation in repr(problem)
    params = problem.init(torch.Generator().manual_seed(0))
    buffers = gradlab.observed(problem.bind(params).buffers, torch.randn(1200, 3).double())
    seen = problem.replace(buffers=buffers)
    assert seen.standardisation == "observations standardised by statistics of 1,200 observations"
    assert seen.standardisation in repr(seen)
    given = problem.replace(buffers={**buffers, "observation.count": torch.zeros(())})
    assert given.standardisation == "observations standardised by statistics that were given"


def test_new_statistics_are_the_same_compiled_step() -> None:
    """The step is cached by what the policy is, and buffers are no part of that."""
    problem = toy_problem().replace(policy=gradlab.GaussianPolicy(normalise=True))
    params = problem.init(torch.Generator().manual_seed(0))
    buffers = gradlab.observed(problem.bind(params).buffers, torch.randn(5, 3).double())
    other = problem.replace(buffers=buffers)
    assert hash(other.policy) == hash(problem.policy) and other.policy == problem.policy
