"""Mixtures on batches of their own: who runs on what, how samples count, what it does to a mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
from estimators.base import Estimator
from estimators.mixtures.sources import Source
from estimators.mixtures.weights import LEVELS, Level
from gradlab.foundation.errors import BadValue
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Factored, GradientSamples
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.testing import Biased, assert_unbiased
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem

IV = E.InverseVariance()
PARTS = E.FOG(), E.PG()
COUNT = 24
# block of episodes that is dealt out together, and episodes of a group
SOURCES: dict[str, tuple[Source, int, int]] = {
    "same": (E.Same(8), 8, 8),
    "cross": (E.Cross(8), 4, 8),
    "three folds": (E.Cross(12, folds=3), 4, 12),
    "independent": (E.Independent(seed=3, size=8), 2, 2),
}


def posed() -> tuple[Problem, dict[str, Tensor], Noise]:
    problem = toy_problem()
    return problem, toy_params(problem), problem.draw(COUNT, torch.Generator().manual_seed(1))


def owners(block: int, parts: int = 2) -> list[int]:
    """Which part each episode goes to."""
    return [i % block // (block // parts) for i in range(COUNT)]


@dataclasses.dataclass(frozen=True)
class Spy:
    """Equal weights; keeps what it was shown."""

    seen: list[tuple[list[GradientSamples], bool]] = dataclasses.field(default_factory=list)
    label: str = "spy"

    def __call__(
        self, parts: Sequence[GradientSamples], level: Level, horizon: int, paired: bool
    ) -> dict[str, Tensor]:
        self.seen.append((list(parts), paired))
        return {"": torch.full((len(parts),), 1 / len(parts), dtype=torch.float64)}


@pytest.mark.parametrize("source", SOURCES)
def test_each_part_runs_on_its_shares_and_counts_as_often_as_there_are_parts(source: str) -> None:
    problem, params, noise = posed()
    given, block, group = SOURCES[source]
    mixture = E.Mixture(PARTS, Spy(), source=given, batches="separate")
    assert mixture.group == group
    found = mixture(problem, params, noise)
    assert isinstance(found, Factored) and found.cotangent.shape[1] == problem.horizon
    whole = [part(problem, params, noise).per_sample() for part in PARTS]
    for name, value in found.per_sample().items():
        expected = torch.stack([whole[k][name][i] for i, k in enumerate(owners(block))])
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)  # 2 times 1/2


@pytest.mark.parametrize("source", ["same", "cross", "three folds"])
def test_rules_see_the_shares_of_the_episodes_that_the_source_says(source: str) -> None:
    problem, params, noise = posed()
    given, block, group = SOURCES[source]
    spy = Spy()
    E.Mixture(PARTS, spy, source=given, batches="separate")(problem, params, noise)
    whole = [part(problem, params, noise).per_sample() for part in PARTS]
    assert len(spy.seen) == COUNT // block
    for b, (parts, paired) in enumerate(spy.seen):
        assert not paired
        start = b * block // group * group
        own = range(b * block, (b + 1) * block)
        rows = [i for i in range(start, start + group) if source == "same" or i not in own]
        for k, part in enumerate(parts):
            mine = [i for i in rows if owners(block)[i] == k]
            for name, value in part.per_sample().items():
                torch.testing.assert_close(value, whole[k][name][mine], rtol=1e-12, atol=1e-14)
    shared = Spy()
    E.Mixture(PARTS, shared, source=given)(problem, params, noise)
    assert all(paired for _, paired in shared.seen)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_mean_of_a_block_is_the_mixture_of_its_shares(source: str, level: Level) -> None:
    problem, params, noise = posed()
    given, block, _ = SOURCES[source]
    mixture = E.Mixture(PARTS, E.BestLinear(), level, given, "separate")
    weights = mixture.weights(problem, params, noise)
    found = mixture(problem, params, noise)
    parts = [part(problem, params, noise) for part in PARTS]
    share, size = block // 2, COUNT // weights.blocks
    for b in range(COUNT // block):
        own = {key: value[b * block // size][None] for key, value in weights.values.items()}
        means = [
            part.rows(b * block + k * share, b * block + (k + 1) * share).group_means(share)
            for k, part in enumerate(parts)
        ]
        expected = [E.Weights(level, own).scaled(k, mean).mean() for k, mean in enumerate(means)]
        for name, value in found.rows(b * block, (b + 1) * block).mean().items():
            total = expected[0][name] + expected[1][name]
            torch.testing.assert_close(value, total, rtol=1e-10, atol=1e-12)


def test_parts_of_other_calls_and_other_groups_go_together() -> None:
    problem, params, noise = posed()
    loo = E.PG(baseline="loo", group_size=3)
    mixture = E.Mixture((E.FOG(engine="vmap"), loo), Spy(), source=E.Same(8), batches="separate")
    assert mixture.group == 24
    found = mixture(problem, params, noise).per_sample()
    whole = [part(problem, params, noise).per_sample() for part in mixture.parts]
    for name, value in found.items():
        expected = torch.cat([whole[0][name][:12], whole[1][name][12:]])
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
    sums = E.Mixture(
        (E.FOG(), 0.5 * (E.FOG() + E.QG())), Spy(), source=E.Same(8), batches="separate"
    )
    found = sums(problem, params, noise).per_sample()
    whole = [part(problem, params, noise).per_sample() for part in sums.parts]
    for name, value in found.items():
        rows = torch.stack([whole[k][name][i] for i, k in enumerate(owners(8))])
        torch.testing.assert_close(value, rows, rtol=1e-12, atol=1e-14)


def test_weight_one_returns_a_part_on_its_share() -> None:
    problem, params, noise = posed()
    own = E.PG()(problem, params, noise).per_sample()
    for level in ("global", "layer", "parameter"):
        keys = {"global": [""], "layer": [f"layers.{i}" for i in range(3)], "parameter": params}
        values = {}
        for key in keys[level]:
            shape = params[key].shape if level == "parameter" else ()
            values[key] = torch.stack([torch.zeros(shape), torch.ones(shape)])[None].double()
        fixed = E.FixedMixture(PARTS, E.Weights(level, values), batches="separate")
        assert fixed.group == 2
        for name, value in fixed(problem, params, noise).per_sample().items():
            assert (value[::2] == 0).all()
            torch.testing.assert_close(value[1::2], 2 * own[name][1::2], rtol=1e-12, atol=1e-14)


def test_a_sample_costs_the_mean_of_the_parts() -> None:
    problem, params, noise = posed()
    shared = E.Mixture(PARTS, IV)
    separate = dataclasses.replace(shared, batches="separate")
    both = shared.cost(problem)  # one rollout for the two of them
    assert (both.environment_steps, both.backward_passes) == (8, 1)
    assert separate.cost(problem) == E.Cost(8, 0.5)
    fixed = separate.fitted(problem, params, noise)
    assert fixed.batches == "separate" and fixed.cost(problem) == separate.cost(problem)
    found = fixed.weights.values[""][0]
    taken = [noise.take(torch.arange(k, COUNT, 2)) for k in range(2)]
    shares = [part(problem, params, own) for part, own in zip(PARTS, taken, strict=True)]
    expected = IV(shares, "global", problem.horizon, False)[""]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


WRONG: dict[str, Callable[[], object]] = {
    "each of 2 parts 2 or more.*got 2 for all; try a size of 8": lambda: E.Mixture(
        PARTS, IV, source=E.Cross(4), batches="separate"
    )(*posed()),
    "groups of 2 samples, got 5": lambda: E.Mixture(PARTS, IV, batches="separate").fitted(
        *posed()[:2], posed()[2].rows(0, 5)
    ),
}


@pytest.mark.parametrize("pattern", WRONG)
def test_what_is_refused_is_one_line(pattern: str) -> None:
    with pytest.raises(BadValue, match=pattern) as caught:
        WRONG[pattern]()
    assert "\n" not in str(caught.value)


THREE = pytest.param((E.PG(), E.QG(), E.FOG()), E.Cross(384), marks=pytest.mark.slow)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("parts", "source"), [(PARTS, E.Cross(512)), (PARTS, E.Independent(size=512)), THREE]
)
def test_expectation_on_lq(parts: tuple[Estimator, ...], source: Source) -> None:
    """Weights from elsewhere: unbiased to 5 % of the gradient at a false-alarm rate of 1e-6."""
    problem, params = build("lq")
    answer = closed_forms.solve(problem, params)
    posed = problem.replace(critic=answer.critic), params
    truth = OracleGradient.exact(answer.gradient, "closed form")
    mixture = E.Mixture(parts, IV, source=source, batches="separate")
    options: dict[str, Any] = {"detect": 0.05, "max_count": 2**22, "chunk_size": 4096}
    assert_unbiased(mixture, *posed, truth, **options)
    if parts is PARTS and isinstance(source, E.Independent):
        with pytest.raises(Biased):
            assert_unbiased(0.9 * mixture, *posed, truth, **options)
