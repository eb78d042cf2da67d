"""Every kind of policy under every estimator: the engines give one answer, whatever the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import estimators as E
import gradlab
from estimators.base import Estimator
from gradlab.gradients.samples import Dense, Factored, concatenate
from gradlab.landscapes import random_plane, returns_over_plane
from gradlab.policies.policy import Policy
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate
from gradlab.rollouts.rollout import rollout
from tests.gradlab.gradients.test_engines import TOLERANCE
from tests.helpers.toy import toy_params, toy_problem

N = 4


class Merged(nn.Module):
    """Two inputs that meet behind layers of their own, with a norm and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.angle, self.rest = nn.Linear(1, 5), nn.Linear(2, 5, bias=False)
        self.norm, self.head = nn.LayerNorm(5), nn.Linear(5, 1)
        self.register_buffer("scale", torch.tensor(0.7))

    def forward(self, obs: Tensor) -> Tensor:
        both = self.angle(obs[:, :1]) + self.scale * self.rest(obs[:, 1:])
        return self.head(torch.tanh(self.norm(both)))


@dataclass(frozen=True)
class Own:
    """A network of one's own: a quadratic form of the observation."""

    carry_dim: int = 0

    def init(self, generator, *, dtype, device) -> dict[str, Tensor]:
        drawn = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
        return {"form": drawn.to(device=device, dtype=dtype)}

    def buffers(self, *, dtype, device) -> dict[str, Tensor]:
        return {}

    def apply(self, params, buffers, obs, carry):
        return torch.einsum("...i,kij,...j->...k", obs, params["form"], F.silu(obs)), carry


GAUSSIAN = gradlab.GaussianPolicy(hidden=(5, 4), head_gain=1.0, activation="tanh")
POLICIES: dict[str, Policy] = {
    "perceptron": GAUSSIAN,
    "layer norm": replace(GAUSSIAN, layer_norm=True),
    "normalised": replace(GAUSSIAN, layer_norm=True, normalise=True, std="global", bias=False),
    "module": gradlab.ModulePolicy(Merged()),
    "normalised module": gradlab.ModulePolicy(Merged(), normalise=True, std=0.3),
    "own": gradlab.NetworkPolicy(Own(), std="state"),
    "recurrent": gradlab.RecurrentPolicy(4, (5,), std="global"),
    "normalised recurrent": gradlab.RecurrentPolicy(3, normalise=True),
}
LAYERED = ("perceptron", "layer norm", "normalised")
ESTIMATORS: dict[str, Callable[[str], Estimator]] = {
    "fog": lambda e: E.FOG(engine=e),
    "pg-loo": lambda e: E.PG(baseline="loo", group_size=2, engine=e),
    "pg-q": lambda e: E.PG(baseline="q", engine=e),
    "split": lambda e: E.Split(0.05, engine=e),
    "qg": lambda e: E.QG(engine=e),
    "nstep-tiled": lambda e: E.NStep(3, "tiled", engine=e),
    "abpt": lambda e: E.ABPT(3, "all", entropy=0.1, engine=e),
    "agpo": lambda e: E.AGPO(3, starts="tiled", source=E.Same(4), engine=e),
    "sum": lambda e: 2.0 * E.FOG(engine=e) + E.PG(engine=e),
    "propagation": lambda e: E.TotalPropagation(source=E.Cross(4), engine=e),
}


def posed(name: str) -> tuple[Problem, dict[str, Tensor]]:
    """The pendulum with a policy, parameters off their initialisation, and buffers in use."""
    problem = toy_problem(horizon=5).replace(policy=POLICIES[name])
    params = toy_params(problem)
    if "normalised" in name:
        first = problem.bind(params)
        path = rollout(problem, first, problem.draw(16, torch.Generator().manual_seed(5)))
        problem = problem.replace(buffers=gradlab.observed(first.buffers, path.obs))
    return problem, params


