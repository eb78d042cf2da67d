"""The best linear mixture: its covariances, shrinkage, weights, bias, and what it is worth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import estimators as E
import gradlab
from estimators.base import Estimator
from estimators.mixtures.calls import by_step
from estimators.mixtures.covariances import (
    Products,
    products,
    shrinkage_of,
    squared_bias,
    uncorrelated,
)
from estimators.mixtures.least_error import best_weights, eigen
from estimators.mixtures.weights import LEVELS, Level, layer_of
from gradlab.foundation.errors import BadValue
from gradlab.gradients.samples import Dense, Factored, GradientSamples
from gradlab.oracle import closed_forms
from gradlab.problems.problem import Problem
from gradlab.statistics import OracleGradient
from gradlab.testing import Biased, assert_unbiased
from tests.estimators.test_mixtures import Quiet
from tests.helpers.known import build
from tests.helpers.toy import toy_params, toy_problem

THREE = E.FOG(), E.PG(), E.QG()


def matrix(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_covariances(count: int, parts: int, seed: int = 0) -> Tensor:
    """Of parts whose spreads differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(count, parts, parts + 2, generator=generator, dtype=torch.float64)
    spread = (3 * torch.randn(count, parts, 1, generator=generator, dtype=torch.float64)).exp()
    return (factor * spread) @ (factor * spread).mT


# Weights from a matrix.


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_weights_are_the_formula(parts: int) -> None:
    covariance = random_covariances(200, parts)
    found = best_weights(covariance)
    # in units of each part, where the matrix has an inverse that float64 can hold
    one = covariance.diagonal(dim1=-2, dim2=-1).rsqrt()
    inverse = torch.linalg.inv(covariance * one[..., None] * one[..., None, :])
    expected = one * (inverse @ one[..., None])[..., 0]
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert (found < 0).any()
    assert (found.sum(-1) - 1).abs().max() < 1e-12


def test_two_parts_by_hand() -> None:
    """Variances 1 and 4, covariance 1.5: (4 − 1.5, 1 − 1.5)/(1 + 4 − 3)."""
    found = best_weights(matrix((1.0, 1.5), (1.5, 4.0)))
    torch.testing.assert_close(found, matrix((1.25, -0.25))[0], rtol=1e-11, atol=0)
    found = best_weights(matrix((1.0, 1.5), (1.5, 4.0)), nonnegative=True)
    assert found.tolist() == [1.0, 0.0]


def test_where_the_matrix_has_no_inverse() -> None:
    def weights(*rows: Sequence[float]) -> list[float]:
        return best_weights(matrix(*rows)).tolist()

    assert weights((0, 0), (0, 4)) == [1.0, 0.0] and weights((4, 0), (0, 0)) == [0.0, 1.0]
    assert weights((0, 0), (0, 0)) == [0.5, 0.5]
    assert weights((0, 0, 0), (0, 2, 0), (0, 0, 0)) == [0.5, 0.0, 0.5]
    # two equal parts, and a third beside them
    assert weights((3, 3), (3, 3)) == pytest.approx([0.5, 0.5], abs=1e-12)
    assert weights((3, 3, 3), (3, 3, 3), (3, 3, 3)) == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert weights((3, 3, 0), (3, 3, 0), (0, 0, 1)) == pytest.approx(
        [1 / 8, 1 / 8, 3 / 4], rel=1e-9
    )
    # errors that are multiples of each other cancel: 2 a − b of a and b = 2 a
    assert weights((1, 2), (2, 4)) == pytest.approx([2.0, -1.0], rel=1e-9)
    assert weights((1, -3), (-3, 9)) == pytest.approx([0.75, 0.25], rel=1e-9)


def test_weights_at_any_size_and_in_any_order() -> None:
    base = random_covariances(50, 3, seed=1)
    expected = best_weights(base)
    for size in (1e-150, 1e150):
        torch.testing.assert_close(best_weights(size * base), expected, rtol=1e-7, atol=1e-9)
    order = [2, 0, 1]
    moved = best_weights(base[:, order][:, :, order])
    torch.testing.assert_close(moved, expected[:, order], rtol=1e-7, atol=1e-9)


