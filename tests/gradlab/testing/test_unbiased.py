"""`assert_unbiased` passes the unbiased, catches the biased, and refuses when it cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gradlab.foundation.errors import BadShape, BadValue, GradlabError, NotFinite
from gradlab.foundation.noise import Noise
from gradlab.gradients.samples import Dense
from gradlab.problems.problem import Problem
from gradlab.statistics import Moments, OracleGradient
from gradlab.testing import Biased, CannotTell, assert_unbiased, fixed_directions, project
from tests.helpers.toy import toy_problem

G = {
    "layers.0.weight": torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64),
    "layers.0.bias": torch.tensor([0.3, -0.1], dtype=torch.float64),
    "log_std": torch.tensor([0.7], dtype=torch.float64),
}
TRUTH = OracleGradient.exact(G, "formula")


def centred(z: Tensor) -> Tensor:
    return z


def skewed(z: Tensor) -> Tensor:
    """Mean 0 and a long tail: exp(2z) off its mean e²."""
    return (2 * z).exp() - torch.tensor(2.0, dtype=z.dtype).exp()


@dataclass(frozen=True)
class Fake:
    """Gradient `factor`·g* plus noise of standard deviation `std` on each of the 7 parameters."""

    factor: float = 1.0
    std: float = 0.5
    tail: Callable[[Tensor], Tensor] = centred
    group: int = 1
    label: str = "fake"
    turned: bool = False

    def __call__(self, problem: Problem, params: dict[str, Tensor], noise: Noise) -> Dense:
        z = self.tail(noise.action[:, :7, 0])
        out, at = {}, 0
        for name, g in G.items():
            size = g.numel()
            g = g.flip(0) if self.turned and name == "layers.0.bias" else g
            shift = self.std * z[:, at : at + size]
            out[name] = self.factor * g + shift.reshape(-1, *g.shape)
            at += size
        return Dense(out)


@pytest.fixture
def problem() -> Problem:
    return toy_problem(horizon=8)


def run(problem: Problem, estimator: Fake, **options: object) -> object:
    return assert_unbiased(estimator, problem, {}, TRUTH, chunk_size=1024, **options)


@pytest.mark.statistical
def test_unbiased_passes(problem: Problem) -> None:
    verdict = run(problem, Fake())
    assert verdict.detectable <= 0.01
    assert max(map(abs, verdict.z)) < verdict.threshold
    assert verdict.directions[0] == "truth"
    assert "layers.0" in verdict.directions
    assert len(verdict.directions) <= 16


@pytest.mark.statistical
@pytest.mark.parametrize("factor", [1.02, 0.98, -1.0])
def test_biased_fails(problem: Problem, factor: float) -> None:
    with pytest.raises(Biased, match=r"biased along .* z = .* allowed .* detectable along g\*"):
        run(problem, Fake(factor))
    assert issubclass(Biased, AssertionError)


@pytest.mark.statistical
def test_one_wrong_layer_fails(problem: Problem) -> None:
    """A wrong bias vector, though it is 2 % of the whole gradient's square."""
    with pytest.raises(Biased, match="layers.0.bias"):
        run(problem, Fake(turned=True))


def test_refuses_without_precision(problem: Problem) -> None:
    with pytest.raises(CannotTell, match="4096 samples reach .* raise max_count to about"):
        run(problem, Fake(std=20.0), max_count=4096)
    assert issubclass(CannotTell, GradlabError)
    assert not issubclass(CannotTell, AssertionError)


def test_draws_more_until_precise(problem: Problem) -> None:
    few, many = run(problem, Fake(std=0.2)), run(problem, Fake(std=1.0))
    assert few.count == 4096
    assert many.count > 4096
    assert many.detectable <= 0.01


def test_obvious_bias_is_told_even_without_the_precision_asked(problem: Problem) -> None:
    with pytest.raises(Biased):
        run(problem, Fake(-1.0, std=5.0), max_count=4096)


def test_refuses_skewed_samples(problem: Problem) -> None:
    with pytest.raises(CannotTell, match="skewed"):
        run(problem, Fake(std=0.001, tail=skewed), max_count=4096)


def noisy_truth(count: int, std: float) -> OracleGradient:
    generator = torch.Generator().manual_seed(99)
    samples = {
        name: g + std * torch.randn(count, *g.shape, generator=generator, dtype=torch.float64)
        for name, g in G.items()
    }
    return OracleGradient.sampled(Moments.of(samples), "large sample")


@pytest.mark.statistical
def test_error_of_the_truth_counts(problem: Problem) -> None:
    """Off by five of its own standard errors along g*, a truth must not make the rest fail."""
    assert_unbiased(Fake(std=0.1), problem, {}, noisy_truth(10_000, 0.3), chunk_size=1024, seed=5)
    with pytest.raises(CannotTell, match="the truth 'large sample' itself limits it"):
        assert_unbiased(Fake(std=0.1), problem, {}, noisy_truth(1000, 3.0), chunk_size=1024)


@pytest.mark.statistical
def test_false_alarms_are_as_rare_as_stated(problem: Problem) -> None:
    """At a rate of 20 %, shared by correlated directions, some seeds fail and most do not."""
    failed = 0
    for seed in range(60):
        try:
            assert_unbiased(
                Fake(),
                problem,
                {},
                TRUTH,
                seed=seed,
                false_alarm=0.2,
                detect=0.05,
                count=1024,
                chunk_size=1024,
            )
        except Biased:
            failed += 1
    assert 0 < failed <= 24  # P(more) < 1e-3 at 20 %


@pytest.mark.statistical
def test_groups_and_replicates(problem: Problem) -> None:
    plain = run(problem, Fake())
    grouped = run(problem, Fake(group=16))
    replicated = run(problem, Fake(), replicate=16)
    assert plain.count == grouped.count == replicated.count
    assert grouped.z == pytest.approx(replicated.z)
    assert plain.z == pytest.approx(grouped.z, rel=0.2)


def test_deterministic_estimator(problem: Problem) -> None:
    run(problem, Fake(std=0.0))
    with pytest.raises(Biased):
        run(problem, Fake(1.0001, std=0.0))


def test_bad_input(problem: Problem) -> None:
    zero = OracleGradient.exact({name: 0 * g for name, g in G.items()}, "zero")
    with pytest.raises(BadValue, match="not zero"):
        assert_unbiased(Fake(), problem, {}, zero)
    with pytest.raises(BadShape, match="differ in"):
        assert_unbiased(Fake(), problem, {}, OracleGradient.exact({"w": torch.ones(3)}, "w"))
    with pytest.raises(NotFinite, match="not finite"):
        run(problem, Fake(std=float("nan")))


def test_projections() -> None:
    names, directions = fixed_directions(TRUTH, seed=0)
    samples = {name: g[None].repeat(2, *[1] * g.ndim) for name, g in G.items()}
    seen = project(samples, directions)
    norm = sum(float(g.square().sum()) for g in G.values()) ** 0.5
    assert seen.shape == (2, len(names))
    assert float(seen[0, 0]) == pytest.approx(norm)
    torch.testing.assert_close(project(Dense(samples), directions), seen)
