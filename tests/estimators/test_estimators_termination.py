"""A hard termination with an exact critic: what `alive` weights, and what it does not.

A point on a line falls off a cliff: an episode of two steps ends when the state passes `edge` after
the first. Process noise makes the exact Q_0 smooth, so the value-gradient estimator must be exact,
provided that its second term is weighted by survival. Everything is a Gaussian integral. Each
statistical test has a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.base import Estimator
from gradlab.events import Event
from gradlab.foundation.noise import Noise
from gradlab.policies.gaussian import LinearPolicy
from gradlab.policies.policy import BoundPolicy
from gradlab.problems.critic import Critic, View
from gradlab.problems.problem import Problem
from gradlab.rollouts.outcome import evaluate, views
from gradlab.rollouts.rollout import rollout
from gradlab.simulators.point_mass import PointMass
from gradlab.statistics import OracleGradient
from gradlab.tasks import Memoryless, Transition
from gradlab.testing import Biased, assert_unbiased

CONTROL, PROCESS, DISCOUNT, GOAL, EDGE = 0.5, 0.3, 0.9, 1.0, 0.4
START, SPREAD = 0.1, 0.2
PARAMS = {
    "layers.0.weight": torch.tensor([[-0.4]], dtype=torch.float64),
    "layers.0.bias": torch.tensor([0.5], dtype=torch.float64),
    "log_std": torch.tensor([math.log(0.6)], dtype=torch.float64),
}


@dataclass(frozen=True)
class Cliff(Memoryless):
    """r = 2 − (x' − goal)²; the episode ends after a step that leads beyond the edge."""

    name: str = "cliff"
    observation_dim: int = 1
    initial_dim: int = 1
    default_horizon: int = 2
    events: tuple[Event, ...] = (Event("fall", terminates=True),)

    def draw_initial(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator, dtype=torch.float64)

    def initial(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return START + SPREAD * noise, noise[..., :0]

    def observe(self, state: Tensor, memory: Tensor, step: Tensor) -> Tensor:
        return state

    def terms(self, transition: Transition) -> dict[str, Tensor]:
        return {"distance": 2 - (transition.after[..., 0] - GOAL).square()}

    def margins(self, transition: Transition) -> Tensor:
        return transition.after[..., :1] - EDGE


def q_last(x: Tensor, action: Tensor) -> Tensor:
    return 2 - (x + CONTROL * action - GOAL).square() - PROCESS**2


def v_last(params: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """V_1(x) = c0 + c1 x + c2 x²: the expectation of `q_last` over the policy's action."""
    slope = 1 + CONTROL * params["layers.0.weight"][0, 0]
    offset = CONTROL * params["layers.0.bias"][0] - GOAL
    spread = (CONTROL * params["log_std"][0].exp()).square() + PROCESS**2
    return 2 - offset.square() - spread, -2 * slope * offset, -slope.square()


def q_first(params: dict[str, Tensor], x: Tensor, action: Tensor) -> Tensor:
    """r_0 + γ E[1[x' <= edge] V_1(x')], x' ~ N(x + B a, process²), by truncated moments."""
    centre = x + CONTROL * action
    z = (EDGE - centre) / PROCESS
    below = torch.special.ndtr(z)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    first = centre * below - PROCESS * density
    second = (centre.square() + PROCESS**2) * below - PROCESS * (centre + EDGE) * density
    c0, c1, c2 = v_last(params)
    return q_last(x, action) + DISCOUNT * (c0 * below + c1 * first + c2 * second)


def value(first: dict[str, Tensor], second: dict[str, Tensor]) -> Tensor:
    """J with parameters of their own for the two calls, by Gauss-Hermite over x_0 and a_0."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    nodes = torch.tensor(points)
    weight = torch.tensor(weights / weights.sum())
    x = START + SPREAD * nodes[:, None]
    mean = first["layers.0.weight"][0, 0] * x + first["layers.0.bias"][0]
    action = mean + first["log_std"][0].exp() * nodes[None, :]
    return weight @ q_first(second, x, action) @ weight


@functools.cache
def per_call() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    leaves = [{k: v.clone().requires_grad_() for k, v in PARAMS.items()} for _ in range(2)]
    with torch.enable_grad():
        total = value(*leaves)
        grads = torch.autograd.grad(total, [v for part in leaves for v in part.values()])
    size = len(PARAMS)
    return tuple(dict(zip(PARAMS, grads[i : i + size], strict=True)) for i in (0, size))


def truth(weights: tuple[float, float] = (1.0, 1.0)) -> OracleGradient:
    first, second = per_call()
    mean = {k: weights[0] * first[k] + weights[1] * second[k] for k in PARAMS}
    return OracleGradient.exact(mean, "quadrature")


def q(view: View, action: Tensor) -> Tensor:
    x, a = view.state[..., 0], action[..., 0]
    return torch.where(view.step < 0.5, q_first(PARAMS, x, a), q_last(x, a))


def v(view: View) -> Tensor:
    x = view.state[..., 0]
    c0, c1, c2 = v_last(PARAMS)
    late = c0 + c1 * x + c2 * x.square()
    points, weights = np.polynomial.hermite_e.hermegauss(16)
    mean = PARAMS["layers.0.weight"][0, 0] * x + PARAMS["layers.0.bias"][0]
    action = mean[..., None] + PARAMS["log_std"].exp() * torch.tensor(points)
    early = q_first(PARAMS, x[..., None], action) @ torch.tensor(weights / weights.sum())
    return torch.where(view.step < 0.5, early, late)


def problem() -> Problem:
    return Problem(
        "cliff",
        PointMass(((1.0,),), ((CONTROL,),), (PROCESS,)),
        Cliff(),
        LinearPolicy(1, 1, std="global"),
        horizon=2,
        discount=DISCOUNT,
        critic=Critic(q=q, v=v, name="exact"),
        dtype=torch.float64,
    )


def check(estimator: Estimator, aim: OracleGradient, detect: float) -> None:
    assert_unbiased(
        estimator, problem(), PARAMS, aim, detect=detect, max_count=2**22, chunk_size=4096
    )


def test_quadrature_is_converged_and_falls_matter() -> None:
    noise = problem().draw(20_000, torch.Generator().manual_seed(0))
    path = rollout(problem(), problem().policy.bind(PARAMS), noise)
    result = evaluate(problem(), path)
    returns = result.value.sum(-1)
    stderr = float(returns.std()) / math.sqrt(len(returns))
    assert abs(float(returns.mean() - value(PARAMS, PARAMS))) <= 5 * stderr
    assert 0.2 < float(result.alive[:, 1].mean()) < 0.8


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("estimator", "weights", "detect"),
    [
        (E.QG(), (1.0, 1.0), 0.03),
        (E.QG(at="start"), (1.0, 0.0), 0.03),
        (E.ZeroStep(), (1.0, 0.0), 0.03),
        (E.PG(baseline="v"), (1.0, 1.0), 0.1),
        (E.PG(baseline="q"), (1.0, 1.0), 0.05),
        (E.PG(baseline="loo", group_size=32), (1.0, 1.0), 0.05),
        (E.PG(returns="gae", gae_lambda=0.3), (1.0, 1.0), 0.1),
        (E.PG(returns="discounted", baseline="v"), (1.0, 1 / DISCOUNT), 0.1),
        (E.Split(0.1), (1.0, 1.0), 0.05),
        (E.Split(None), (1.0, 1.0), 0.05),
    ],
    ids=["qg", "qg-start", "zero", "v", "q", "loo", "gae", "discounted", "split", "split-none"],
)
def test_hard_termination(
    estimator: Estimator, weights: tuple[float, float], detect: float
) -> None:
    declared = estimator.call_weights(problem()).tolist()
    assert declared == pytest.approx(weights)
    check(estimator, truth(weights), detect)


@dataclass(frozen=True)
class Immortal(E.SurrogateEstimator):
    """Value gradients that count after the fall."""

    def surrogate(self, problem: Problem, policy: BoundPolicy, noise: Noise) -> Tensor:
        path = rollout(problem, policy.frozen, noise).detach()
        view = views(problem, path, evaluate(problem, path), slice(0, 2))
        latent = policy.latent(policy(view.obs), noise.action)
        return (problem.discounts[:-1] * q(view, latent)).sum(-1)

    def call_weights(self, problem: Problem) -> Tensor:
        return torch.ones(2, dtype=problem.dtype)


@pytest.mark.statistical
@pytest.mark.parametrize(
    "estimator",
    [E.FOG(), E.NStep(1, "tiled"), E.ABPT(1, "all"), Immortal()],
    ids=["fog", "tiled", "abpt", "immortal"],
)
def test_what_does_not_see_the_fall_fails(estimator: Estimator) -> None:
    with pytest.raises(Biased):
        check(estimator, truth(), 0.1)