def test_nonnegative_weights_are_the_best_of_those() -> None:
    covariance = random_covariances(100, 3, seed=2)
    covariance = covariance / covariance.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
    found = best_weights(covariance, nonnegative=True)
    assert (found >= 0).all() and (found.sum(-1) - 1).abs().max() < 1e-12
    grid = [(a, b, 40 - a - b) for a, b in product(range(41), repeat=2) if a + b <= 40]
    tried = torch.tensor(grid, dtype=torch.float64) / 40
    others = torch.einsum("gk,nkl,gl->ng", tried, covariance, tried)
    best = torch.einsum("nk,nkl,nl->n", found, covariance, found)
    assert (best[:, None] <= others * (1 + 1e-9)).all()
    free = best_weights(covariance)
    inside = (free >= 0).all(-1)
    assert 0 < inside.sum() < len(inside)
    torch.testing.assert_close(found[inside], free[inside], rtol=1e-9, atol=1e-12)


# Covariances from samples.


def toy_samples(count: int = 12) -> tuple[Problem, list[GradientSamples]]:
    problem = toy_problem()
    params = toy_params(problem)
    noise = problem.draw(count, torch.Generator().manual_seed(1))
    return problem, [part(problem, params, noise) for part in THREE]


def rows_by_unit(parts: Sequence[GradientSamples], level: Level, horizon: int) -> dict[str, Tensor]:
    """Samples [*unit, k, N, p], slowly: units in front, the numbers of a unit behind."""
    if level == "step":
        steps = []
        for t in range(horizon):
            rows = [part.at_step(t).per_sample() for part in parts if isinstance(part, Factored)]
            steps.append(
                torch.stack([torch.cat([x.flatten(1) for x in r.values()], 1) for r in rows])
            )
        return {"": torch.stack(steps)}
    if level == "output":
        given = [
            torch.stack([part.at_step(t).cotangent.sum(1) for t in range(horizon)])
            for part in parts
            if isinstance(part, Factored)
        ]
        return {"": torch.stack(given).permute(1, 3, 0, 2)[..., None]}
    rows = [part.per_sample() for part in parts]
    out: dict[str, list[Tensor]] = {}
    for name in rows[0]:
        leaf = torch.stack([row[name] for row in rows])
        if level == "parameter":
            out[name] = [leaf.movedim((0, 1), (-2, -1))[..., None]]
        else:
            out.setdefault(layer_of(name) if level == "layer" else "", []).append(leaf.flatten(2))
    return {key: torch.cat(leaves, -1) for key, leaves in out.items()}


def test_two_parts_by_formula_have_the_eigenvectors_of_any_number() -> None:
    matrices = random_covariances(100, 2, seed=5)
    matrices = matrices / matrices.amax((-2, -1), keepdim=True)
    matrices[0] = matrix((2.0, 0.0), (0.0, 2.0))
    matrices[1] = matrix((1.0, 1.0), (1.0, 1.0))
    matrices[2] = 0.0
    values, vectors = eigen(matrices)
    expected = torch.linalg.eigvalsh(matrices)
    assert ((values - expected).abs() <= 1e-14 * expected[:, 1:] + 1e-300).all()
    torch.testing.assert_close(vectors @ torch.diag_embed(values) @ vectors.mT, matrices)
    torch.testing.assert_close(vectors @ vectors.mT, torch.eye(2).double().expand(100, 2, 2))


