"""A trainer's gradient is its estimator's: over many updates of a frozen policy it has the mean
that the estimator has on the segments, also where they begin in mid-episode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.foundation.generators import generator
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Dense
from gradlab.problems.problem import Problem
from gradlab.statistics.truth import OracleGradient
from gradlab.testing import Biased, assert_unbiased
from gradlab.training.algorithm import Algorithm
from gradlab.training.critic import CriticRecipe
from gradlab.training.loop import gradient_of, init, update
from gradlab.training.optimiser import Adam
from gradlab.training.state import TrainingState
from studies.train.algorithms import ALGORITHMS, FAMILIES
from tests.contracts import test_ended_episodes as wall
from tests.helpers import checking
from tests.helpers.known import build

QUICK = ("abpt",)
EPISODES, LENGTH = 32, 3
COPIES = 384  # of the episodes, for the truth
NOISY = ("pg", "ddcg")  # score functions alone, here: more episodes, and less is found
# a mean of 256 updates; at 4.6 standard errors and with what it takes to be sure of it
check = partial(assert_unbiased, false_alarm=1e-4, detect=0.3, count=256, max_count=1024)


@dataclass(frozen=True)
class Updates:
    """As a sampler: the gradient of one update per row of noise, whose seed is its number."""

    algorithm: Algorithm
    state: TrainingState
    label: str = "updates"
    group: int = 1

    def number(self, seed: Tensor) -> Tensor:
        return seed % 2**40

    def __call__(self, problem: Problem, params: dict[str, Tensor], noise: Noise) -> Dense:
        rows = [
            gradient_of(
                problem, self.algorithm, self.state._replace(updates=self.number(seed))
            ).gradient
            for seed in noise.seed
        ]
        return Dense({name: torch.stack([row[name] for row in rows]) for name in params})


class Reused(Updates):
    """The trap: the same noise in every update."""

    def number(self, seed: Tensor) -> Tensor:
        return torch.tensor(5)


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """Thousands of updates: the annotations are checked elsewhere."""
    with checking.off():
        yield


def small(name: str) -> Algorithm:
    """The named algorithm with few episodes, critics and no learning of the policy; without what is
    added to the estimator's gradient, which other tests know exactly.
    """
    episodes = 8 * EPISODES if name in NOISY else EPISODES
    sizes = {"episodes": episodes, "length": LENGTH, "horizon": LENGTH, "hidden": (4,)}
    family = dataclasses.replace(FAMILIES["hovering"], critic=(6,), passes=4, keep=0.8, **sizes)
    algorithm = ALGORITHMS[name].build(family)
    changes: dict[str, object] = {"optimiser": Adam(1e-300), "updates": 100}
    changes |= {"kl": None, "replay": None}
    if algorithm.entropy is not None and algorithm.entropy.where == "bonus":
        changes["entropy"] = None
    if algorithm.critic is not None:
        changes["critic"] = dataclasses.replace(algorithm.critic, optimiser=Adam(0.05))
    return dataclasses.replace(algorithm, **changes)


def lq() -> Problem:
    problem, _ = build("lq", horizon=8)
    return problem.replace(policy=gradlab.LinearPolicy(0, 0, std=0.8), skewed=())


def after(problem: Problem, algorithm: Algorithm, count: int) -> TrainingState:
    """In mid-training: a critic that has learned, a target that lags, episodes under way."""
    state = init(problem, algorithm, 1)
    params = {name: value + 0.3 for name, value in state.params.items()}
    state = state._replace(params=params)
    for _ in range(count):
        state, _ = update(problem, algorithm, state)
    return state


def truth_of(problem: Problem, algorithm: Algorithm, state: TrainingState) -> OracleGradient:
    """The estimator's expectation on the segments from where the episodes are, put together here:
    the target critic, the buffers and the coefficients of now, noise of its own.
    """
    algorithm = algorithm.now(state)
    recipe = algorithm.critic
    assert isinstance(recipe, CriticRecipe | None)
    changes: dict[str, object] = {"buffers": state.buffers or None}
    if recipe is not None:
        changes["critic"] = recipe.critic(problem, state.target)
    own = algorithm.tail == "own"
    segment = problem.replace(horizon=100, **changes).from_moments(
        algorithm.length + own, bootstrap=algorithm.tail == "v"
    )
    rows = torch.arange(algorithm.episodes).repeat(COPIES)
    noise = segment.noise_from(state.episodes.take(rows), generator("a truth of its own"))
    samples = algorithm.estimator(segment, state.params, noise)  # type: ignore[operator]
    return OracleGradient.sampled(samples.group_means(algorithm.episodes).moments(), "estimator")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ALGORITHMS],
)
def test_the_mean_of_updates_is_the_expectation_of_the_estimator(name: str) -> None:
    problem, algorithm = lq(), small(name)
    state = after(problem, algorithm, 2)
    assert state.episodes.step.eq(6).all()  # in mid-episode: two of its eight steps are left
    truth, detect = truth_of(problem, algorithm, state), 0.5 if name in NOISY else 0.3
    check(Updates(algorithm, state), problem, state.params, truth, detect=detect)


def test_the_same_where_episodes_have_ended_and_begun_anew() -> None:
    problem, algorithm = wall.problem_of(16).replace(critic=None), small("shac")
    algorithm = dataclasses.replace(algorithm, length=2)
    state = after(problem, algorithm, 3)
    assert 0 < int((state.episodes.step == 0).sum()) < EPISODES
    check(Updates(algorithm, state), problem, state.params, truth_of(problem, algorithm, state))


def test_reused_noise_and_the_wrong_critic_are_found() -> None:
    problem, algorithm = lq(), small("shac")
    state = after(problem, algorithm, 2)
    truth = truth_of(problem, algorithm, state)
    with pytest.raises(Biased):
        check(Reused(algorithm, state), problem, state.params, truth, count=16)
    online = state._replace(target=state.critic)
    with pytest.raises(Biased):
        check(Updates(algorithm, online), problem, state.params, truth, count=64)