def noise_of(problem: Problem, count: int = N):
    return problem.draw(count, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("name", POLICIES)
def test_engines_agree(name: str, kind: str) -> None:
    problem, params = posed(name)
    noise = noise_of(problem)
    engines = ("pullback", "vmap", "loop") if kind in ("fog", "pg-loo") else ("pullback", "vmap")
    rows = [ESTIMATORS[kind](e)(problem, params, noise).per_sample() for e in engines]
    for leaf, value in rows[0].items():
        assert value.abs().max() > 0, leaf
        for other in rows[1:]:
            assert (value - other[leaf]).abs().max() <= TOLERANCE * value.abs().max(), leaf


@pytest.mark.parametrize("name", POLICIES)
def test_fog_is_the_finite_difference(name: str) -> None:
    problem, params = posed(name)
    problem = problem.replace(task=toy_problem(with_events=False).task)
    noise, way = noise_of(problem), toy_params(problem, seed=3)

    def value(h: float) -> Tensor:
        moved = {leaf: params[leaf] + h * way[leaf] for leaf in params}
        return evaluate(problem, rollout(problem, problem.bind(moved), noise)).value.sum(-1)

    found = E.FOG()(problem, params, noise).per_sample()
    exact = sum((found[leaf] * way[leaf]).reshape(N, -1).sum(1) for leaf in params)
    slopes = [(value(h) - value(-h)) / (2 * h) for h in (1e-4, 5e-5)]
    # Richardson: the error left is of order h⁴, 1e-8 of a fourth derivative that norms make large
    torch.testing.assert_close((4 * slopes[1] - slopes[0]) / 3, exact, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", POLICIES)
def test_read_outs_are_those_of_the_gradients(name: str) -> None:
    problem, params = posed(name)
    noise = noise_of(problem)
    fog, pg = (one(problem, params, noise) for one in (E.FOG(), E.PG()))
    assert isinstance(fog, Factored) and fog.layered == (name in LAYERED)
    dense, other = Dense(fog.per_sample()), Dense(pg.per_sample())
    torch.testing.assert_close(fog.squared_norms(), dense.squared_norms(), rtol=1e-9, atol=0)
    size = (dense.squared_norms() * other.squared_norms()).sqrt().max()
    assert (fog.inner(pg) - dense.inner(other)).abs().max() <= 1e-9 * size
    for leaf, value in dense.mean().items():
        assert (fog.mean()[leaf] - value).abs().max() <= 1e-9 * value.abs().max(), leaf
    pieces = concatenate([fog.rows(0, 1), fog.rows(1, N)]).per_sample()
    steps = [fog.at_step(t).per_sample() for t in range(problem.horizon)]
    for leaf, value in dense.leaves.items():
        for found in (pieces[leaf], sum(step[leaf] for step in steps)):
            assert (found - value).abs().max() <= 1e-9 * value.abs().max(), leaf


@pytest.mark.parametrize("name", POLICIES)
def test_parameters_and_buffers_have_the_dtype_of_the_problem(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        problem = toy_problem(horizon=2, dtype=dtype).replace(policy=POLICIES[name])
        params = problem.init(torch.Generator().manual_seed(0))
        again = problem.init(torch.Generator().manual_seed(0))
        other = problem.init(torch.Generator().manual_seed(1))
        assert all(value.dtype == dtype for value in params.values())
        assert all(torch.equal(value, again[leaf]) for leaf, value in params.items())
        assert any(not torch.equal(value, other[leaf]) for leaf, value in params.items())
        assert all(value.dtype == dtype for value in problem.bind(params).buffers.values())
        found = E.FOG()(problem, params, noise_of(problem)).mean()
        assert all(value.dtype == dtype for value in found.values())


@pytest.mark.parametrize("name", POLICIES)
def test_one_episode_knows_nothing_of_the_others(name: str) -> None:
    problem, params = posed(name)
    noise = noise_of(problem)
    fog = E.FOG()(problem, params, noise).per_sample()
    moved = noise._replace(action=noise.action.clone().index_fill_(0, torch.tensor([0]), 2.0))
    other = E.FOG()(problem, params, moved).per_sample()
    for leaf, value in fog.items():
        scale = value.abs().max()
        assert (value[1:] - other[leaf][1:]).abs().max() <= 1e-12 * scale, leaf
        assert (value[0] - other[leaf][0]).abs().max() > 0, leaf


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in POLICIES if name != "perceptron"])
def test_compiled_steps_give_the_same_gradients(name: str) -> None:
    problem, params = posed(name)
    noise = noise_of(problem)
    eager = E.FOG()(problem, params, noise).per_sample()
    compiled = E.FOG()(problem.replace(compile=True), params, noise).per_sample()
    for leaf, value in eager.items():
        assert (value - compiled[leaf]).abs().max() <= TOLERANCE * value.abs().max(), leaf


def test_a_mixture_of_steps_takes_any_network() -> None:
    problem, params = posed("module")
    parts = E.FOG(), E.PG()
    mixture = E.Mixture(parts, E.InverseVariance(), "step", E.Same(N))
    found = mixture(problem, params, noise_of(problem)).per_sample()
    weights = mixture.weights(problem, params, noise_of(problem)).values[""][0]
    rows = [part(problem, params, noise_of(problem)) for part in parts]
    for leaf, value in found.items():
        expected = sum(
            row.weight_steps(w).per_sample()[leaf] for row, w in zip(rows, weights, strict=True)
        )
        assert (value - expected).abs().max() <= 1e-9 * value.abs().max(), leaf


@pytest.mark.parametrize("name", POLICIES)
def test_planes_take_any_policy(name: str) -> None:
    problem, params = posed(name)
    noise, plane = noise_of(problem), random_plane(params, torch.Generator().manual_seed(0))
    points = torch.tensor([[0.0, 0.0], [0.3, -0.2]], dtype=torch.float64)
    found = returns_over_plane(problem, plane, points, noise)
    for row, (a, b) in zip(found, points.tolist(), strict=True):
        path = rollout(problem, problem.bind(plane.point(a, b)), noise)
        expected = evaluate(problem, path).value.sum(-1)
        torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-13)
