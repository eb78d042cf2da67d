"""Targets and inputs of learned critics: ABPT's λ-returns term by term, and a walk done by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from gradlab.critics.episodes import episodes, lambda_returns
from gradlab.critics.fitted import Fit, Sizes
from gradlab.critics.fitting import gather
from gradlab.critics.networks import features
from gradlab.events import Event
from gradlab.foundation.errors import NotFinite
from gradlab.policies.gaussian import LinearPolicy
from gradlab.problems.problem import Problem
from gradlab.simulators.point_mass import PointMass
from gradlab.tasks import Memoryless, Transition

F64 = torch.float64


@dataclasses.dataclass(frozen=True)
class Walk(Memoryless):
    """r = s' along a line; a bonus of 3 beyond 0.5, the end beyond 2,
    a repeating event beyond 9.
    """

    blow_up: float = 0.0  # added to the reward once s > 2
    name: str = "walk"
    observation_dim: int = 1
    initial_dim: int = 1
    default_horizon: int = 4
    events: tuple[Event, ...] = (
        Event("end", bonus=5.0, terminates=True),
        Event("half", bonus=3.0),
        Event("lap", switches=True),
    )

    def draw_initial(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator, dtype=F64)

    def initial(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return 0.1 * noise, noise[..., :0]

    def observe(self, state: Tensor, memory: Tensor, step: Tensor) -> Tensor:
        return state

    def terms(self, transition: Transition) -> dict[str, Tensor]:
        return {
            "where": transition.after[..., 0]
            + torch.where(transition.before[..., 0] > 2, self.blow_up, 0.0)
        }

    def margins(self, transition: Transition) -> Tensor:
        return transition.after - torch.tensor([2.0, 0.5, 9.0], dtype=transition.after.dtype)


def walk(**changes: float) -> tuple[Problem, dict[str, Tensor]]:
    """s' = s + 1 + 0.1·ε: deterministic when the noise is 0."""
    policy = LinearPolicy(1, 1, std=0.1)
    problem = Problem("walk", PointMass(((1.0,),), ((1.0,),)), Walk(**changes), policy, 4, 0.5)
    problem = problem.replace(dtype=F64)
    return problem, {
        "layers.0.weight": torch.zeros(1, 1, dtype=F64),
        "layers.0.bias": torch.ones(1, dtype=F64),
    }


def slow_targets(reward, alive, values, discount, lam):
    """ABPT eq. 13 and 14, term by term, for one episode."""
    horizon = len(reward)
    out = []
    for t in range(horizon):
        k_step = []
        for k in range(1, horizon - t + 1):
            total = sum(discount**i * alive[t + i] * reward[t + i] for i in range(k))
            if t + k < horizon:
                total += discount**k * alive[t + k] * values[t + k]
            k_step.append(total)
        last = horizon - t
        mixed = (1 - lam) * sum(lam ** (k - 1) * k_step[k - 1] for k in range(1, last))
        out.append(mixed + lam ** (last - 1) * k_step[-1])
    return out


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("end", [1, 3, 9])
def test_lambda_returns_are_the_mixture_of_k_step_returns(lam: float, end: int) -> None:
    generator = torch.Generator().manual_seed(1)
    reward, values = torch.randn(2, 5, 8, dtype=F64, generator=generator).unbind(0)
    alive = (torch.arange(9) < end).to(F64).expand(5, 9)
    got = lambda_returns(reward, alive, values, 0.9, lam)
    for i in range(5):
        want = slow_targets(reward[i].tolist(), alive[i].tolist(), values[i].tolist(), 0.9, lam)
        live = min(end, 8)
        assert got[i, :live].tolist() == pytest.approx(want[:live], rel=1e-13)


def test_nothing_that_follows_the_end_reaches_a_target() -> None:
    reward = torch.tensor([1.0, 2.0, math.nan], dtype=F64)
    values = torch.tensor([7.0, 5.0, math.inf], dtype=F64)
    alive = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=F64)
    got = lambda_returns(reward, alive, values, 0.5, 0.5)
    assert got[:2].tolist() == [1 + 0.5 * (0.5 * 5 + 0.5 * 2), 2.0]


def test_returns_of_a_walk_that_ends_by_hand() -> None:
    problem, params = walk()
    noise = problem.draw(2, torch.Generator().manual_seed(0))
    noise = noise._replace(
        action=0 * noise.action, initial=torch.tensor([[0.0], [-20.0]], dtype=F64)
    )
    seen = episodes(problem, params, noise)
    # positions 1, 2, 3, 4 (from 0): half after the first step, the end after the third
    assert seen.alive[0].tolist() == [1, 1, 1, 0, 0]
    assert seen.returns(0.5)[0, :3].tolist() == [(1 + 3) + 0.5 * 2 + 0.25 * (3 + 5), 2 + 0.5 * 8, 8]
    # positions −1, 0, 1, 2 (from −2): never beyond 2
    assert seen.alive[1].tolist() == [1, 1, 1, 1, 1]
    assert seen.returns(0.5)[1].tolist() == [-1 + 0.25 * 4 + 0.125 * 2, 0.5 * 4 + 0.25 * 2, 5, 2]
    assert seen.q_rows.tolist() == [[True] * 3 + [False], [True] * 4]
    # relaxing the events of the problem changes nothing
    relaxed = episodes(problem.relaxed(0.5), params, noise)
    assert all(torch.equal(a, b) for a, b in zip(seen[1:], relaxed[1:], strict=True))


def test_episodes_that_are_not_finite_are_refused_only_while_alive() -> None:
    problem, params = walk(blow_up=math.inf)
    fit = Fit(episodes=8, steps=0, held_out=2)
    data = gather(problem, params, fit)["q"]
    assert (
        data.rows.logical_not().any()
    )  # some have ended, and the reward would be infinite after that
    assert data.returns[data.rows].isfinite().all()
    bad = {**params, "layers.0.bias": torch.full((1,), math.nan, dtype=F64)}
    with pytest.raises(NotFinite):
        gather(problem, bad, fit)


def test_features_are_observation_one_time_events_and_time_to_go() -> None:
    problem, params = walk()
    noise = problem.draw(3, torch.Generator().manual_seed(0))
    view = episodes(problem, params, noise).view
    columns = Sizes.of(problem).columns(problem)
    assert Sizes.of(problem).flags == ("half",) and columns == (1,)
    got = features(view, columns, 4)
    assert torch.equal(got[..., 0], view.obs[..., 0])
    assert torch.equal(got[..., 1], view.events[..., 1]) and 0 < float(got[..., 1].mean()) < 1
    assert got[..., 2].tolist() == [[1.0, 0.75, 0.5, 0.25]] * 3