@pytest.mark.parametrize("policy", ["layers", "module", "no bias"])
def test_products_of_steps_take_any_policy(policy: str) -> None:
    """By layer factors where there are, else step by step."""
    problem = toy_problem()
    if policy == "module":
        with torch.random.fork_rng():
            problem = problem.replace(policy=gradlab.ModulePolicy(torch.nn.Linear(3, 1)))
    if policy == "no bias":
        problem = problem.replace(
            policy=gradlab.GaussianPolicy(3, 1, hidden=(4,), std="global", bias=False)
        )
    params = problem.init(torch.Generator().manual_seed(0))
    noise = problem.draw(8, torch.Generator().manual_seed(1))
    parts = [part(problem, params, noise) for part in (E.FOG(), E.PG())]
    assert (by_step(parts, problem.horizon) is None) == (policy == "module")
    found = products(parts, "step", problem.horizon, 1)[""]
    x = rows_by_unit(parts, "step", problem.horizon)[""]
    gap = x.mean(-2) - x.mean(-2)[:, 1:2]
    centred = x - x.mean(-2, keepdim=True)
    expected = torch.einsum("tknp,tlnp->tkl", centred, centred) / 7
    torch.testing.assert_close(found.covariance, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.apart, gap @ gap.mT, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_products_are_their_plain_twins(level: Level) -> None:
    problem, parts = toy_samples()
    found = products(parts, level, problem.horizon, reference=1)
    expected = rows_by_unit(parts, level, problem.horizon)
    assert found.keys() == expected.keys()
    for key, x in expected.items():
        count = x.shape[-2]
        centred = x - x.mean(-2, keepdim=True)
        each = torch.einsum("...knp,...lnp->...nkl", centred, centred)
        covariance = each.sum(-3) / (count - 1)
        gap = x.mean(-2) - x.mean(-2)[..., 1:2, :]
        close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
        close(found[key].covariance, covariance)
        close(found[key].apart, gap @ gap.mT)


# Shrinkage.


def normal(covariance: Tensor, repeats: int, count: int, seed: int = 0) -> Tensor:
    """Samples [repeats, k, count, 1] of normal parts."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(repeats, count, len(covariance), generator=generator, dtype=torch.float64)
    return (draws @ torch.linalg.cholesky(covariance).mT).mT[..., None]


def of_rows(rows: Tensor, reference: int = 0) -> Products:
    """Products of one set of samples [k, N, p]."""
    parts: list[GradientSamples] = [Dense({"a.weight": row}) for row in rows]
    return products(parts, "global", 1, reference)[""]


def of_repeats(rows: Tensor, reference: int = 0) -> Products:
    """Products of sets of samples [repeats, k, N] of one number, each by itself."""
    parts: list[GradientSamples] = [Dense({"a.weight": row.mT}) for row in rows.movedim(1, 0)]
    return products(parts, "parameter", 1, reference)["a.weight"]


def each_of(found: Products) -> list[Products]:
    return [Products(*row) for row in zip(*found, strict=True)]


def test_the_excess_is_that_of_a_jackknife() -> None:
    """Two parts of several numbers: weights without each sample in turn, by leaving it out."""
    rows = normal(random_covariances(1, 2, seed=3)[0], 3, 9).movedim(0, -1)[..., 0, :]
    found = of_rows(rows)
    centred = rows - rows.mean(1, keepdim=True)
    each = torch.einsum("knp,lnp->nkl", centred, centred)
    whole = best_weights(each.sum(0))
    total = 0.0
    for i in range(9):
        moved = best_weights(each.sum(0) - each[i]) - whole
        apart = each[i][0, 0] + each[i][1, 1] - 2 * each[i][0, 1]
        all_apart = each.sum(0)[0, 0] + each.sum(0)[1, 1] - 2 * each.sum(0)[0, 1]
        lever = float(apart / all_apart)
        # the mean is fitted too, which its share 1/N in the leverage stands for
        moved = moved * (1 - lever) / (1 - lever - 1 / 9)
        total += float(moved @ found.covariance @ moved)
    assert float(found.excess) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_shrunk_weights_are_worth_as_much_as_the_better_kind(
    parts: int, correlation: float
) -> None:
    """Normal parts, N = 12: the weights of Σ̂ cost (N − 2)/(N − k − 1) in variance, those without
    covariances what is missed. Shrunk ones cost little more than the better, never the worse.
    """
    spread = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:parts]
    truth = correlation * torch.ones(parts, parts).double() + (1 - correlation) * torch.eye(parts)
    truth = truth * spread * spread[:, None]
    count = 12
    found = of_repeats(normal(truth, 400, count)[..., 0])
    shares = [float(shrinkage_of(each, count)) for each in each_of(found)]
    own = torch.tensor(shares, dtype=torch.float64)[:, None]
    matrices = found.covariance
    kinds = best_weights(matrices), best_weights(uncorrelated(matrices))
    best = best_weights(truth)

    def cost(weights: Tensor) -> float:
        value = torch.einsum("nk,kl,nl->n", weights, truth, weights).mean()
        return float(value / (best @ truth @ best))

    raw, apart = cost(kinds[0]), cost(kinds[1])
    assert raw == pytest.approx((count - 2) / (count - parts - 1), rel=0.1)
    mixed = cost((1 - own) * kinds[0] + own * kinds[1])
    assert mixed < 1.05 * min(raw, apart)
    excess = found.excess.mean() / (best @ truth @ best)
    assert 0.8 * (raw - 1) < excess < 2.5 * (raw - 1)


def test_few_samples_are_shrunk_all_the_way_and_errors_that_cancel_are_not() -> None:
    rows = normal(matrix((1.0, 1.5), (1.5, 4.0)), 1, 40)[0]
    assert shrinkage_of(of_rows(rows[:, :3]), 3) == 1.0
    assert 0.0 < shrinkage_of(of_rows(rows), 40) < 0.2
    cancelling = of_rows(torch.stack([rows[0], 2 * rows[0]]))
    assert shrinkage_of(cancelling, 40) < 1e-12
    assert float(cancelling.excess) < 1e-12


@pytest.mark.parametrize("level", LEVELS)
def test_all_the_way_it_is_inverse_variance(level: Level) -> None:
    problem, parts = toy_samples()
    expected = E.InverseVariance()(parts, level, problem.horizon, True)
    for rule, paired in ((E.BestLinear(1.0), True), (E.BestLinear(), False)):
        found = rule(parts, level, problem.horizon, paired)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12)


# Bias.


def biased_rows(count: int, seed: int, repeats: int = 1) -> Tensor:
    """Parts of expectation (1, 1), (1.6, 1) and (0.4, 1), the first unbiased and noisy."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(repeats, 3, count, 2, generator=generator, dtype=torch.float64)
    shared = torch.randn(repeats, 1, count, 2, generator=generator, dtype=torch.float64)
    spread = torch.tensor([3.0, 0.3, 0.5], dtype=torch.float64)[:, None, None]
    mean = matrix((1.0, 1.0), (1.6, 1.0), (0.4, 1.0))[:, None]
    return mean + spread * (draws + shared)


def test_squared_bias_is_unbiased_before_it_is_projected() -> None:
    """Biases ±0.6: entries 0.36 and −0.36 on average over 4,000 repeats, within 4.5 errors."""
    count = 10
    found = of_repeats(biased_rows(count, 0, 4000)[..., 0])
    own = found.covariance
    noise = own - own[:, :, :1] - own[:, :1, :] + own[:, :1, :1]
    values = (found.apart - noise / count)[:, 1:, 1:]
    expected = 0.36 * matrix((1, -1), (-1, 1))
    z = (values.mean(0) - expected) / (values.std(0) / len(values) ** 0.5)
    assert z.abs().max() < 4.5
    projected = squared_bias(found, 0, count)
    assert torch.linalg.eigvalsh(projected).amin() > -1e-12
    assert (projected[:, 0] == 0).all() and (projected[:, :, 0] == 0).all()


def test_what_is_known_of_bias_is_kept_as_it_is() -> None:
    """Many samples: nothing is projected away but noise."""
    found = squared_bias(of_rows(biased_rows(100_000, 1)[0]), 0, 100_000)
    torch.testing.assert_close(found[1:, 1:], 0.36 * matrix((1, -1), (-1, 1)), rtol=0.1, atol=0.01)


def test_bias_counts_the_more_the_larger_the_batch() -> None:
    rows = biased_rows(5000, 2)[0]
    parts: list[GradientSamples] = [Dense({"a.weight": row}) for row in rows]
    two = [parts[0], parts[1]]

    def weights(samples: Sequence[GradientSamples], **options: Any) -> list[float]:
        return E.BestLinear(**options)(samples, "global", 1, True)[""].tolist()

    blind = weights(two)
    assert blind[1] > 0.95  # the quiet part, whatever its bias is
    trusted = [weights(two, unbiased=0, batch=batch)[1] for batch in (1, 20, 400, 10**9)]
    assert trusted == sorted(trusted, reverse=True)
    assert trusted[0] > 0.9 and trusted[-1] < 1e-6
    assert weights(two, unbiased=0) == weights(two, unbiased=0, batch=5000)
    # opposite biases cancel where both are taken: no noisy part is needed, even for large batches
    three = weights(parts, unbiased=0, batch=10**5)
    assert three[1] == pytest.approx(three[2], abs=0.1) and three[0] < 0.1


def test_an_unbiased_quiet_part_is_not_held_to_be_biased() -> None:
    """Where the difference is within its noise, B is mostly 0: the quiet part has its weight."""
    kept = []
    for seed in range(40):
        rows = biased_rows(50, seed)[0, :2].clone()
        rows[1, :, 0] -= 0.6  # no bias any more
        parts: list[GradientSamples] = [Dense({"a.weight": row}) for row in rows]
        kept.append(float(E.BestLinear(unbiased=0)(parts, "global", 1, True)[""][1]))
    assert sum(weight > 0.9 for weight in kept) >= 20


# As a mixture.


def posed() -> tuple[Problem, dict[str, Tensor]]:
    problem = toy_problem()
    return problem, toy_params(problem)


@pytest.mark.parametrize("level", LEVELS)
def test_equal_parts_give_either_and_a_part_without_variance_all(level: Level) -> None:
    problem, params = posed()
    noise = problem.draw(16, torch.Generator().manual_seed(1))
    part = E.FOG()(problem, params, noise).per_sample()
    for rule in (E.BestLinear(), E.BestLinear(0.0), E.BestLinear(nonnegative=True, unbiased=1)):
        same = E.Mixture((E.FOG(),) * 3, rule, level, E.Same(8))(problem, params, noise)
        for name, value in same.per_sample().items():
            torch.testing.assert_close(value, part[name], rtol=1e-9, atol=1e-12)
        if level in ("step", "output"):
            continue
        for k in range(2):
            parts = [E.FOG(), E.PG()]
            parts[k] = Quiet()
            mixed = E.Mixture(parts, E.BestLinear(rule.shrinkage), level, E.Cross(8))
            assert all((x == 0).all() for x in mixed(problem, params, noise).per_sample().values())


@pytest.mark.parametrize("level", LEVELS)
def test_few_samples_and_broken_ones_give_numbers(level: Level) -> None:
    problem, params = posed()
    noise = problem.draw(4, torch.Generator().manual_seed(1))
    for rule in (E.BestLinear(), E.BestLinear(0.0), E.BestLinear(unbiased=2, nonnegative=True)):
        for source in (E.Cross(4), E.Same(4)):
            mixture = E.Mixture(THREE, rule, level, source)
            for value in mixture.weights(problem, params, noise).values.values():
                assert value.isfinite().all() and (value.sum(1) - 1).abs().max() < 1e-9
        broken: list[GradientSamples] = [part(problem, params, noise) for part in THREE]
        broken[1] = broken[1] * torch.tensor([1.0, math.nan, 1.0, 1.0], dtype=torch.float64)
        for value in rule(broken, level, problem.horizon, True).values():
            torch.testing.assert_close(value, torch.full_like(value, 1 / 3))


# What it is worth, and that it is unbiased where its parts are.


@functools.cache
def known(name: str) -> tuple[Problem, dict[str, Tensor], OracleGradient]:
    problem, params = build(name)
    answer = closed_forms.solve(problem, params)
    exact = OracleGradient.exact(answer.gradient, "closed form")
    return problem.replace(critic=answer.critic), params, exact


PAIRS: dict[str, tuple[str, tuple[Estimator, ...]]] = {
    "lq": ("lq", (E.FOG(), E.PG())),
    "lq of three": ("lq", (E.FOG(), E.PG(), E.QG())),
    "smoothed ramp": ("soft_heaviside", (E.FOG(), E.PG())),
    "smoothed step": ("heaviside", (E.PG(), E.Split(0.05))),
}


@pytest.mark.statistical
@pytest.mark.parametrize("source", [E.Cross(100), E.Independent(size=100)], ids=["cross", "pilot"])
@pytest.mark.parametrize("name", ["lq", "lq of three"])
def test_variance_on_lq_is_within_five_percent_of_the_optimum(name: str, source: Any) -> None:
    """wᵀΣw of the weights of 40 groups (one pilot) over its least value, Σ from 4,096 other
    episodes: that optimum is known to (k − 1)/4096. The measured variance of the mixture's group
    means agrees within 4 errors.
    """
    problem, params, _ = known("lq")
    parts = PAIRS[name][1]
    other = problem.draw(4096, torch.Generator().manual_seed(9))
    samples = [part(problem, params, other) for part in parts]
    covariance = products(samples, "global", problem.horizon)[""].covariance
    best = best_weights(covariance)
    least = float(best @ covariance @ best)
    assert least < 0.9 * float(covariance.diagonal().min())
    mixture = E.Mixture(parts, E.BestLinear(), source=source)
    noise = problem.draw(4000, torch.Generator().manual_seed(10))
    weights = mixture.weights(problem, params, noise).values[""]
    found = torch.einsum("nk,kl,nl->n", weights, covariance, weights).mean()
    assert 1.0 <= found / least < 1.05
    means = mixture(problem, params, noise).group_means(100).per_sample()
    squares = [(x - x.mean(0)).flatten(1).square().sum(1) for x in means.values()]
    spread = torch.stack(squares).sum(0) * 100 * 40 / 39
    assert abs(float(spread.mean() - found)) < 4 * float(spread.std()) / 40**0.5


@pytest.mark.statistical
@pytest.mark.parametrize("level", ["global", "parameter"])
@pytest.mark.parametrize("name", PAIRS)
def test_variance_does_not_exceed_that_of_the_best_part(name: str, level: Level) -> None:
    """Of means of groups of 50 on the same episodes: the difference within 4 of its errors."""
    posed, parts = PAIRS[name]
    problem, params, _ = known(posed)
    noise = problem.draw(4000, torch.Generator().manual_seed(11))
    mixture = E.Mixture(parts, E.BestLinear(), level, E.Cross(50))

    def squares(estimator: Estimator) -> Tensor:
        means = estimator(problem, params, noise).group_means(50).per_sample()
        return torch.stack(
            [(x - x.mean(0)).flatten(1).square().sum(1) for x in means.values()]
        ).sum(0)

    own, others = squares(mixture), [squares(part) for part in parts]
    more = own - min(others, key=lambda x: float(x.mean()))
    assert float(more.mean()) < 4 * float(more.std()) / len(more) ** 0.5


UNBIASED = {
    "cross": ("global", E.BestLinear(), E.Cross(256)),
    "pilot": ("parameter", E.BestLinear(0.0), E.Independent(size=64)),
    "bias looked for": ("global", E.BestLinear(unbiased=1), E.Cross(256)),
    "cross by layer": ("layer", E.BestLinear(nonnegative=True), E.Cross(256)),
}
SLOW = ("bias looked for", "cross by layer")


@pytest.mark.statistical
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "lq of three" else n for n in PAIRS],
)
@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=pytest.mark.slow) if f in SLOW else f for f in UNBIASED]
)
def test_weights_from_elsewhere_bias_nothing(form: str, name: str) -> None:
    """To 5 % of the gradient, at a false-alarm rate of 1e-6 each."""
    posed, parts = PAIRS[name]
    level, rule, source = UNBIASED[form]
    mixture = E.Mixture(parts, rule, level, source)
    assert_unbiased(mixture, *known(posed), detect=0.05, max_count=2**20, chunk_size=4096)


@pytest.mark.statistical
def test_weights_from_the_same_samples_are_caught() -> None:
    """At N = 8 on a steep ramp, where most first-order samples are 0: −10 % of the gradient."""
    mixture = E.Mixture(PAIRS["smoothed ramp"][1], E.BestLinear(), source=E.Same(8))
    with pytest.raises(Biased, match="z = "):
        assert_unbiased(mixture, *known("soft_heaviside"), detect=0.08, count=8192, max_count=2**14)


WRONG: dict[str, Callable[[], object]] = {
    "shrinkage should lie between 0 and 1, got 2; try": lambda: E.BestLinear(2.0),
    "shrinkage should lie between 0 and 1, got nan": lambda: E.BestLinear(math.nan),
    "unbiased should be a whole number of at least 0": lambda: E.BestLinear(unbiased=-1),
    "batch=8 weighs variance against bias": lambda: E.BestLinear(batch=8),
    "index of one of 3 parts, got 3; try unbiased=2": lambda: E.BestLinear(unbiased=3)(
        toy_samples()[1], "global", 8, True
    ),
    "all sets of at most 10 parts, got 11": lambda: E.BestLinear(nonnegative=True)(
        [Dense({"a.weight": torch.zeros(4, 1)})] * 11, "global", 1, True
    ),
}


@pytest.mark.parametrize("pattern", WRONG)
def test_what_is_refused_is_one_line(pattern: str) -> None:
    with pytest.raises(BadValue, match=pattern) as caught:
        WRONG[pattern]()
    assert "\n" not in str(caught.value)
